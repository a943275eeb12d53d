"""Temperature scaling: probabilities that are as often right as they say (Guo et al. 2017, arXiv:1706.04599).

All scores are divided by one number, the temperature, which makes the labels of validation data most likely.
The order of the classes does not change.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from striate.errors import LayoutError
from striate.metrics.classification import Floats, Integers, all_finite

LOWEST, HIGHEST = 0.05, 20.0  # temperatures
_MOST_NUMBERS = 4_000_000  # scores that are looked at; of more images, some
_EVIDENCE = 1.92  # nats: half of the 95 % quantile of chi-squared with one degree of freedom
_STEPS = 40  # of the golden-section search, to within 1e-7


def fit_temperature(scores: Floats, labels: Integers) -> float:
    """The temperature of section 4.2, by which all scores are to be divided; from 0.05 to 20.

    The negative log-likelihood is convex in the reciprocal of the temperature, so that it has one minimum. A
    weak prior, log T normal around 0 with standard deviation 1, decides where there are few data: without it,
    data without any error would ask for a temperature of 0. Where the data do not reject a temperature of 1
    (likelihood ratio test, 5 %), it stays 1, since scaling by chance would only add noise.

    Args:
        scores: `[n, classes]`, logits, or logarithms of probabilities. Rows that are not finite are left out.
        labels: `[n]`.

    Returns:
        1.0 if no row is finite.

    Raises:
        LayoutError: shapes that do not belong together.
    """
    if scores.ndim != 2 or labels.shape != scores.shape[:1]:
        raise LayoutError(
            f"scores of shape {scores.shape} and labels of shape {labels.shape}",
            "they must be [n, classes] and [n]",
        )
    finite = all_finite(scores)
    scores, labels = scores[finite].astype(np.float64), labels[finite]
    if not len(scores):
        return 1.0
    weight = max(1, -(-scores.size // _MOST_NUMBERS))  # images that each of those looked at stands for
    scores, labels = scores[::weight], labels[::weight]
    # Relative to the label's score, so that it is 0 and the loss is the logarithm of the sum.
    scores = scores - scores[np.arange(len(scores)), labels][:, None]

    def loss(log_temperature: float) -> float:
        return weight * _log_sum(scores * np.exp(-log_temperature)) + log_temperature**2 / 2

    best = _minimum(loss, np.log(LOWEST), np.log(HIGHEST))
    return float(np.exp(best)) if loss(0.0) - loss(best) > _EVIDENCE else 1.0


def _log_sum(scores: npt.NDArray[np.float64]) -> float:
    most = scores.max(axis=1)
    return float((most + np.log(np.exp(scores - most[:, None]).sum(axis=1))).sum())


def _minimum(function: Callable[[float], float], low: float, high: float) -> float:
    """The place of the minimum of a function with one minimum, by golden-section search."""
    ratio = (5**0.5 - 1) / 2
    left, right = high - ratio * (high - low), low + ratio * (high - low)
    at_left, at_right = function(left), function(right)
    for _ in range(_STEPS):
        if at_left < at_right:
            high, right, at_right = right, left, at_left
            left = high - ratio * (high - low)
            at_left = function(left)
        else:
            low, left, at_left = left, right, at_right
            right = low + ratio * (high - low)
            at_right = function(right)
    return (low + high) / 2
