"""Divide a data set: stratified by class, a function of the seed and the images' names alone."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from striate.data.images.samples import UNSPLIT, DataSet, Samples
from striate.errors import DataError, UsageError


@dataclass(frozen=True)
class SplitPlan:
    """How to divide data that do not come divided.

    Attributes:
        val: the share that chooses the best epoch, 0 to 0.5.
        test: the share that nothing sees before the last measurement, 0 to 0.5; cut only from data that
            come in one piece.
        seed: another seed, another division.
    """

    val: float = 0.1
    test: float = 0.1
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse shares that leave too little; raises UsageError."""
        for name, share in (("val", self.val), ("test", self.test)):
            if not 0 <= share <= 0.5:
                raise UsageError(f"a {name} share of {share}", "it must be from 0 to 0.5")


def split(data: DataSet, plan: SplitPlan) -> DataSet:
    """Give a data set the splits `train` and `val`, and `test` where it came undivided.

    Within each class the images are ordered by a hash of the seed and their path below the root, so that
    the division hangs neither on the order of the disk nor on where the folder lies. A class keeps at
    least one image for training, and gives one to each share from three images on.

    Raises:
        DataError: there is nothing to train on.
    """
    splits = dict(data.splits)
    if UNSPLIT in splits:
        train, val, test = _cut(data, splits.pop(UNSPLIT), plan.val, plan.test, plan.seed)
        splits = {"train": train, "val": val, "test": test}
    elif "train" not in splits:
        raise DataError(
            f"cannot train on {data.source!r}",
            f"it has only {' and '.join(splits)}",
            "Training needs a train folder, or class folders that are not divided yet",
        )
    elif "val" not in splits:
        train, val, _ = _cut(data, splits["train"], plan.val, 0.0, plan.seed)
        splits |= {"train": train, "val": val}
    return replace(data, splits={name: part for name, part in splits.items() if len(part)})


def _cut(
    data: DataSet, samples: Samples, val: float, test: float, seed: int
) -> tuple[Samples, Samples, Samples]:
    parts: tuple[list[npt.NDArray[np.int64]], ...] = ([], [], [])
    keys = [_key(seed, name, data.root) for name in samples.names]
    order = np.array(sorted(range(len(samples)), key=lambda i: keys[i]), np.int64)
    for label in range(len(data.classes)):
        mine = order[samples.labels[order] == label]
        n_val = _count(len(mine), val)
        n_test = max(0, min(_count(len(mine), test), len(mine) - n_val - 1))  # one is left to train on
        parts[1].append(mine[:n_val])
        parts[2].append(mine[n_val : n_val + n_test])
        parts[0].append(mine[n_val + n_test :])
    train, held, last = (samples.take(np.sort(np.concatenate(part))) for part in parts)
    return train, held, last


def _count(n: int, share: float) -> int:
    return 0 if share == 0 or n < 3 else max(1, round(n * share))


def _key(seed: int, name: str, root: str) -> bytes:
    relative = os.path.relpath(name, root).replace(os.sep, "/") if root else name
    return hashlib.sha256(f"{seed}\0{relative}".encode("utf-8", "surrogateescape")).digest()
