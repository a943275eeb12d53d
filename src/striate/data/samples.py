"""What a data set is: images with labels, in splits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from striate.transforms.decode import Pixels

UNSPLIT = "all"  # the one split of data that comes undivided


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
