"""How good a classifier of images with several classes is: average precision, F1, thresholds.

All functions take probabilities `[n, classes]` and truth, bool `[n, classes]`, and equal scikit-learn's with
`zero_division=0`: a class without images has the average precision and the F1 0. An image whose scores are
not finite is wrong: it ranks below all others where it has a class, and above them where it has not.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from striate.errors import LayoutError
from striate.metrics.bootstrap import Counts, Ends, bca
from striate.metrics.classification import Floats, all_finite, f1_of_classes, wilson_interval

Truth = npt.NDArray[np.bool_]

DEFAULT_THRESHOLD = 0.5


def average_precision(scores: Floats, truth: Truth) -> float:
    """Average precision of one class: the sum of precision times the increase of recall at each score.

    Args:
        scores: `[n]`.
        truth: bool `[n]`, which samples are of the class.
    """
    hits, called = _ranked(scores, truth)
    if not hits[-1]:
        return 0.0
    return float(np.diff(hits / hits[-1], prepend=0.0) @ (hits / called))


def precision_recall(scores: Floats, truth: Truth) -> tuple[Floats, Floats, Floats]:
    """Recall, precision and score of each point of a class's precision-recall curve; recall rises."""
    hits, called = _ranked(scores, truth)
    values = -np.unique(-scores)
    return hits / max(1, hits[-1]), hits / called, values


def average_precisions(probabilities: Floats, truth: Truth) -> Floats:
    """The average precision of each class, `[classes]`; their mean is mAP (`average="macro"`)."""
    scores = _worst_if_not_finite(probabilities, truth)
    return np.array([average_precision(scores[:, i], truth[:, i]) for i in range(truth.shape[1])])


def label_predictions(probabilities: Floats, thresholds: Floats) -> Truth:
    """Which classes each image is predicted to have, bool `[n, classes]`: all that reach their threshold."""
    with np.errstate(invalid="ignore"):
        return np.asarray(probabilities >= thresholds) & all_finite(probabilities)[:, None]


def label_counts(probabilities: Floats, truth: Truth, thresholds: Floats) -> npt.NDArray[np.int64]:
    """Correct predictions, predictions and images of each class, int64 `[3, classes]`."""
    predicted = _answers(probabilities, truth, thresholds)
    parts = (predicted & truth, predicted, truth)
    return np.stack([part.sum(axis=0) for part in parts]).astype(np.int64)


def micro_f1(counts: npt.NDArray[np.integer]) -> float:
    """F1 of all labels together, from `label_counts`."""
    hits, called, support = counts.sum(axis=1)
    return float(2 * hits / (called + support)) if called + support else 0.0


def exact_match(probabilities: Floats, truth: Truth, thresholds: Floats) -> float:
    """The share of images whose predicted classes are exactly the true ones (subset accuracy)."""
    return float((_answers(probabilities, truth, thresholds) == truth).all(axis=1).mean())


METRICS = {
    "map": "mAP", "micro_f1": "micro F1", "macro_f1": "macro F1", "exact": "exact match"
}  # fmt: skip


def measure(probabilities: Floats, truth: Truth, thresholds: Floats) -> dict[str, float]:
    """The value of each metric in `METRICS`.

    Raises:
        LayoutError: shapes that do not belong together, or no images.
    """
    if probabilities.ndim != 2 or truth.shape != probabilities.shape or not len(truth):
        what = f"probabilities of shape {probabilities.shape} and labels of shape {truth.shape}"
        raise LayoutError(what, "both must be [n, classes] with n at least 1")
    counts = label_counts(probabilities, truth, thresholds)
    return {
        "map": float(average_precisions(probabilities, truth).mean()),
        "micro_f1": micro_f1(counts),
        "macro_f1": float(f1_of_classes(counts).mean()),
        "exact": exact_match(probabilities, truth, thresholds),
    }


