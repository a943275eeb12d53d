"""Bootstrap over images: the confidence interval of an AP, and a test between two detectors.

Source: Efron and Tibshirani, "An Introduction to the Bootstrap", 1993, chapters 13 (percentile intervals) and
16 (tests). Images are drawn with replacement. The AP of each draw counts an image as often as it was drawn.
Matches are those of mode "corrected".
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
    """A value and its 95 % confidence interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Comparison:
    """Comparison of two detectors on the same images.

    Args:
        first: AP of the first.
        second: AP of the second.
        difference: AP of the second minus AP of the first.
        p: two-sided p-value: twice the fraction of draws in which the other detector is better.
    """

    first: Interval
    second: Interval
    difference: Interval
    p: float


def bootstrap(
    truth: GroundTruth,
    detections: Detections,
    draws: int = 200,
    seed: int = 0,
    settings: CocoSettings | None = None,
    progress: Progress = SILENT,
) -> Interval:
    """AP over the thresholds of the settings, with its confidence interval.

    Args:
        truth: the ground truth.
        detections: the detections.
        draws: number of bootstrap samples, at least 20.
        seed: of the random numbers.
        settings: thresholds, recall levels and last limit; COCO's defaults if None.
        progress: receives one update per class.
    """
    return _interval(*_values(truth, detections, _draw(truth, draws, seed), settings, progress))


def compare(
    truth: GroundTruth,
    first: Detections,
    second: Detections,
    draws: int = 200,
    seed: int = 0,
    settings: CocoSettings | None = None,
    progress: Progress = SILENT,
) -> Comparison:
    """Compare two detectors on the same draws of images, so that the difficulty of the images cancels out."""
    weights = _draw(truth, draws, seed)
    (a, sample_a), (b, sample_b) = (
        _values(truth, detections, weights, settings, progress) for detections in (first, second)
    )
    gaps = sample_b - sample_a
    tail = min(int((gaps <= 0).sum()), int((gaps >= 0).sum()))
    p = min(1.0, 2 * (tail + 1) / (draws + 1))
    return Comparison(_interval(a, sample_a), _interval(b, sample_b), _interval(b - a, gaps), p)


def _draw(truth: GroundTruth, draws: int, seed: int) -> NDArray[np.int64]:
    """Weights of the images, [draws + 1, I]: how often each counts; 1 in the first row."""
    if draws < 20:
        raise UsageError(f"{draws} draws", "an interval needs at least 20", "Use 20 or more")
    n = truth.image_ids.size
    drawn = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / max(n, 1)), size=draws)
    return np.concatenate([np.ones((1, n), np.int64), drawn])


def _interval(value: float, samples: Floats) -> Interval:
    low, high = np.percentile(samples, [2.5, 97.5])
    return Interval(float(value), float(low), float(high))


def _values(
    truth: GroundTruth,
    detections: Detections,
    weights: NDArray[np.int64],
    settings: CocoSettings | None,
    progress: Progress,
) -> tuple[float, Floats]:
    """AP on all images, and on each draw."""
    settings = replace(settings or CocoSettings(), mode="corrected")
    record = evaluate_coco(truth, detections, settings, matches=True).matches
    assert record is not None
    order = by_score(detections)
    order = order[record.rank[order] >= 0]
    counts = (truth.image >= 0) & ~truth.crowd & ~truth.difficult
    total, measured = np.zeros(len(weights)), np.zeros(len(weights))
    progress.begin("bootstrap", truth.category_ids.size, "classes")
    for k in range(truth.category_ids.size):
        progress.advance(1)
        rows = order[detections.category[order] == k]
        positives = weights[:, truth.image[counts & (truth.category == k)]].sum(axis=1)
        some = positives > 0
        if not some.any():
            continue
        hit, ignored = record.truth_of[0][:, rows] >= 0, record.ignored[0][:, rows]
        each = weights[some][:, detections.image[rows]]
        ap = [
            weighted_ap(each, h & ~i, ~h & ~i, positives[some], np.array(settings.recalls))
            for h, i in zip(hit, ignored, strict=True)
        ]
        total[some] += np.mean(ap, axis=0)
        measured += some
    progress.end()
    values = np.divide(total, measured, out=np.zeros_like(total), where=measured > 0)
    return float(values[0]), values[1:]


def weighted_ap(
    weights: NDArray[np.int64],
    right: NDArray[np.bool_],
    wrong: NDArray[np.bool_],
    positives: NDArray[np.int64],
    recalls: Floats,
) -> Floats:
    """AP [B] of one class at one threshold; only true positives can reach a recall level."""
    hits = np.cumsum(weights[:, right], axis=1)
    misses = np.cumsum(weights * wrong, axis=1)[:, right]
    precision = hits / np.maximum(hits + misses, 1)
    envelope = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
    envelope = np.concatenate([envelope, np.zeros((len(weights), 1))], axis=1)
    recall = hits / positives[:, None]
    return np.array(
        [np.mean(e[np.searchsorted(r, recalls, side="left")]) for e, r in zip(envelope, recall, strict=True)]
    )
