"""LVIS's average precision, bit for bit as in the package `lvis` 0.5.3.

Source: Gupta et al., "LVIS: A Dataset for Large Vocabulary Instance Segmentation", 2019, section 2.2. Not
every class was looked for in every image: a class counts in an image only if it is annotated there or known
to be absent. Where not all objects of a class are annotated, a detection without a match counts neither way.
At most 300 detections count in an image, over all classes. There are no crowds.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from striate.errors import DataError, UsageError
from striate.metrics.detection.coco import CocoResult, CocoSettings, Mode, cut_notes, evaluate_coco
from striate.metrics.detection.records import (
    Detections,
    Federated,
    Floats,
    GroundTruth,
    take_rows,
    without_repeated_ids,
)
from striate.metrics.detection.summary import SIZES, Row, mean_or_none, stat_lines, stat_names

LIMIT = 300  # detections of an image
FREQUENCIES = ("r", "c", "f")


@dataclass(frozen=True, eq=False)
class LvisResult(CocoResult):
    """LVIS's metrics: COCO's arrays at one limit, and AP of rare, common and frequent classes.

    Args:
        frequency: K letters "r", "c" and "f"; empty if unknown.
    """

    frequency: tuple[str, ...] = ()

    @cached_property
    def rows(self) -> list[Row]:
        """Definitions of the numbers besides those of rare, common and frequent classes."""
        limit = self.settings.limits[-1]
        return [
            (True, None, "all", limit),
            (True, 0.5, "all", limit),
            (True, 0.75, "all", limit),
            *((True, None, size, limit) for size in SIZES),
            *((False, None, size, limit) for size in ("all", *SIZES)),
        ]

    @property
    def stat_names(self) -> list[str]:
        """AP, AP50, AP75, APs, APm, APl, APr, APc, APf, AR, ARs, ARm, ARl."""
        names = stat_names(self.rows)
        return [*names[:6], *(f"AP{letter}" for letter in FREQUENCIES), *names[6:]]

    @cached_property
    def stats(self) -> Floats:
        """LVIS's thirteen metrics, in the order of `stat_names`; -1 where there is nothing to average."""
        values = self._values(self.rows)
        return np.concatenate([values[:6], [self._of_frequency(f) for f in FREQUENCIES], values[6:]])

    def _of_frequency(self, letter: str) -> float:
        of = [k for k, frequency in enumerate(self.frequency) if frequency == letter]
        mean = mean_or_none(self.curves.precision[:, :, of, 0, -1])
        return -1.0 if mean is None else mean

    def lines(self) -> list[str]:
        """The metrics as COCO's are printed, with a line for rare, common and frequent classes."""
        values = self.stats
        lines = stat_lines(self.rows, np.concatenate([values[:6], values[9:]]), self.settings.thresholds)
        kinds = zip(("rare", "common", "frequent"), values[6:9].tolist(), strict=True)
        groups = [f"{lines[0].rsplit('|', 1)[0]}| classes={kind:>8s} ] = {v:0.3f}" for kind, v in kinds]
        return [*lines[:6], *groups, *lines[6:], *self._other_lines()]


def lvis_settings(**options: Any) -> CocoSettings:
    """COCO's settings, but at most `LIMIT` detections, of all classes, in an image.

    Raises:
        UsageError: several limits, or key points.
    """
    settings = CocoSettings(**{"limits": (LIMIT,)} | options)
    if len(settings.limits) > 1:
        raise UsageError(
            f"{len(settings.limits)} limits with style lvis", "LVIS has one, for an image", "Give one"
        )
    if settings.iou_type == "keypoints":
        raise UsageError("key points with style lvis", "LVIS has boxes and masks", "Use bbox or segm")
    return settings


def evaluate_lvis(
    truth: GroundTruth,
    detections: Detections,
    settings: CocoSettings | None = None,
    *,
    threads: int | None = None,
) -> LvisResult:
    """Evaluate boxes or masks as LVIS does.

    Args:
        truth: ground truth with `federated`.
        detections: detections in the same images.
        settings: of the evaluation, from `lvis_settings`; its last limit is that of an image.
        threads: number of threads; None for all cores, at most 8.

    Raises:
        DataError: the ground truth does not say which classes were looked for.
    """
    settings = settings or lvis_settings()
    truth, detections = federate(truth, detections, settings.limits[-1], settings.mode)
    result = evaluate_coco(truth, detections, settings, threads=threads)
    frequency = truth.federated.frequency if truth.federated else ()
    columns = {f.name: getattr(result, f.name) for f in fields(CocoResult)}
    return LvisResult(**columns, frequency=frequency)


def federate(
    truth: GroundTruth, detections: Detections, limit: int = LIMIT, mode: Mode = "corrected"
) -> tuple[GroundTruth, Detections]:
    """Leave only what counts for LVIS: the rest of the rows can then be evaluated by COCO's rules.

    Args:
        truth: ground truth with `federated`.
        detections: detections in the same images.
        limit: detections that count in an image.
        mode: "strict" also replaces annotations that share an id, as `lvis` does.

    Raises:
        DataError: the ground truth does not say which classes were looked for.
    """
    federated = truth.federated
    if federated is None:
        why = "its images have no neg_category_ids, so it is not LVIS's"
        raise DataError(truth.source or "the ground truth", why, "Use --style coco")
    # As `lvis` selects annotations: those without area are left out, and nothing is a crowd.
    counts = (truth.area > 0) & (truth.area < np.inf)
    read = without_repeated_ids(truth, counts) if mode == "strict" else truth
    if read is truth:
        read = replace(truth, image=np.where(counts, truth.image, -1).astype(np.int32))
    truth = replace(read, crowd=np.zeros(len(read), np.bool_))
    top = _top(detections, limit)
    notes = cut_notes(len(detections) - top.size, len(detections), limit, "image")
    detections = take_rows(detections, top, notes=(*detections.notes, *notes))
    seen, excused = _searched(truth, detections, federated)
    area = detections.area
    if area is None:
        area = detections.box[:, 2] * detections.box[:, 3]
    rows = np.flatnonzero(seen & (area > 0) & (area < np.inf))
    return truth, take_rows(detections, rows, excused=excused[rows])


def _top(detections: Detections, limit: int) -> NDArray[np.intp]:
    """Rows of the `limit` detections with the highest scores in each image, in their order."""
    order = np.lexsort((-detections.score, detections.image))
    image = detections.image[order]
    place = np.arange(order.size) - np.searchsorted(image, image)
    return np.sort(order[place < limit])


def _searched(truth: GroundTruth, detections: Detections, federated: Federated) -> tuple[Any, Any]:
    """Whether the class of each detection was looked for in its image, and annotated there only in part."""
    K = max(truth.category_ids.size, 1)

    def keys(image: Any, category: Any) -> Any:
        known = (image >= 0) & (category >= 0)
        return np.where(known, image.astype(np.int64) * K + category, -1)

    found = keys(detections.image, detections.category)
    present = keys(truth.image, truth.category)
    negative, partly = (keys(*pairs.T) for pairs in (federated.negative, federated.not_exhaustive))
    seen = (found >= 0) & (np.isin(found, present) | np.isin(found, negative))
    return seen, np.isin(found, partly)