def intervals(probabilities: Floats, truth: Truth, thresholds: Floats) -> dict[str, Ends]:
    """95 % intervals of the metrics: Wilson's of exact match, else BCa of images drawn anew."""
    predicted = _answers(probabilities, truth, thresholds)
    scores = _worst_if_not_finite(probabilities, truth)
    parts = np.stack([predicted & truth, predicted, truth]).astype(np.float64)
    ranked = [_ranked_truth(scores[:, i], truth[:, i]) for i in np.flatnonzero(truth.any(axis=0))]

    def counts(drawn: Counts) -> Floats:
        return np.asarray(drawn.astype(np.float64) @ parts)  # integers have no fast matrix product

    def macro(drawn: Counts) -> Floats:
        return np.asarray(f1_of_classes(counts(drawn)).mean(axis=-1))

    def micro(drawn: Counts) -> Floats:
        hits, called, support = counts(drawn).sum(axis=-1)
        return np.asarray(2 * hits / np.maximum(called + support, 1))

    def precision(drawn: Counts) -> Floats:
        of_image, found = np.ascontiguousarray(drawn.T, np.int32), np.zeros(len(drawn))
        for order, own, ends, last in ranked:  # precision matters only where recall increases
            times = of_image[order]
            gained, called = times[own], times.cumsum(axis=0, dtype=np.int32)[ends]
            hits = gained.cumsum(axis=0, dtype=np.int32)
            found += (gained * (hits[last] / np.maximum(called, 1))).sum(axis=0) / np.maximum(hits[-1], 1)
        return np.asarray(found / truth.shape[1])

    kinds = np.arange(len(truth))
    each: dict[str, Callable[[Counts], Floats]] = {"map": precision, "micro_f1": micro, "macro_f1": macro}
    found = {name: bca(metric, kinds, most=1.0) for name, metric in each.items()}
    share = exact_match(probabilities, truth, thresholds)
    return {**found, "exact": wilson_interval(share, len(truth))}


def best_thresholds(probabilities: Floats, truth: Truth) -> npt.NDArray[np.float64]:
    """For each class the threshold with the largest F1, between the scores on both of its sides.

    Of several such thresholds it is the one nearest to 0.5, which is also that of a class without images.

    Args:
        probabilities: of validation images, `[n, classes]`.
        truth: bool `[n, classes]`.
    """
    finite = all_finite(probabilities)
    found = np.full(truth.shape[1], DEFAULT_THRESHOLD)
    for i in np.flatnonzero(truth[finite].any(axis=0)):
        scores, own = probabilities[finite, i], truth[finite, i]
        hits, called = _ranked(scores, own)
        f1 = 2 * hits / (called + own.sum())
        lowest = -np.unique(-scores)  # that is accepted
        next_lower = np.append(lowest[1:], 0.0)
        middle = (lowest + next_lower) / 2
        middle = np.where(middle > next_lower, middle, lowest)  # of two neighbors among the floats
        best = np.flatnonzero(f1 >= f1.max() - 1e-12)
        found[i] = middle[best[np.abs(middle[best] - DEFAULT_THRESHOLD).argmin()]]
    return found


def _answers(probabilities: Floats, truth: Truth, thresholds: Floats) -> Truth:
    """The predicted classes; of an image without finite scores those that it does not have."""
    return np.where(all_finite(probabilities)[:, None], label_predictions(probabilities, thresholds), ~truth)


def _worst_if_not_finite(probabilities: Floats, truth: Truth) -> Floats:
    return np.where(all_finite(probabilities)[:, None], probabilities, np.where(truth, -1.0, 2.0))


def _order(scores: Floats) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Samples by falling score, and the last place of each score."""
    order = np.argsort(-scores, kind="stable")
    return order, np.append(np.flatnonzero(np.diff(scores[order])), len(scores) - 1)


def _ranked_truth(scores: Floats, truth: Truth) -> tuple[npt.NDArray[np.int64], ...]:
    """Samples by falling score, and three arrays for those of the class.

    Their places in this order, the last place of their score, and which of them is the last one of it.
    """
    order, ends = _order(scores)
    own = np.flatnonzero(truth[order])
    end = ends[np.searchsorted(ends, own)]
    return order, own, end, np.searchsorted(own, end, side="right") - 1


def _ranked(scores: Floats, truth: Truth) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Correct and all predictions if each score in turn, from the largest on, is the threshold."""
    order, ends = _order(scores)
    return truth[order].cumsum(dtype=np.int64)[ends], ends + 1
