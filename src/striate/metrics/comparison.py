"""Compare two classifiers on the same images: McNemar's exact test, and the interval of the difference."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from striate.metrics.bootstrap import Counts, Ends, Floats, bca_interval, resample
from striate.metrics.classification import wilson_interval

Bools = npt.NDArray[np.bool_]


def mcnemar(only_first: int, only_second: int) -> float:
    """The p-value of McNemar's test (1947), exact and two-sided.

    Images that both models get right, or both wrong, say nothing. If the models are equally good, each other
    image is as likely to be right for the first as for the second: a binomial distribution with p = 0.5.

    Args:
        only_first: images that only the first model gets right.
        only_second: images that only the second model gets right.
    """
    n, k = only_first + only_second, min(only_first, only_second)
    if 2 * k == n:
        return 1.0
    return min(1.0, 2 * math.fsum(math.exp(log_choose(n, i) - n * math.log(2)) for i in range(k + 1)))


def log_choose(n: int, k: int) -> float:
    """The logarithm of the binomial coefficient: in how many ways k of n can be chosen."""
    return math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)


def difference_interval(first: Bools, second: Bools) -> Ends:
    """The 95 % interval of the accuracy of the second model minus that of the first: paired BCa bootstrap.

    Args:
        first: `[n]`, whether the first model is right.
        second: `[n]`, the same of the second.
    """
    change = second.astype(np.int64) - first
    if not np.ptp(change):  # more images might differ: Wilson's interval for none of n, on both sides
        value, end = float(change[0]), wilson_interval(0.0, len(change))[1]
        return max(-1.0, value - end), min(1.0, value + end)

    def metric(drawn: Counts) -> Floats:
        return np.asarray(drawn @ np.arange(-1.0, 2.0)[: drawn.shape[1]] / drawn.sum(axis=1))

    found = bca_interval(resample(metric, change + 1))
    return found.low, found.high


def holm(p_values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """P-values corrected for as many tests (Holm 1979): below 0.05 with at most 5 % chance of any false one.

    Args:
        p_values: `[n]`.
    """
    n = len(p_values)
    order = np.argsort(p_values, kind="stable")
    adjusted = np.maximum.accumulate(p_values[order] * (n - np.arange(n)))
    found = np.empty(n)
    found[order] = np.minimum(1.0, adjusted)
    return found
