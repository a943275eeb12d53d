"""Tables of images: CSV or TSV with the columns path, label and, if wanted, split."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from striate.data.images.folders import SPLIT_NAMES
from striate.data.images.samples import UNSPLIT, DataSet, Samples, is_text
from striate.errors import DataError


def read(table: Path) -> DataSet:
    """Read a table; relative paths start at the table's folder.

    Raises:
        DataError: columns or values are missing; the message has the line.
    """
    delimiter = "\t" if table.suffix.lower() == ".tsv" else ","
    try:
        text = table.read_text("utf-8-sig", "surrogateescape")
    except OSError as error:
        raise DataError(f"cannot read {str(table)!r}", str(error)) from error
    if delimiter == "," and ";" in text.split("\n", 1)[0]:
        delimiter = ";"  # as spreadsheets write it where the comma is the decimal point
    rows = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter)
    columns = [name.strip().lower() for name in rows.fieldnames or []]
    if not {"path", "label"} <= set(columns):
        raise DataError(
            f"cannot use {str(table)!r}",
            f"its first line is {(text.splitlines() or [''])[0][:80]!r}",
            f"The first line must name the columns: path{delimiter}label, and split if wanted",
        )
    rows.fieldnames = columns
    found: dict[str, list[tuple[str, str]]] = {}
    for row in rows:
        found.setdefault(_split(row, table, rows.line_num), []).append(_sample(row, table, rows.line_num))
    if not found:
        raise DataError(f"cannot use {str(table)!r}", "it has a first line and no rows")
    if UNSPLIT in found and len(found) > 1:
        raise DataError(
            f"cannot use {str(table)!r}",
            "some rows have a split and some have none",
            "Fill the column or drop it",
        )
    return from_rows(str(table), str(table.parent), found)


def from_rows(source: str, root: str, found: dict[str, list[tuple[str, str]]]) -> DataSet:
    """A data set from (path, class name) pairs by split."""
    classes = tuple(sorted({label for pairs in found.values() for _, label in pairs}))
    position = {name: i for i, name in enumerate(classes)}
    splits = {
        split: Samples(
            tuple(path for path, _ in pairs), np.array([position[label] for _, label in pairs], np.int64)
        )
        for split, pairs in found.items()
    }
    return DataSet(source, root, classes, splits)


def to_csv(rows: Iterable[tuple[str, str, str]]) -> bytes:
    """The CSV text of (path, label, split) rows, as `read` reads it."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["path", "label", "split"])
    writer.writerows(rows)
    return text.getvalue().encode("utf-8", "surrogateescape")  # file names may be any bytes


def _sample(row: dict[str, str], table: Path, line: int) -> tuple[str, str]:
    path, label = (row.get("path") or "").strip(), (row.get("label") or "").strip()
    if not path or not label:
        missing = "path" if not path else "label"
        raise DataError(f"{table}:{line}", f"the row has no {missing}", "Fill it in or delete the row")
    if not is_text(label):
        raise DataError(f"{table}:{line}", f"the label {label!r} is no UTF-8", "Save the table as UTF-8 text")
    return str(table.parent / path), label


def _split(row: dict[str, str], table: Path, line: int) -> str:
    given = (row.get("split") or "").strip().lower()
    if given and given not in SPLIT_NAMES:
        raise DataError(f"{table}:{line}", f"the split is {given!r}", "Use train, val or test")
    return SPLIT_NAMES[given] if given else UNSPLIT
