"""What batches are read from: images of one size, by index; and the plainest kind, an array in memory."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from striate.transforms.decode import Uint8Array

Indices = npt.NDArray[np.int64]


class Images(Protocol):
    """Images of one size with labels, which can be read by index and by several threads at once.

    Attributes:
        shape: height, width and channels of each image.
        labels: int64 `[n]`.
        in_memory: whether reading is no more than a copy.
    """

    @property
    def shape(self) -> tuple[int, int, int]:
        """Height, width, channels."""

    @property
    def labels(self) -> Indices:
        """int64 `[n]`."""

    @property
    def in_memory(self) -> bool:
        """Whether reading is no more than a copy."""

    def reading(self) -> contextlib.AbstractContextManager[None]:
        """Around one pass over the images."""

    def __len__(self) -> int:
        """How many images there are, those that cannot be read among them."""

    def read(self, which: Indices, out: Uint8Array) -> npt.NDArray[np.bool_]:
        """Write the images at `which` into `out` `[len(which), *shape]`; answers which could be read."""


@dataclass(frozen=True)
class Problem:
    """An image that could not be used, and why, in one line."""

    path: str
    reason: str


@dataclass(frozen=True)
class InMemoryImages:
    """The readable images of a split.

    Attributes:
        images: uint8 `[n, height, width, channels]`, all of one size.
        labels: int64 `[n]`.
        names: `[n]`, the path of each.
        problems: the images that are not among them.
    """

    images: Uint8Array
    labels: npt.NDArray[np.int64]
    names: tuple[str, ...]
    problems: tuple[Problem, ...]

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Height, width and channels of each image."""
        _, height, width, channels = self.images.shape
        return height, width, channels

    @property
    def in_memory(self) -> bool:
        """Reading is no more than a copy."""
        return True

    def read(self, which: npt.NDArray[np.int64], out: Uint8Array) -> npt.NDArray[np.bool_]:
        """Write the images at `which` into `out`; all of them can be read."""
        np.take(self.images, which, axis=0, out=out, mode="clip")  # "raise" would copy once more
        return np.ones(len(which), np.bool_)

    def reading(self) -> contextlib.AbstractContextManager[None]:
        """Around one pass; there is nothing to open."""
        return contextlib.nullcontext()
