"""Measure a model on labelled images; classes go by name."""

from __future__ import annotations

import dataclasses
import os
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import yaml

from striate.data import DataSet, DecodedImages, Problem, Samples, open_data
from striate.data.images.decoded import ImageSubset
from striate.data.images.samples import UNSPLIT
from striate.device import cpu_count
from striate.errors import DataError, UsageError
from striate.inference.classifier import Classifier
from striate.inference.classifier import load as load_classifier
from striate.metrics.classification import (
    ClassScore,
    class_scores,
    confusion_matrix,
    expected_calibration_error,
    top_k_accuracy,
    wilson_interval,
)
from striate.progress import SILENT, Progress
from striate.transforms.decode import Uint8Array


@dataclass(frozen=True)
class Evaluation:
    """How good a model is on one split.

    Attributes:
        data: what was measured on.
        split: which part of it: `test`, `val`, `train`, or `all` of data that are not divided.
        n: images measured.
        top1: the share whose most probable class is right.
        top5: the share whose class is among the five most probable (1.0 with up to five classes).
        top1_ci: 95 % Wilson interval of `top1`.
        ece: expected calibration error, 15 bins.
        classes: the model's class names.
        per_class: precision, recall, F1 and support of each.
        confusion: int64 `[classes, classes]`, rows are the truth.
        missing_classes: the model's classes that the data have no image of.
        extra_classes: classes of the data that the model does not know -> images, which were not measured.
        problems: unreadable images, which were not measured.
        names: `[n]`, the path of each image.
        labels: int64 `[n]`, the truth.
        probabilities: float64 `[n, classes]`.
        images: uint8 `[n, height, width, channels]`, as the network saw them; read as they are looked at.
        notes: what else should be known.
    """

    data: str
    split: str
    n: int
    top1: float
    top5: float
    top1_ci: tuple[float, float]
    ece: float
    classes: tuple[str, ...]
    per_class: tuple[ClassScore, ...]
    confusion: npt.NDArray[np.int64] = field(repr=False)
    missing_classes: tuple[str, ...]
    extra_classes: dict[str, int]
    problems: tuple[Problem, ...]
    names: tuple[str, ...] = field(repr=False)
    labels: npt.NDArray[np.int64] = field(repr=False)
    probabilities: npt.NDArray[np.float64] = field(repr=False)
    images: Uint8Array | ImageSubset = field(repr=False)
    notes: tuple[str, ...] = ()

    @property
    def what(self) -> str:
        """The images in words: `test images`, or `images` of data that are not divided."""
        return "images" if self.split == UNSPLIT else f"{self.split} images"

    @property
    def predicted(self) -> npt.NDArray[np.int64]:
        """int64 `[n]`, the most probable class of each image."""
        return cast(npt.NDArray[np.int64], self.probabilities.argmax(axis=1))

    def to_json(self) -> dict[str, Any]:
        """The figures as plain JSON values, without the images and their probabilities."""
        scores = [dataclasses.asdict(score) for score in self.per_class]
        return {
            "data": self.data,
            "split": self.split,
            "n": self.n,
            "top1": self.top1,
            "top5": self.top5,
            "top1_ci": list(self.top1_ci),
            "ece": self.ece,
            "per_class": {score.pop("name"): score for score in scores},
            "confusion": self.confusion.tolist(),
            "missing_classes": list(self.missing_classes),
            "extra_classes": self.extra_classes,
            "unreadable": [dataclasses.asdict(problem) for problem in self.problems],
            "notes": list(self.notes),
        }


def evaluate(
    model: Classifier | str | os.PathLike[str],
    data: Any = None,
    *,
    split: str = "auto",
    batch: int = 64,
    device: str = "auto",
    workers: int | None = None,
    cache: bool = True,
    progress: Progress = SILENT,
) -> Evaluation:
    """Measure a model.

    Args:
        model: a classifier, a bundle, or a run's folder.
        data: as for `striate.data.open_data`, objects too; None for what the run of this bundle held out.
        split: `test`, `val`, `train` or `all`; `auto` takes test, else val, else all.
        batch: images that go through the network at once.
        device: where to run; of no effect if a classifier is given.
        workers: threads that decode; None for as many as there are processors.
        cache: keep the decoded images in the user's cache folder for the next time.
        progress: is told of each stage.

    Raises:
        DataError: nothing there can be measured.
        UsageError: a wrong split or device.
    """
    if batch < 1:
        raise UsageError(f"a batch size of {batch}", "it must be at least 1", "Leave --batch out for 64")
    classifier = model if isinstance(model, Classifier) else load_classifier(model, device)
    dataset, notes = _find(classifier, data)
    dataset, extra = dataset.with_classes(classifier.classes)
    name, samples = _choose(dataset, split)
    if not len(samples):
        raise DataError(
            f"cannot measure on {dataset.source!r}",
            f"its classes are {', '.join(extra)}; the model knows {', '.join(classifier.classes)}",
            "Name the class folders as they were in training",
        )
    images = DecodedImages(samples, classifier.preprocess, cache=cache, root=dataset.root, progress=progress)
    progress.begin(f"measuring {name}", len(images))
    probabilities, which = classifier.measure(
        images, batch=batch, workers=workers or cpu_count(), progress=progress
    )
    progress.end()
    if not len(which):
        raise DataError(
            f"cannot measure on {dataset.source!r}",
            f"none of its {len(samples)} images can be read, the first since {images.problems[0].reason}",
        )
    record = measure(
        tuple(images.names[i] for i in which), images.labels[which], probabilities, classifier.classes,
        images=ImageSubset(images, which), problems=images.problems, data=dataset.source, split=name,
    )  # fmt: skip
    return replace(record, extra_classes=extra, notes=(*notes, *dataset.notes))


