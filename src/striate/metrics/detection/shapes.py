"""Masks and key points as columns."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from striate.errors import LayoutError
from striate.metrics.detection.overlaps import mask_module
from striate.metrics.detection.reference import Floats
from striate.metrics.detection.run_lengths import check_run_lengths

Masks = NDArray[Any]  # [N] objects: pycocotools' run lengths, {"size": [height, width], "counts": bytes}

CHUNK = 50  # masks


def as_masks(values: Any) -> Masks:
    """A column of masks.

    Args:
        values: [N, height, width], an array or a tensor; or N arrays [height, width], or N run lengths.

    Raises:
        LayoutError: something else.
        DataError: run lengths that do not fill their size.
    """
    if hasattr(values, "detach"):
        values = values.detach().cpu().numpy()
    return objects([_mask(value, index) for index, value in enumerate(values)])


def objects(values: Sequence[Any]) -> NDArray[Any]:
    """A column of any objects."""
    column = np.empty(len(values), object)
    column[:] = values
    return column


def _mask(value: Any, index: int) -> Any:
    if isinstance(value, dict):
        if not isinstance(value.get("counts"), (bytes, str)) or len(value.get("size", ())) != 2:
            raise LayoutError("a mask", "it is not run lengths with size and compressed counts")
        check_run_lengths(value, f"row {index}")
        return value
    if hasattr(value, "detach"):
        value = value.detach().cpu().numpy()
    pixels = np.asarray(value)
    if pixels.ndim != 2 or pixels.dtype.kind not in "buif":
        raise LayoutError(f"a mask of shape {pixels.shape}", "it should be [height, width], or run lengths")
    return mask_module().encode(np.asfortranarray(pixels != 0, np.uint8))


def mask_boxes(masks: Masks) -> Floats:
    """The boxes around the masks, [N, 4]: x, y, width, height."""
    return _in_chunks(mask_module().toBbox, masks).reshape(-1, 4)


def mask_areas(masks: Masks) -> Floats:
    """Number of pixels of each mask, [N]."""
    return _in_chunks(mask_module().area, masks)


def _in_chunks(function: Callable[[list[Any]], Any], masks: Masks) -> Floats:
    """Apply a function of pycocotools 2.0.11, which with NumPy 2 fails on more than 255 numbers."""
    chunks = (masks[start : start + CHUNK].tolist() for start in range(0, masks.size, CHUNK))
    parts = [np.asarray(function(chunk), np.float64).ravel() for chunk in chunks]
    return np.concatenate([np.zeros(0), *parts])


def as_keypoints(values: ArrayLike) -> Floats:
    """A column of key points, [N, P, 3]: x, y, visibility (0: not labeled).

    Args:
        values: [N, P, 3], or [N, 3 P] as in COCO's files.

    Raises:
        LayoutError: another shape.
    """
    try:
        points = np.array(values, np.float64)
    except ValueError:
        raise LayoutError("key points", "the rows have different numbers of them") from None
    if points.size == 0:
        points = points.reshape(len(points), 0, 3)
    if points.ndim == 2 and points.shape[1] % 3 == 0:
        points = points.reshape(len(points), -1, 3)
    if points.ndim != 3 or points.shape[2] != 3:
        raise LayoutError(f"key points of shape {points.shape}", "they should be [N, points, 3]")
    return points


def keypoint_boxes(points: Floats) -> Floats:
    """The boxes around all key points, [N, 4]: x, y, width, height."""
    if not points.size:
        return np.zeros((len(points), 4))
    low, high = points[:, :, :2].min(axis=1), points[:, :, :2].max(axis=1)
    return np.concatenate([low, high - low], axis=1)
