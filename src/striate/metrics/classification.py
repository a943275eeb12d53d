"""How good a classifier is: accuracy with its uncertainty, per-class figures, confusion, calibration.

All functions take arrays and give numbers or frozen records; none prints. Fractions are of one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
import numpy.typing as npt

from striate.errors import LayoutError

Floats = npt.NDArray[np.floating]
Integers = npt.NDArray[np.integer]


@dataclass(frozen=True)
class ClassScore:
    """Metrics of one class.

    Attributes:
        name: of the class.
        support: how many images are of this class.
        precision: the share of the images called this class that are; 0 if none is called so.
        recall: the share of this class's images that are called so; 0 if there are none.
        f1: harmonic mean of the two.
    """

    name: str
    support: int
    precision: float
    recall: float
    f1: float


def top_k_accuracy(probabilities: Floats, labels: Integers, k: int) -> float:
    """The share of samples whose label is among the k largest probabilities.

    Ties go to the lower class index, so that the result does not depend on the sorting algorithm. A sample
    with a score that is not finite is wrong.

    Args:
        probabilities: `[n, classes]`, or other scores.
        labels: `[n]`, class indices.
        k: at least 1; more than there are classes means all of them.

    Raises:
        LayoutError: shapes that do not belong together, or no samples.
    """
    _check(probabilities, labels)
    mine = probabilities[np.arange(len(labels)), labels][:, None]
    earlier = np.arange(probabilities.shape[1])[None, :] < labels[:, None]
    rank = (probabilities > mine).sum(axis=1) + ((probabilities == mine) & earlier).sum(axis=1)
    return float(np.mean((rank < k) & all_finite(probabilities)))


def all_finite(scores: Floats) -> npt.NDArray[np.bool_]:
    """Which samples have only finite scores; the others have no answer, so they are wrong.

    Args:
        scores: `[n, classes]`.
    """
    return cast("npt.NDArray[np.bool_]", np.isfinite(scores).all(axis=1))


def predictions(scores: Floats) -> npt.NDArray[np.int64]:
    """The class with the largest score of each sample, `[n]`; -1 where a score is not finite.

    Args:
        scores: `[n, classes]`.
    """
    return np.where(all_finite(scores), scores.argmax(axis=1), -1)


def wilson_interval(share: float, n: int, z: float = 1.959963984540054) -> tuple[float, float]:
    """The Wilson score interval of a proportion (Wilson 1927, JASA 22), 95 % by default.

    Unlike the textbook interval it stays within 0 and 1, and is right for few samples and shares near 1.

    Args:
        share: of successes, 0 to 1.
        n: trials, at least 1.
        z: the normal quantile of the wanted confidence.
    """
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return max(0.0, centre - half), min(1.0, centre + half)


def confusion_matrix(truth: Integers, predicted: Integers, classes: int) -> npt.NDArray[np.int64]:
    """Counts `[classes, classes]`: row = the true class, column = the predicted one.

    A prediction of -1 is none (`predictions`); it is not counted.
    """
    truth, predicted = truth[predicted >= 0], predicted[predicted >= 0]
    counts = np.bincount(truth * classes + predicted, minlength=classes * classes)
    return counts.reshape(classes, classes).astype(np.int64)


def class_scores(
    confusion: npt.NDArray[np.int64], names: tuple[str, ...], support: Integers | None = None
) -> tuple[ClassScore, ...]:
    """Precision, recall and F1 of each class.

    Args:
        confusion: the confusion matrix; rows are the true classes.
        names: of the classes.
        support: `[classes]`, samples of each class; None if all of them have a prediction.
    """
    support = confusion.sum(axis=1) if support is None else support
    return scores_of_counts(np.stack([np.diag(confusion), confusion.sum(axis=0), support]), names)


def scores_of_counts(counts: npt.NDArray[np.int64], names: tuple[str, ...]) -> tuple[ClassScore, ...]:
    """Precision, recall and F1 of each class from correct predictions, predictions and samples.

    Args:
        counts: as of `class_counts`.
        names: of the classes.
    """
    hits, called, support = counts[0].astype(float), counts[1], counts[2]
    precision = np.divide(hits, called, out=np.zeros_like(hits), where=called > 0)
    recall = np.divide(hits, support, out=np.zeros_like(hits), where=support > 0)
    f1 = f1_of_classes(counts)
    return tuple(
        ClassScore(name, int(support[i]), float(precision[i]), float(recall[i]), float(f1[i]))
        for i, name in enumerate(names)
    )


def class_counts(scores: Floats, labels: Integers) -> npt.NDArray[np.int64]:
    """Correct predictions, predictions and samples of each class, int64 `[3, classes]`.

    The counts of several parts of a dataset can be added.

    Args:
        scores: `[n, classes]`.
        labels: `[n]`.
    """
    predicted, classes = predictions(scores), scores.shape[1]
    parts = (labels[predicted == labels], predicted[predicted >= 0], labels)
    return np.stack([np.bincount(part, minlength=classes) for part in parts]).astype(np.int64)


def f1_of_classes(counts: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """F1 of each class, `[..., classes]`; 0 for one that does not occur.

    Args:
        counts: `[3, ..., classes]`, in the order of `class_counts`.
    """
    hits, called, support = np.asarray(counts, np.float64)
    occurs = called + support
    return np.asarray(np.divide(2 * hits, occurs, out=np.zeros_like(hits), where=occurs > 0))


def macro_f1(counts: npt.NDArray[np.int64]) -> float:
    """The mean F1 of all classes that occur, as a label or a prediction (scikit-learn's `average="macro"`).

    Args:
        counts: of `class_counts`.
    """
    _, called, support = counts
    return float(np.mean(f1_of_classes(counts)[called + support > 0]))


def balanced_accuracy(counts: npt.NDArray[np.int64]) -> float:
    """The mean recall of the classes that have samples (Brodersen et al. 2010; scikit-learn's).

    Always predicting one of K classes scores 1/K, however many samples that class has.

    Args:
        counts: of `class_counts`.
    """
    hits, _, support = counts
    return float(np.mean(hits[support > 0] / support[support > 0]))


def matthews_correlation(counts: npt.NDArray[np.int64]) -> float:
    """Matthews correlation coefficient of several classes (Gorodkin 2004, equation 9), from -1 to 1.

    0 for predictions that say nothing about the classes: by chance, or one class for all. A sample without a
    finite prediction counts as predicted to be of a further class, which is wrong.

    Args:
        counts: of `class_counts`.
    """
    hits, called, support = counts.astype(float)
    n = support.sum()
    called = np.append(called, n - called.sum())
    spread = (n * n - called @ called) * (n * n - support @ support)
    return float((n * hits.sum() - called[:-1] @ support) / math.sqrt(spread)) if spread > 0 else 0.0


def averages(scores: Sequence[ClassScore], called: Integers) -> tuple[ClassScore, ClassScore]:
    """Macro and weighted average of precision, recall and F1 (scikit-learn's `classification_report`).

    The macro average is over all classes that occur, as a label or a prediction; the weighted average gives
    each class the weight of its images.

    Args:
        scores: of each class.
        called: `[classes]`, how often each is predicted.
    """
    support = np.array([score.support for score in scores])
    table = np.array([(score.precision, score.recall, score.f1) for score in scores])
    total = int(support.sum())
    macro = table[(called + support) > 0].mean(axis=0)
    weighted = support @ table / total
    return (
        ClassScore("macro average", total, *map(float, macro)),
        ClassScore("weighted average", total, *map(float, weighted)),
    )


def expected_calibration_error(probabilities: Floats, labels: Integers, bins: int = 15) -> float:
    """How far confidence is from accuracy on average (Guo et al. 2017, arXiv:1706.04599, equation 3).

    Predictions are put into `bins` equal bins (low, high] by their largest probability; the gaps between a
    bin's mean confidence and its accuracy are averaged with the bins' sizes as weights. Predictions that are
    not finite have no confidence and are left out; NaN if none is finite.

    Args:
        probabilities: `[n, classes]`.
        labels: `[n]`.
        bins: 15 in the paper.

    Raises:
        LayoutError: shapes that do not belong together, or no samples.
    """
    _check(probabilities, labels)
    finite = all_finite(probabilities)
    probabilities, labels = probabilities[finite], labels[finite]
    if not len(labels):
        return math.nan
    confidence = probabilities.max(axis=1)
    right = probabilities.argmax(axis=1) == labels
    which = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
    gap = np.bincount(which, weights=right - confidence, minlength=bins)
    return float(np.abs(gap).sum() / len(labels))


@dataclass(frozen=True)
class Metric:
    """A metric of a whole split, which `evaluate` prints and the report shows.

    Attributes:
        name: key in JSON.
        label: what people read.
        format: format specification of the value in the report.
        compute: from probabilities `[n, classes]` and labels `[n]`.
        min_classes: with fewer classes it is computed but not shown.
    """

    name: str
    label: str
    format: str
    compute: Callable[[Floats, Integers], float]
    min_classes: int = 1


METRICS = (
    Metric("top1", "top-1 accuracy", ".1%", lambda p, labels: top_k_accuracy(p, labels, 1)),
    Metric("top5", "top-5 accuracy", ".1%", lambda p, labels: top_k_accuracy(p, labels, 5), min_classes=6),
    Metric("balanced_accuracy", "balanced accuracy", ".1%",
        lambda p, labels: balanced_accuracy(class_counts(p, labels))),
    Metric("macro_f1", "macro F1", ".1%", lambda p, labels: macro_f1(class_counts(p, labels))),
    Metric("mcc", "Matthews correlation coefficient", ".3f",
        lambda p, labels: matthews_correlation(class_counts(p, labels))),
    Metric("ece", "expected calibration error", ".3f", expected_calibration_error),
)  # fmt: skip


def _check(probabilities: Floats, labels: Integers) -> None:
    if probabilities.ndim != 2 or labels.shape != probabilities.shape[:1] or not len(labels):
        raise LayoutError(
            f"probabilities of shape {probabilities.shape} and labels of shape {labels.shape}",
            "they must be [n, classes] and [n] with n at least 1",
        )
