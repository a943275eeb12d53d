"""Overlaps of masks (with pycocotools' mask code) and of key points.

The formula for key points (OKS) is from the COCO keypoint evaluation, in the reference evaluator's order of
operations: exp(-d^2 / (2 area (2 sigma)^2)), averaged over the labelled key points.
"""

from __future__ import annotations

import importlib
import math
from typing import Any

import numpy as np

from striate.errors import DataError, UsageError
from striate.metrics.detection.reference import Floats

_MOST_SIDE = 1 << 15  # pixels of a mask's image


def mask_module() -> Any:
    """Pycocotools' mask code.

    Raises:
        UsageError: it is not installed.
    """
    try:
        return importlib.import_module("pycocotools.mask")
    except ImportError:
        raise missing_mask_module() from None


def missing_mask_module() -> UsageError:
    """The error for masks without pycocotools."""
    return UsageError("masks", "pycocotools is not installed", "Run pip install 'striate[masks]'")


def to_rle(segmentation: Any, height: int, width: int) -> Any:
    """Run lengths of a mask, from polygons, uncompressed run lengths, or compressed ones.

    Raises:
        DataError: sizes, coordinates or run lengths that pycocotools, which does not check them, cannot use.
    """
    mask = mask_module()
    if isinstance(segmentation, list):
        _check_polygons(segmentation, height, width)
        return mask.merge(mask.frPyObjects(segmentation, height, width))
    if not isinstance(segmentation, dict) or "counts" not in segmentation:
        raise DataError("a segmentation", "it is neither a list of polygons nor run lengths")
    counts = segmentation["counts"]
    _check_run_lengths(counts, segmentation.get("size"))
    return mask.frPyObjects(segmentation, height, width) if isinstance(counts, list) else segmentation


def _check_polygons(polygons: list[Any], height: int, width: int) -> None:
    """Refuse polygons that would take more memory than any mask, or that are none; raises DataError."""
    if not (0 <= height <= _MOST_SIDE and 0 <= width <= _MOST_SIDE):
        raise DataError("a mask", f"its image has {width} x {height} pixels, and the limit is {_MOST_SIDE:,}")
    for polygon in polygons:
        try:
            points = np.asarray(polygon, np.float64)
        except (TypeError, ValueError, OverflowError) as error:
            raise DataError("a polygon", "its coordinates are not all numbers") from error
        if points.ndim != 1 or not (np.abs(points) <= 4 * _MOST_SIDE).all():
            raise DataError("a polygon", f"it is not a list of coordinates up to {4 * _MOST_SIDE:,}")


def _check_run_lengths(counts: Any, size: Any) -> None:
    """Refuse a size that no image has, and a list of run lengths that does not fill it; raises DataError."""
    is_size = isinstance(size, (list, tuple)) and len(size) == 2 and all(type(side) is int for side in size)
    if not (is_size and all(0 <= side <= _MOST_SIDE for side in size)):
        raise DataError("a mask", f"its size {str(size)[:60]} is not two sides up to {_MOST_SIDE:,}")
    if isinstance(counts, list):
        if not all(type(count) is int and count >= 0 for count in counts) or sum(counts) != math.prod(size):
            raise DataError("a mask", f"its run lengths do not add up to its {size[0]} x {size[1]} pixels")
    elif not isinstance(counts, (str, bytes)):
        raise DataError("a mask", "its run lengths are neither text nor a list")


def mask_overlaps(detections: list[Any], truths: list[Any], crowd: list[int]) -> Floats:
    """IoU [D, G] of run lengths; for a crowd, the fraction of the detection inside it."""
    return np.asarray(mask_module().iou(detections, truths, crowd), np.float64).reshape(
        len(detections), len(truths)
    )


def keypoint_overlaps(detections: list[Any], truths: list[Any], sigmas: Floats) -> Floats:
    """Similarity of key points, [D, G].

    Args:
        detections: D annotations with `keypoints` (x, y and anything, for each of the K key points).
        truths: G annotations with `keypoints` (x, y, visibility), `bbox` and `area`.
        sigmas: [K], standard deviation of annotators for each key point.
    """
    out = np.zeros((len(detections), len(truths)))
    variances = (sigmas * 2) ** 2
    points = [np.array(d["keypoints"]) for d in detections]
    for j, truth in enumerate(truths):
        g = np.array(truth["keypoints"])
        x, y, seen = g[0::3], g[1::3], g[2::3] > 0
        left, top, width, height = truth["bbox"]
        x0, x1, y0, y1 = left - width, left + width * 2, top - height, top + height * 2
        for i, d in enumerate(points):
            if len(d) != len(g) or len(g) != 3 * len(sigmas):
                raise DataError(
                    f"{len(d) // 3} key points in a detection",
                    f"there are {len(g) // 3} in the ground truth and {len(sigmas)} sigmas",
                    "Set params.kpt_oks_sigmas to one for each key point",
                )
            if seen.any():
                dx, dy = d[0::3] - x, d[1::3] - y
            else:  # no labelled key point: use the distance to a box three times as large
                zero = np.zeros(len(sigmas))
                dx = np.maximum(zero, x0 - d[0::3]) + np.maximum(zero, d[0::3] - x1)
                dy = np.maximum(zero, y0 - d[1::3]) + np.maximum(zero, d[1::3] - y1)
            e = (dx**2 + dy**2) / variances / (truth["area"] + np.spacing(1)) / 2
            e = e[seen] if seen.any() else e
            out[i, j] = np.sum(np.exp(-e)) / e.shape[0]
    return out
