"""What has changed since a run was stopped: it is not the same run then."""

from __future__ import annotations

import csv
import io
import os
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from striate.data import DataSet, Samples
from striate.errors import DecodeError
from striate.files import write_atomic
from striate.training.saved import FOLDER

_TABLE = "data.csv"  # beside the states
_COLUMNS = ("split", "name", "class", "bytes", "mark")
_PROBED = 64  # images of a split that are read, where nothing else tells whether they changed
_SHOWN = 3  # of each kind of change
FREE = (
    "data",
    "device",
    "workers",
    "cache",
    "save_every",
    "profile",
    "rollbacks",
    "out",
    "name",
)  # they decide no weight; data are compared file by file

Row = tuple[str, str, str, str]


def note_data(run: Path, dataset: DataSet) -> None:
    """Write down names, classes, sizes and times of all images of a run."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(_COLUMNS)
    writer.writerows((split, name, *rest) for name, (split, *rest) in _rows(dataset))
    write_atomic(run / FOLDER / _TABLE, text.getvalue().encode("utf-8", "surrogateescape"))


def of_data(run: Path, dataset: DataSet) -> list[str]:
    """Sentences that say what is different from what `note_data` wrote; none where nothing is."""
    path = run / FOLDER / _TABLE
    try:
        text = path.read_bytes().decode("utf-8", "surrogateescape")
        old: dict[str, Row] = {row[1]: (row[0], row[2], row[3], row[4]) for row in _table(text)}
    except (OSError, ValueError, IndexError) as error:
        return [f"{path} cannot be read ({error})"]
    new = dict(_rows(dataset))
    kinds: dict[str, list[str]] = {}
    moved: list[str] = []
    for name in sorted(old.keys() | new.keys()):
        if name not in new:
            kinds.setdefault("gone", []).append(name)
        elif name not in old:
            kinds.setdefault("new", []).append(name)
        elif old[name][1:] != new[name][1:]:
            kinds.setdefault("changed", []).append(f"{name} ({_difference(old[name], new[name])})")
        elif old[name] != new[name]:
            moved.append(name)
    if not kinds and moved:  # elsewhere it follows from the other changes
        kinds["in another split"] = moved
    return [f"{len(names):,} {kind}: {_some(names)}" for kind, names in kinds.items()]


def of_config(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Sentences that say which fields have another value; none where nothing that matters has."""
    return [
        f"{name} was {old.get(name)!r} and is {new.get(name)!r}"
        for name in sorted(old.keys() | new.keys())
        if name not in FREE and old.get(name) != new.get(name)
    ]


def _rows(dataset: DataSet) -> Iterator[tuple[str, Row]]:
    for split, samples in dataset.splits.items():
        for i, (name, label) in enumerate(zip(samples.names, samples.labels, strict=True)):
            size, mark = -1, -1  # cannot be looked at, which the run has written down elsewhere
            if samples.pixels is not None:
                size, mark = samples.pixels[i].nbytes, zlib.crc32(samples.pixels[i].tobytes())
            elif (stamp := samples.stamp(i)) is not None:
                size, mark = stamp.size, stamp.modified_ns
            elif samples.store is not None and i in range(0, len(samples), max(1, len(samples) // _PROBED)):
                size, mark = _probe(samples, i)
            name = os.path.relpath(name, dataset.root) if dataset.root else name
            yield name.replace(os.sep, "/"), (split, dataset.classes[label], str(size), str(mark))


def _probe(samples: Samples, i: int) -> tuple[int, int]:
    """Size and checksum of an item of a torch `Dataset`: each would have to be read, so a few are."""
    try:
        pixels = np.asarray(samples.fetch(i))
    except DecodeError:
        return -1, -1
    return pixels.nbytes, zlib.crc32(pixels.tobytes())


def _table(text: str) -> list[list[str]]:
    rows = list(csv.reader(io.StringIO(text, newline="")))
    if not rows or tuple(rows[0]) != _COLUMNS:
        raise ValueError("its first line is not ours")
    return rows[1:]


def _difference(old: Row, new: Row) -> str:
    if old[2] != new[2]:
        return f"{int(old[2]):,} bytes, now {int(new[2]):,}"
    if old[3] != new[3]:
        return "written to since"
    return f"was {old[1]}, is {new[1]}"


def _some(names: list[str]) -> str:
    more = f" and {len(names) - _SHOWN:,} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
