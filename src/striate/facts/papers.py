"""The numbers that the papers print about their networks, read from `counts.csv` and `results.csv`.

The columns are the attributes of `Count` and `Result`; an empty cell is the default. The column `arguments`
holds one `name=value`, with the value in JSON.
"""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

from striate.facts.records import Count, Result


def _rows(file: str) -> list[dict[str, Any]]:
    """The rows of a table of this folder, without empty cells."""
    lines = Path(__file__).with_name(file).read_text("utf-8").splitlines()
    return [{column: cell for column, cell in row.items() if cell} for row in csv.DictReader(lines)]


def _count(row: dict[str, Any]) -> Count:
    numbers = {column: json.loads(row[column]) for column in ("value", "step", "differs") if column in row}
    name, _, value = row.pop("arguments", "").partition("=")
    arguments = {name: json.loads(value)} if name else {}
    return Count(**(row | numbers), arguments=arguments)


COUNTS = tuple(map(_count, _rows("counts.csv")))
RESULTS = tuple(Result(**{**row, "percent": float(row["percent"])}) for row in _rows("results.csv"))
