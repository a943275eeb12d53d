"""Masks as run lengths: from polygons and COCO's two forms, checked before pycocotools' C code reads them.

A mask in COCO's files is {"size": [height, width], "counts": ...}: the lengths of runs of pixels outside and
inside it, in turn, column by column. They are a list, or text in which each length (from the fourth on: its
difference from the length two before) is written in groups of five bits from the lowest on; a character is 48
plus the group, plus 32 if more follow (`rleToString` of pycocotools' maskApi.c).
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from striate.errors import DataError
from striate.metrics.detection.overlaps import mask_module

_MOST_SIDE = 1 << 15  # pixels of a mask's image
_MOST_OUTLINE = 1 << 22  # pixels along a polygon, of which pycocotools stores five points each
_MOST_GROUPS = 7  # of five bits; a length has at most 31 bits and a sign


def to_rle(segmentation: Any, height: int, width: int, name: str) -> Any:
    """Run lengths of a mask, from polygons, uncompressed run lengths, or compressed ones.

    Args:
        segmentation: as in COCO's files.
        height: of its image; polygons and uncompressed run lengths need it.
        width: of its image.
        name: of the annotation, for messages.

    Raises:
        DataError: sizes, coordinates or run lengths that pycocotools, which does not check them, cannot use.
    """
    mask = mask_module()
    if isinstance(segmentation, list):
        _check_polygons(segmentation, height, width, name)
        return mask.merge(mask.frPyObjects(segmentation, height, width))
    check_run_lengths(segmentation, name)
    is_list = isinstance(segmentation["counts"], list)
    return mask.frPyObjects(segmentation, height, width) if is_list else segmentation


def check_run_lengths(segmentation: Any, name: str) -> None:
    """Refuse a size that no image has, and run lengths that do not fill it.

    Args:
        segmentation: run lengths, compressed or not.
        name: of the annotation, for messages.

    Raises:
        DataError: they cannot be used.
    """
    if not isinstance(segmentation, dict) or "counts" not in segmentation:
        raise _bad(name, "it is neither a list of polygons nor run lengths")
    counts: Any = segmentation["counts"]
    size: Any = segmentation.get("size")
    is_size = isinstance(size, (list, tuple)) and len(size) == 2 and all(map(_is_whole, size))
    if not (is_size and all(0 <= side <= _MOST_SIDE for side in size)):
        raise _bad(name, f"its size {str(size)[:60]} is not two sides up to {_MOST_SIDE:,}")
    if isinstance(counts, (str, bytes)):
        runs = _decompressed(counts if isinstance(counts, bytes) else counts.encode("utf-8", "replace"))
        if runs is None:
            raise _bad(name, "its text is not compressed run lengths")
        total, least = int(runs.sum(dtype=np.float64)), int(runs.min(initial=0))  # no overflow
    elif isinstance(counts, list) and all(map(_is_whole, counts)):
        total, least = sum(counts), min(counts, default=0)
    else:
        raise _bad(name, "its run lengths are neither text nor a list of whole numbers")
    if least < 0:
        raise _bad(name, f"a run of {least:,} pixels")
    if total != math.prod(size):
        pixels = f"{size[0]} x {size[1]} pixels"
        raise _bad(name, f"its run lengths add up to {total:,} and not to its {pixels}")


def _is_whole(value: Any) -> bool:
    return type(value) is int or isinstance(value, np.integer)


def _decompressed(text: bytes) -> NDArray[np.int64] | None:
    """The run lengths that a text stands for; None if it is no such text."""
    groups = np.frombuffer(text, np.uint8).astype(np.int64) - 48
    if not groups.size:
        return groups
    ends = np.flatnonzero(groups < 32)
    if groups.min() < 0 or groups.max() > 63 or not ends.size or ends[-1] != groups.size - 1:
        return None
    starts = np.concatenate([[0], ends[:-1] + 1])
    lengths = ends - starts + 1
    if lengths.max() > _MOST_GROUPS:
        return None
    bits = 5 * (np.arange(groups.size) - np.repeat(starts, lengths))
    runs = np.add.reduceat((groups & 31) << bits, starts)
    runs -= (groups[ends] >> 4 & 1) << 5 * lengths  # the highest bit is the sign
    runs[1::2] = runs[1::2].cumsum()
    runs[2::2] = runs[2::2].cumsum()
    return runs


def _check_polygons(polygons: list[Any], height: int, width: int, name: str) -> None:
    """Refuse polygons that would take more memory than any mask, or that are none; raises DataError."""
    if not (0 <= height <= _MOST_SIDE and 0 <= width <= _MOST_SIDE):
        raise _bad(name, f"its image has {width} x {height} pixels, and the limit is {_MOST_SIDE:,}")
    for polygon in polygons:
        try:
            points = np.asarray(polygon, np.float64)
        except (TypeError, ValueError, OverflowError) as error:
            raise _bad(name, "the coordinates of its polygon are not all numbers") from error
        most = 4 * _MOST_SIDE
        if points.ndim != 1 or not (far := np.abs(points).max(initial=0)) <= most:
            raise _bad(name, f"its polygon is not a list of coordinates up to {most:,}")
        if far * points.size > _MOST_OUTLINE and _outline(points) > _MOST_OUTLINE:
            raise _bad(name, f"the outline of its polygon is longer than {_MOST_OUTLINE:,} pixels")


def _outline(points: NDArray[np.float64]) -> float:
    """Length of a polygon's outline, of each edge along the longer axis; `points` is x, y, x, y, ..."""
    corners = points[: points.size // 2 * 2].reshape(-1, 2)
    return float(np.abs(corners - np.roll(corners, 1, axis=0)).max(axis=1).sum())


def _bad(name: str, why: str) -> DataError:
    return DataError(f"the mask of {name}", why, "Correct or remove it")
