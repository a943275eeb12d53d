"""The metrics of a classifier of images with several classes on one split."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt

from striate.data import Problem
from striate.data.images.decoded import ImageSubset
from striate.inference.evaluation_view import multi_label_html, multi_label_text
from striate.inference.image_evaluation import ImageEvaluation
from striate.metrics import multi_label
from striate.metrics.classification import scores_of_counts
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


@dataclass(frozen=True, kw_only=True)
class MultiLabelEvaluation(ImageEvaluation):
    """The metrics of a classifier of images with several classes.

    Its metrics are those of `striate.metrics.multi_label.METRICS`.

    Attributes:
        per_class: metrics of each.
        labels: bool `[n, classes]`, the true classes.
    """

    per_class: tuple[LabelScore, ...]
    labels: npt.NDArray[np.bool_] = field(repr=False)
    task: ClassVar[Literal["multi-label"]] = "multi-label"
    calibration: ClassVar[None] = None  # each class has a threshold instead

    __repr__ = multi_label_text
    _repr_html_ = multi_label_html

    @property
    def thresholds(self) -> npt.NDArray[np.float64]:
        """float64 `[classes]`, the probability from which on each class is predicted."""
        return np.array([score.threshold for score in self.per_class])

    @property
    def predicted(self) -> npt.NDArray[np.bool_]:
        """Bool `[n, classes]`, the predicted classes; none where the scores are not finite."""
        return multi_label.label_predictions(self.probabilities, self.thresholds)

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
    record = MultiLabelEvaluation(
        data=data, split=split, n=len(names), metrics=multi_label.measure(probabilities, labels, at),
        intervals=multi_label.intervals(probabilities, labels, at), classes=classes, per_class=per_class,
        missing_classes=missing, extra_classes={}, problems=problems, names=names, labels=labels,
        probabilities=probabilities, images=images,
    )  # fmt: skip
    notes = record.nonfinite_note()
    if missing:
        one = "1 class without images counts as 0 in mAP and macro F1"
        many = f"{len(missing):,} classes without images count as 0 in mAP and macro F1"
        notes += (one if len(missing) == 1 else many,)
    return replace(record, notes=notes)
