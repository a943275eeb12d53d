"""The metrics of a classifier on one split, with its predictions."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt

from striate.data import Problem
from striate.data.images.decoded import ImageSubset, JoinedImages
from striate.inference import evaluation_view
from striate.inference.image_evaluation import ImageEvaluation
from striate.inference.slices import Slice, slices
from striate.metrics.classification import (
    METRICS,
    ClassScore,
    Metric,
    averages,
    class_scores,
    confusion_matrix,
    predictions,
)
from striate.metrics.classification_intervals import intervals
from striate.transforms.decode import Uint8Array

if TYPE_CHECKING:
    from striate.bundle import Calibration
    from striate.inference.robustness import Robustness


@dataclass(frozen=True, kw_only=True)
class Evaluation(ImageEvaluation):
    """The metrics of a classifier on one split.

    Its metrics are those of `METRICS`; top-5 accuracy is 1.0 with up to five classes.

    Attributes:
        per_class: precision, recall, F1 and support of each.
        confusion: int64 `[classes, classes]`, the confusion matrix; rows are the true classes.
        labels: int64 `[n]`, the true classes.
        maps: from the indexes of some images to Grad-CAM's maps of their predicted classes, float32
            `[n, rows, columns]`, or to None if the network has no feature maps; None without a network.
        calibration: that the probabilities have; None if they are not calibrated.
        slices: accuracy on parts of the images, the lowest first; empty if none are wanted.
        robustness: accuracy under corruptions; None if it is not wanted.
    """

    per_class: tuple[ClassScore, ...]
    confusion: npt.NDArray[np.int64] = field(repr=False)
    labels: npt.NDArray[np.int64] = field(repr=False)
    maps: Callable[[Sequence[int]], npt.NDArray[np.float32] | None] | None = field(default=None, repr=False)
    calibration: Calibration | None = None
    slices: tuple[Slice, ...] = ()
    robustness: Robustness | None = None
    task: ClassVar[Literal["classification"]] = "classification"

    __repr__ = evaluation_view.text
    _repr_html_ = evaluation_view.html

    @property
    def predicted(self) -> npt.NDArray[np.int64]:
        """int64 `[n]`, the most probable class of each image; -1 where the scores are not finite."""
        return predictions(self.probabilities)

    @property
    def only_class(self) -> str | None:
        """The class that the model predicts for all images although they have several; otherwise None."""
        predicted = np.unique(self.predicted)
        constant = len(predicted) == 1 and predicted[0] >= 0 and len(np.unique(self.labels)) > 1
        return self.classes[predicted[0]] if constant else None

    @property
    def majority_class(self) -> str:
        """The class with the most images."""
        return max(self.per_class, key=lambda score: score.support).name

    @property
    def majority_top1(self) -> float:
        """The majority baseline: top-1 accuracy of always predicting the class with the most images."""
        return max(score.support for score in self.per_class) / self.n

    @property
    def top1(self) -> float:
        """Top-1 accuracy."""
        return self.metrics["top1"]

    @property
    def top1_ci(self) -> tuple[float, float]:
        """95 % Wilson interval of top-1 accuracy."""
        return self.intervals["top1"]

    @property
    def top5(self) -> float:
        """Top-5 accuracy."""
        return self.metrics["top5"]

    @property
    def ece(self) -> float:
        """Expected calibration error, 15 bins."""
        return self.metrics["ece"]

    @property
    def shown(self) -> dict[Metric, float]:
        """The metrics that say something with this number of classes."""
        return {m: self.metrics[m.name] for m in METRICS if len(self.classes) >= m.min_classes}

    @property
    def averages(self) -> tuple[ClassScore, ClassScore]:
        """Macro and weighted average of the classes."""
        return averages(self.per_class, self.confusion.sum(axis=0))

    def to_json(self) -> dict[str, Any]:
        """The metrics as plain JSON values, without the images and their probabilities."""
        scores = [dataclasses.asdict(score) for score in self.per_class]
        return {
            "data": self.data,
            "split": self.split,
            **self.headline(),
            "majority_class": self.majority_class,
            "majority_top1": self.majority_top1,
            "only_class": self.only_class,
            "per_class": {score.pop("name"): score for score in scores},
            **{score.name.split()[0]: _shares(score) for score in self.averages},
            "confusion": self.confusion.tolist(),
            "missing_classes": list(self.missing_classes),
            "extra_classes": self.extra_classes,
            "nonfinite": self.nonfinite,
            "unreadable": [dataclasses.asdict(problem) for problem in self.problems],
            "calibration": None if self.calibration is None else self.calibration.summary(),
            "slices": [one.to_json() for one in self.slices],
            "robustness": None if self.robustness is None else self.robustness.to_json(),
            "notes": list(self.notes),
        }

    def sliced(self, by: str | Sequence[str]) -> Evaluation:
        """With the accuracy on parts of the images; `by` as for `inference.slices.chosen_properties`."""
        right = self.predicted == self.labels
        found, remarks = slices(self.names, right, self.images, by, self.data)
        return replace(self, slices=found, notes=(*self.notes, *remarks))


def _shares(score: ClassScore) -> dict[str, float]:
    return {"precision": score.precision, "recall": score.recall, "f1": score.f1}


def measure(
    names: tuple[str, ...],
    labels: npt.NDArray[np.int64],
    probabilities: npt.NDArray[np.float64],
    classes: tuple[str, ...],
    *,
    images: Uint8Array | ImageSubset | JoinedImages,
    problems: tuple[Problem, ...] = (),
    data: str,
    split: str,
) -> Evaluation:
    """All metrics from probabilities `[n, classes]` and labels `[n]`."""
    predicted = predictions(probabilities)
    confusion = confusion_matrix(labels, predicted, len(classes))
    per_class = class_scores(confusion, classes, np.bincount(labels, minlength=len(classes)))
    metrics = {metric.name: metric.compute(probabilities, labels) for metric in METRICS}
    record = Evaluation(
        data=data, split=split, n=len(labels), metrics=metrics,
        intervals=intervals(metrics, probabilities, labels),
        classes=classes, per_class=per_class, confusion=confusion,
        missing_classes=tuple(score.name for score in per_class if not score.support), extra_classes={},
        problems=problems, names=names, labels=labels, probabilities=probabilities, images=images,
    )  # fmt: skip
    return replace(record, notes=_warnings(record))


def pool(evaluations: Sequence[Evaluation], split: str) -> Evaluation:
    """Evaluate the predictions of several classifiers, each on its own images, as if one had made them all.

    Args:
        evaluations: at least one; classes that a classifier does not know have the probability 0 in it.
        split: a name for the images.
    """
    first = evaluations[0]
    classes = tuple(sorted({name for one in evaluations for name in one.classes}))
    labels, probabilities = [], []
    for one in evaluations:
        places = np.array([classes.index(name) for name in one.classes])
        labels.append(places[one.labels])
        spread = np.zeros((one.n, len(classes)))
        spread[:, places] = one.probabilities
        probabilities.append(spread)
    record = measure(
        tuple(name for one in evaluations for name in one.names), np.concatenate(labels),
        np.concatenate(probabilities), classes, images=JoinedImages([one.images for one in evaluations]),
        problems=tuple(problem for one in evaluations for problem in one.problems), data=first.data,
        split=split,
    )  # fmt: skip
    extra = Counter[str]()
    for one in evaluations:
        extra.update(one.extra_classes)
    return replace(record, extra_classes=dict(extra))


def _warnings(evaluation: Evaluation) -> tuple[str, ...]:
    """What is wrong with the predictions as a whole."""
    notes = list(evaluation.nonfinite_note())
    if evaluation.only_class is not None:
        notes.append(
            f"the model predicts {evaluation.only_class!r} for all {evaluation.n:,} images, so it tells no "
            "classes apart: check the labels, train for more epochs, or try another learning rate"
        )
    return tuple(notes)
