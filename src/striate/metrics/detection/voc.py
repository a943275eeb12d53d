"""Pascal VOC's two average precisions, with the differences between its evaluators as named options.

Source: Everingham et al., "The Pascal Visual Object Classes (VOC) Challenge", 2010, section 4.2, and the
devkit's `VOCevaldet.m`. Each detection is compared with the one ground truth that it overlaps most. If the
overlap reaches the threshold, the detection with the highest score is right and all others are wrong. Objects
marked as difficult, and detections of them, are ignored.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, get_args, get_type_hints

import numpy as np

from striate.errors import DataError, UsageError
from striate.metrics.detection.records import (
    Bools,
    Detections,
    Floats,
    GroundTruth,
    outside_notes,
    require_scores,
)
from striate.metrics.detection.reference import groups


@dataclass(frozen=True)
class VocSettings:
    """Settings of the evaluation; popular evaluators differ in them.

    Args:
        iou: smallest overlap of a true positive.
        points: "11" averages the precision at recall 0, 0.1, ... 1 (VOC 2007); "all" takes the area under
            the curve (VOC 2010 and later).
        inclusive: coordinates are indices of pixels, so that a box from 3 to 5 is 3 wide.
        difficult: "ignore" difficult objects as the devkit does, or "count" them like any other object.
        at_threshold: whether an overlap of exactly `iou` is right: "accept" (devkit) or "reject"
            (py-faster-rcnn and its successors).
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
        for name, hint in get_type_hints(VocSettings).items():
            known = get_args(hint)  # of a Literal
            if known and getattr(self, name) not in known:
                raise UsageError(f"{name} {getattr(self, name)!r}", f"it is {' or '.join(known)}")


# Evaluators by name: the challenge's two definitions, and popular ports of them.
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
    """Result of one class.

    Args:
        id: of the class.
        name: of the class.
        ap: average precision; None if no ground truth counts.
        positives: number of ground truths that count.
        rows: rows of the detections that count, by falling score.
        right: bool, whether each of them is a true positive.
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
    """Mean average precision over the classes with ground truth (None if there are none), and each class."""

    map: float | None
    classes: tuple[VocClass, ...]
    settings: VocSettings
    notes: tuple[str, ...] = ()

    def per_class(self) -> list[dict[str, Any]]:
        """Id, name, AP, objects, true positives and false positives of each class."""
        rows = []
        for c in self.classes:
            tp = int(c.right.sum())
            counts = {"positives": c.positives, "tp": tp, "fp": c.right.size - tp}
            rows.append({"id": c.id, "class": c.name, "ap": c.ap} | counts)
        return rows


def evaluate_voc(
    truth: GroundTruth, detections: Detections, settings: VocSettings | None = None
) -> VocResult:
    """Evaluate bounding boxes as Pascal VOC does.

    Args:
        truth: G ground truths. Boxes of inclusive pixels have the width xmax - xmin, without the 1.
        detections: D detections in the same images; equal scores rank in the order given.
        settings: of the evaluation; those of VOC 2012 if None.

    Raises:
        DataError: the coordinates are relative (all between 0 and 1) but pixels are inclusive, which would
            enlarge every box by more than its width; or a score is NaN.
    """
    settings = settings or VocSettings()
    require_scores(detections)
    if settings.inclusive and len(truth) and (truth.box[:, :2] + truth.box[:, 2:]).max() <= 1:
        raise DataError(
            f"boxes of {truth.source or 'the ground truth'}",
            "all coordinates are between 0 and 1, and inclusive pixels add 1 to every side",
            "Convert them to pixels, or set inclusive=False",
        )
    counts = ~truth.difficult if settings.difficult == "ignore" else np.ones(len(truth), np.bool_)
    overlap, best = _best_overlaps(truth, detections, settings.inclusive)
    over = overlap >= settings.iou if settings.at_threshold == "accept" else overlap > settings.iou
    classes = tuple(
        _one_class(k, truth, detections, counts, np.where(over, best, -1), settings)
        for k in range(truth.category_ids.size)
    )
    measured = [c.ap for c in classes if c.ap is not None]
    mean = float(np.mean(measured)) if measured else None
    notes = (*truth.notes, *detections.notes, *outside_notes(truth, detections))
    return VocResult(mean, classes, settings, notes)


def _best_overlaps(
    truth: GroundTruth, detections: Detections, inclusive: bool
) -> tuple[Floats, np.ndarray[Any, np.dtype[np.intp]]]:
    """Largest overlap of each detection with a ground truth of its image and class, and the row of that one.

    If two overlap equally, the first one counts; -inf and -1 mean none.
    """
    overlap, best = np.full(len(detections), -np.inf), np.full(len(detections), -1, np.intp)
    for _, g, d in groups(truth, detections, len(detections)):
        if not g.size or not d.size:
            continue
        iou = pixel_overlaps(detections.box[d], truth.box[g], inclusive)
        at = np.argmax(iou, axis=1)
        overlap[d], best[d] = iou[np.arange(d.size), at], g[at]
    return overlap, best


def pixel_overlaps(detections: Floats, truths: Floats, inclusive: bool) -> Floats:
    """IoU [D, G] of boxes (x, y, width, height); -inf if they do not overlap."""
    one = 1.0 if inclusive else 0.0
    d, g = detections[:, None, :], truths[None, :, :]
    with np.errstate(all="ignore"):
        w = np.minimum(d[..., 0] + d[..., 2], g[..., 0] + g[..., 2]) - np.maximum(d[..., 0], g[..., 0]) + one
        h = np.minimum(d[..., 1] + d[..., 3], g[..., 1] + g[..., 3]) - np.maximum(d[..., 1], g[..., 1]) + one
        union = (d[..., 2] + one) * (d[..., 3] + one) + (g[..., 2] + one) * (g[..., 3] + one) - w * h
        iou = np.where((w > 0) & (h > 0), w * h / union, -np.inf)
    return np.where(np.isnan(iou), -np.inf, iou)


def _one_class(
    k: int, truth: GroundTruth, detections: Detections, counts: Bools, took: Any, settings: VocSettings
) -> VocClass:
    positives = int((counts & (truth.category == k) & (truth.image >= 0)).sum())
    rows = np.flatnonzero(detections.category == k)
    rows = rows[np.argsort(-detections.score[rows], kind="stable")]
    rows = rows[(took[rows] < 0) | counts[took[rows]]] if len(truth) else rows
    hit = took[rows] >= 0
    first = np.zeros(rows.size, np.bool_)  # the highest score of those that match one object
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
