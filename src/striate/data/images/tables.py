"""Tables of images: CSV or TSV files with the columns path, label and optionally split."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path

from striate.data.images.samples import SPLIT_NAMES, UNSPLIT, DataSet, is_text
from striate.errors import DataError


def read(table: Path) -> DataSet:
    """Read a CSV or TSV file. Relative paths start at the folder of the file.

    Raises:
        DataError: columns or values are missing; the message names the line.
    """
    try:
        text = table.read_text("utf-8-sig", "surrogateescape")
    except OSError as error:
        raise DataError(f"cannot read {str(table)!r}", str(error)) from error
    delimiter = "\t" if table.suffix.lower() == ".tsv" else ","
    if delimiter == "," and ";" in text.split("\n", 1)[0]:
        delimiter = ";"  # written by spreadsheets in locales with a decimal comma
    rows, _ = read_rows(table, text, ({"path", "label"},), f"path{delimiter}label", delimiter)
    pairs = {split: [_pair(row, table, line) for line, row in these] for split, these in rows.items()}
    if not pairs:
        raise DataError(f"cannot use {str(table)!r}", "it has a header but no rows")
    return DataSet.from_pairs(str(table), str(table.parent), pairs)


def read_rows(
    table: Path,
    text: str,
    columns: Sequence[set[str]],
    example: str,
    delimiter: str = ",",
    split_names: Mapping[str, str] = SPLIT_NAMES,
) -> tuple[dict[str, list[tuple[int, dict[str, str]]]], set[str]]:
    """Parse CSV text with an optional column `split`.

    Args:
        table: path of the file, for messages.
        text: its content.
        columns: alternative sets of required columns.
        example: a header with these columns, for messages.
        delimiter: between the columns.
        split_names: name in the table -> name of the split.

    Returns:
        (line number, row) pairs by split, with stripped values; and the names of the columns.

    Raises:
        DataError: columns are missing, or a split is unknown or missing.
    """
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter)
    reader.fieldnames = [name.strip().lower() for name in reader.fieldnames or []]
    names = set(reader.fieldnames)
    if not any(these <= names for these in columns):
        why = f"its first line is {(text.splitlines() or [''])[0][:80]!r}"
        fix = f"The first line must name the columns: {example}, and optionally split"
        raise DataError(f"cannot use {str(table)!r}", why, fix)
    rows: dict[str, list[tuple[int, dict[str, str]]]] = {}
    for raw in reader:
        row = {name: (raw.get(name) or "").strip() for name in names}
        split = row.get("split", "").lower()
        if split and split not in split_names:
            where = f"{table}:{reader.line_num}"
            raise DataError(where, f"unknown split {split!r}", "Use train, val or test")
        rows.setdefault(split_names[split] if split else UNSPLIT, []).append((reader.line_num, row))
    if UNSPLIT in rows and len(rows) > 1:
        why = "some rows have a split and others do not"
        fix = "Fill in the split column for all rows, or remove it"
        raise DataError(f"cannot use {str(table)!r}", why, fix)
    return rows, names


def _pair(row: dict[str, str], table: Path, line: int) -> tuple[str, str]:
    for name in ("path", "label"):
        if not row[name]:
            raise DataError(f"{table}:{line}", f"the row has no {name}", "Fill it in or delete the row")
    if not is_text(row["label"]):
        why = f"the label {row['label']!r} is not valid UTF-8"
        raise DataError(f"{table}:{line}", why, "Save the table as UTF-8 text")
    return str(table.parent / row["path"]), row["label"]
