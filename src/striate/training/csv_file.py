"""The CSV files of a run folder; needs no torch."""

from __future__ import annotations

import csv
import dataclasses
import io
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from striate.files import write_atomic


def read_csv(path: Path) -> list[list[str]]:
    """The rows of a CSV file, the first one with the names of its columns; [] if there is no file."""
    try:
        text = path.read_bytes().decode("utf-8", "surrogateescape")
    except FileNotFoundError:
        return []
    return list(csv.reader(io.StringIO(text, newline="")))


def write_csv(path: Path, records: Sequence[Any], columns: Iterable[str] | None = None) -> None:
    """Write dataclass records, or tuples under the given column names."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    if columns is None:
        writer.writerow([field.name for field in dataclasses.fields(records[0])])
        records = [dataclasses.astuple(record) for record in records]
    else:
        writer.writerow(columns)
    writer.writerows(records)
    write_atomic(path, text.getvalue().encode("utf-8", "surrogateescape"))
