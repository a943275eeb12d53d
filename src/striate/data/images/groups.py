"""Groups of images that must stay together, such as several photographs of one object."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from striate.data.images.samples import DataSet
from striate.errors import DataError, UsageError
from striate.printable import first_few

_SAME = 1e-9  # gains that differ by less are equal: they are sums of fractions


def by_pattern(data: DataSet, pattern: str) -> DataSet:
    """Group images by what a regular expression finds in their paths below the root of the dataset.

    The group is the text of the parentheses in the pattern, or what the whole pattern matches if it has none.
    An image without a match is a group of its own.

    Args:
        data: any dataset. Its paths are written with slashes on all systems.
        pattern: of Python's `re`, which may match anywhere in the path.

    Raises:
        UsageError: not a regular expression, or no path matches it.
    """
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        fix = r"Give a regular expression such as '(\w+)_\d+\.jpg'"
        raise UsageError(f"--group-pattern {pattern!r}", f"it is not valid: {error}", fix) from error
    splits, unmatched = {}, []
    for split, samples in data.splits.items():
        groups = []
        for name in samples.names:
            below = data.relative_name(name)
            found = compiled.search(below)
            if found is None:
                unmatched.append(below)
            groups.append(f"\0{below}" if found is None else _text(found))
        splits[split] = replace(samples, groups=tuple(groups))
    count = sum(map(len, splits.values()))
    if len(unmatched) == count:
        why = f"it matches none of the {count:,} paths, which look like {first_few(unmatched, 2)}"
        raise UsageError(
            f"--group-pattern {pattern!r}", why, "Match a part of the path below the data folder"
        )
    notes = data.notes
    if unmatched:
        which = f"{len(unmatched):,} of {count:,} paths, such as {unmatched[0]}"
        notes += (f"--group-pattern does not match {which}: each is a group of its own",)
    return replace(data, splits=splits, notes=notes)


def _text(found: re.Match[str]) -> str:
    return "/".join(part or "" for part in found.groups()) if found.re.groups else found[0]


def assign(
    labels: npt.NDArray[np.int64],
    groups: Sequence[str],
    targets: npt.NDArray[np.float64],
    seed: int,
) -> npt.NDArray[np.int64]:
    """Assign whole groups to parts, so that each class is spread as nearly as possible by its targets.

    The largest groups come first; each goes to the part that it brings closest to its targets, in the sum of
    squares over parts and classes. scikit-learn's `StratifiedGroupKFold` does the same for parts of equal
    size. Groups of equal size are in the order of a hash of the seed, so the order of images has no effect.

    Args:
        labels: int64 `[n]`, class of each image.
        groups: `[n]`, group of each image.
        targets: `[parts, classes]`, the fraction of each class that each part should have.
        seed: of the order of equal groups.

    Returns:
        int64 `[n]`, the part of each image.
    """
    names = sorted(set(groups))
    index = {name: i for i, name in enumerate(names)}
    group_of = np.array([index[name] for name in groups], np.int64)
    totals = np.bincount(labels, minlength=targets.shape[1])
    pairs, counts = np.unique(np.stack([group_of, labels]), axis=1, return_counts=True)
    shares = counts / totals[pairs[1]]
    starts = np.searchsorted(pairs[0], np.arange(len(names) + 1))
    weights = np.add.reduceat(shares, starts[:-1])
    order = sorted(range(len(names)), key=lambda g: (-round(float(weights[g]), 9), _hash(seed, names[g])))
    missing, fills = targets.copy(), np.zeros(len(targets))
    sizes = np.maximum(targets.sum(axis=1), _SAME)
    parts = np.empty(len(names), np.int64)
    for group in order:
        rows = slice(starts[group], starts[group + 1])
        classes, share = pairs[1, rows], shares[rows]
        gains = missing[:, classes] @ share
        best = np.flatnonzero(gains > gains.max() - _SAME)
        part = best[np.argmin(fills[best])]
        missing[part, classes] -= share
        fills[part] += weights[group] / sizes[part]
        parts[group] = part
    return parts[group_of]


def counts_by_class(labels: npt.NDArray[np.int64], groups: Sequence[str], classes: int) -> list[int]:
    """The number of groups that have images of each class."""
    pairs = set(zip(groups, labels.tolist(), strict=True))
    found = Counter(label for _, label in pairs)
    return [found[label] for label in range(classes)]


def require_apart(data: DataSet) -> None:
    """Refuse splits that share a group; raises DataError."""
    where: dict[str, str] = {}
    crossing: dict[str, tuple[str, str]] = {}
    for split, samples in data.splits.items():
        for group in samples.groups or ():
            if (other := where.setdefault(group, split)) != split:
                crossing.setdefault(group, (other, split))
    if crossing:
        group, (one, other) = next(iter(crossing.items()))
        more = f", and {len(crossing) - 1:,} more groups cross" if len(crossing) > 1 else ""
        raise DataError(
            f"cannot keep groups together in {data.source!r}",
            f"its own splits separate them: {group!r} is in {one} and in {other}{more}",
            "Move the images of a group into one split, or leave out the splits",
        )


def _hash(seed: int, group: str) -> bytes:
    return hashlib.sha256(f"{seed}\0{group}".encode("utf-8", "surrogateescape")).digest()
