"""Leaving out the images that a table of problems names, such as that of `striate check --csv`."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from striate.csv_file import write_csv
from striate.data.check.records import KINDS, NOTE
from striate.data.images.samples import DataSet
from striate.data.images.tables import read_columns
from striate.errors import DataError, UsageError, unknown_name
from striate.metrics.label_errors import doubt
from striate.printable import first_few

LABEL_ERROR = "label-error"  # the kind of suspected wrong labels
RUN_FILE = "excluded.csv"  # in a run folder: what the run left out
_COLUMNS = ("path", "kind")
_COPIES = ("duplicates", "near-duplicates")  # of each group, one stays
_HELD_OUT = {"train": 0, "val": 1, "test": 2}  # of copies in several splits, those in the last one stay


class Row(NamedTuple):
    """A row of a table of problems: an image, and why it should be left out."""

    path: str
    kind: str
    label: str = ""
    split: str = ""
    group: str = ""


@dataclass(frozen=True)
class Exclusion:
    """What was left out.

    Attributes:
        data: the dataset without these images.
        rows: path and kind of each, in the order of the dataset; an image of several kinds has the first.
        notes: how many of which kind, and what in the table had no effect.
    """

    data: DataSet
    rows: tuple[tuple[str, str], ...]
    notes: tuple[str, ...]

    def write(self, folder: Path) -> None:
        """Write what was left out into a run folder: a table for `exclude`."""
        write_csv(folder / RUN_FILE, self.rows, _COLUMNS)


def exclude(data: DataSet, table: Path, kinds: str | None = None) -> Exclusion:
    """Leave out the images that a table names.

    Of duplicates, the first of each class and split stays, if the table has the column `group`; of images in
    several splits, those in test stay, else those in val. All other images that the table names are left out.

    Args:
        data: any dataset.
        table: a CSV file with the columns `path` and `kind`, and optionally `class`, `split` and `group`, as
            `striate check --csv` writes it. Relative paths start at the folder of the table, in the working
            folder or at the root of the dataset.
        kinds: which ones to leave out, separated by commas; empty for all but those that are only notes; None
            for all.

    Raises:
        DataError: not such a table, or none of the images that it names is in the dataset.
        UsageError: an unknown kind; the message lists all.
    """
    rows = [
        Row(row["path"], row["kind"], row.get("class", ""), row.get("split", ""), row.get("group", ""))
        for row in read_columns(table, _COLUMNS, ("class", "split", "group"))
    ]
    wanted = _wanted(kinds, {row.kind for row in rows})
    chosen = _without_kept_copies([row for row in rows if row.path and row.kind in wanted])
    dropped = _match(data, table, chosen)
    splits, left_out = {}, []
    for split, samples in data.splits.items():
        hits = [dropped.get(_absolute(data, name)) for name in samples.names]
        splits[split] = samples.take(np.flatnonzero([hit is None for hit in hits]))
        pairs = zip(samples.names, hits, strict=True)
        left_out += [(data.absolute_name(name), hit) for name, hit in pairs if hit is not None]
    notes = [_summary(table, [kind for _, kind in left_out])]
    suspected = sum(kind == LABEL_ERROR for _, kind in left_out)
    notes += filter(None, [doubt(suspected, sum(map(len, data.splits.values())))])
    if kinds == "" and (passed := Counter(row.kind for row in rows if row.path and row.kind not in wanted)):
        listed = ", ".join(f"{count:,} {kind}" for kind, count in passed.items())
        notes.append(f"not left out, because they are only notes: {listed} (--exclude-kinds names kinds)")
    return Exclusion(replace(data, splits=splits), tuple(left_out), tuple(notes))


def _wanted(kinds: str | None, found: Collection[str]) -> Collection[str]:
    """The kinds to leave out; raises UsageError for unknown ones."""
    if kinds is None:
        return found
    if not kinds:
        return {kind for kind in found if kind not in KINDS or KINDS[kind].severity != NOTE}
    of_files = [kind for kind, about in KINDS.items() if about.about in ("images", "files")]
    known = [*of_files, *sorted(found - KINDS.keys())]
    wanted = set()
    for name in filter(None, (name.strip() for name in kinds.split(","))):
        if name not in known and f"{name}s" not in known:
            raise unknown_name("value for --exclude-kinds", name, known, f"Known: {', '.join(known)}")
        wanted.add(name if name in known else f"{name}s")
    if not wanted:
        raise UsageError(f"--exclude-kinds {kinds!r}", "it names no kind", f"Known: {', '.join(known)}")
    return wanted


def _without_kept_copies(rows: Sequence[Row]) -> list[Row]:
    """The rows without those whose images stay, because copies of them are left out."""
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        groups.setdefault((row.kind, row.group), []).append(row)
    chosen = []
    for (kind, group), these in groups.items():
        if group and len(these) > 1 and kind in _COPIES:
            first = {(row.label, row.split): i for i, row in reversed(list(enumerate(these)))}
            chosen += [row for i, row in enumerate(these) if i not in first.values()]
        elif group and len(these) > 1 and kind == "leakage":
            last = max(_HELD_OUT.get(row.split, 0) for row in these)
            chosen += [row for row in these if _HELD_OUT.get(row.split, 0) < last]
        else:
            chosen += these
    return chosen


def _match(data: DataSet, table: Path, rows: Iterable[Row]) -> dict[str, str]:
    """The kind of each image of the dataset that a row names, by its absolute name.

    Raises:
        DataError: no row names an image of the dataset.
    """
    names = {name for samples in data.splits.values() for name in samples.names}
    real_root = os.path.realpath(data.root) if data.root else ""
    by_path = {}
    for name in names:
        key = _absolute(data, name)
        by_path[key] = key
        if data.root:  # the table may name the folder by another way than the user
            by_path.setdefault(os.path.normpath(f"{real_root}/{data.relative_name(name)}"), key)
    folders = [Path(), table.parent, *([Path(data.root)] if data.root else [])]
    found: dict[str, str] = {}
    missing = []
    for row in rows:
        paths = [os.path.abspath(folder / row.path) for folder in folders] if data.root else [row.path]  # noqa: PTH100 - removes `..`
        paths += [_real(path) for path in paths] if data.root else []
        hit = next((by_path[path] for path in paths if path in by_path), None)
        if hit is not None:
            found.setdefault(hit, row.kind)
        elif row.kind not in KINDS or KINDS[row.kind].about == "images":
            missing.append(row.path)
    if missing and not found:
        why = f"none of the {len(missing):,} images that it names is in {data.source!r}: {first_few(missing)}"
        fix = f"Write it anew: striate check {data.source} --csv {table}"
        raise DataError(f"cannot leave out what {str(table)!r} says", why, fix)
    return found


def _absolute(data: DataSet, name: str) -> str:
    return os.path.abspath(name) if data.root else name  # noqa: PTH100 - removes `..`


def _real(path: str) -> str:
    """A path with the links of its folders followed; the file itself may be a link."""
    folder, name = os.path.split(path)
    return f"{os.path.realpath(folder)}/{name}"


def _summary(table: Path, kinds: Sequence[str]) -> str:
    if not kinds:
        return f"{table} names no image to leave out"
    listed = ", ".join(f"{count:,} {kind}" for kind, count in Counter(kinds).items())
    one = len(kinds) == 1
    return f"{len(kinds):,} {'image is' if one else 'images are'} left out, as {table} says: {listed}"
