"""Stratified split into train, val and test; a function of the seed and the image names only."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass, replace

import numpy as np

from striate.data.images.samples import UNSPLIT, DataSet, Samples
from striate.errors import DataError, UsageError


@dataclass(frozen=True)
class SplitPlan:
    """How to split a dataset that has no val or test split.

    Attributes:
        val: fraction of the images for validation, 0 to 0.5.
        test: fraction held out for the final test, 0 to 0.5; ignored if the dataset has splits.
        seed: of the split.
    """

    val: float = 0.1
    test: float = 0.1
    seed: int = 0

    def __post_init__(self) -> None:
        """Check the fractions; raises UsageError."""
        for name, share in (("val", self.val), ("test", self.test)):
            if not 0 <= share <= 0.5:
                raise UsageError(f"{name} = {share}", "the fraction must be from 0 to 0.5")


def split(data: DataSet, plan: SplitPlan) -> DataSet:
    """Split a dataset into `train` and `val`, and into `test` if it has no splits at all.

    Within each class the images are ordered by a hash of the seed and the path below the root, so the split
    does not depend on the order of files on disk or on the location of the folder. Each class keeps at least
    one training image; classes with three or more images have at least one in each split.

    Raises:
        DataError: the dataset has no training images.
    """
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
    return replace(data, splits={name: part for name, part in splits.items() if len(part)})


def _split_samples(data: DataSet, samples: Samples, plan: SplitPlan) -> tuple[Samples, Samples, Samples]:
    parts = []
    keys = [_key(plan.seed, name, data.root) for name in samples.names]
    order = np.array(sorted(range(len(samples)), key=keys.__getitem__), np.int64)
    for label in range(len(data.classes)):
        members = order[samples.labels[order] == label]
        n_val = _count(len(members), plan.val)
        n_test = max(
            0, min(_count(len(members), plan.test), len(members) - n_val - 1)
        )  # keep one to train on
        parts.append(np.split(members, [n_val, n_val + n_test]))
    which = (np.sort(np.concatenate(part)) for part in zip(*parts, strict=True))
    val_part, test_part, train = map(samples.take, which)
    return train, val_part, test_part


def _count(n: int, share: float) -> int:
    return 0 if share == 0 or n < 3 else max(1, round(n * share))


def _key(seed: int, name: str, root: str) -> bytes:
    relative = os.path.relpath(name, root).replace(os.sep, "/") if root else name
    return hashlib.sha256(f"{seed}\0{relative}".encode("utf-8", "surrogateescape")).digest()
