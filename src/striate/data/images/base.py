"""The interface of indexed images, `Images`, and its simplest implementation, an array in memory."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from striate.transforms.decode import Uint8Array

Indices = npt.NDArray[np.int64]


class Images(Protocol):
    """Labeled images of one size with random access by index; safe to read from several threads.

    Attributes:
        shape: height, width and channels of each image.
        labels: int64 `[n]`.
        in_memory: True if reading is only a copy from memory.
    """

    @property
    def shape(self) -> tuple[int, int, int]:
        """Height, width, channels."""

    @property
    def labels(self) -> Indices:
        """int64 `[n]`."""

    @property
    def in_memory(self) -> bool:
        """True if reading is only a copy from memory."""

    def reading(self) -> contextlib.AbstractContextManager[None]:
        """Context of one pass over the images."""

    def __len__(self) -> int:
        """Number of images, including unreadable ones."""

    def read(self, which: Indices, out: Uint8Array) -> npt.NDArray[np.bool_]:
        """Write the images at `which` into `out` `[len(which), *shape]`; return which ones are readable."""


@dataclass(frozen=True)
class Problem:
    """An unreadable image and the reason, in one line."""

    path: str
    reason: str


def first_problems(problems: Sequence[Problem], most: int = 3) -> str:
    """The first few unreadable images with their reasons."""
    if not problems:
        return "none is unreadable"
    shown = "; ".join(f"{p.path} ({p.reason})" for p in problems[:most])
    return f"{shown}; and {len(problems) - most} more" if len(problems) > most else shown


def left_out(problems: Sequence[Problem]) -> str:
    """The note that images cannot be read."""
    if len(problems) == 1:
        return f"1 image cannot be read and is left out: {first_problems(problems)}"
    return f"{len(problems):,} images cannot be read and are left out: {first_problems(problems)}"


@dataclass(frozen=True)
class ImageArray:
    """Images in one array, without a way to read them.

    Attributes:
        images: uint8 `[n, height, width, channels]`.
        labels: int64 `[n]`.
    """

    images: Uint8Array
    labels: Indices

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Height, width and channels of each image."""
        _, height, width, channels = self.images.shape
        return height, width, channels

    def reading(self) -> contextlib.AbstractContextManager[None]:
        """Do nothing: there is nothing to open."""
        return contextlib.nullcontext()


@dataclass(frozen=True)
class InMemoryImages(ImageArray):
    """Images in one array.

    Attributes:
        names: `[n]`, the path of each.
        problems: unreadable images that are not in the array.
    """

    names: tuple[str, ...]
    problems: tuple[Problem, ...]
    in_memory = True

    def read(self, which: Indices, out: Uint8Array) -> npt.NDArray[np.bool_]:
        """Write the images at `which` into `out`; all are readable."""
        np.take(self.images, which, axis=0, out=out, mode="clip")  # mode "raise" would make a second copy
        return np.ones(len(which), np.bool_)
