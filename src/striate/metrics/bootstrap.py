"""Bootstrap intervals of metrics: BCa, for any metric that depends on how often each image counts.

Images are drawn with replacement, and a metric is computed for all draws at once from how often each image,
or each kind of image, was drawn. The intervals are BCa, bias-corrected and accelerated: Efron,
"Better bootstrap confidence intervals", 1987, sections 3 and 4.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from statistics import NormalDist
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from striate.metrics.classification import wilson_interval

Floats = NDArray[np.floating]
Counts = NDArray[np.integer]
Ends = tuple[float, float]

DRAWS = 1000  # the ends of a BCa interval need about as many
_AT_ONCE = 2_000_000  # numbers in a block of draws
_MOST_NUMBERS, _FEWEST_DRAWS = 10_000_000, 200  # of very many images there are fewer draws
_JACKKNIFE = 200  # groups of images that are left out in turn


@dataclass(frozen=True)
class Interval:
    """A value and its 95 % confidence interval."""

    value: float
    low: float
    high: float


class Resampled(NamedTuple):
    """A metric, its value in each draw, and the influence of each image, or group of images, on it."""

    value: float
    samples: Floats
    influence: Floats


def difference(a: Resampled, b: Resampled) -> Resampled:
    """By how much `b` is above `a`, from the same draws."""
    return Resampled(b.value - a.value, b.samples - a.samples, b.influence - a.influence)


def bca_interval(r: Resampled) -> Interval:
    """The BCa interval: percentiles of the draws that correct the bias and the acceleration."""
    normal = NormalDist()
    below = (np.sum(r.samples < r.value) + np.sum(r.samples == r.value) / 2) / r.samples.size
    bias = normal.inv_cdf(float(np.clip(below, 0.5 / r.samples.size, 1 - 0.5 / r.samples.size)))
    spread = float(np.sum(r.influence**2)) ** 1.5
    acceleration = float(np.sum(r.influence**3)) / (6 * spread) if spread else 0.0
    ends = []
    for z in (normal.inv_cdf(0.025), normal.inv_cdf(0.975)):
        shifted = bias + z
        ends.append(normal.cdf(bias + shifted / max(1 - acceleration * shifted, 1e-9)))
    low, high = np.quantile(r.samples, ends)
    return Interval(float(r.value), float(low), float(high))


def resample(
    metric: Callable[[Counts], Floats], kinds: Counts, draws: int = DRAWS, seed: int = 0
) -> Resampled:
    """A metric of all images, of each draw, and the influence of the images.

    Two metrics of the same `kinds`, `draws` and `seed` get the same draws, so that `difference` is paired.

    Args:
        metric: from int64 `[draws, K]`, how often images of each kind were drawn, to values `[draws]`.
        kinds: int64 `[n]`, the kind of each image, 0 to K - 1: images of a kind have the same effect on the
            metric. `numpy.arange(n)` if each image is a kind of its own.
        draws: number of bootstrap samples; fewer of very many images, at least 200.
        seed: of the random numbers.
    """
    total = np.bincount(kinds)
    found = [metric(total[None]), *map(metric, drawn_counts(kinds, draws, seed))]
    samples = np.concatenate(found)
    return Resampled(float(samples[0]), samples[1:], _influence(metric, kinds, total, seed))


def drawn_counts(kinds: Counts, draws: int = DRAWS, seed: int = 0) -> Iterator[Counts]:
    """How often images of each kind were drawn, int64 `[some draws, K]`, in blocks; see `resample`."""
    rng, n, total = np.random.default_rng(seed), len(kinds), np.bincount(kinds)
    size = len(total)
    draws = min(draws, max(_FEWEST_DRAWS, _MOST_NUMBERS // n))
    step = max(1, _AT_ONCE // max(n, size))
    for start in range(0, draws, step):
        rows = min(step, draws - start)
        # Few kinds of many images: their numbers are multinomial, which is cheaper to draw than each image.
        if size * 10 < n:
            yield rng.multinomial(n, total / n, size=rows)
        else:
            offsets = size * np.arange(rows)[:, None]
            drawn = (kinds[rng.integers(0, n, (rows, n))] + offsets).ravel()
            yield np.bincount(drawn, minlength=rows * size).reshape(rows, size)


def bca(metric: Callable[[Counts], Floats], kinds: Counts, *, most: float = np.inf) -> Ends:
    """The ends of the 95 % BCa interval of a metric from 0 to `most`; see `resample`.

    Draws of images without a single error are all alike, but more images might have some. So where all draws
    agree, the interval is Wilson's for no error, or no success, in n images.
    """
    r = resample(metric, kinds)
    if np.ptp(r.samples) == 0 and r.value in (0.0, most):
        end = wilson_interval(0.0, len(kinds))[1]
        return (most * (1 - end), most) if r.value == most else (0.0, end)
    found = bca_interval(r)
    return max(0.0, found.low), min(most, found.high)


def _influence(metric: Callable[[Counts], Floats], kinds: Counts, total: Counts, seed: int) -> Floats:
    """How much the metric changes with each image, or each of 200 random groups of them: the jackknife.

    Sums over groups keep the sums of squares and of cubes, which are all that the acceleration needs.
    """
    groups = min(len(kinds), _JACKKNIFE)
    parts = np.array_split(np.random.default_rng(seed).permutation(len(kinds)), groups)
    left = np.stack([total - np.bincount(kinds[part], minlength=len(total)) for part in parts])
    values = metric(left) if len(kinds) > 1 else np.zeros(1)
    return np.asarray(values.mean() - values)
