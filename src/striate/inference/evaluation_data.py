"""The data that a model is evaluated on: those that the user names, or those that its run held out."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np

from striate import strict_yaml
from striate.data import DataSet, open_data
from striate.data.images.samples import UNSPLIT
from striate.data.images.tables import read_split
from striate.errors import DataError, UsageError
from striate.files import Fingerprint
from striate.inference.classifier import Classifier
from striate.reading import MAX_TABLE_BYTES, read_bytes
from striate.sections import Remark
from striate.validation import InvalidValueError, require, shown


class _Part(Protocol):
    """A split of images or pairs."""

    def joined(self: P, others: Sequence[P]) -> P:
        """Return this part and all others, in this order."""


P = TypeVar("P", bound=_Part)

_TABLE = "split.csv"  # of a run
_RESPLITTING = ("exclude", "fold")  # options with which a run does not use the splits of its data as they are


def find_data(
    classifier: Classifier, data: Any, path_column: str | None, label_column: str | None
) -> tuple[DataSet, tuple[str, ...]]:
    """The data to evaluate on; if they are the run's own, with the splits of the run.

    Args:
        classifier: whose run may name the data.
        data: as for `striate.data.open_data`; None for those of the run.
        path_column: column of the image paths, if the data are a table.
        label_column: column of the class names, if the data are a table.

    Returns:
        The data, and notes about them.
    """
    folder = Path(classifier.path).parent
    config, table = folder / "config.yaml", folder / _TABLE
    values: dict[str, Any] = {}
    if classifier.path and config.is_file():
        read = strict_yaml.read(config)
        values = read.values
        for name in ("data", "path_column", "label_column") if data is None else ():
            if not isinstance(values.get(name), str) and (name == "data" or values.get(name) is not None):
                raise read.error(name, f"{name} is {shown(values.get(name))}, not text")
    own = values.get("data") if isinstance(values.get("data"), str) else None
    if data is None and own is None:
        raise UsageError("no data to evaluate on", "the bundle is not in its run folder", "Give the data")
    given = data is not None
    is_own = own is not None and (not given or _same(own, data))
    if is_own:
        path_column, label_column = (
            path_column or values.get("path_column"),
            label_column or values.get("label_column"),
        )
    several = True if classifier.description.is_multi_label else values.get("multi_label") if is_own else None
    dataset = open_data(data if given else own, path_column, label_column, multi_label=several)
    if dataset.is_multi_label and not classifier.description.is_multi_label:
        why = "its images have several classes, and the model predicts one"
        raise DataError(f"cannot evaluate on {dataset.source!r}", why, "Give images with one class each")
    recorded = classifier.description.provenance.get("inputs")
    is_needed = table.is_file() or (recorded is not None and not given and UNSPLIT in dataset.splits)
    if is_own and is_needed and _is_split_anew(dataset, values):
        written = read_split(table)
        _require_as_written(table, recorded)
        split_data = split_as(dataset, written)
        notes: tuple[str, ...] = (Remark(f"split as in training, by {table}"),) if given else ()
        for name, rows in written.items():
            gone = len(rows) - len(split_data.splits[name])
            if gone:
                notes += (f"{gone} of {len(rows)} {name} images that {table} names are no longer there",)
        return split_data, notes
    if UNSPLIT not in dataset.splits:
        return dataset, ()
    return dataset, (
        "this dataset has no splits, so every image was scored, including any used for training",
    )


def _is_split_anew(dataset: DataSet, config: Mapping[str, Any]) -> bool:
    """Whether the splits of a run differ from those of its data: val may come from their train split."""
    return "val" not in dataset.splits or any(config.get(name) is not None for name in _RESPLITTING)


def training_images(classifier: Classifier, dataset: DataSet, split: str) -> list[str]:
    """Names of images in a split that the run of a classifier was trained on, by its split.csv.

    Raises:
        DataError: split.csv is damaged.
    """
    table = Path(classifier.path).parent / _TABLE
    if not (classifier.path and dataset.root and table.is_file()):  # images without paths have no names
        return []
    trained = {_key(dataset, name) for name, _ in read_split(table).get("train", ())}
    return [name for name in dataset.splits[split].names if _key(dataset, name) in trained]


def _require_as_written(table: Path, recorded: Any) -> None:
    """Compare split.csv with what the bundle says about it; raises DataError if it has changed."""
    if recorded is None:  # a run of an earlier version
        return
    try:
        require(recorded, dict[str, Fingerprint], "provenance.inputs")
        written = Fingerprint(**recorded[table.name])
    except (InvalidValueError, KeyError) as error:
        raise DataError(f"cannot check {str(table)!r}", str(error), "Give the data and --split") from error
    fix = "Restore it from a backup, or give the data and --split"
    changed = written.error(table, read_bytes(table, MAX_TABLE_BYTES), fix)
    if changed is not None:
        raise changed


def _same(own: str, data: Any) -> bool:
    """Whether the data are those that the run's configuration names."""
    return isinstance(data, (str, os.PathLike)) and os.path.realpath(own) == os.path.realpath(data)


def split_as(dataset: DataSet, written: Mapping[str, Sequence[tuple[str, str]]]) -> DataSet:
    """Split a dataset as a run's `split.csv` says; images that it does not name are left out.

    Args:
        dataset: its own splits are joined.
        written: (path, class name) pairs by split.
    """
    first, *others = dataset.splits.values()
    everything = first.joined(others) if others else first

    # A table may name an image twice, with two labels.
    keys = [_key(dataset, name) for name in everything.names]
    labels = dataset.label_texts(everything)
    by_name = {name: i for i, name in enumerate(keys)}
    by_both = {both: i for i, both in enumerate(zip(keys, labels, strict=True))}
    splits = {}
    for split, rows in written.items():
        named = ((_key(dataset, name), label) for name, label in rows)
        found = (by_both.get(both, by_name.get(both[0])) for both in named)
        splits[split] = everything.take(np.array([i for i in found if i is not None], np.int64))
    return replace(dataset, splits=splits)


def _key(dataset: DataSet, name: str) -> str:
    """The name of an image, the same for all spellings of its path."""
    return os.path.normpath(Path.cwd() / name) if dataset.root else name


def choose_split(splits: Mapping[str, P], split: str, source: str) -> tuple[str, P]:
    """The name and the content of a split; `auto` is test if there is one, else val, else all, else train.

    Raises:
        UsageError: no such split.
    """
    if split == UNSPLIT and UNSPLIT not in splits:
        first, *others = splits.values()
        return UNSPLIT, first.joined(others)
    for name in ("test", "val", UNSPLIT, "train") if split == "auto" else (split,):
        if name in splits:
            return name, splits[name]
    raise UsageError(
        f"no split {split!r} in {source!r}", f"it has {', '.join(splits)}", "Choose one with --split"
    )
