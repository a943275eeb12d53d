"""Decode once: all images of a split as one uint8 array, read by threads, with the unreadable ones named."""

from __future__ import annotations

import math
import os
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from striate.data.samples import Samples
from striate.errors import DecodeError
from striate.progress import SILENT, Progress
from striate.transforms.decode import Pixels
from striate.transforms.preprocess import Preprocess

IN_MEMORY = 2 << 30  # bytes; what is larger lies in a file of the user's cache folder, mapped into memory


@dataclass(frozen=True)
class Problem:
    """An image that could not be used, and why, in one line."""

    path: str
    reason: str


@dataclass(frozen=True)
class Loaded:
    """The readable images of a split.

    Attributes:
        images: uint8 `[n, height, width, channels]`, all of one size.
        labels: int64 `[n]`.
        names: `[n]`, the path of each.
        problems: the images that are not among them.
    """

    images: Pixels
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

    def read(self, which: npt.NDArray[np.int64], out: Pixels) -> npt.NDArray[np.bool_]:
        """Write the images at `which` into `out`; all of them can be read."""
        np.take(self.images, which, axis=0, out=out, mode="clip")  # "raise" would copy once more
        return np.ones(len(which), np.bool_)


def load(
    samples: Samples,
    preprocess: Preprocess,
    *,
    canvas: bool = False,
    workers: int = 2,
    progress: Progress = SILENT,
    stage: str = "reading",
) -> Loaded:
    """Decode and resize every image of a split.

    Args:
        samples: what to read.
        preprocess: how.
        canvas: with the margin for random crops, as training wants it, rather than at the final size.
        workers: threads; decoding and resizing release Python's lock.
        progress: is told of each image.
        stage: what to call this work there.

    Returns:
        The readable images in their order, and the others with their reasons.
    """
    place = preprocess.canvas if canvas else preprocess.fit
    size = preprocess.canvas_size if canvas else preprocess.size
    if (
        samples.pixels is not None
        and samples.pixels.shape[1:3] == size
        and _gray(samples) == preprocess.channels
    ):
        images = samples.pixels.reshape(len(samples), *size, preprocess.channels)
        return Loaded(images, samples.labels, samples.names, ())  # nothing to decode, nothing to scale

    images = _room((len(samples), *size, preprocess.channels))

    def read(i: int) -> str | None:
        try:
            raw = samples.pixels[i] if samples.pixels is not None else preprocess.decode(samples.names[i])
        except DecodeError as error:
            return error.why
        images[i] = place(raw)
        return None

    reasons = _in_threads(read, len(samples), workers, progress, stage)
    bad = {i: reason for i, reason in enumerate(reasons) if reason is not None}
    problems = tuple(Problem(samples.names[i], reason) for i, reason in bad.items())
    if not bad:
        return Loaded(images, samples.labels, samples.names, problems)
    good = [i for i in range(len(samples)) if i not in bad]
    for to, i in enumerate(good):  # close the gaps in place: a copy might not fit
        images[to] = images[i]
    names = tuple(samples.names[i] for i in good)
    return Loaded(images[: len(good)], samples.labels[good], names, problems)


def cache_folder() -> Path:
    """Striate's folder in the user's cache (XDG_CACHE_HOME, else ~/.cache)."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "striate"


def _gray(samples: Samples) -> int:
    assert samples.pixels is not None
    return 1 if samples.pixels.ndim == 3 else samples.pixels.shape[3]


def _room(shape: tuple[int, ...]) -> Pixels:
    """An array of that shape, in memory or in a nameless file that is gone when the process ends."""
    if math.prod(shape) <= IN_MEMORY:
        return np.empty(shape, np.uint8)
    cache_folder().mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=cache_folder()) as file:  # the mapping outlives the handle
        return np.memmap(file, np.uint8, "w+", shape=shape)


def _in_threads(
    work: Callable[[int], str | None], count: int, workers: int, progress: Progress, stage: str
) -> list[str | None]:
    progress.begin(stage, count)
    pool = ThreadPoolExecutor(max(1, workers), thread_name_prefix="decode")
    try:
        results = []
        for result in pool.map(work, range(count)):
            results.append(result)
            progress.advance(1)
        return results
    finally:
        pool.shutdown(cancel_futures=True)  # at once, also after Ctrl-C
        progress.end()
