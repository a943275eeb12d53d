"""Tables of pairs, TSV and CSV: their rows with the selected columns."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path

from striate.csv_file import parse_csv
from striate.data.images.samples import SPLIT_NAMES
from striate.data.images.tables import read_rows
from striate.data.text.columns import (
    Column,
    ColumnCounter,
    ColumnSelection,
    Places,
    find_places,
    has_header,
    joined,
)
from striate.data.text.reader import clean_text, read_lines
from striate.errors import DataError

SPLITS = {**SPLIT_NAMES, "dev": "val", "development": "val"}  # names of splits in text corpora
_EXAMPLE = "path,text for images or source,text"
_IMAGES = "path"  # the source column of images


@dataclass(frozen=True)
class Row:
    """A row of a table of pairs.

    Attributes:
        source: text, or the path of an image.
        targets: the target and further correct ones; some may be empty.
        place: file and line, for messages.
    """

    source: str
    targets: tuple[str, ...]
    place: str


def read_tsv(path: Path, selection: ColumnSelection) -> tuple[list[Row], list[Column]]:
    """Read the pairs of a TSV file, and its columns.

    The first line is a header if it has the names of the selection, or `source` and `target`.

    Raises:
        DataError: a line has too few columns; the message names the line.
        UsageError: no such column, or it has two uses.
    """
    lines, header, places = _open_tsv(path, selection)
    counter, rows = ColumnCounter(header, places), []
    for number, cells in lines:
        if not any(cells):
            continue
        if len(cells) < places.required:
            raise _too_few(path, number, cells, places.required)
        counter.add(cells)
        rows.append(Row(*places.texts(cells), f"{path.name}:{number}"))
    return rows, list(counter.columns())


def read_csv(path: Path, selection: ColumnSelection) -> tuple[dict[str, list[Row]], list[Column], bool]:
    """Read the pairs of a CSV file by split, its columns, and whether its sources are images.

    Raises:
        DataError: columns or values are missing, or a split is unknown; the message names the line.
        UsageError: no such column, or it has two uses.
    """
    text, header = _open_csv(path)
    selection = _by_name(header, selection)
    if not selection.source or not selection.target:  # read_rows says what is missing
        read_rows(path, text, ({"path", "text"}, {"source", "text"}), _EXAMPLE)
    places = find_places(header, selection, str(path))
    used = {header[i] for i in (*places.source, *places.target, *(places.references or ()))}
    images = [header[i] for i in places.source] == [_IMAGES]
    counter, splits = ColumnCounter(header, places), dict[str, list[Row]]()
    for split, rows in read_rows(path, text, (used,), _EXAMPLE, split_names=SPLITS)[0].items():
        for number, row in rows:
            cells = [row[name] if name == _IMAGES else clean_text(row[name]) for name in header]
            counter.add(cells)
            source, targets = places.texts(cells)
            if images and source:
                source = str(path.parent / source)
            splits.setdefault(split, []).append(Row(source, targets, f"{path.name}:{number}"))
    columns = [replace(c, use="split") if c.name == "split" else c for c in counter.columns()]
    return splits, columns, images


def read_sources(path: str | os.PathLike[str], selection: ColumnSelection) -> Iterator[str]:
    """Yield the sources in a file: the source columns of a .tsv or .csv file; else its lines.

    An empty line is an empty source, so that there are as many sources as lines.

    Raises:
        DataError: the file cannot be read.
        UsageError: no such column.
    """
    path = Path(path)
    ending = path.with_suffix("").suffix if path.suffix.lower() == ".gz" else path.suffix
    if ending.lower() == ".tsv":
        lines, _, places = _open_tsv(path, selection)
        yield from (joined(cells, places.source) for _, cells in lines)
    elif ending.lower() == ".csv":
        text, header = _open_csv(path)
        places = find_places(header, _by_name(header, selection), str(path))
        rows, _ = read_rows(path, text, ({header[i] for i in places.source},), "source", split_names=SPLITS)
        for _, row in sorted(chain(*rows.values()), key=lambda numbered: numbered[0]):
            yield joined([row[name] for name in header], places.source)
    else:
        yield from read_lines(path)


def _open_tsv(
    path: Path, selection: ColumnSelection
) -> tuple[Iterator[tuple[int, list[str]]], list[str] | None, Places]:
    """The numbered rows of cells, without the header; the header; and the selected columns."""
    lines = (
        (number, [clean_text(cell) for cell in line.split("\t")])
        for number, line in enumerate(read_lines(path), 1)
    )
    first = next(lines, (1, [""]))
    header = first[1] if has_header(first[1], selection) else None
    places = find_places(header, selection, str(path))
    return (chain([first], lines) if header is None else lines), header, places


def _open_csv(path: Path) -> tuple[str, list[str]]:
    """The text of a CSV file, and the names of its columns."""
    text = "\n".join(read_lines(path))
    _, header = next(parse_csv(text, str(path)), (0, []))
    return text, [name.lower() for name in header]


def _by_name(header: list[str], selection: ColumnSelection) -> ColumnSelection:
    """The selection with the usual names of a CSV file for the sides that it leaves open."""
    source = tuple(name for name in (_IMAGES, "source") if name in header)[:1]
    target = tuple(name for name in ("text", "target") if name in header)[:1]
    return replace(selection, source=selection.source or source, target=selection.target or target)


def _too_few(path: Path, number: int, cells: list[str], required: int) -> DataError:
    if len(cells) == 1:
        why = f"the line has no tab: {cells[0][:60]!r}"
        fix = "Each line is a source, a tab and a target, or has the columns that you select"
    else:
        why = f"the line has {len(cells)} columns, but column {required} is needed"
        fix = "Fill it in, or select other columns with --source-columns and --target-columns"
    return DataError(f"{path}:{number}", why, fix)
