"""The images of a run in their splits, as the options say."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from striate.data import DataSet, SplitPlan, open_data, split
from striate.data.check.labels import continuous_labels
from striate.data.images import groups
from striate.data.images.folders import inner_class_folder, refuse_output_inside
from striate.errors import DataError

if TYPE_CHECKING:
    from striate.tasks.classification.config import ClassificationConfig


def open_splits(config: ClassificationConfig) -> tuple[DataSet, list[str]]:
    """Open the data of a run, and split them.

    Returns:
        The data in train, val and possibly test, with the classes of train; and notes: which are left out.

    Raises:
        DataError, UsageError: nothing to train on.
    """
    found = open_data(config.data, config.path_column, config.label_column, config.group_column)
    if config.group_pattern is not None:
        found = groups.by_pattern(found, config.group_pattern)
    refuse_output_inside(found, config.out)
    if why := continuous_labels(found):
        fix = "Striate learns classes: give ranges of values names, such as small and large"
        raise DataError(f"cannot train on {config.source!r}", why, fix)
    dataset = split(found, SplitPlan(config.val, config.test, config.seed))
    notes = [*dataset.notes, *config.unused_shares(found.splits)]
    if "val" not in dataset.splits or not len(dataset.splits["train"]):
        what = "groups of images" if found.is_grouped else "images"
        raise DataError(
            f"cannot train on {config.source!r}",
            f"of {sum(map(len, found.splits.values()))} images none is left for validation",
            f"Give each class at least three {what}, or make a val folder",
        )
    known = np.unique(dataset.splits["train"].labels)
    dataset, left_out = dataset.with_classes(tuple(dataset.classes[i] for i in known))
    notes += [
        f"class {name!r} has no training images: its {count} other images are left out"
        for name, count in left_out.items()
    ]
    if len(dataset.classes) < 2:
        inner = inner_class_folder(found)
        raise DataError(
            f"cannot train on {config.source!r}",
            inner.why if inner else "; ".join((f"it has one class, {dataset.classes[0]!r}", *notes)),
            inner.fix if inner else "A classifier needs two: add a folder of images of something else",
        )
    return dataset, notes
