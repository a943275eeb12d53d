"""Images with several classes each: labels that are a row of a boolean matrix instead of one number."""

from __future__ import annotations

import contextlib
import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from striate.data.images.samples import SEPARATOR, DataSet, Samples
from striate.errors import DataError
from striate.files import expanded, is_folder

_FEWEST = 0.05  # of the images of class folders must have several classes

LabelSets = Sequence[tuple[str, tuple[str, ...]]]  # path and class names of each image


def split_label(text: str) -> tuple[str, ...]:
    """The class names of a label such as `cat;dog`; none of an empty one."""
    return tuple(filter(None, (name.strip() for name in text.split(SEPARATOR))))


def are_sets(labels: Iterable[str]) -> bool:
    """Whether labels list several classes: some contain `;`, and a class of those occurs in another label.

    A class may be called `a;b`. It is one name if no part of it ever occurs without the others.
    """
    found = {frozenset(split_label(label)) for label in labels if label}
    several = {name for names in found if len(names) > 1 for name in names}
    occurs = Counter(name for names in found for name in names)
    return any(occurs[name] > 1 for name in several)


def from_sets(
    source: str, root: str, rows: Mapping[str, LabelSets], notes: Iterable[str], how: str
) -> DataSet:
    """Build a dataset of files from lists of (path, class names), by split; rows of one image are joined.

    Args:
        source: as the user gave it.
        root: folder that contains the images.
        rows: by split.
        notes: of the dataset.
        how: how the labels were given, for the note about them.

    Raises:
        DataError: there is no class, or the name of one contains the separator.
    """
    classes = tuple(sorted({name for these in rows.values() for _, names in these for name in names}))
    if not classes or (wrong := [name for name in classes if SEPARATOR in name]):
        why = f"the class name {wrong[0]!r} contains {SEPARATOR!r}" if classes else "no image has a label"
        raise DataError(f"cannot use {source!r}", why, f"{SEPARATOR!r} separates the classes of an image")
    index = {name: i for i, name in enumerate(classes)}
    splits = {}
    for split, these in rows.items():
        place = {path: i for i, path in enumerate(dict.fromkeys(path for path, _ in these))}
        labels = np.zeros((len(place), len(classes)), np.bool_)
        for path, names in these:
            labels[place[path], [index[name] for name in names]] = True
        splits[split] = Samples(tuple(place), labels)
    count = sum(int(samples.labels.sum()) for samples in splits.values())
    images = sum(map(len, splits.values()))
    found = f"{count:,} labels of {len(classes):,} classes for {images:,} images"
    note = f"images have several classes ({how}): {found}"
    return DataSet(source, root, classes, splits, (*notes, note))


def resolve(data: DataSet, wanted: bool | None) -> DataSet:
    """Read the labels of a dataset as sets of classes, if the user wants that or the data say so.

    Files in several class folders that are links to one file are one image with several classes. Without
    `wanted`, a twentieth of the images must have several: fewer may be a mistake. Only links of the same name
    count for that, because they are quick to see.

    Args:
        data: with one class for each image, unless it is a table.
        wanted: True for sets, False for one class each, None to decide by the data.
    """
    if wanted is False or data.is_multi_label:
        return data
    if data.root and is_folder(expanded(data.source)):
        links = "links in several class folders"
        several = sum(_count_links(samples) for samples in data.splits.values()) if wanted is None else 0
        if wanted or several >= _FEWEST * sum(map(len, data.splits.values())) > 0:
            rows = {name: _joined(data, samples) for name, samples in data.splits.items()}
            if any(len(names) > 1 for these in rows.values() for _, names in these):
                return from_sets(data.source, data.root, rows, data.notes, links)
        if several:
            note = f"{several:,} images are {links}, and count once for each (--multi-label joins them)"
            return replace(data, notes=(*data.notes, note))
    return replace(data, splits=_one_hot(data)) if wanted else data


def strata(labels: npt.NDArray[np.integer] | npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
    """One class for each image, by which a split is stratified: of several, the one with the fewest images.

    Args:
        labels: int64 `[n]`, or bool `[n, classes]`.

    Returns:
        int64 `[n]`; an image without any class counts for class 0.
    """
    if labels.ndim == 1:
        return labels.astype(np.int64, copy=False)
    sizes = np.where(labels, labels.sum(axis=0), len(labels) + 1)
    return sizes.argmin(axis=1) if labels.shape[1] else np.zeros(len(labels), np.int64)


def _one_hot(data: DataSet) -> dict[str, Samples]:
    identity = np.eye(len(data.classes), dtype=np.bool_)
    return {name: replace(samples, labels=identity[samples.labels]) for name, samples in data.splits.items()}


def _joined(data: DataSet, samples: Samples) -> LabelSets:
    """Path and class names of each file of a split; files that are one are joined."""
    found: dict[object, list[tuple[str, str]]] = defaultdict(list)
    for path, label in zip(samples.names, samples.labels.tolist(), strict=True):
        found[_identity(path)].append((path, data.classes[label]))
    return [(rows[0][0], tuple(dict.fromkeys(name for _, name in rows))) for rows in found.values()]


def _count_links(samples: Samples) -> int:
    """Number of files of a split that have several classes, by links of the same name.

    There may be a million names and no link, so names and files are compared by hashes first.
    """
    names = samples.names
    alike = _repeated(hash(os.path.basename(name)) for name in names)  # noqa: PTH119 - faster
    linked = alike[_repeated(hash(_identity(names[i])) for i in alike.tolist())]
    classes: dict[object, set[int]] = defaultdict(set)
    for i in linked.tolist():
        classes[_identity(names[i])].add(int(samples.labels[i]))
    return sum(len(own) > 1 for own in classes.values())


def _repeated(hashes: Iterable[int]) -> npt.NDArray[np.int64]:
    """The places of all numbers that occur more than once, in order."""
    found = np.fromiter(hashes, np.int64)
    _, inverse, counts = np.unique(found, return_inverse=True, return_counts=True)
    return np.flatnonzero(counts[inverse.reshape(-1)] > 1)


def _identity(path: str) -> object:
    """What all links to a file have in common; its path if that is unknown."""
    with contextlib.suppress(OSError):  # training reports it
        return file_identity(path)
    return path


def file_identity(path: str) -> object:
    """What all links to a file have in common; raises OSError."""
    status = os.stat(path)  # noqa: PTH116 - faster
    return (status.st_dev, status.st_ino) if status.st_ino else os.path.realpath(path)
