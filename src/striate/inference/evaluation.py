"""Evaluate a classifier on labeled images; classes are matched by name."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from striate.data import DataSet, DecodedImages, Problem
from striate.data.images.decoded import ImageSubset, JoinedImages
from striate.data.images.folders import inner_class_folder
from striate.data.images.samples import UNSPLIT
from striate.device import cpu_count
from striate.errors import DataError, UsageError
from striate.inference.classifier import Classifier
from striate.inference.classifier import load as load_classifier
from striate.inference.evaluation_data import choose_split, find_data
from striate.inference.evaluation_record import Evaluation, measure, pool
from striate.inference.multi_label_evaluation import MultiLabelEvaluation, measure_multi_label
from striate.inference.robustness import USUAL_IMAGES, chosen_severities, measure_robustness
from striate.inference.slices import chosen_properties
from striate.inference.tta import is_cropped, require
from striate.progress import AUTO, Progress
from striate.transforms.decode import Uint8Array

__all__ = ["ALL_SPLITS", "Evaluation", "evaluate", "evaluate_probabilities", "measure", "pool"]

_AT_ONCE = 12  # images that are explained together
ALL_SPLITS = "all splits are scored together, including the data that the model was trained on"


def evaluate(
    model: Classifier | str | os.PathLike[str],
    data: Any = None,
    *,
    split: str = "auto",
    batch: int = 64,
    device: str = "auto",
    workers: int | None = None,
    cache: bool = True,
    path_column: str | None = None,
    label_column: str | None = None,
    calibration: bool = True,
    tta: str | None = None,
    slice_by: str | Sequence[str] = (),
    corruptions: bool | str | Sequence[int] = False,
    corruption_images: int = USUAL_IMAGES,
    network: Any = None,
    trust: str = "",
    progress: Progress = AUTO,
) -> Evaluation | MultiLabelEvaluation:
    """Evaluate a classifier.

    Args:
        model: a classifier, a bundle, or a run folder.
        data: as for `striate.data.open_data`; None for what the run of this bundle held out.
        split: `test`, `val`, `train`, or `all` of them; `auto` is test if there is one, else val, else all.
        batch: batch size.
        device: where to run, unless a classifier is given.
        workers: threads that decode images; None for one per CPU core.
        cache: keep the decoded images on disk for the next time.
        path_column: column of the image paths, if the data are a table.
        label_column: column of the class names, if the data are a table.
        calibration: whether to use the model's calibration, if it has one.
        slice_by: `size`, `brightness`, `sharpness`, or columns of a table, for the accuracy on each part.
        corruptions: True for the accuracy under those of ImageNet-C, in the severities 1, 3 and 5; or others.
        corruption_images: number of images to measure that on, chosen at random.
        tta: test-time augmentation: `flip` or `crops` (`striate.inference.tta`); None for none.
        network: as for `striate.load`, unless a classifier is given.
        trust: as for `striate.load`.
        progress: receives updates.

    Returns:
        An `Evaluation`; of a model for images with several classes, a `MultiLabelEvaluation`.

    Raises:
        DataError: there is nothing to evaluate on.
        UsageError: no such split or device, or an option that does not suit the model.
    """
    if batch < 1:
        raise UsageError(f"a batch size of {batch}", "it must be at least 1", "Leave --batch out for 64")
    classifier = _opened(model, device, network, trust, calibration)
    tta_notes = require(tta, classifier.preprocess)
    severities = chosen_severities(corruptions, corruption_images, classifier)
    dataset, extra, name, notes = open_split(classifier, data, (path_column, label_column), split)
    _require_slices(classifier, slice_by, dataset.source)
    reading: Any = {"batch": batch, "workers": workers or cpu_count(), "tta": tta, "progress": progress}
    record = _of_split(classifier, dataset, name, cache, reading)
    record = replace(record, extra_classes=extra, notes=(*record.notes, *tta_notes, *notes))
    record = record.sliced(slice_by) if slice_by and isinstance(record, Evaluation) else record
    return _corrupted(record, classifier, severities, corruption_images, reading) if severities else record


def _corrupted(
    record: Evaluation | MultiLabelEvaluation,
    classifier: Classifier,
    severities: Sequence[int],
    most: int,
    reading: dict[str, Any],
) -> Evaluation:
    assert isinstance(record, Evaluation)  # `chosen_severities` refuses the others
    found = measure_robustness(
        classifier, record.images, record.labels, record.predicted, severities, most=most, **reading
    )
    return replace(record, robustness=found)


def _of_split(
    classifier: Classifier, dataset: DataSet, name: str, cache: bool, reading: dict[str, Any]
) -> Evaluation | MultiLabelEvaluation:
    """The metrics on one split; raises DataError if none of its images can be read."""
    progress, crop = reading["progress"], is_cropped(reading["tta"])
    images = DecodedImages(
        dataset.splits[name], classifier.preprocess, crop=crop, cache=cache, root=dataset.root,
        progress=progress,
    )  # fmt: skip
    progress.begin(f"evaluating {name}", len(images))
    probabilities, which = classifier.measure(images, **reading)
    progress.end()
    return evaluate_probabilities(classifier, probabilities, which, images, dataset, name)


def _require_slices(classifier: Classifier, by: str | Sequence[str], source: str) -> None:
    """Refuse slices that there cannot be before images are read; raises UsageError."""
    if not by:
        return
    if classifier.description.is_multi_label:
        why = "its images have several classes each, so none is simply right"
        raise UsageError("no slices of this model", why, "Leave out slice_by")
    chosen_properties(by, source)


def open_split(
    classifier: Classifier, data: Any, columns: tuple[str | None, str | None], split: str
) -> tuple[DataSet, dict[str, int], str, tuple[str, ...]]:
    """The data with one split, the classes that the model does not know, the name of the split, and notes."""
    found, notes = find_data(classifier, data, *columns)
    dataset, extra = found.with_classes(classifier.classes)
    name, samples = choose_split(dataset.splits, split, dataset.source)
    if not len(samples):
        raise _no_known_class(found, extra, classifier.classes)
    if name == UNSPLIT and "train" in dataset.splits:
        notes += (ALL_SPLITS,)
    return replace(dataset, splits={name: samples}), extra, name, notes


def evaluate_probabilities(
    classifier: Classifier,
    probabilities: npt.NDArray[np.float64],
    which: npt.NDArray[np.int64],
    images: DecodedImages,
    dataset: DataSet,
    split: str,
) -> Evaluation | MultiLabelEvaluation:
    """As `evaluate`, from probabilities that are known.

    Args:
        classifier: that computed them.
        probabilities: `[n, classes]`.
        which: int64 `[n]`, the position of each row's image.
        images: those of the split.
        dataset: their source and notes.
        split: its name.

    Raises:
        DataError: there are none, because no image can be read.
    """
    if not len(which):
        raise no_readable_image(dataset.source, images.problems)
    names, chosen = tuple(images.names[i] for i in which), ImageSubset(images, which)
    of: Any = {"images": chosen, "problems": images.problems, "data": dataset.source, "split": split}
    labels, description = images.labels[which], classifier.description
    record: Evaluation | MultiLabelEvaluation
    if description.thresholds is not None:
        record = measure_multi_label(
            names, labels, probabilities, classifier.classes, description.thresholds, **of
        )
    else:
        single = measure(names, labels, probabilities, classifier.classes, **of)
        maps = partial(_maps, classifier, single.images)
        record = replace(single, maps=maps, calibration=description.calibration)
    return replace(record, notes=(*record.notes, *dataset.notes))


def _maps(
    classifier: Classifier, images: Uint8Array | ImageSubset | JoinedImages, which: Sequence[int]
) -> npt.NDArray[np.float32] | None:
    try:
        parts = [
            classifier.explained(np.stack([images[i] for i in which[start : start + _AT_ONCE]]))[1]
            for start in range(0, len(which), _AT_ONCE)
        ]
    except Exception:  # a network of a user may do anything; its evaluation is worth more than the maps
        return None
    return np.concatenate(parts)


def _opened(
    model: Classifier | str | os.PathLike[str], device: str, network: Any, trust: str, calibration: bool
) -> Classifier:
    if not isinstance(model, Classifier):
        model = load_classifier(model, device, network=network, trust=trust)
    return model if calibration else model.uncalibrated()


def no_readable_image(source: str, problems: Sequence[Problem]) -> DataError:
    """Create the error for a split of which no image can be read."""
    why = f"none of its {len(problems)} images can be read, the first since {problems[0].reason}"
    return DataError(f"cannot evaluate on {source!r}", why)


def _no_known_class(data: DataSet, extra: Mapping[str, int], classes: Sequence[str]) -> DataError:
    """Create the error for data without any class that the model knows."""
    inner = inner_class_folder(data)
    return DataError(
        f"cannot evaluate on {data.source!r}",
        f"its classes are {', '.join(extra)}; the model knows {', '.join(classes)}",
        inner.fix if inner else "Name the class folders as they were in training",
    )
