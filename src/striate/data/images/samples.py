"""What a data set is: images with labels, in splits."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from striate.transforms.decode import Uint8Array

UNSPLIT = "all"  # the one split of data that comes undivided


class Stamp(NamedTuple):
    """What a file was when it was looked at.

    Attributes:
        path: absolute.
        size: in bytes.
        modified_ns: when its content changed, as programs may set it.
        changed_ns: when anything of it changed, which no program can set: it tells a file from another one
            of the same size and modification time that took its place.
    """

    path: str
    size: int
    modified_ns: int
    changed_ns: int


class Store(Protocol):
    """Where images are that are neither files of their own nor one array: an archive, a torch `Dataset`."""

    def fetch(self, key: int) -> bytes | Uint8Array:
        """The bytes of an image file, or pixels; by several threads at once. Raises DecodeError."""

    def stamp(self, key: int) -> Stamp | None:
        """All that changes when the image does; None where that cannot be known without reading it."""


def is_text(name: str) -> bool:
    """Whether a name is text: file names may be any bytes, class names go into JSON and figures."""
    return not any("\ud800" <= c <= "\udfff" for c in name)


@dataclass(frozen=True)
class Samples:
    """Images with labels.

    Attributes:
        names: `[n]`, the path of each image file, or a name such as `digits/17` for an image in memory; a
            member of an archive has the archive's path before its own.
        labels: int64 `[n]`, indices into the data set's classes.
        pixels: uint8 `[n, height, width]` (grayscale) or `[n, height, width, 3]` where the images are in
            memory; None where they are not.
        store: where the images are otherwise; None where `names` are files.
        keys: int64 `[n]`, what the store knows them by.
    """

    names: tuple[str, ...] = field(repr=False)
    labels: npt.NDArray[np.int64] = field(repr=False)
    pixels: Uint8Array | None = field(default=None, repr=False)
    store: Store | None = field(default=None, repr=False)
    keys: npt.NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64), repr=False)

    def __len__(self) -> int:
        return len(self.names)

    @property
    def in_files(self) -> bool:
        """Whether each image is a file of its own, at the path that is its name."""
        return self.pixels is None and self.store is None

    def fetch(self, i: int) -> str | bytes | Uint8Array:
        """What to decode for one image: the path or the bytes of its file, or its pixels.

        Raises:
            DecodeError: it cannot be taken from where it is.
        """
        if self.store is not None:
            return self.store.fetch(int(self.keys[i]))
        return self.names[i] if self.pixels is None else self.pixels[i]

    def stamp(self, i: int) -> Stamp | None:
        """All that changes when an image does; None where there is no file, or nothing tells."""
        if self.store is not None:
            return self.store.stamp(int(self.keys[i]))
        if self.pixels is not None:
            return None
        path = os.path.abspath(self.names[i])  # noqa: PTH100 - Path.absolute keeps `..`
        try:
            stat = os.stat(path)  # noqa: PTH116 - half the time, and there may be a million
        except OSError:
            return None
        return Stamp(path, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)

    def take(self, which: npt.NDArray[np.int64]) -> Samples:
        """The samples at these positions, in this order."""
        return Samples(
            tuple(self.names[i] for i in which),
            self.labels[which],
            None if self.pixels is None else self.pixels[which],
            self.store,
            self.keys if self.store is None else self.keys[which],
        )


@dataclass(frozen=True)
class DataSet:
    """All splits of one data set.

    Attributes:
        source: what the user gave: a path, or `digits`; of an object in memory, a name.
        root: the folder that the names begin with, empty for images in memory, whose names are no paths.
        classes: their names, sorted; labels are indices into this.
        splits: `train`, `val`, `test`, or the one split `all`.
        notes: what was passed over, a line each.
    """

    source: str
    root: str
    classes: tuple[str, ...]
    splits: Mapping[str, Samples]
    notes: tuple[str, ...] = field(default=())

    def with_classes(self, classes: tuple[str, ...]) -> tuple[DataSet, dict[str, int]]:
        """The data set with labels as indices into other class names; classes go by name, not by position.

        Args:
            classes: the names to count by.

        Returns:
            The data set without the images of classes that are not among them, and how many those are,
            by name.
        """
        index = np.array([classes.index(name) if name in classes else -1 for name in self.classes])
        splits, left_out = {}, dict.fromkeys((name for name in self.classes if name not in classes), 0)
        for name, samples in self.splits.items():
            labels = index[samples.labels]
            for old in samples.labels[labels < 0]:
                left_out[self.classes[old]] += 1
            kept = samples.take(np.flatnonzero(labels >= 0))
            splits[name] = replace(kept, labels=labels[labels >= 0].astype(np.int64))
        return replace(self, classes=classes, splits=splits), left_out