def measure(
    names: tuple[str, ...],
    labels: npt.NDArray[np.int64],
    probabilities: npt.NDArray[np.float64],
    classes: tuple[str, ...],
    *,
    images: Uint8Array | ImageSubset,
    problems: tuple[Problem, ...] = (),
    data: str,
    split: str,
) -> Evaluation:
    """All figures from probabilities `[n, classes]` and the labels `[n]` of the images they are for."""
    confusion = confusion_matrix(labels, probabilities.argmax(axis=1), len(classes))
    per_class = class_scores(confusion, classes)
    top1 = top_k_accuracy(probabilities, labels, 1)
    return Evaluation(
        data=data,
        split=split,
        n=len(labels),
        top1=top1,
        top5=top_k_accuracy(probabilities, labels, 5),
        top1_ci=wilson_interval(top1, len(labels)),
        ece=expected_calibration_error(probabilities, labels),
        classes=classes,
        per_class=per_class,
        confusion=confusion,
        missing_classes=tuple(score.name for score in per_class if not score.support),
        extra_classes={},
        problems=problems,
        names=names,
        labels=labels,
        probabilities=probabilities,
        images=images,
    )


def _find(classifier: Classifier, data: Any) -> tuple[DataSet, tuple[str, ...]]:
    """The data to measure on: where they are the run's own and came undivided, with the run's division."""
    folder = Path(classifier.path).parent
    config, table = folder / "config.yaml", folder / "split.csv"
    own = None
    if classifier.path and config.is_file():
        own = yaml.safe_load(config.read_text("utf-8")).get("data")
    told = data is not None
    if data is None:
        if own is None:
            raise UsageError(
                "no data to measure on", "the bundle does not lie in its run's folder", "Give --data FOLDER"
            )
        data = own
    dataset = open_data(data)
    if UNSPLIT not in dataset.splits:
        return dataset, ()
    if own is not None and table.is_file() and _same(own, data):
        written = open_data(table)
        divided = divide_as(dataset, written)
        notes: tuple[str, ...] = (f"divided as in training, by {table}",) if told else ()
        for name, samples in written.splits.items():
            gone = len(samples) - len(divided.splits[name])
            if gone:
                notes += (f"{gone} of {len(samples)} {name} images that {table} names are no longer there",)
        return divided, notes
    return dataset, ("the data are not divided: all images are measured, any the model was trained on too",)


def _same(own: str, data: Any) -> bool:
    """Whether data are those of the run, as its configuration names them."""
    return isinstance(data, (str, os.PathLike)) and os.path.realpath(own) == os.path.realpath(data)


def divide_as(dataset: DataSet, table: DataSet) -> DataSet:
    """Divide an undivided data set as a run's `split.csv` says; images it does not name are left out."""
    everything = dataset.splits[UNSPLIT]
    # Names of images in memory are no paths; in the table they were read as if they were.
    base = "" if dataset.root else table.root
    position = {_absolute(str(Path(base) / name)): i for i, name in enumerate(everything.names)}
    splits = {}
    for name, samples in table.splits.items():
        which = [position[p] for path in samples.names if (p := _absolute(path)) in position]
        splits[name] = everything.take(np.array(which, np.int64))
    return replace(dataset, splits=splits)


def _absolute(path: str) -> str:
    return os.path.normpath(Path.cwd() / path)


def _choose(dataset: DataSet, split: str) -> tuple[str, Samples]:
    order = ("test", "val", UNSPLIT, "train") if split == "auto" else (split,)
    for name in order:
        if name in dataset.splits:
            return name, dataset.splits[name]
    raise UsageError(
        f"no split {split!r} in {dataset.source!r}",
        f"it has {', '.join(dataset.splits)}",
        "Choose one with --split",
    )
