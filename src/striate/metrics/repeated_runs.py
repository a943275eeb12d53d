"""The mean of a metric over several runs, with its interval."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

_TAIL = 0.025  # on each side of a 95 % interval


@dataclass(frozen=True)
class Spread:
    """A metric of several runs.

    Attributes:
        mean: over the runs.
        std: standard deviation of the runs, with n - 1; NaN for one run.
        low: lower end of the 95 % interval of the mean; NaN for one run, and for runs without any deviation,
            which say nothing about it.
        high: its upper end.
        values: of each run.
    """

    mean: float
    std: float
    low: float
    high: float
    values: tuple[float, ...]


def spread(values: Sequence[float], test_to_train: float = 0.0, *, share: bool = False) -> Spread:
    """Mean of a metric with Student's t interval: mean +- t(n - 1) * s * sqrt(1 / n + test_to_train).

    Runs on different parts of the same data share training images, so their metrics depend on each other and
    s / sqrt(n) is too small. The correction of Nadeau and Bengio 2003 ("Inference for the Generalization
    Error", section 3) adds the ratio of the numbers of test and training images; `test_to_train` is that
    ratio, 0 for runs that differ by their seed only.

    Args:
        values: of each run, at least one.
        test_to_train: number of test images divided by that of training images, if the runs have different
            test images of the same data.
        share: whether the metric is a fraction of one, so that its interval must not leave 0 to 1.
    """
    mean, n = fmean(values), len(values)
    if n < 2 or not all(map(math.isfinite, values)):
        return Spread(mean, math.nan, math.nan, math.nan, tuple(values))
    std = stdev(values)
    if std == 0:
        return Spread(mean, std, math.nan, math.nan, tuple(values))
    half = t_quantile(1 - _TAIL, n - 1) * std * math.sqrt(1 / n + test_to_train)
    low, high = mean - half, mean + half
    return Spread(
        mean, std, max(0.0, low) if share else low, min(1.0, high) if share else high, tuple(values)
    )


def t_quantile(p: float, degrees: int) -> float:
    """Quantile of Student's t distribution, for p above 0.5.

    The distribution function is that of Abramowitz and Stegun, 26.7.3 and 26.7.4, in theta =
    atan(t / sqrt(degrees)); theta is found by bisection.

    Args:
        p: probability, above 0.5 and below 1.
        degrees: of freedom, at least 1.
    """
    low, high = 0.0, math.pi / 2
    while (middle := (low + high) / 2) not in (low, high):
        low, high = (middle, high) if _within(middle, degrees) < 2 * p - 1 else (low, middle)
    return math.tan(low) * math.sqrt(degrees)


def _within(theta: float, degrees: int) -> float:
    """The probability of |t| below sqrt(degrees) * tan(theta)."""
    cosine, odd = math.cos(theta), degrees % 2
    term = cosine if odd else 1.0
    total = term if degrees > 1 else 0.0
    for k in range(3 if odd else 2, degrees - 1, 2):
        term *= (k - 1) / k * cosine**2
        total += term
    inside = math.sin(theta) * total
    return 2 / math.pi * (theta + inside) if odd else inside
