"""Overlaps of masks (with pycocotools' mask code) and of key points.

The formula for key points (OKS) is from the COCO keypoint evaluation, in the reference evaluator's order of
operations: exp(-d^2 / (2 area (2 sigma)^2)), averaged over the labeled key points.
"""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np

from striate.errors import DataError, UsageError
from striate.metrics.detection.reference import Floats


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
            else:  # no labeled key point: use the distance to a box three times as large
                zero = np.zeros(len(sigmas))
                dx = np.maximum(zero, x0 - d[0::3]) + np.maximum(zero, d[0::3] - x1)
                dy = np.maximum(zero, y0 - d[1::3]) + np.maximum(zero, d[1::3] - y1)
            e = (dx**2 + dy**2) / variances / (truth["area"] + np.spacing(1)) / 2
            e = e[seen] if seen.any() else e
            out[i, j] = np.sum(np.exp(-e)) / e.shape[0]
    return out
