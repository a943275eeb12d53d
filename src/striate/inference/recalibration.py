"""Calibrate an existing bundle."""

from __future__ import annotations

import os
import warnings
from dataclasses import dataclass
from typing import Any

from striate.bundle import Calibration, add_metrics
from striate.data import DataSet, DecodedImages, Problem
from striate.data.images.samples import UNSPLIT
from striate.device import cpu_count
from striate.errors import DataError, StriateWarning, UsageError, translated_errors
from striate.inference.calibration import calibration_of, reference_size, unknown_inputs_of
from striate.inference.classifier import Classifier, load
from striate.inference.evaluation import no_readable_image, open_split
from striate.inference.evaluation_data import find_data, training_images
from striate.progress import AUTO, Progress


@dataclass(frozen=True)
class Recalibration(Calibration):
    """The calibration that a bundle got, and what it does not come from.

    Attributes:
        extra_classes: classes that the model does not know, with their number of images; they are left out.
        problems: unreadable images, which are left out.
        notes: about the images.
    """

    extra_classes: dict[str, int]
    problems: tuple[Problem, ...]
    notes: tuple[str, ...]

    def summary(self) -> dict[str, Any]:
        """What `--json` says about it."""
        values = super().summary()
        unreadable = values.pop("problems")
        return {**values, "unreadable": unreadable, "notes": list(self.notes)}


@translated_errors()
def calibrate(
    model: str | os.PathLike[str],
    data: Any = None,
    *,
    split: str = "auto",
    batch: int = 64,
    device: str = "auto",
    workers: int | None = None,
    path_column: str | None = None,
    label_column: str | None = None,
    network: Any = None,
    trust: str = "",
    progress: Progress = AUTO,
) -> Recalibration:
    """Calibrate a classifier's bundle on labeled images that it was not trained on; stores the result in it.

    Features of a train split go into the bundle, too, to tell unknown inputs. Training images give a warning.

    Args:
        model: a bundle, or a run folder, whose `best.safetensors` is changed.
        data: as for `striate.data.open_data`; None for the data of the bundle's run.
        split: which of their splits; `auto` is val if there is one, else all of data without splits.
        batch: batch size.
        device: where to run.
        workers: threads that decode images; None for one per CPU core.
        path_column: column of the image paths, if the data are a table.
        label_column: column of the class names, if the data are a table.
        network: as for `striate.load`.
        trust: as for `striate.load`.
        progress: receives updates.

    Raises:
        DataError: there is nothing to calibrate on, or the bundle cannot be written.
        UsageError: no such split or device.
    """
    classifier = load(model, device, network=network, trust=trust).uncalibrated()
    if classifier.description.is_multi_label:
        why = "its images have several classes, each with a threshold instead"
        raise UsageError(f"cannot calibrate {os.fspath(model)!r}", why, "Train again for other thresholds")
    found, notes = find_data(classifier, data, path_column, label_column)
    split = _val_or_all(found) if split == "auto" else split
    dataset, extra, name, more = open_split(classifier, found, (None, None), split)
    _warn_of_training_images(classifier, dataset, name)
    what = "images" if name == UNSPLIT else f"{name} images"
    options: dict[str, Any] = {"batch": batch, "workers": workers or cpu_count(), "progress": progress}
    images = _decoded(dataset, name, classifier, progress)
    train = _train_images(classifier, found, name, progress)
    progress.begin("calibrating", len(images) + reference_size(classifier.preprocess, len(train or ())))
    scores, features, which = classifier.scores_and_features(images, **options)
    if not len(which):
        raise no_readable_image(dataset.source, images.problems)
    source = split if data is None else f"{what} of {dataset.source}"
    calibration = calibration_of(scores, images.labels[which], source)
    if calibration is None:
        raise DataError(f"cannot calibrate {os.fspath(model)!r}", "none of its scores is finite")
    unknown = "" if train is None else unknown_inputs_of(classifier, train, features, **options)
    progress.end()
    add_metrics(classifier.path, {}, calibration, unknown)
    notes = tuple(dict.fromkeys((*dataset.notes, *notes, *more)))
    return Recalibration(**vars(calibration), extra_classes=extra, problems=images.problems, notes=notes)


def _warn_of_training_images(classifier: Classifier, dataset: DataSet, split: str) -> None:
    """Warn of images that split.csv of the run has in train: the network is more certain of them."""
    if trained := training_images(classifier, dataset, split):
        count = f"{len(trained):,} of the {len(dataset.splits[split]):,} images that calibrate the model"
        why = f"were training images of its run, such as {trained[0]!r}"
        fix = "calibrate on images that it was not trained on, or without DATA on the run's val images"
        warnings.warn(
            f"{count} {why}: its probabilities will be too high; {fix}", StriateWarning, stacklevel=3
        )


def _val_or_all(found: DataSet) -> str:
    if "val" in found.splits or UNSPLIT in found.splits:
        return "val" if "val" in found.splits else UNSPLIT
    fix = "Choose one with --split, but none that the model was trained on"
    raise UsageError(f"no val split in {found.source!r}", f"it has {', '.join(found.splits)}", fix)


def _train_images(
    classifier: Classifier, found: DataSet, split: str, progress: Progress
) -> DecodedImages | None:
    """The train split, if the data have one besides that of the calibration."""
    if "train" not in found.splits or split in ("train", UNSPLIT):
        return None
    return _decoded(found.with_classes(classifier.classes)[0], "train", classifier, progress)


def _decoded(dataset: DataSet, split: str, classifier: Classifier, progress: Progress) -> DecodedImages:
    return DecodedImages(dataset.splits[split], classifier.preprocess, root=dataset.root, progress=progress)
