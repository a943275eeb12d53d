"""The metrics of a classifier of images with several classes on one split."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt

from striate.data import Problem
from striate.data.images.decoded import ImageSubset
from striate.data.images.samples import UNSPLIT
from striate.inference.evaluation_view import multi_label_html, multi_label_text
from striate.metrics import multi_label
from striate.metrics.classification import all_finite, scores_of_counts
from striate.transforms.decode import Uint8Array


@dataclass(frozen=True)
class LabelScore:
    """Metrics of one class of images that may have several.

    Attributes:
        name: of the class.
        support: how many images are of this class.
        average_precision: area under the precision-recall curve; 0 without images.
        threshold: the probability from which on the class is predicted.
        precision, recall, f1: at this threshold; 0 if undefined.
    """

    name: str
    support: int
    average_precision: float
    threshold: float
    precision: float
    recall: float
    f1: float


@dataclass(frozen=True)
class MultiLabelEvaluation:
    """The metrics of a classifier of images with several classes.

    Attributes:
        data: name of the dataset.
        split: `test`, `val`, `train`, or `all` of data without splits.
        n: number of images.
        metrics: the value of each metric in `striate.metrics.multi_label.METRICS`.
        intervals: 95 % confidence intervals of the metrics, by name.
        classes: the model's class names.
        per_class: metrics of each.
        missing_classes: the model's classes without any image in the data.
        extra_classes: classes that the model does not know, with their number of images; these labels are
            left out.
        problems: unreadable images, which are left out.
        names: `[n]`, the path of each image.
        labels: bool `[n, classes]`, the true classes.
        probabilities: float64 `[n, classes]`.
        images: uint8 `[n, height, width, channels]`, at the network's input size; read lazily.
        notes: warnings.
        unknown: features of training images for the bundle, as `Description.unknown`; or empty.
    """

    data: str
    split: str
    n: int
    metrics: dict[str, float]
    intervals: dict[str, tuple[float, float]]
    classes: tuple[str, ...]
    per_class: tuple[LabelScore, ...]
    missing_classes: tuple[str, ...]
    extra_classes: dict[str, int]
    problems: tuple[Problem, ...]
    names: tuple[str, ...] = field(repr=False)
    labels: npt.NDArray[np.bool_] = field(repr=False)
    probabilities: npt.NDArray[np.float64] = field(repr=False)
    images: Uint8Array | ImageSubset = field(repr=False)
    notes: tuple[str, ...] = ()
    unknown: str = field(default="", repr=False)
    task: ClassVar[Literal["multi-label"]] = "multi-label"
    calibration: ClassVar[None] = None  # each class has a threshold instead

    __repr__ = multi_label_text
    _repr_html_ = multi_label_html

    @property
    def what(self) -> str:
        """The images in words: `test images`, or `images` of data without splits."""
        return "images" if self.split == UNSPLIT else f"{self.split} images"

    @property
    def thresholds(self) -> npt.NDArray[np.float64]:
        """float64 `[classes]`, the probability from which on each class is predicted."""
        return np.array([score.threshold for score in self.per_class])

    @property
    def predicted(self) -> npt.NDArray[np.bool_]:
        """Bool `[n, classes]`, the predicted classes; none where the scores are not finite."""
        return multi_label.label_predictions(self.probabilities, self.thresholds)

    @property
    def nonfinite(self) -> int:
        """Number of images whose scores are not finite; they count as wrong."""
        return int((~all_finite(self.probabilities)).sum())

    def headline(self) -> dict[str, Any]:
        """The figures that a bundle carries."""
        intervals = {f"{name}_ci": list(ends) for name, ends in self.intervals.items()}
        return {"n": self.n, **self.metrics, **intervals}

    def to_json(self) -> dict[str, Any]:
        """The metrics as plain JSON values, without the images and their probabilities."""
        scores = [dataclasses.asdict(score) for score in self.per_class]
        return {
            "data": self.data,
            "split": self.split,
            "multi_label": True,
            **self.headline(),
            "per_class": {score.pop("name"): score for score in scores},
            "missing_classes": list(self.missing_classes),
            "extra_classes": self.extra_classes,
            "nonfinite": self.nonfinite,
            "unreadable": [dataclasses.asdict(problem) for problem in self.problems],
            "notes": list(self.notes),
        }


def measure_multi_label(
    names: tuple[str, ...],
    labels: npt.NDArray[np.bool_],
    probabilities: npt.NDArray[np.float64],
    classes: tuple[str, ...],
    thresholds: tuple[float, ...],
    *,
    images: Uint8Array | ImageSubset,
    problems: tuple[Problem, ...] = (),
    data: str,
    split: str,
) -> MultiLabelEvaluation:
    """All metrics from probabilities and labels `[n, classes]`, and a threshold for each class."""
    at = np.array(thresholds)
    scores = scores_of_counts(multi_label.label_counts(probabilities, labels, at), classes)
    curves = multi_label.average_precisions(probabilities, labels).tolist()
    per_class = tuple(
        LabelScore(s.name, s.support, ap, threshold, s.precision, s.recall, s.f1)
        for s, ap, threshold in zip(scores, curves, thresholds, strict=True)
    )
    missing = tuple(score.name for score in per_class if not score.support)
    notes = []
    if nonfinite := int((~all_finite(probabilities)).sum()):
        notes.append(
            f"the scores of {nonfinite:,} of {len(names):,} images are not finite: they count as wrong"
        )
    if missing:
        notes.append(f"{len(missing):,} classes without images count as 0 in mAP and macro F1")
    return MultiLabelEvaluation(
        data=data, split=split, n=len(names), metrics=multi_label.measure(probabilities, labels, at),
        intervals=multi_label.intervals(probabilities, labels, at), classes=classes, per_class=per_class,
        missing_classes=missing, extra_classes={}, problems=problems, names=names, labels=labels,
        probabilities=probabilities, images=images, notes=tuple(notes),
    )  # fmt: skip
