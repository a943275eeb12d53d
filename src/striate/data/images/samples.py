"""The records of a dataset: samples, splits, and where the images are stored."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from striate.transforms.decode import Uint8Array

SPLIT_NAMES = {
    "train": "train", "training": "train",
    "val": "val", "valid": "val", "validation": "val",
    "test": "test", "testing": "test",
}  # fmt: skip
SEPARATOR = ";"  # between the classes of an image that has several
UNSPLIT = "all"  # name of the only split of a dataset without train, val and test


class Stamp(NamedTuple):
    """State of a file, to detect changes.

    Attributes:
        path: absolute.
        size: in bytes.
        modified_ns: modification time (mtime), which programs can set.
        changed_ns: change time (ctime), which programs cannot set: it differs if another file of the same
            size and modification time replaces this one.
        inode: number of the file, which a copy does not keep; 0 if unknown.
    """

    path: str
    size: int
    modified_ns: int
    changed_ns: int
    inode: int = 0


class Store(Protocol):
    """A store of images that are neither separate files nor one array: an archive or a torch `Dataset`."""

    def fetch(self, key: int) -> str | bytes | Uint8Array:
        """Return the path or the bytes of an image file, or pixels. Thread-safe. Raises DecodeError."""

    def stamp(self, key: int) -> Stamp | None:
        """Return what changes when the image changes; None if that is unknown without reading it."""


@dataclass(frozen=True)
class Samples:
    """Images with labels.

    Attributes:
        names: `[n]`, the path of each image file, or a name such as `digits/17` for an image in memory.
            Members of an archive start with the path of the archive.
        labels: int64 `[n]`, indices into the classes of the dataset; or, if images have several classes, bool
            `[n, classes]`.
        pixels: uint8 `[n, height, width]` (grayscale) or `[n, height, width, channels]` if the images are in
            memory, else None.
        store: the archive or `Dataset` that holds the images; None if they are files or in memory.
        keys: int64 `[n]`, the keys of the images in `store`.
        groups: `[n]`, the group of each image: those of one group must stay together. None if any image may
            be separated from any other.
    """

    names: tuple[str, ...] = field(repr=False)
    labels: npt.NDArray[Any] = field(repr=False)
    pixels: Uint8Array | None = field(default=None, repr=False)
    store: Store | None = field(default=None, repr=False)
    keys: npt.NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64), repr=False)
    groups: tuple[str, ...] | None = field(default=None, repr=False)

    def __len__(self) -> int:
        return len(self.names)

    @property
    def in_files(self) -> bool:
        """True if every image is a separate file and `names` are the paths."""
        return self.pixels is None and self.store is None

    def fetch(self, i: int) -> str | bytes | Uint8Array:
        """Return what to decode for image `i`: a path, the bytes of a file, or pixels.

        Raises:
            DecodeError: the store cannot read it.
        """
        if self.store is not None:
            return self.store.fetch(int(self.keys[i]))
        return self.names[i] if self.pixels is None else self.pixels[i]

    def stamp(self, i: int) -> Stamp | None:
        """Return what changes when image `i` changes; None if changes cannot be detected."""
        if self.store is not None:
            return self.store.stamp(int(self.keys[i]))
        if self.pixels is not None:
            return None
        path = os.path.abspath(self.names[i])  # noqa: PTH100 - Path.absolute keeps `..`
        try:
            stat = os.stat(path)  # noqa: PTH116 - half the time, and there may be a million
        except OSError:
            return None
        return Stamp(path, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino)

    def take(self, which: npt.NDArray[np.int64]) -> Samples:
        """Return the samples at these positions, in this order."""
        names = tuple(self.names[i] for i in which)
        pixels = None if self.pixels is None else self.pixels[which]
        keys = self.keys if self.store is None else self.keys[which]
        groups = None if self.groups is None else tuple(self.groups[i] for i in which)
        return Samples(names, self.labels[which], pixels, self.store, keys, groups)

    def joined(self, others: Sequence[Samples]) -> Samples:
        """Return these samples and all others, in this order."""
        parts = (self, *others)
        names = tuple(name for part in parts for name in part.names)
        labels = np.concatenate([part.labels for part in parts])
        grouped = all(part.groups is not None for part in parts)
        groups = tuple(group for part in parts for group in part.groups or ()) if grouped else None
        if all(part.in_files for part in parts):
            return Samples(names, labels, groups=groups)
        return Samples(names, labels, store=_Joined(parts), keys=np.arange(len(names)), groups=groups)


class _Joined:
    """Several samples, stored in different ways, as one store; keys count through all of them."""

    def __init__(self, parts: Sequence[Samples]) -> None:
        self._places = [(part, i) for part in parts for i in range(len(part))]

    def fetch(self, key: int) -> str | bytes | Uint8Array:
        """Return what to decode; raises DecodeError."""
        part, i = self._places[key]
        return part.fetch(i)

    def stamp(self, key: int) -> Stamp | None:
        """Return what changes when the image changes."""
        part, i = self._places[key]
        return part.stamp(i)


@dataclass(frozen=True)
class DataSet:
    """A dataset with its splits.

    Attributes:
        source: path or name as the user gave it; for Python objects, a descriptive name.
        root: folder that contains the images; empty for images in memory.
        classes: sorted class names; labels are indices into this.
        splits: `train`, `val`, `test`; or only `all`.
        notes: what was skipped, one line each.
        empty_folders: class folders without images, which are no classes, such as `rose` or `val/rose`.
    """

    source: str
    root: str
    classes: tuple[str, ...]
    splits: Mapping[str, Samples]
    notes: tuple[str, ...] = field(default=())
    empty_folders: tuple[str, ...] = ()

    @property
    def is_multi_label(self) -> bool:
        """Whether images have any number of classes instead of one."""
        return any(samples.labels.ndim == 2 for samples in self.splits.values())

    @property
    def is_grouped(self) -> bool:
        """Whether some images must stay together."""
        return any(samples.groups is not None for samples in self.splits.values())

    @classmethod
    def from_pairs(
        cls, source: str, root: str, pairs: Mapping[str, Sequence[tuple[str, str]]], notes: Iterable[str] = ()
    ) -> DataSet:
        """Build a dataset of files from lists of (path, class name), by split."""
        classes = tuple(sorted({label for rows in pairs.values() for _, label in rows}))
        index = {name: i for i, name in enumerate(classes)}
        splits = {}
        for split, rows in pairs.items():
            labels = np.array([index[name] for _, name in rows], np.int64)
            splits[split] = Samples(tuple(path for path, _ in rows), labels)
        return cls(source, root, classes, splits, tuple(notes))

    @classmethod
    def from_folders(
        cls,
        source: str,
        root: str,
        folders: Mapping[str, Sequence[tuple[str, Sequence[str]]]],
        notes: Iterable[str] = (),
    ) -> DataSet:
        """Build a dataset of files from lists of (class name, its paths), by split; each name once."""
        classes = tuple(sorted({name for rows in folders.values() for name, paths in rows if paths}))
        index, splits = {name: i for i, name in enumerate(classes)}, {}
        for split, rows in folders.items():
            filled = [(index[name], paths) for name, paths in rows if paths]
            labels = np.repeat([label for label, _ in filled], [len(paths) for _, paths in filled])
            names = tuple(itertools.chain.from_iterable(paths for _, paths in filled))
            splits[split] = Samples(names, labels.astype(np.int64))
        empty = tuple(
            name if split == UNSPLIT else f"{split}/{name}"
            for split, rows in folders.items()
            for name, paths in rows
            if not paths
        )
        return cls(source, root, classes, splits, tuple(notes), empty)

    def label_texts(self, samples: Samples) -> list[str]:
        """Return the class name of each image; several in one text, separated by `;`."""
        if samples.labels.ndim == 1:
            return [self.classes[label] for label in samples.labels.tolist()]
        return [SEPARATOR.join(self.classes[i] for i in np.flatnonzero(row)) for row in samples.labels]

    def class_counts(self, samples: Samples) -> npt.NDArray[np.int64]:
        """Return the number of images of each class, int64 `[classes]`."""
        if samples.labels.ndim == 2:
            return np.asarray(samples.labels.sum(axis=0), np.int64)
        return np.bincount(samples.labels, minlength=len(self.classes)).astype(np.int64)

    def absolute_name(self, name: str) -> str:
        """Return the name of an image without reference to the working folder; unchanged if it is no path."""
        if not self.root or (os.path.isabs(name) and os.path.normpath(name) == name):  # noqa: PTH117 - faster
            return name
        return str(Path(name).absolute())

    def relative_name(self, name: str) -> str:
        """Return the path of an image below the root, with slashes; unchanged if it is no path."""
        return _below(name, self.root).replace(os.sep, "/") if self.root else name

    def with_classes(self, classes: tuple[str, ...]) -> tuple[DataSet, dict[str, int]]:
        """Map the labels to another list of class names. Classes are matched by name, not by position.

        Returns:
            The dataset without images of classes that are not in `classes`, and the number of images dropped
            per class name. Images with several classes lose only these labels.
        """
        if self.is_multi_label:
            return self._with_label_sets(classes)
        index = np.array([classes.index(name) if name in classes else -1 for name in self.classes])
        splits, left_out = {}, dict.fromkeys((name for name in self.classes if name not in classes), 0)
        for name, samples in self.splits.items():
            labels = index[samples.labels]
            for old in samples.labels[labels < 0]:
                left_out[self.classes[old]] += 1
            kept = samples.take(np.flatnonzero(labels >= 0))
            splits[name] = replace(kept, labels=labels[labels >= 0].astype(np.int64))
        return replace(self, classes=classes, splits=splits), left_out

    def _with_label_sets(self, classes: tuple[str, ...]) -> tuple[DataSet, dict[str, int]]:
        """As `with_classes`, for images with several classes."""
        index = {name: i for i, name in enumerate(self.classes)}
        splits, left_out = {}, dict.fromkeys((name for name in self.classes if name not in classes), 0)
        for name, samples in self.splits.items():
            labels = np.zeros((len(samples), len(classes)), np.bool_)
            for i, wanted in enumerate(classes):
                if wanted in index:
                    labels[:, i] = samples.labels[:, index[wanted]]
            for old in left_out:
                left_out[old] += int(samples.labels[:, index[old]].sum())
            splits[name] = replace(samples, labels=labels)
        return replace(self, classes=classes, splits=splits), left_out


def _below(name: str, root: str) -> str:
    """Return `os.path.relpath(name, root)`, in a tenth of its time for a name that starts with the root."""
    start = f"{root}{os.sep}"
    if name.startswith(start):
        below = name[len(start) :]
        if os.path.normpath(below) == below and not below.startswith((os.pardir, os.sep)):
            return below
    return os.path.relpath(name, root)
