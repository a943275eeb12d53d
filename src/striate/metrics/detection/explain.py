"""Explain an AP: operating point, precision-recall curves, confusion matrix, calibration.

All functions use one matching at one IoU threshold, by COCO's rules: in order of falling score, each
detection matches the free object of its class that it overlaps most; crowds count neither way. So the
matching at a score threshold is the same one without the detections below that score.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from striate.errors import UsageError
from striate.metrics.detection.coco import AREAS, SIGMAS, CocoSettings, evaluate_coco
from striate.metrics.detection.records import Bools, Detections, Floats, GroundTruth
from striate.metrics.detection.reference import Rows
from striate.metrics.detection.similarity import IouType, Overlap, overlap_of

Counts = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Matched:
    """Matches between detections and ground truth at one IoU threshold.

    Args:
        truth: the ground truth.
        detections: the detections.
        iou: the threshold.
        taken: int32 [D], row of the ground truth that a detection matches, or -1.
        right: bool [D], true positives.
        wrong: bool [D], false positives; ignored detections are neither right nor wrong.
        counts: bool [G], ground truths that count: known image and class, no crowd, not difficult.
        overlap: measures the overlaps of rows of detections and rows of ground truths.
        iou_type: what overlaps: "bbox", "segm" or "keypoints".
    """

    truth: GroundTruth
    detections: Detections
    iou: float
    taken: NDArray[np.int32]
    right: Bools
    wrong: Bools
    counts: Bools
    overlap: Overlap
    iou_type: IouType = "bbox"

    def overlaps(self, d: Rows, g: Rows) -> Floats:
        """Overlaps [D, G] of some detections and some ground truths without crowds."""
        return self.overlap(d, g, np.zeros(g.size, np.bool_))


def match(
    truth: GroundTruth,
    detections: Detections,
    iou: float = 0.5,
    *,
    iou_type: IouType = "bbox",
    sigmas: Sequence[float] = SIGMAS,
    threads: int | None = None,
) -> Matched:
    """Match detections to ground truth at one IoU threshold.

    Args:
        truth: the ground truth.
        detections: the detections.
        iou: the threshold; of the OKS for key points.
        iou_type: what to compare: "bbox", "segm" or "keypoints".
        sigmas: of the key points, as in `CocoSettings`.
        threads: number of threads; None for all cores, at most 8.

    Raises:
        DataError: a score is NaN, or there are no masks or key points.
        UsageError: the threshold is not above 0 and at most 1.
    """
    if not 0 < iou <= 1:
        raise UsageError(f"IoU threshold {iou}", "it should be above 0 and at most 1")
    settings = CocoSettings(
        thresholds=(iou,),
        areas={"all": (-np.inf, np.inf)},
        limits=(max(len(detections), 1),),
        mode="corrected",
        iou_type=iou_type,
        sigmas=tuple(sigmas),
    )
    record = evaluate_coco(truth, detections, settings, matches=True, threads=threads).matches
    assert record is not None
    taken, ignored = record.truth_of[0, 0], record.ignored[0, 0]
    seen = record.rank >= 0
    counts = (truth.image >= 0) & (truth.category >= 0) & ~truth.crowd & ~truth.difficult
    right, wrong = seen & (taken >= 0) & ~ignored, seen & (taken < 0) & ~ignored
    overlap = overlap_of(truth, detections, iou_type, sigmas)
    return Matched(truth, detections, iou, taken, right, wrong, counts, overlap, iou_type)


@dataclass(frozen=True, eq=False)
class OperatingPoint:
    """True positives, false positives and false negatives of K classes at one IoU and one score threshold.

    Args:
        iou: smallest overlap of a true positive.
        score: smallest score of a detection that counts.
        names: K class names.
        tp: [K] true positives; each ground truth counts once.
        fp: [K] false positives.
        fn: [K] ground truths without a match.
    """

    iou: float
    score: float
    names: tuple[str, ...]
    tp: Counts
    fp: Counts
    fn: Counts

    def to_json(self) -> dict[str, Any]:
        """The thresholds and all counts and rates as JSON values."""
        return {
            "operating_point": {"iou": self.iou, "score": self.score} | self.total(),
            "operating_point_per_class": self.per_class(),
        }

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
    """Count the true and false positives with at least this score, and the missed objects."""
    K = m.truth.category_ids.size
    sure = m.detections.score >= score
    tp, fp = (np.bincount(m.detections.category[side & sure], minlength=K) for side in (m.right, m.wrong))
    positives = np.bincount(m.truth.category[m.counts], minlength=K)
    return OperatingPoint(m.iou, score, m.truth.category_names, tp, fp, positives - tp)


def by_size(m: Matched, score: float) -> list[dict[str, Any]]:
    """The operating point for COCO's small, medium and large objects.

    The size of an object, and of the detection that matches it, is the annotated area; the size of a false
    positive is the area of its box or mask.

    Returns:
        `size`, `objects`, TP, FP, FN, precision, recall and F1 for each size.
    """
    sure = m.detections.score >= score
    found_area = m.truth.area[m.taken[m.right & sure]]
    area = m.detections.area
    wrong_area = (m.detections.box[:, 2:].prod(axis=1) if area is None else area)[m.wrong & sure]
    rows = []
    for name, (least, most) in AREAS.items():
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
    """Precision, recall and F1 of one class over the score threshold; one point per distinct score.

    Args:
        name: of the class.
        positives: number of ground truths that count.
        score: thresholds, falling.
        precision: of the detections with at least this score.
        recall: of the detections with at least this score.
        f1: of the detections with at least this score.
    """

    name: str
    positives: int
    score: Floats
    precision: Floats
    recall: Floats
    f1: Floats

    def best(self) -> dict[str, Any]:
        """The score threshold with the largest F1 (the highest one if several are equal), and its values."""
        if not self.score.size or not self.positives:
            return {"class": self.name, "score": None, "f1": None, "precision": None, "recall": None}
        i = int(np.argmax(self.f1))
        values = {k: float(getattr(self, k)[i]) for k in ("score", "f1", "precision", "recall")}
        return {"class": self.name} | values


def by_score(detections: Detections) -> NDArray[np.intp]:
    """All rows by falling score; equal scores by image, then in the given order, as in COCO's evaluation."""
    return np.lexsort((np.arange(len(detections)), detections.image, -detections.score))


