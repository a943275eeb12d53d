"""Pascal VOC's two average precisions, with the differences between its evaluators as named options.

Everingham et al., "The Pascal Visual Object Classes (VOC) Challenge", 2010, section 4.2, and the devkit's
`VOCevaldet.m`. A detection is held against the one ground truth that it overlaps most: over the threshold
it is right if it is the surest to have found it, and wrong if it comes second; objects marked difficult, and
detections of them, count neither for nor against.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from striate.errors import DataError, UsageError
from striate.metrics.detection.records import Bools, Detections, Floats, GroundTruth
from striate.metrics.detection.reference import Found, Truths, groups


@dataclass(frozen=True)
class VocSettings:
    """What is measured, and how the evaluators that people use differ in it.

    Args:
        iou: the smallest overlap that makes a detection right.
        points: "11" averages the precision at recall 0, 0.1, ... 1 (VOC 2007); "all" takes the area under
            the curve (VOC 2010 and later).
        inclusive: coordinates name pixels, so that a box from 3 to 5 is 3 wide.
        difficult: "ignore" as the devkit does, or "count" them as any other object.
        at_threshold: whether an overlap of exactly `iou` is right: "accept" (devkit) or "reject"
            (py-faster-rcnn and what descends from it).
        levels: the eleven recall levels, which differ in their last bit, so that a recall of exactly 0.3,
            0.6 or 0.7 may or may not reach them: "multiples" of 0.1 as floats (the Python evaluators: 0.6
            becomes 0.6000000000000001), "tenths" (6 / 10), or "matlab" (0:0.1:1, counted from both ends).
    """

    iou: float = 0.5
    points: Literal["11", "all"] = "all"
    inclusive: bool = True
    difficult: Literal["ignore", "count"] = "ignore"
    at_threshold: Literal["accept", "reject"] = "accept"
    levels: Literal["multiples", "tenths", "matlab"] = "multiples"

    def __post_init__(self) -> None:
        if not 0 < self.iou <= 1:
            raise UsageError(f"IoU threshold {self.iou}", "it should be above 0 and at most 1")
        for name, known in OPTIONS.items():
            if getattr(self, name) not in known:
                raise UsageError(f"{name} {getattr(self, name)!r}", f"it is {' or '.join(known)}")


OPTIONS = {
    "points": ("11", "all"),
    "difficult": ("ignore", "count"),
    "at_threshold": ("accept", "reject"),
    "levels": ("multiples", "tenths", "matlab"),
}

# Evaluators by name: the challenge's two definitions, and what the popular ports make of them.
EVALUATORS: dict[str, VocSettings] = {
    "voc07": VocSettings(points="11"),
    "voc12": VocSettings(points="all"),
    "py-faster-rcnn-07": VocSettings(points="11", at_threshold="reject"),
    "py-faster-rcnn": VocSettings(points="all", at_threshold="reject"),
    "padilla-11": VocSettings(points="11", difficult="count"),
    "padilla": VocSettings(points="all", difficult="count"),
}

LEVELS = {
    "multiples": np.arange(11) * 0.1,
    "tenths": np.arange(11) / 10,
    "matlab": np.array([*(np.arange(6) * 0.1), *(1 - np.arange(4, -1, -1) * 0.1)]),
}


@dataclass(frozen=True, eq=False)
class VocClass:
    """One class.

    Args:
        id: of the class.
        name: of the class.
        ap: average precision; None where there is no ground truth that counts.
        positives: ground truths that count.
        rows: the detections that count, by falling score: rows of the `Detections`.
        right: bool, for each of them.
        precision: after each of them.
        recall: after each of them.
    """

    id: Any
    name: str
    ap: float | None
    positives: int
    rows: np.ndarray[Any, np.dtype[np.intp]]
    right: Bools
    precision: Floats
    recall: Floats


@dataclass(frozen=True, eq=False)
class VocResult:
    """Mean average precision over the classes that have ground truth (None where none has), and each one."""

    map: float | None
    classes: tuple[VocClass, ...]
    settings: VocSettings
    notes: tuple[str, ...] = ()

    def per_class(self) -> list[dict[str, Any]]:
        """For each class its name, AP, and how many objects, right and wrong detections it has."""
        return [
            {
                "id": c.id,
                "class": c.name,
                "ap": c.ap,
                "positives": c.positives,
                "tp": int(c.right.sum()),
                "fp": int((~c.right).sum()),
            }
            for c in self.classes
        ]


def evaluate_voc(truth: GroundTruth, found: Detections, settings: VocSettings | None = None) -> VocResult:
    """Pascal VOC's evaluation.

    Args:
        truth: G ground truths. Boxes of inclusive pixels have the width xmax - xmin, without the 1.
        found: D detections in the same images; equal scores rank in the order given.
        settings: what to measure; VOC 2012's where it is None.

    Raises:
        DataError: relative coordinates (all within 0 and 1) where pixels are inclusive: a box would gain
            more than it is wide.
    """
    settings = settings or VocSettings()
    if settings.inclusive and len(truth) and (truth.box[:, :2] + truth.box[:, 2:]).max() <= 1:
        raise DataError(
            f"boxes of {truth.source or 'the ground truth'}",
            "all coordinates are between 0 and 1, and inclusive pixels add 1 to every side",
            "Convert them to pixels, or set inclusive=False",
        )
    counts = ~truth.difficult if settings.difficult == "ignore" else np.ones(len(truth), np.bool_)
    overlap, best = _best_overlaps(truth, found, settings.inclusive)
    over = overlap >= settings.iou if settings.at_threshold == "accept" else overlap > settings.iou
    classes = tuple(
        _one_class(k, truth, found, counts, np.where(over, best, -1), settings)
        for k in range(truth.category_ids.size)
    )
    measured = [c.ap for c in classes if c.ap is not None]
    mean = float(np.mean(measured)) if measured else None
    return VocResult(mean, classes, settings, (*truth.notes, *found.notes))


def _best_overlaps(
    truth: GroundTruth, found: Detections, inclusive: bool
) -> tuple[Floats, np.ndarray[Any, np.dtype[np.intp]]]:
    """For each detection the largest overlap with a ground truth of its image and class, and its row.

    The first of two equals counts; -inf and -1 stand for none.
    """
    overlap, best = np.full(len(found), -np.inf), np.full(len(found), -1, np.intp)
    none = np.zeros(len(truth), np.bool_)
    truths = Truths(truth.image, truth.category, truth.box, truth.area, none, none, none)
    columns = Found(found.image, found.category, found.box, found.score, None, None)
    for _, g, d in groups(truths, columns, len(found)):
        if not g.size or not d.size:
            continue
        iou = pixel_overlaps(found.box[d], truth.box[g], inclusive)
        at = np.argmax(iou, axis=1)
        overlap[d], best[d] = iou[np.arange(d.size), at], g[at]
    return overlap, best


def pixel_overlaps(found: Floats, truths: Floats, inclusive: bool) -> Floats:
    """IoU [D, G] of boxes (x, y, width, height); -inf where they do not meet."""
    one = 1.0 if inclusive else 0.0
    d, g = found[:, None, :], truths[None, :, :]
    with np.errstate(all="ignore"):
        w = np.minimum(d[..., 0] + d[..., 2], g[..., 0] + g[..., 2]) - np.maximum(d[..., 0], g[..., 0]) + one
        h = np.minimum(d[..., 1] + d[..., 3], g[..., 1] + g[..., 3]) - np.maximum(d[..., 1], g[..., 1]) + one
        union = (d[..., 2] + one) * (d[..., 3] + one) + (g[..., 2] + one) * (g[..., 3] + one) - w * h
        iou = np.where((w > 0) & (h > 0), w * h / union, -np.inf)
    return np.where(np.isnan(iou), -np.inf, iou)


def _one_class(
    k: int, truth: GroundTruth, found: Detections, counts: Bools, took: Any, settings: VocSettings
) -> VocClass:
    positives = int((counts & (truth.category == k) & (truth.image >= 0)).sum())
    rows = np.flatnonzero(found.category == k)
    rows = rows[np.argsort(-found.score[rows], kind="stable")]
    rows = rows[(took[rows] < 0) | counts[took[rows]]] if len(truth) else rows
    hit = took[rows] >= 0
    first = np.zeros(rows.size, np.bool_)  # the surest of those that found the same object
    first[np.unique(np.where(hit, took[rows], -1), return_index=True)[1]] = True
    right = hit & first
    tp, fp = np.cumsum(right), np.cumsum(~right)
    precision = tp / np.maximum(tp + fp, 1)
    recall = tp / positives if positives else np.zeros(rows.size)
    ap = average_precision(precision, recall, settings) if positives else None
    id_ = truth.category_ids[k : k + 1].tolist()[0]
    return VocClass(id_, truth.category_names[k], ap, positives, rows, right, precision, recall)


def average_precision(precision: Floats, recall: Floats, settings: VocSettings) -> float:
    """AP of a curve with rising recall: the mean at eleven levels, or the area under its envelope."""
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    if settings.points == "11":
        at = np.searchsorted(recall, LEVELS[settings.levels], side="left")
        return float(np.append(envelope, 0.0)[at].sum() / 11)
    widths = np.diff(recall, prepend=0.0)
    return float((widths * envelope).sum())
