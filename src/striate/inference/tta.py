"""Test-time augmentation: the mean scores of several versions of an image. This module does not load torch.

The scores are averaged before the softmax, so that the temperature of a calibration still applies: that is
the geometric mean of the probabilities.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import reduce
from operator import add
from typing import Any, TypeVar, cast

import numpy as np

from striate.errors import UsageError, unknown_name
from striate.transforms.preprocess import Preprocess

KINDS = {
    "flip": "the image and its mirror image",
    "crops": "ten crops of the resized image, its corners and center and their mirror images (Krizhevsky et "
    "al. 2012, section 4.1)",
}  # fmt: skip

A = TypeVar("A")  # arrays or tensors
S = TypeVar("S")


def require(kind: str | None, preprocess: Preprocess) -> tuple[str, ...]:
    """Refuse a kind that there is not, or that the preprocessing leaves no room for; raises UsageError.

    Returns:
        A note that says what is averaged; none without test-time augmentation.
    """
    if kind is not None and kind not in KINDS:
        raise unknown_name("value for --tta", kind, KINDS)
    if kind == "crops" and preprocess.uncropped_size == preprocess.size:
        height, width = preprocess.size
        why = f"the images are resized to {width}x{height}, which leaves no margin to crop"
        raise UsageError("--tta crops", why, "Use --tta flip")
    return () if kind is None else (f"test-time augmentation: the mean scores of {KINDS[kind]}",)


def is_cropped(kind: str | None) -> bool:
    """Whether images are read at the network's size; otherwise as `Preprocess.uncropped_size`."""
    return kind != "crops"


def mean_scores(
    run: Callable[[A], S], images: A, kind: str | None, size: tuple[int, int], first_axis: int
) -> S:
    """The mean of the scores of all versions of a batch.

    Args:
        run: from images of the network's size to scores.
        images: of a batch, NumPy array or tensor.
        kind: a key of `KINDS`; None for the images alone.
        size: height and width of the network's input.
        first_axis: of `images`, the rows; the columns follow.
    """
    if kind is None:
        return run(images)
    scores = [run(version) for version in _versions(images, kind, size, first_axis)]
    total: Any = reduce(add, scores)
    mean: S = total / len(scores)
    return mean


def _versions(images: A, kind: str, size: tuple[int, int], axis: int) -> Iterator[A]:
    crops = [images] if kind == "flip" else list(_crops(images, size, axis))
    for crop in crops:
        yield crop
        yield _mirrored(crop, axis + 1)


def _crops(images: A, size: tuple[int, int], axis: int) -> Iterator[A]:
    """The four corners and the center, which is that of `Preprocess.fit`."""
    full: tuple[int, ...] = images.shape[axis : axis + 2]  # type: ignore[attr-defined]
    bottom, right = full[0] - size[0], full[1] - size[1]
    for top, left in ((0, 0), (0, right), (bottom, 0), (bottom, right), (bottom // 2, right // 2)):
        rows, columns = slice(top, top + size[0]), slice(left, left + size[1])
        yield images[(slice(None),) * axis + (rows, columns)]  # type: ignore[index]


def _mirrored(images: A, axis: int) -> A:
    batch: Any = images
    if not isinstance(batch, np.ndarray):
        return cast("A", batch.flip(axis))
    return cast("A", np.ascontiguousarray(np.flip(batch, axis)))