def curves(m: Matched) -> list[Curve]:
    """Precision-recall curve of each class."""
    out = []
    order = by_score(m.detections)
    order = order[m.right[order] | m.wrong[order]]
    for k, name in enumerate(m.truth.category_names):
        rows = order[m.detections.category[order] == k]
        score = m.detections.score[rows]
        last = np.flatnonzero(np.append(score[1:] != score[:-1], True)[: score.size])
        tp, fp = np.cumsum(m.right[rows])[last], np.cumsum(m.wrong[rows])[last]
        positives = int((m.counts & (m.truth.category == k)).sum())
        f1 = 2 * tp / np.maximum(tp + fp + positives, 1)
        recall = tp / positives if positives else np.zeros(last.size)
        out.append(Curve(name, positives, score[last], tp / np.maximum(tp + fp, 1), recall, f1))
    return out


def confusion(m: Matched, score: float) -> Counts:
    """Confusion matrix [K + 1, K + 1]: row = true class, column = detected class; the last one is background.

    The diagonal contains the true positives of the operating point. The other detections are then matched
    regardless of class, by falling score, each to the free object that it overlaps most and by at least the
    IoU threshold. Detections without an object count in the row of background, objects without a detection in
    its column.
    """
    K = m.truth.category_ids.size
    matrix = np.zeros((K + 1, K + 1), np.int64)
    pair = pairs(m, score)
    shown = pair >= -1
    true_class = np.where(pair >= 0, m.truth.category[pair] if len(m.truth) else K, K)
    np.add.at(matrix, (true_class[shown], m.detections.category[shown]), 1)
    free = m.counts.copy()
    free[pair[pair >= 0]] = False
    np.add.at(matrix, (m.truth.category[free], np.full(int(free.sum()), K)), 1)
    return matrix


def pairs(m: Matched, score: float) -> NDArray[np.int64]:
    """The object that each detection counts for in the confusion matrix, int64 [D].

    -1 stands for background, -2 for a detection that does not count: an ignored one, or one with a lower
    score.
    """
    pair = np.full(len(m.detections), -2, np.int64)
    right, wrong = (side & (m.detections.score >= score) for side in (m.right, m.wrong))
    pair[right], pair[wrong] = m.taken[right], -1
    free = m.counts.copy()
    free[m.taken[right]] = False
    for d, g in rows_by_image(m, wrong, m.counts):
        d = d[np.argsort(-m.detections.score[d], kind="stable")]
        iou = m.overlaps(d, g)
        for i, row in enumerate(d):
            near = np.where(free[g] & (iou[i] >= m.iou), iou[i], -1.0)
            j = int(np.argmax(near)) if g.size else -1
            if j >= 0 and near[j] >= 0:
                free[g[j]] = False
                pair[row] = g[j]
    return pair


def rows_by_image(m: Matched, detections: Bools, truth: Bools) -> list[tuple[Any, Any]]:
    """For each image with selected detections, their rows and the rows of the selected ground truths."""
    d, g = np.flatnonzero(detections), np.flatnonzero(truth)
    d = d[np.argsort(m.detections.image[d], kind="stable")]
    g = g[np.argsort(m.truth.image[g], kind="stable")]
    d_image, g_image = m.detections.image[d], m.truth.image[g]
    images = np.unique(d_image)
    cuts = [np.searchsorted(at, images, side) for at in (d_image, g_image) for side in ("left", "right")]
    return [(d[a:b], g[c:e]) for a, b, c, e in zip(*cuts, strict=True)]


def calibration(m: Matched, bins: int = 10) -> dict[str, Any]:
    """Calibration: compare scores with the fraction of true positives.

    Args:
        m: the matches.
        bins: number of bins of equal width from 0 to 1; scores outside go into the first or last one.

    Returns:
        `ece`, the expected calibration error (gaps weighted by the size of the bins), and `bins`: `low` and
        `high` end, `count`, mean `score` and `precision` of each (None if it is empty).
    """
    rows = np.flatnonzero(m.right | m.wrong)
    score = m.detections.score[rows]
    at = np.clip((score * bins).astype(int), 0, bins - 1)
    table, gap = [], 0.0
    for b in range(bins):
        inside = at == b
        count = int(inside.sum())
        mean, share = (float(np.mean(v[inside])) if count else None for v in (score, m.right[rows]))
        if mean is not None and share is not None:
            gap += count / rows.size * abs(mean - share)
        ends: dict[str, Any] = {"low": b / bins, "high": (b + 1) / bins}
        table.append(ends | {"count": count, "score": mean, "precision": share})
    return {"ece": gap if rows.size else None, "bins": table}
