"""The table of the files that a run reads, `state/data.csv`: a resumed run compares the files with it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from striate.csv_file import read_table, write_csv
from striate.data.images.samples import Stamp
from striate.errors import DataError
from striate.printable import first_few
from striate.training.config_file import DATA_TABLE

_DIGITS = 20  # of any number in the table


class Source(NamedTuple):
    """A row: where an example comes from, and the state of its file.

    Attributes:
        split: name of the split.
        name: below the root of the dataset.
        label: its class, or empty.
        bytes: size of the file or of the pixels; -1 if unknown.
        mark: modification time in ns, or a checksum of the pixels; -1 if unknown.
        inode: number of the file; 0 if unknown.
        changed: change time (ctime) in ns; 0 if unknown.
    """

    split: str
    name: str
    label: str
    bytes: int = -1
    mark: int = -1
    inode: int = 0
    changed: int = 0

    @classmethod
    def of(cls, split: str, name: str, label: str, stamp: Stamp | None) -> Source:
        """The row of a file; None if it cannot be looked at."""
        if stamp is None:
            return cls(split, name, label)
        return cls(split, name, label, stamp.size, stamp.modified_ns, stamp.inode, stamp.changed_ns)


_COLUMNS = ("split", "name", "class", "bytes", "mark", "inode", "changed")
_EARLIER_COLUMNS = _COLUMNS[:5]  # of runs before the last two were recorded


def write(folder: Path, sources: Iterable[Source]) -> None:
    """Write the table of a run."""
    write_csv(folder / DATA_TABLE, [*sources], _COLUMNS)


def changes(folder: Path, sources: Iterable[Source]) -> list[str]:
    """Sentences that say how the data differ from those in the table of a run.

    Raises:
        DataError: the table is missing or damaged; the message names the line.
    """
    old = {source.name: source for source in _read(folder / DATA_TABLE)}
    new = {source.name: source for source in sources}
    kinds: dict[str, list[str]] = {}
    moved: list[str] = []
    for name in sorted(old.keys() | new.keys()):
        if name not in new:
            kinds.setdefault("missing", []).append(name)
        elif name not in old:
            kinds.setdefault("new", []).append(name)
        elif difference := _difference(old[name], new[name]):
            kinds.setdefault("changed", []).append(f"{name} ({difference})")
        elif old[name].split != new[name].split:
            moved.append(name)
    if not kinds and moved:  # otherwise a consequence of the other changes
        kinds["in another split"] = moved
    return [f"{len(names):,} {kind}: {first_few(names)}" for kind, names in kinds.items()]


def _read(path: Path) -> Iterator[Source]:
    for line, row in read_table(path, _COLUMNS, _EARLIER_COLUMNS):
        numbers = row[3:]
        if not all(text.removeprefix("-").isdecimal() and len(text) <= _DIGITS for text in numbers):
            why = f"{', '.join(map(repr, numbers))} must be whole numbers"
            raise DataError(f"{path}:{line}", why, "Restore it")
        yield Source(row[0], row[1], row[2], *map(int, numbers))


def _difference(old: Source, new: Source) -> str:
    """What has changed about a file; empty if nothing has."""
    if old.bytes != new.bytes:
        return f"{old.bytes:,} bytes, now {new.bytes:,}"
    if old.mark != new.mark:
        return "modified since"
    if old.label != new.label:
        return f"was {old.label}, is {new.label}"
    # A program can set the modification time, but not the change time. A copy has another inode.
    if old.inode == new.inode and 0 not in (old.inode, old.changed) and old.changed != new.changed:
        return "written to or replaced since, with its old size and modification time"
    return ""
