"""How sure an AP is, and whether one detector is better than another: the bootstrap over images.

Efron and Tibshirani, "An Introduction to the Bootstrap", 1993, chapters 13 (percentile intervals) and 16
(tests). Images are drawn with replacement; a detector's AP is computed anew on each draw, which counts an
image as often as it was drawn. Matching is that of mode "corrected".
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from striate.errors import UsageError
from striate.metrics.detection.coco import CocoSettings, evaluate_coco
from striate.metrics.detection.explain import by_score
from striate.metrics.detection.records import Detections, Floats, GroundTruth
from striate.progress import SILENT, Progress


@dataclass(frozen=True)
class Interval:
    """A value and the interval that holds 95 % of the draws."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Comparison:
    """Two detectors on the same images.

    Args:
        first: AP of the first.
        second: AP of the second.
        difference: of the second above the first.
        p: two-sided: twice the share of draws on the far side of no difference.
    """

    first: Interval
    second: Interval
    difference: Interval
    p: float


def bootstrap(
    truth: GroundTruth,
    found: Detections,
    draws: int = 200,
    seed: int = 0,
    settings: CocoSettings | None = None,
    progress: Progress = SILENT,
) -> Interval:
    """AP over the settings' thresholds, with its interval.

    Args:
        truth: the ground truth.
        found: the detections.
        draws: how many; at least 20.
        seed: of the draws.
        settings: thresholds, recall levels and last limit; COCO's own where it is None.
        progress: who watches.
    """
    value, samples = _values(truth, found, _draw(truth, draws, seed), settings, progress)
    return _interval(value, samples)


def compare(
    truth: GroundTruth,
    first: Detections,
    second: Detections,
    draws: int = 200,
    seed: int = 0,
    settings: CocoSettings | None = None,
    progress: Progress = SILENT,
) -> Comparison:
    """Two detectors on the same draws of images, so that the images' difficulty cancels out."""
    weights = _draw(truth, draws, seed)
    (a, sample_a), (b, sample_b) = (
        _values(truth, found, weights, settings, progress) for found in (first, second)
    )
    gaps = sample_b - sample_a
    tail = min(int((gaps <= 0).sum()), int((gaps >= 0).sum()))
    return Comparison(
        _interval(a, sample_a),
        _interval(b, sample_b),
        _interval(b - a, gaps),
        min(1.0, 2 * (tail + 1) / (draws + 1)),
    )


def _draw(truth: GroundTruth, draws: int, seed: int) -> NDArray[np.int64]:
    """[draws + 1, I]: how often each image counts; once each in the first row."""
    if draws < 20:
        raise UsageError(f"{draws} draws", "an interval needs 20 at least")
    n = truth.image_ids.size
    drawn = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / max(n, 1)), size=draws)
    return np.concatenate([np.ones((1, n), np.int64), drawn])


def _interval(value: float, samples: Floats) -> Interval:
    low, high = np.percentile(samples, [2.5, 97.5])
    return Interval(float(value), float(low), float(high))


def _values(
    truth: GroundTruth,
    found: Detections,
    weights: NDArray[np.int64],
    settings: CocoSettings | None,
    progress: Progress,
) -> tuple[float, Floats]:
    """AP on all images, and on each draw."""
    settings = replace(settings or CocoSettings(), mode="corrected")
    record = evaluate_coco(truth, found, settings, matches=True).matches
    assert record is not None
    order = by_score(found)
    order = order[record.rank[order] >= 0]
    counts = (truth.image >= 0) & ~truth.crowd & ~truth.difficult
    total, measured = np.zeros(len(weights)), np.zeros(len(weights))
    progress.begin("bootstrap", truth.category_ids.size, "classes")
    for k in range(truth.category_ids.size):
        progress.advance(1)
        rows = order[found.category[order] == k]
        positives = weights[:, truth.image[counts & (truth.category == k)]].sum(axis=1)
        some = positives > 0
        if not some.any():
            continue
        hit, ignored = record.truth_of[0][:, rows] >= 0, record.ignored[0][:, rows]
        each = weights[some][:, found.image[rows]]
        ap = [
            _weighted_ap(each, h & ~i, ~h & ~i, positives[some], np.array(settings.recalls))
            for h, i in zip(hit, ignored, strict=True)
        ]
        total[some] += np.mean(ap, axis=0)
        measured += some
    progress.end()
    values = np.divide(total, measured, out=np.zeros_like(total), where=measured > 0)
    return float(values[0]), values[1:]


def _weighted_ap(
    weights: NDArray[np.int64],
    right: NDArray[np.bool_],
    wrong: NDArray[np.bool_],
    positives: NDArray[np.int64],
    recalls: Floats,
) -> Floats:
    """AP [B] of one class at one threshold; precision is looked at where there are hits only."""
    hits = np.cumsum(weights[:, right], axis=1)
    misses = np.cumsum(weights * wrong, axis=1)[:, right]
    precision = hits / np.maximum(hits + misses, 1)
    envelope = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
    envelope = np.concatenate([envelope, np.zeros((len(weights), 1))], axis=1)
    recall = hits / positives[:, None]
    return np.array(
        [np.mean(e[np.searchsorted(r, recalls, side="left")]) for e, r in zip(envelope, recall, strict=True)]
    )
