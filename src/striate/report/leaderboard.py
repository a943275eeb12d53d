"""A table of runs, best first: runs that differ only by their seed are one row, with their spread."""

from __future__ import annotations

import contextlib
import math
import statistics
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from striate import bundle, strict_json
from striate.errors import DataError, StriateError
from striate.report.run_table import RunTable

# Options that do not change what is trained.
_APART = ("seed", "name", "out", "device", "workers", "save_every", "rollbacks", "figures", "full", "parquet")
_FIGURES = ("top1", "map", "exact", "bleu")  # of a bundle, the first one that it has
_SPLITS = ("test", "val")


@dataclass(frozen=True)
class Place:
    """Runs with equal options, but for the seed.

    Attributes:
        runs: their names.
        model: the network, or the preset.
        metric: name of the figure.
        split: on which it was measured.
        values: of each run.
        mean: of the values.
        sd: standard deviation between seeds; None of a single run.
        intervals: 95 % interval of each run, for the choice of images; None where it is not known.
    """

    runs: tuple[str, ...]
    model: str
    metric: str
    split: str
    values: tuple[float, ...]
    mean: float
    sd: float | None
    intervals: tuple[tuple[float, float] | None, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)


def leaderboard(folder: Path) -> list[Place]:
    """The runs of a folder that have a bundle with metrics, the highest mean first.

    Raises:
        DataError: there are none.
    """
    groups: dict[str, list[dict[str, Any]]] = {}
    for row in RunTable(folder).rows():
        with contextlib.suppress(StriateError, OSError):
            row["metrics"] = bundle.describe(bundle.path_of(folder / row["name"])).metrics
            config = {name: value for name, value in row["config"].items() if name not in _APART}
            if _figure(row["metrics"]) is not None:
                groups.setdefault(strict_json.dumps(dict(sorted(config.items()))), []).append(row)
    if not groups:
        why = "it has no finished runs"
        raise DataError(f"cannot compare the runs of {str(folder)!r}", why, "Give a folder of runs")
    places = [_place(sorted(rows, key=lambda row: row["name"])) for rows in groups.values()]
    return sorted(places, key=lambda place: (-place.mean, place.runs))


def _figure(metrics: dict[str, Any]) -> tuple[str, str, float, tuple[float, float] | None] | None:
    """Name, split, value and interval of the figure to sort by."""
    for split in _SPLITS:
        found = metrics.get(split)
        if not isinstance(found, dict):
            continue
        for name in _FIGURES:
            value, ends = found.get(name), found.get(f"{name}_ci")
            if isinstance(value, (int, float)) and math.isfinite(value):
                return name, split, float(value), None if ends is None else (ends[0], ends[1])
    return None


def _place(rows: list[dict[str, Any]]) -> Place:
    figures = [figure for row in rows if (figure := _figure(row["metrics"])) is not None]
    values = tuple(figure[2] for figure in figures)
    config = rows[0]["config"]
    return Place(
        tuple(row["name"] for row in rows), str(config.get("model") or config.get("preset") or ""),
        figures[0][0], figures[0][1], values, statistics.mean(values),
        statistics.stdev(values) if len(values) > 1 else None, tuple(figure[3] for figure in figures),
    )  # fmt: skip
