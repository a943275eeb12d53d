"""What lies behind an AP: hits and misses at an operating point, curves, confusion, calibration.

Everything here starts from one matching at one IoU threshold, by COCO's rules: a detection takes the object
of its class that it overlaps most among those that surer detections have left; crowds count neither way. As
matching goes by falling score, what holds at a score threshold follows by leaving out what is below it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from striate.errors import UsageError
from striate.metrics.detection.coco import CocoSettings, evaluate_coco
from striate.metrics.detection.records import Bools, Detections, Floats, GroundTruth
from striate.metrics.detection.reference import box_overlaps

Counts = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Matched:
    """Who found what at one IoU threshold.

    Args:
        truth: the ground truth.
        found: the detections.
        iou: the threshold.
        taken: int32 [D], the ground truth's row that a detection took, or -1.
        right: bool [D], true positives.
        wrong: bool [D], false positives; neither right nor wrong are those that are ignored.
        counts: bool [G], ground truths that count: known image and class, no crowd, not difficult.
    """

    truth: GroundTruth
    found: Detections
    iou: float
    taken: NDArray[np.int32]
    right: Bools
    wrong: Bools
    counts: Bools


def match(truth: GroundTruth, found: Detections, iou: float = 0.5, *, threads: int | None = None) -> Matched:
    """Match detections to ground truth at one IoU threshold.

    Raises:
        DataError: scores that are no numbers.
        UsageError: a threshold that is not above 0 and at most 1.
    """
    if not 0 < iou <= 1:
        raise UsageError(f"IoU threshold {iou}", "it should be above 0 and at most 1")
    settings = CocoSettings(
        thresholds=(iou,), areas={"all": (-np.inf, np.inf)}, limits=(max(len(found), 1),), mode="corrected"
    )
    record = evaluate_coco(truth, found, settings, matches=True, threads=threads).matches
    assert record is not None
    taken, ignored = record.truth_of[0, 0], record.ignored[0, 0]
    seen = record.rank >= 0
    counts = (truth.image >= 0) & (truth.category >= 0) & ~truth.crowd & ~truth.difficult
    return Matched(
        truth, found, iou, taken, seen & (taken >= 0) & ~ignored, seen & (taken < 0) & ~ignored, counts
    )


@dataclass(frozen=True, eq=False)
class OperatingPoint:
    """Counts at one IoU and one score threshold, for each of K classes.

    Args:
        iou: smallest overlap of a right detection.
        score: smallest score of a detection that counts.
        names: K class names.
        tp: [K] detections of the right class with enough overlap, each ground truth counted once.
        fp: [K] other detections.
        fn: [K] ground truths that no detection found.
    """

    iou: float
    score: float
    names: tuple[str, ...]
    tp: Counts
    fp: Counts
    fn: Counts

    def total(self) -> dict[str, Any]:
        """TP, FP, FN, precision, recall and F1 over all classes."""
        return _rates(int(self.tp.sum()), int(self.fp.sum()), int(self.fn.sum()))

    def per_class(self) -> list[dict[str, Any]]:
        """The same for each class."""
        rows = zip(self.names, self.tp.tolist(), self.fp.tolist(), self.fn.tolist(), strict=True)
        return [{"class": name} | _rates(*counts) for name, *counts in rows]


def _rates(tp: int, fp: int, fn: int) -> dict[str, Any]:
    return {
        "tp": tp,
        "fp": fp,
        "fn": fn,
        "precision": tp / (tp + fp) if tp + fp else None,
        "recall": tp / (tp + fn) if tp + fn else None,
        "f1": 2 * tp / (2 * tp + fp + fn) if tp + fp + fn else None,
    }


def operating_point(m: Matched, score: float) -> OperatingPoint:
    """Hits and misses of the detections with at least this score."""
    K = m.truth.category_ids.size
    sure = m.found.score >= score
    tp, fp = (np.bincount(m.found.category[side & sure], minlength=K) for side in (m.right, m.wrong))
    positives = np.bincount(m.truth.category[m.counts], minlength=K)
    return OperatingPoint(m.iou, score, m.truth.category_names, tp, fp, positives - tp)


def by_size(m: Matched, score: float) -> list[dict[str, Any]]:
    """The operating point of COCO's small, medium and large objects.

    An object goes by the area of its annotation, and so does the detection that found it; a detection that
    is wrong goes by the area of its box.

    Returns:
        `size`, `objects`, TP, FP, FN, precision, recall and F1 for each size.
    """
    sure = m.found.score >= score
    found_area = m.truth.area[m.taken[m.right & sure]]
    wrong_area = m.found.box[m.wrong & sure, 2:].prod(axis=1)
    rows = []
    for name, (least, most) in CocoSettings().areas.items():
        if name != "all":
            # A square of 32 pixels is both small and medium for COCO; here it is medium, so that sums agree.
            objects, tp, fp = (
                int(((area >= least) & (area < most)).sum())
                for area in (m.truth.area[m.counts], found_area, wrong_area)
            )
            rows.append({"size": name, "objects": objects} | _rates(tp, fp, objects - tp))
    return rows


@dataclass(frozen=True, eq=False)
class Curve:
    """One class from its surest detection down; a point after each run of equal scores.

    Args:
        name: of the class.
        positives: ground truths that count.
        score: falling.
        precision: of the detections with at least this score.
        recall: of the detections with at least this score.
        f1: of both.
    """

    name: str
    positives: int
    score: Floats
    precision: Floats
    recall: Floats
    f1: Floats

    def best(self) -> dict[str, Any]:
        """The score threshold with the largest F1 (the highest of equals), and what it gives."""
        if not self.score.size or not self.positives:
            return {"class": self.name, "score": None, "f1": None, "precision": None, "recall": None}
        i = int(np.argmax(self.f1))
        values = {k: float(getattr(self, k)[i]) for k in ("score", "f1", "precision", "recall")}
        return {"class": self.name} | values


def by_score(found: Detections) -> NDArray[np.intp]:
    """All rows by falling score; equal scores rank by image, then as given, as in COCO's evaluation."""
    return np.lexsort((np.arange(len(found)), found.image, -found.score))


