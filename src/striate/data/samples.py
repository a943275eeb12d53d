"""What a data set is: images with labels, in splits."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from striate.transforms.decode import Pixels

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


def is_text(name: str) -> bool:
    """Whether a name is text: file names may be any bytes, class names go into JSON and figures."""
    return not any("\ud800" <= c <= "\udfff" for c in name)


@dataclass(frozen=True)
class Samples:
    """Images with labels.

    Attributes:
        names: `[n]`, the path of each image file, or a name such as `digits/17` for an image in memory.
        labels: int64 `[n]`, indices into the data set's classes.
        pixels: uint8 `[n, height, width]` (grayscale) or `[n, height, width, 3]` where the images are in
            memory; None where `names` are files.
    """

    names: tuple[str, ...] = field(repr=False)
    labels: npt.NDArray[np.int64] = field(repr=False)
    pixels: Pixels | None = field(default=None, repr=False)

    def __len__(self) -> int:
        return len(self.names)

    def fetch(self, i: int) -> str | bytes | Pixels:
        """What to decode for one image: the path of its file, or its pixels."""
        return self.names[i] if self.pixels is None else self.pixels[i]

    def stamp(self, i: int) -> Stamp | None:
        """All that changes when the file of an image does; None where there is no file."""
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
        )


@dataclass(frozen=True)
class DataSet:
    """All splits of one data set.

    Attributes:
        source: what the user gave: a path, or `digits`.
        root: the folder that the names begin with, empty for images in memory.
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
