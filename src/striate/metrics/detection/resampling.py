"""Bootstrap over images: the confidence interval of an AP, and a test between two detectors.

Images are drawn with replacement. The AP of each draw counts an image as often as it was drawn. Matches are
those of mode "corrected".

The intervals are BCa, bias-corrected and accelerated: Efron, "Better bootstrap confidence intervals", 1987,
sections 3 and 4. AP takes the best precision at each recall and beyond, and the noisier a curve is, the
higher is the best. So most draws have a larger AP than the data, as the data have a larger AP than many more
images would. `benchmarks/bench_intervals.py` measures how often the intervals contain the AP of many images.

The test is that of Efron and Tibshirani, "An Introduction to the Bootstrap", 1993, chapter 16.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from striate.errors import DataError, UsageError
from striate.metrics.bootstrap import DRAWS, Interval, Resampled, bca_interval, difference
from striate.metrics.detection.coco import CocoSettings, evaluate_coco
from striate.metrics.detection.explain import by_score
from striate.metrics.detection.records import Bools, Detections, Floats, GroundTruth
from striate.progress import AUTO, Progress

AT_ONCE = 4_000_000  # numbers in a block of draws


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
    draws: int = DRAWS,
    seed: int = 0,
    settings: CocoSettings | None = None,
    progress: Progress = AUTO,
) -> Interval:
    """AP over the thresholds of the settings, with its confidence interval.

    Args:
        truth: the ground truth.
        detections: the detections.
        draws: number of bootstrap samples, at least 20; the ends of a BCa interval need about 1,000.
        seed: of the random numbers.
        settings: thresholds, recall levels, last limit and IoU type; COCO's defaults if None.
        progress: receives one update per class.
    """
    return bca_interval(resample(truth, detections, draw_images(truth, draws, seed), settings, progress))


def compare(
    truth: GroundTruth,
    first: Detections,
    second: Detections,
    draws: int = DRAWS,
    seed: int = 0,
    settings: CocoSettings | None = None,
    progress: Progress = AUTO,
) -> Comparison:
    """Compare two detectors on the same draws of images, so that the difficulty of the images cancels out."""
    weights = draw_images(truth, draws, seed)
    a, b = (resample(truth, detections, weights, settings, progress) for detections in (first, second))
    gap = difference(a, b)
    tail = min(int((gap.samples <= 0).sum()), int((gap.samples >= 0).sum()))
    p = min(1.0, 2 * (tail + 1) / (draws + 1))
    return Comparison(bca_interval(a), bca_interval(b), bca_interval(gap), p)


def draw_images(truth: GroundTruth, draws: int, seed: int) -> NDArray[np.int64]:
    """Weights of the images, [draws + 1, I]: how often each counts; 1 in the first row."""
    if draws < 20:
        raise UsageError(f"{draws} draws", "an interval needs at least 20", "Use 20 or more")
    n = truth.image_ids.size
    if n < 2:
        why = "the draws would all be alike"
        raise DataError(f"an interval from {n} image{'' if n else 's'}", why, "Give two or more images")
    drawn = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), size=draws)
    return np.concatenate([np.ones((1, n), np.int64), drawn])


def resample(
    truth: GroundTruth,
    detections: Detections,
    weights: NDArray[np.int64],
    settings: CocoSettings | None = None,
    progress: Progress = AUTO,
) -> Resampled:
    """AP on all images, on each draw, and the influence of the images.

    Args:
        truth: the ground truth.
        detections: the detections.
        weights: from `draw_images`.
        settings: COCO's defaults if None.
        progress: receives one update per class.
    """
    settings = replace(settings or CocoSettings(), mode="corrected")
    result = evaluate_coco(truth, detections, settings, matches=True)
    record = result.matches
    assert record is not None
    order = by_score(detections)
    order = order[(record.rank[order] >= 0) & (record.rank[order] < result.ap_limit)]
    counts = (truth.image >= 0) & ~truth.crowd & ~truth.difficult
    total, measured = np.zeros(len(weights)), np.zeros(len(weights))
    effect = np.zeros(truth.image_ids.size)
    recalls = np.array(settings.recalls)
    progress.begin("bootstrap", truth.category_ids.size, "classes")
    for k in range(truth.category_ids.size):
        progress.advance(1)
        rows = order[detections.category[order] == k]
        objects = truth.image[counts & (truth.category == k)]
        if not objects.size:
            continue
        hit, ignored = record.truth_of[0][:, rows] >= 0, record.ignored[0][:, rows]
        one = OneClass(hit & ~ignored, ~hit & ~ignored, detections.image[rows], objects)
        some, ap = _ap_of_draws(one, weights, recalls)
        total[some] += ap
        measured[some] += 1
        effect += influence(one, effect.size)
    progress.end()
    values = np.divide(total, measured, out=np.zeros_like(total), where=measured > 0)
    return Resampled(float(values[0]), values[1:], effect / max(measured[0], 1))


class OneClass(NamedTuple):
    """The detections of a class by falling score, and its objects.

    Args:
        right: bool [T, N], true positives at each threshold.
        wrong: bool [T, N], false positives.
        image: [N], image of each detection.
        objects: [P], image of each object that counts.
    """

    right: Bools
    wrong: Bools
    image: NDArray[np.int32]
    objects: NDArray[np.int32]


def _ap_of_draws(
    one: OneClass, weights: NDArray[np.int64], recalls: Floats
) -> tuple[NDArray[np.intp], Floats]:
    """The draws that have an object of the class, and the AP of each, averaged over the thresholds."""
    positives = weights[:, one.objects].sum(axis=1)
    some = np.flatnonzero(positives)
    ap = np.zeros(some.size)
    step = max(1, AT_ONCE // max(one.image.size, 1))
    for start in range(0, some.size, step):
        block = some[start : start + step]
        each = weights[block][:, one.image]
        ap[start : start + step] = np.mean(
            [
                weighted_ap(each, right, wrong, positives[block], recalls)
                for right, wrong in zip(one.right, one.wrong, strict=True)
            ],
            axis=0,
        )
    return some, ap


def influence(one: OneClass, images: int) -> Floats:
    """Derivative of a class's AP by the weight of each image, [I], averaged over the thresholds.

    This is the infinitesimal jackknife, in time proportional to the number of detections; leaving out each
    image in turn would take a draw for each image. AP is here the area under the envelope of the curve: the
    mean over recall levels approximates it, but in steps.

    With e(j) the envelope at true positive j of P objects, which precision h / (h + m) after h hits and m
    misses attains at a place p(j) >= j, AP = sum_j w(j) e(j) / P, and e(j) changes by
    (m dh - h dm) / (h + m)^2.
    """
    P = one.objects.size
    effect = np.zeros(one.image.size)
    ap = 0.0
    for right, wrong in zip(one.right, one.wrong, strict=True):
        hits, at = np.flatnonzero(right), np.cumsum(right)
        if not hits.size:
            continue
        h, m = np.arange(1.0, hits.size + 1), np.cumsum(wrong)[hits].astype(np.float64)
        precision = h / (h + m)
        envelope = np.maximum.accumulate(precision[::-1])[::-1]
        # The place of each envelope: the last one that attains it.
        place = np.searchsorted(-envelope, -envelope, side="right") - 1
        times = np.bincount(place, minlength=hits.size) / (h + m) ** 2
        by_hit, by_miss = (np.cumsum((times * other)[::-1])[::-1] for other in (m, h))
        effect[hits] += envelope + by_hit
        misses = np.flatnonzero(wrong)
        misses = misses[at[misses] < hits.size]  # after the last hit they change nothing
        effect[misses] -= by_miss[at[misses]]
        ap += float(envelope.sum()) / P
    change = np.bincount(one.image, effect / P, images) - np.bincount(one.objects, minlength=images) * ap / P
    return np.asarray(change / len(one.right))


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
    # How many recall levels each true positive is the first to reach.
    levels = np.searchsorted(np.sort(recalls), hits / positives[:, None], side="right")
    return np.asarray((envelope * np.diff(levels, axis=1, prepend=0)).sum(axis=1) / recalls.size)
