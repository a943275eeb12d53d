"""Stratified split into train, val and test, or into folds; a function of the seed and the names only."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from striate.data.images import groups
from striate.data.images.label_sets import strata
from striate.data.images.samples import UNSPLIT, DataSet, Samples
from striate.errors import DataError, UsageError

Labels = npt.NDArray[np.int64]

_NONE = np.empty(0, np.int64)


@dataclass(frozen=True)
class SplitPlan:
    """How to split a dataset that has no val or test split.

    Attributes:
        val: fraction of the images for validation, 0 to 0.5.
        test: fraction held out for the final test, 0 to 0.5; ignored if the dataset has splits.
        seed: of the split.
        folds: number of folds for cross-validation; 0 for none.
        fold: which of them is the test split, from 1.
    """

    val: float = 0.1
    test: float = 0.1
    seed: int = 0
    folds: int = 0
    fold: int = 1

    def __post_init__(self) -> None:
        """Check the fractions and the fold; raises UsageError."""
        for name, share in (("val", self.val), ("test", self.test)):
            if not 0 <= share <= 0.5:
                raise UsageError(f"{name} = {share}", "the fraction must be from 0 to 0.5")
        if self.folds and not 1 <= self.fold <= self.folds:
            raise UsageError(f"fold {self.fold} of {self.folds}", "there is no such fold")


def split(data: DataSet, plan: SplitPlan) -> DataSet:
    """Split a dataset into `train` and `val`, and into `test` if it has no splits at all.

    Within each class the images are ordered by a hash of the seed and the path below the root, so the split
    does not depend on the order of files on disk or on the location of the folder. Each class keeps at least
    one training image; classes with three or more images have at least one in each split. An image with
    several classes counts for the one of them that has the fewest images. Images of a group
    stay together: then the fractions and these promises hold as far as the groups allow.

    With folds, all images but those of the dataset's own test split are divided into folds. One of them is
    `test`, and `val` is taken from the others.

    Raises:
        DataError: the dataset has no training images or too few for the folds, or its own splits separate a
            group.
    """
    if plan.folds:
        data = _hold_out_fold(data, plan)
    splits = dict(data.splits)
    if UNSPLIT in splits:
        train, val, test = _split_samples(data, splits.pop(UNSPLIT), plan)
        splits = {"train": train, "val": val, "test": test}
    elif "train" not in splits:
        fix = "Training needs a train folder, or class folders without splits"
        raise DataError(f"cannot train on {data.source!r}", f"it has only {' and '.join(splits)}", fix)
    elif "val" not in splits:
        train, val, _ = _split_samples(data, splits["train"], replace(plan, test=0.0))
        splits |= {"train": train, "val": val}
    data = replace(data, splits={name: part for name, part in splits.items() if len(part)})
    groups.require_apart(data)
    return data


def _split_samples(data: DataSet, samples: Samples, plan: SplitPlan) -> tuple[Samples, Samples, Samples]:
    if samples.groups is not None:
        return _split_groups(data, samples, samples.groups, plan)
    parts, labels = [], strata(samples.labels)
    by_class = np.argsort(labels, kind="stable")
    bounds = np.searchsorted(labels, np.arange(len(data.classes) + 1), sorter=by_class)
    for first, end in itertools.pairwise(bounds.tolist()):
        members = by_class[first:end]  # one class after the other, because keys take memory
        keys = [_key(plan.seed, data.relative_name(samples.names[i])) for i in members.tolist()]
        members = members[sorted(range(len(members)), key=keys.__getitem__)]
        n_val, n_test = _held_out(len(members), plan)
        parts.append(np.split(members, [n_val, n_val + n_test]))
    which = (np.sort(np.concatenate(part)) for part in zip(*parts, strict=True))
    val_part, test_part, train = map(samples.take, which)
    return train, val_part, test_part


def _split_groups(
    data: DataSet, samples: Samples, names: tuple[str, ...], plan: SplitPlan
) -> tuple[Samples, Samples, Samples]:
    labels = strata(samples.labels)
    counts = groups.counts_by_class(labels, names, len(data.classes))
    held_out = np.array([_held_out(n, plan) for n in counts], float) / np.maximum(counts, 1)[:, None]
    targets = np.stack([1 - held_out.sum(axis=1), held_out[:, 0], held_out[:, 1]])
    parts = groups.assign(labels, names, targets, plan.seed)
    train, val, test = (samples.take(np.flatnonzero(parts == part)) for part in range(3))
    return train, val, test


def _hold_out_fold(data: DataSet, plan: SplitPlan) -> DataSet:
    """The images of one fold as `test`, and all others as `train`; an own test split is left out."""
    first, *others = [samples for name, samples in data.splits.items() if name != "test"] or [
        Samples((), _NONE)
    ]
    samples = first.joined(others) if others else first
    units = samples.groups if samples.groups is not None else samples.names
    labels = strata(samples.labels)
    _require_enough_for(plan.folds, data, labels, units, samples.groups is not None)
    if samples.groups is None:
        keys = [_key(plan.seed, f"fold {data.relative_name(name)}") for name in samples.names]
        order = sorted(range(len(samples)), key=lambda i: (labels[i], keys[i]))
        folds = np.empty(len(samples), np.int64)
        folds[order] = np.arange(len(samples)) % plan.folds  # by class, so each class is in all folds
    else:
        targets = np.full((plan.folds, len(data.classes)), 1 / plan.folds)
        folds = groups.assign(labels, samples.groups, targets, plan.seed)
    held_out = folds == plan.fold - 1
    notes = data.notes
    if "test" in data.splits:
        count = len(data.splits["test"])
        notes += (f"the test split of the data ({count:,} images) is in no fold: evaluate a run on it later",)
    parts = {"train": samples.take(np.flatnonzero(~held_out)), "test": samples.take(np.flatnonzero(held_out))}
    return replace(data, splits=parts, notes=notes)


def _require_enough_for(
    folds: int, data: DataSet, labels: Labels, units: Sequence[str], grouped: bool
) -> None:
    """Refuse data in which a fold has nothing to hold out, or nothing to learn a class from."""
    what, count = "groups of images" if grouped else "images", len(set(units))
    if count < folds:
        why = f"it has only {count:,} {what}"
        raise DataError(
            f"cannot divide {data.source!r} into {folds} folds", why, f"Use --folds {max(2, count)}"
        )
    for name, own in zip(data.classes, groups.counts_by_class(labels, units, len(data.classes)), strict=True):
        if own == 1:
            why = f"all images of class {name!r} would be in one fold, with none left to learn it from"
            fix = f"Give each class at least two {what}, better {folds}"
            raise DataError(f"cannot divide {data.source!r} into {folds} folds", why, fix)


def _held_out(n: int, plan: SplitPlan) -> tuple[int, int]:
    """How many of `n` images, or groups, of a class are in val and in test; at least one is in train."""
    n_val = _count(n, plan.val)
    return n_val, max(0, min(_count(n, plan.test), n - n_val - 1))


def _count(n: int, share: float) -> int:
    return 0 if share == 0 or n < 3 else max(1, round(n * share))


def _key(seed: int, name: str) -> bytes:
    return hashlib.sha256(f"{seed}\0{name}".encode("utf-8", "surrogateescape")).digest()
