"""95 % confidence intervals of the metrics of a classifier, by the name of the metric.

Proportions have Wilson's interval, other metrics the BCa bootstrap over images.
`benchmarks/bench_statistics.py` measures how often they contain the truth.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from striate.metrics.bootstrap import Counts, Ends, Floats, bca, drawn_counts
from striate.metrics.classification import (
    Integers,
    all_finite,
    f1_of_classes,
    predictions,
    top_k_accuracy,
    wilson_interval,
)

_FINER = 20  # parts of a bin of confidences
_STEPS = 61  # errors that are tested


def macro_f1_interval(probabilities: Floats, labels: Integers) -> Ends:
    """The interval of `macro_f1`."""

    def metric(hits: Floats, called: Floats, support: Floats) -> Floats:
        f1 = f1_of_classes((hits, called, support))
        return np.asarray(f1.sum(axis=1) / (called + support > 0).sum(axis=1))

    return _interval_of_counts(metric, probabilities, labels)


def balanced_accuracy_interval(probabilities: Floats, labels: Integers) -> Ends:
    """The interval of `balanced_accuracy`."""

    def metric(hits: Floats, _: Floats, support: Floats) -> Floats:
        recall = np.divide(hits, support, out=np.zeros_like(hits), where=support > 0)
        return np.asarray(recall.sum(axis=1) / (support > 0).sum(axis=1))

    return _interval_of_counts(metric, probabilities, labels)


def matthews_interval(probabilities: Floats, labels: Integers) -> Ends:
    """The interval of `matthews_correlation`, of which half, moved by a half, is from 0 to 1."""

    def metric(hits: Floats, called: Floats, support: Floats) -> Floats:
        n = support.sum(axis=1)
        unanswered = n - called.sum(axis=1)
        agreed = n * hits.sum(axis=1) - (called * support).sum(axis=1)
        spread = n**2 - (called**2).sum(axis=1) - unanswered**2
        spread = np.sqrt(np.maximum(spread * (n**2 - (support**2).sum(axis=1)), 0.0))
        return np.asarray(0.5 + 0.5 * np.divide(agreed, spread, out=np.zeros_like(agreed), where=spread > 0))

    low, high = _interval_of_counts(metric, probabilities, labels)
    return 2 * low - 1, 2 * high - 1


def _interval_of_counts(
    of_counts: Callable[[Floats, Floats, Floats], Floats], probabilities: Floats, labels: Integers
) -> Ends:
    """The interval of a metric from 0 to 1 of the counts of `class_counts`, each `[draws, 1 + classes]`.

    The draws need only the numbers of each pair of label and prediction. Column 0 is empty.
    """
    predicted, classes = predictions(probabilities), probabilities.shape[1]
    cells, kinds = np.unique(labels * (classes + 1) + predicted + 1, return_inverse=True)
    truth, answer = np.divmod(cells, classes + 1)
    by_answer = np.argsort(answer, kind="stable")

    def metric(drawn: Counts) -> Floats:
        hits, called, support = (np.zeros((len(drawn), classes + 1)) for _ in range(3))
        right = truth + 1 == answer
        hits[:, answer[right]] = drawn[:, right]
        starts = np.unique(truth, return_index=True)[1]
        support[:, truth[starts] + 1] = np.add.reduceat(drawn, starts, axis=1)
        starts = np.unique(answer[by_answer], return_index=True)[1]
        called[:, answer[by_answer][starts]] = np.add.reduceat(drawn[:, by_answer], starts, axis=1)
        called[:, 0] = 0  # images without an answer
        return of_counts(hits, called, support)

    return bca(metric, kinds, most=1.0)


def calibration_error_interval(probabilities: Floats, labels: Integers, bins: int = 15) -> Ends:
    """The interval of `expected_calibration_error`; NaN if no prediction is finite.

    The error is a sum of absolute gaps, so that noise only ever adds to it: percentiles of draws, BCa's too,
    are too high, and contain a small error much too rarely. So this interval holds the errors that a test
    does not reject: if all gaps are the measured ones times the same factor, and noise is that of the draws,
    at least 2.5 % of data sets have an error as large as the measured one, and at least 2.5 % one as small.

    Confidences within a twentieth of a bin count as one kind, with their mean, so that many images are cheap.

    Draws without a single error, or with few, have too little noise. So if all gaps have the same sign, where
    the error is that of the mean confidence, the interval also holds Wilson's of the accuracy.
    """
    finite = all_finite(probabilities)
    if not finite.any():
        return np.nan, np.nan
    probabilities, labels = probabilities[finite], labels[finite]
    confidence = probabilities.max(axis=1)
    right = probabilities.argmax(axis=1) == labels
    fine = np.clip(np.ceil(confidence * bins * _FINER).astype(int) - 1, 0, bins * _FINER - 1)
    kinds, each = np.unique(2 * fine + right, return_inverse=True)
    gap = np.bincount(each, right - confidence) / np.bincount(each)
    gaps = np.where((kinds // (2 * _FINER))[:, None] == np.arange(bins), gap[:, None], 0.0)
    measured = np.bincount(each) @ gaps / len(each)
    noise = np.concatenate([drawn @ gaps for drawn in drawn_counts(each)]) / len(each) - measured
    held = _not_rejected(measured, noise)
    if (measured >= 0).all() or (measured <= 0).all():
        mean, (low, high) = float(confidence.mean()), wilson_interval(float(right.mean()), len(right))
        held += [abs(low - mean), abs(high - mean), *([0.0] if low <= mean <= high else [])]
    return min(held), max(held)


def _not_rejected(gaps: Floats, noise: Floats) -> list[float]:
    """Sums of absolute gaps that a test does not reject; the measured one if there is no other.

    Args:
        gaps: `[bins]`, as measured.
        noise: `[draws, bins]`, of the gaps.
    """
    error, most = float(np.abs(gaps).sum()), float(np.abs(noise).sum(axis=1).max())
    if error == 0:
        return [error]
    errors = np.linspace(max(0.0, error - most), error + most, _STEPS)
    ends = [np.quantile(np.abs(noise + e / error * gaps).sum(axis=1), (0.025, 0.975)) for e in errors]
    held = [e for e, (low, high) in zip(errors.tolist(), ends, strict=True) if low <= error <= high]
    return held or [error]


INTERVALS: dict[str, Callable[[Floats, Integers], Ends]] = {
    "top1": lambda p, labels: wilson_interval(top_k_accuracy(p, labels, 1), len(labels)),
    "top5": lambda p, labels: wilson_interval(top_k_accuracy(p, labels, 5), len(labels)),
    "balanced_accuracy": balanced_accuracy_interval,
    "macro_f1": macro_f1_interval,
    "mcc": matthews_interval,
    "ece": calibration_error_interval,
}


def intervals(names: Mapping[str, float], probabilities: Floats, labels: Integers) -> dict[str, Ends]:
    """The intervals of those of the named metrics that have one.

    Args:
        names: the metrics.
        probabilities: `[n, classes]`.
        labels: `[n]`.
    """
    return {name: INTERVALS[name](probabilities, labels) for name in names if name in INTERVALS}
