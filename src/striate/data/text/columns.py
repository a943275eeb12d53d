"""Columns of tables of pairs: which ones make up the source, the target and further correct targets."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from striate.errors import UsageError

SEPARATOR = " "  # between the columns that make up one text
ALL = "all"  # as reference columns: all that are neither source nor target
Use = Literal["source", "target", "reference", "split", "unused"]
_SOURCES, _TARGETS = ("source", "src"), ("target", "tgt", "text")  # in a header, if the user names no columns
_FLAGS = "--source-columns, --target-columns and --reference-columns"


@dataclass(frozen=True)
class Column:
    """A column of the data.

    Attributes:
        name: in the header, or `column 3` without a header.
        use: what its text is used for.
        lines: number of lines in which it has text.
    """

    name: str
    use: Use
    lines: int

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {"name": self.name, "use": self.use, "lines": self.lines}

    def __str__(self) -> str:
        return f"{self.name} ({self.use}, {self.lines:,} lines)"


@dataclass(frozen=True)
class ColumnSelection:
    """Columns by name or by number from 1; empty for the defaults.

    Attributes:
        source: joined to the source.
        target: joined to the target.
        references: each is a further correct target; `ALL` for all other columns.
        optional: whether data without columns are allowed; False for columns that the user asks for.
    """

    source: tuple[str, ...] = ()
    target: tuple[str, ...] = ()
    references: tuple[str, ...] = ()
    optional: bool = False

    @classmethod
    def of(cls, source: Any = None, target: Any = None, references: Any = None) -> ColumnSelection:
        """Create from what a user gives: `lemma,form`, `1,3`, a number, or a list; None for the default.

        Raises:
            UsageError: a column is empty, 0 or named twice.
        """
        chosen = cls(_listed(source), _listed(target), _listed(references))
        columns = [*chosen.source, *chosen.target, *chosen.references]
        for column in columns:
            if column.isdecimal() and int(column) == 0:
                raise UsageError("column 0", "columns are numbered from 1", "Use 1 for the first column")
            if columns.count(column) > 1:
                raise UsageError(f"column {column!r} is given twice", f"each of {_FLAGS} needs its own")
        return chosen

    @classmethod
    def of_training(cls, text: Mapping[str, Any] | None) -> ColumnSelection:
        """The columns that a model was trained on, as a default for other data.

        Args:
            text: of the bundle's description.
        """
        return replace(cls.of(**(text or {}).get("columns", {})), optional=True)

    def __bool__(self) -> bool:
        return bool(self.source or self.target or self.references)

    def to_json(self) -> dict[str, list[str]]:
        """Plain JSON values, for `of(**values)`."""
        return {
            "source": list(self.source), "target": list(self.target), "references": list(self.references)
        }  # fmt: skip

    @property
    def names(self) -> set[str]:
        """The columns that are given by name."""
        given = {*self.source, *self.target, *self.references} - {ALL}
        return {column.lower() for column in given if not column.isdecimal()}


@dataclass(frozen=True)
class Places:
    """Which cells of a row are used, by index from 0.

    Attributes:
        source: joined to the source.
        target: joined to the target.
        references: further correct targets; None for all other columns.
    """

    source: tuple[int, ...]
    target: tuple[int, ...]
    references: tuple[int, ...] | None = ()

    @property
    def required(self) -> int:
        """Number of columns that each row of pairs must have."""
        return max(*self.source, *self.target) + 1

    def use(self, index: int) -> Use:
        """What a column is used for."""
        if index in self.source:
            return "source"
        if index in self.target:
            return "target"
        return "reference" if self.references is None or index in self.references else "unused"

    def texts(self, cells: Sequence[str]) -> tuple[str, tuple[str, ...]]:
        """The source, and the target with further correct ones; empty cells are left out."""
        others = range(len(cells)) if self.references is None else self.references
        more = (cells[i] for i in others if i < len(cells) and i not in (*self.source, *self.target))
        return joined(cells, self.source), (joined(cells, self.target), *more)


def joined(cells: Sequence[str], places: Iterable[int]) -> str:
    """The text of some cells; missing and empty ones are left out."""
    return SEPARATOR.join(cells[i] for i in places if i < len(cells) and cells[i])


def has_header(cells: Sequence[str], selection: ColumnSelection) -> bool:
    """Whether the first row of a table without a fixed header names its columns.

    It does if the selection has names, or if it names both sides in the usual way: `source`, `target`.
    """
    names = [cell.lower() for cell in cells]
    usual = any(name in names for name in _SOURCES) and any(name in names for name in _TARGETS)
    return bool(selection.names) or usual


def find_places(header: Sequence[str] | None, selection: ColumnSelection, where: str) -> Places:
    """Find the columns of a selection.

    Args:
        header: names of the columns; None if the table has none.
        selection: of the user.
        where: the file, for messages.

    Returns:
        The columns. By default the source is the column of that name, or the first one that has no other use;
        the target likewise.

    Raises:
        UsageError: there is no such column, or it has two uses.
    """
    names = [name.lower() for name in header or ()]
    source, target = _indices(selection.source, names, where), _indices(selection.target, names, where)
    others = _indices([c for c in selection.references if c != ALL], names, where)
    source = source or (_default(_SOURCES, names, {*target, *others}),)
    target = target or (_default(_TARGETS, names, {*source, *others}),)
    if len({*source, *target, *others}) < len(source) + len(target) + len(others):
        what = f"a column of {where} has two uses"
        raise UsageError(what, "it can be source, target or reference", f"Check {_FLAGS}")
    return Places(source, target, None if ALL in selection.references else others)


class ColumnCounter:
    """Counts in how many lines each column has text.

    Args:
        header: names of the columns; None if the table has none.
        places: the use of each column.
    """

    def __init__(self, header: Sequence[str] | None, places: Places) -> None:
        self._header, self._places = header or (), places
        self._lines: list[int] = []

    def add(self, cells: Sequence[str]) -> None:
        """Count a line."""
        self._lines += [0] * (len(cells) - len(self._lines))
        for i, cell in enumerate(cells):
            self._lines[i] += bool(cell)

    def columns(self) -> Iterator[Column]:
        """The columns that have text anywhere."""
        for i, lines in enumerate(self._lines):
            name = self._header[i] if i < len(self._header) else f"column {i + 1}"
            if lines:
                yield Column(name, self._places.use(i), lines)


def merged(columns: Iterable[Column]) -> tuple[Column, ...]:
    """The columns of several files, equal ones counted together."""
    lines: dict[tuple[str, Use], int] = {}
    for column in columns:
        key = column.name, column.use
        lines[key] = lines.get(key, 0) + column.lines
    return tuple(Column(name, use, count) for (name, use), count in lines.items())


def unused_note(columns: Iterable[Column]) -> str:
    """A warning about the columns that are not used; empty if all are."""
    unused = [column for column in columns if column.use == "unused"]
    if not unused:
        return ""
    which = ", ".join(f"{column.name} ({column.lines:,} lines)" for column in unused)
    return f"not used: {which}; {_FLAGS} select columns by name or number"


def _listed(value: Any) -> tuple[str, ...]:
    """The columns in an option."""
    if value is None:
        return ()
    parts = value.split(",") if isinstance(value, str) else [value] if isinstance(value, int) else value
    columns = tuple(str(part).strip() for part in parts)
    if not all(columns):
        raise UsageError(f"columns {value!r}", "a column is empty", "Use names or numbers, such as 1,3")
    return columns


def _indices(columns: Iterable[str], names: Sequence[str], where: str) -> tuple[int, ...]:
    """The index of each column; a number counts from 1, unless a column is named so."""
    found = []
    for column in columns:
        if column.lower() in names:
            found.append(names.index(column.lower()))
        elif column.isdecimal() and (not names or int(column) <= len(names)):
            found.append(int(column) - 1)
        else:
            why = f"its first line has {len(names)} columns: {', '.join(names)}"
            fix = "Use the names in the first line, or numbers from 1"
            raise UsageError(f"cannot find column {column!r} in {where!r}", why, fix)
    return tuple(found)


def _default(usual: Sequence[str], names: Sequence[str], taken: set[int]) -> int:
    """The column with one of the usual names, or the first one that is not taken."""
    named = [names.index(name) for name in usual if name in names and names.index(name) not in taken]
    return named[0] if named else next(i for i in range(len(taken) + 1) if i not in taken)
