"""How much detections and ground truth overlap: IoU of boxes or masks, or similarity of key points (OKS)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal, get_args

import numpy as np

from striate.errors import DataError, UsageError
from striate.metrics.detection.overlaps import keypoint_overlaps, mask_overlaps
from striate.metrics.detection.records import Detections, GroundTruth
from striate.metrics.detection.reference import Bools, Floats, Rows, box_overlaps, groups

IouType = Literal["bbox", "segm", "keypoints"]
IOU_TYPES: tuple[str, ...] = get_args(IouType)
OVERLAP_NAMES = {"bbox": "IoU", "segm": "mask IoU", "keypoints": "OKS"}

# Overlaps [D, G] of rows of the detections and rows of the ground truth; those that are crowds, [G].
Overlap = Callable[[Rows, Rows, Bools], Floats]


def check_iou_type(iou_type: str) -> None:
    """Raise UsageError for an unknown type."""
    if iou_type not in IOU_TYPES:
        raise UsageError(f"IoU type {iou_type!r}", f"it is {', '.join(IOU_TYPES)}")


def overlap_of(truth: GroundTruth, detections: Detections, iou_type: str, sigmas: Sequence[float]) -> Overlap:
    """The function that measures overlaps: IoU of boxes or masks, or similarity of key points (OKS).

    Raises:
        DataError: the ground truth or the detections have no masks or key points.
    """
    if iou_type == "bbox":
        return lambda d, g, crowd: box_overlaps(detections.box[d], truth.box[g], crowd)
    if iou_type == "segm":
        masks, true_masks = (
            _required(detections.masks, detections, "masks"),
            _required(truth.masks, truth, "masks"),
        )
        return lambda d, g, crowd: mask_overlaps(
            masks[d].tolist(), true_masks[g].tolist(), crowd.astype(int).tolist()
        )
    points = _required(detections.keypoints, detections, "key points")
    true_points = _required(truth.keypoints, truth, "key points")

    def similarity(d: Rows, g: Rows, crowd: Bools) -> Floats:
        return keypoint_overlaps(
            [{"keypoints": row.ravel()} for row in points[d]],
            [
                {"keypoints": row.ravel(), "bbox": box, "area": area}
                for row, box, area in zip(true_points[g], truth.box[g], truth.area[g], strict=True)
            ],
            np.asarray(sigmas, np.float64),
        )

    return similarity


def _required(values: Any, side: GroundTruth | Detections, what: str) -> Any:
    if values is None:
        who = "ground truth" if isinstance(side, GroundTruth) else "detections"
        raise DataError(
            side.source or f"the {who}", f"there are no {what} in the {who}", f"Give {what}, or compare boxes"
        )
    return values


def group_overlaps(truths: Any, detections: Any, most: int, overlap: Overlap) -> Floats:
    """The overlaps that the kernel needs, in its order: of each class and image with both sides.

    Args:
        truths: columns `image`, `category` and `crowd`.
        detections: columns `image`, `category` and `score`.
        most: detections of a class that count in an image.
        overlap: measures the overlaps.
    """
    parts = [np.zeros(0)]
    for _, g, d in groups(truths, detections, most):
        if g.size and d.size:
            parts.append(overlap(d, g, truths.crowd[g]).ravel())
    return np.concatenate(parts)