def curves(m: Matched) -> list[Curve]:
    """Precision and recall over the score threshold, for each class."""
    out = []
    order = by_score(m.found)
    order = order[m.right[order] | m.wrong[order]]
    for k, name in enumerate(m.truth.category_names):
        rows = order[m.found.category[order] == k]
        score = m.found.score[rows]
        last = np.flatnonzero(np.append(score[1:] != score[:-1], True)[: score.size])
        tp, fp = np.cumsum(m.right[rows])[last], np.cumsum(m.wrong[rows])[last]
        positives = int((m.counts & (m.truth.category == k)).sum())
        f1 = 2 * tp / np.maximum(tp + fp + positives, 1)
        recall = tp / positives if positives else np.zeros(last.size)
        out.append(Curve(name, positives, score[last], tp / np.maximum(tp + fp, 1), recall, f1))
    return out


def confusion(m: Matched, score: float) -> Counts:
    """What was taken for what: [K + 1, K + 1], true class by detected class, the last one background.

    First the right detections, as in the operating point, so that the diagonal is its TP. What is left over
    is matched whatever its class: the surest detection first, to the object it overlaps most, from the IoU
    threshold on. A detection without object is background taken for its class; an object without detection
    is its class taken for background.
    """
    K = m.truth.category_ids.size
    matrix = np.zeros((K + 1, K + 1), np.int64)
    right, wrong = (side & (m.found.score >= score) for side in (m.right, m.wrong))
    np.add.at(matrix, (m.found.category[right], m.found.category[right]), 1)
    free = m.counts.copy()
    free[m.taken[right]] = False
    for d, g in rows_by_image(m, wrong, m.counts):
        d = d[np.argsort(-m.found.score[d], kind="stable")]
        iou = box_overlaps(m.found.box[d], m.truth.box[g], np.zeros(g.size, np.bool_))
        for i, row in enumerate(d):
            near = np.where(free[g] & (iou[i] >= m.iou), iou[i], -1.0)
            j = int(np.argmax(near)) if g.size else -1
            if j >= 0 and near[j] >= 0:
                free[g[j]] = False
                matrix[m.truth.category[g[j]], m.found.category[row]] += 1
            else:
                matrix[K, m.found.category[row]] += 1
    np.add.at(matrix, (m.truth.category[free], np.full(int(free.sum()), K)), 1)
    return matrix


def rows_by_image(m: Matched, found: Bools, truth: Bools) -> list[tuple[Any, Any]]:
    """For each image with such detections their rows, and the rows of such ground truths."""
    d, g = np.flatnonzero(found), np.flatnonzero(truth)
    d = d[np.argsort(m.found.image[d], kind="stable")]
    g = g[np.argsort(m.truth.image[g], kind="stable")]
    images = np.unique(m.found.image[d])
    d_image, g_image = m.found.image[d], m.truth.image[g]
    cuts = [
        np.searchsorted(image, images, side=side)
        for image in (d_image, g_image)
        for side in ("left", "right")
    ]
    return [(d[a:b], g[c:e]) for a, b, c, e in zip(*cuts, strict=True)]


def calibration(m: Matched, bins: int = 10) -> dict[str, Any]:
    """How far scores are from the share of right detections.

    Args:
        m: a matching.
        bins: how many of equal width, from 0 to 1; scores beyond fall into the outermost.

    Returns:
        `ece`, the mean gap weighted by the detections of each bin, and `bins`: for each its `low` and `high`
        end, `count`, mean `score` and `precision` (None where it is empty).
    """
    rows = np.flatnonzero(m.right | m.wrong)
    score = m.found.score[rows]
    at = np.clip((score * bins).astype(int), 0, bins - 1)
    table, gap = [], 0.0
    for b in range(bins):
        inside = at == b
        count = int(inside.sum())
        mean, share = (float(np.mean(v[inside])) if count else None for v in (score, m.right[rows]))
        if mean is not None and share is not None:
            gap += count / rows.size * abs(mean - share)
        table.append(
            {"low": b / bins, "high": (b + 1) / bins, "count": count, "score": mean, "precision": share}
        )
    return {"ece": gap if rows.size else None, "bins": table}
