"""The images of a run in their splits, as the options say."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from striate.data import DataSet, SplitPlan, open_data, split
from striate.data.check.exclusion import RUN_FILE, Exclusion, exclude
from striate.data.check.labels import ADVICE, REGRESSION, continuous_labels, numeric_note
from striate.data.images import groups
from striate.data.images.folders import inner_class_folder, refuse_output_inside
from striate.errors import DataError
from striate.files import expanded, probe

if TYPE_CHECKING:
    from striate.tasks.classification.config import ClassificationConfig


class OpenedSplits(NamedTuple):
    """The images of a run.

    Attributes:
        dataset: in train, val and possibly test, with the classes of train.
        notes: which data are left out.
        exclusion: what a table of problems left out; None without one.
    """

    dataset: DataSet
    notes: list[str]
    exclusion: Exclusion | None


def open_splits(config: ClassificationConfig, run: Path | None = None) -> OpenedSplits:
    """Open the data of a run, and split them.

    Args:
        config: of the run.
        run: the folder of the run that is being resumed, which has a copy of what it left out.

    Raises:
        DataError, UsageError: nothing to train on.
    """
    found = open_data(
        config.data, config.path_column, config.label_column, config.group_column, config.multi_label
    )
    exclusion = None
    if config.exclude is not None:
        own = None if run is None else run / RUN_FILE
        if own is not None and probe(own) is not None:
            exclusion = exclude(found, own)
        else:
            exclusion = exclude(found, expanded(config.exclude), config.exclude_kinds)
        found = exclusion.data
    if config.group_pattern is not None:
        found = groups.by_pattern(found, config.group_pattern)
    refuse_output_inside(found, config.out)
    if why := continuous_labels(found):
        raise DataError(f"cannot train on {config.source!r}", f"{why}: {REGRESSION}", ADVICE)
    dataset = split(
        found, SplitPlan(config.val, config.test, config.seed, config.folds or 0, config.fold or 1)
    )
    notes = [*numeric_note(found), *dataset.notes, *_unused_shares(config, found)]
    notes += () if exclusion is None else exclusion.notes
    if "val" not in dataset.splits or not len(dataset.splits["train"]):
        what = "groups of images" if found.is_grouped else "images"
        raise DataError(
            f"cannot train on {config.source!r}",
            f"of {sum(map(len, found.splits.values()))} images none is left for validation",
            f"Give each class at least three {what}, or make a val folder",
        )
    config.require_label_kind(dataset.is_multi_label)
    known = np.flatnonzero(dataset.class_counts(dataset.splits["train"]))
    dataset, left_out = dataset.with_classes(tuple(dataset.classes[i] for i in known))
    notes += [
        f"class {name!r} has no training images: its {count} other images are left out"
        if count
        else f"class {name!r} has no images and is left out"
        for name, count in left_out.items()
    ]
    if len(dataset.classes) < 2:
        inner = inner_class_folder(found)
        raise DataError(
            f"cannot train on {config.source!r}",
            inner.why if inner else "; ".join((f"it has one class, {dataset.classes[0]!r}", *notes)),
            inner.fix if inner else "A classifier needs two: add a folder of images of something else",
        )
    return OpenedSplits(dataset, notes, exclusion)


def _unused_shares(config: ClassificationConfig, found: DataSet) -> list[str]:
    """Notes about fractions that have no effect: the data have these splits, or folds replace them."""
    if not config.folds:
        return config.unused_shares(found.splits)
    return [
        f"{shown} has no effect: with --folds, one fold is the test split"
        for shown in config.changed(["test"])
    ]
