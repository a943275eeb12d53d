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
_EVIDENCE = 3.0**2  # of miscalibration, in squared standard errors: with less, nothing is scaled
_TINY = 1e-12
_STEPS = 40  # of the golden-section search, to within 1e-7


def fit_temperature(scores: Floats, labels: Integers) -> float:
    """The temperature of section 4.2, shrunk towards 1, to divide all scores by; from 0.05 to 20.

    The negative log-likelihood is convex in the reciprocal of the temperature, so that it has one minimum. A
    weak prior, log T normal around 0 with standard deviation 1, decides where there are few data: without it,
    data without any error would ask for a temperature of 0.

    Its logarithm is then multiplied by 1 - 9 / e, or by 0 if that is negative (the garrote of Breiman 1995,
    Technometrics 37, 373-384). e is the evidence, in squared standard errors: the smaller of the likelihood
    ratio statistic and the squared z-value of mean confidence minus accuracy. Scaling by chance would only
    add noise, and all scores together can ask for a temperature that makes the confidence of the most
    probable class worse. With strong evidence little changes.

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
    z = _overconfidence(scores) * weight**0.5
    evidence = min(2 * (loss(0.0) - loss(best)), z**2 if z * best > 0 else 0.0)
    return float(np.exp(best * (1 - _EVIDENCE / evidence))) if evidence > _EVIDENCE else 1.0


def _overconfidence(scores: npt.NDArray[np.float64]) -> float:
    """Mean confidence minus accuracy, in standard errors; of scores relative to the label's."""
    most = scores.max(axis=1)
    confidence = 1 / np.exp(scores - most[:, None]).sum(axis=1)
    variance = (confidence * (1 - confidence)).sum()
    return float((confidence - (most <= 0)).sum() / np.sqrt(max(variance, _TINY)))


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
