"""What the folders of runs say about each run: configuration, metrics of each epoch, state; without torch."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any

from striate import bundle, strict_yaml
from striate.csv_file import parse_csv
from striate.errors import StriateError
from striate.files import probe
from striate.reading import MAX_TABLE_BYTES, read_bytes
from striate.training.config import RunConfig
from striate.training.config_file import TUNING

ALIVE_SECONDS = 90.0  # a run writes a checkpoint once a minute
_HIDDEN = ("format", "progress")  # of config.yaml
_WRITTEN = ("config.yaml", "results.csv", "state", "report.html")
# Options that do not change what is trained.
APART = ("seed", "name", "out", "device", "workers", "save_every", "rollbacks", "figures", "full", "parquet")


@dataclass
class RunTable:
    """The runs of a folder; files are read again only if they have changed.

    Args:
        folder: with a folder for each run.
    """

    folder: Path
    _cache: dict[Path, tuple[tuple[int, int], Any]] = field(default_factory=dict, repr=False)

    def rows(self) -> list[dict[str, Any]]:
        """All runs as JSON values, the one that was written to last first.

        A study (`--folds`, `--seeds`) has the mean of its runs, a search the values of the run that it chose.
        """
        found = []
        with contextlib.suppress(OSError):
            for path in self.folder.iterdir():
                with contextlib.suppress(OSError, StriateError):
                    if (row := self.row(path)) is not None:
                        found.append(row)
        return sorted(found, key=lambda row: (-row["modified"], row["name"]))

    def row(self, run: Path) -> dict[str, Any] | None:
        """One run as JSON values; None if the folder is not that of a run or study."""
        if not (run / "config.yaml").is_file():
            return None
        config = self._read(run / "config.yaml", _config) or {}
        found = {
            "name": run.name,
            "state": _state(run),
            "modified": max(_modified(run / name) for name in _WRITTEN),
            "config": config,
            "epochs": self._read(run / "results.csv", _epochs) or {},
            "best": self._read(run / "best.safetensors", _metrics) or {},
            "report": (run / "report.html").is_file(),
        }
        is_search = probe(run / TUNING) is not None
        if is_search or is_study(config):
            members = RunTable(run, self._cache).rows()
            if members and found["state"] != "finished":
                found["state"] = members[0]["state"]
            found["modified"] = max([found["modified"], *(one["modified"] for one in members)])
            chosen = [one for one in members if _matches(config, one["config"])] if is_search else members
            found |= {name: _mean([one[name] for one in chosen]) for name in ("epochs", "best")}
        return found

    def _read(self, path: Path, parse: Any) -> Any:
        """What `parse` makes of a file, None if there is none or it is damaged."""
        status = probe(path)
        if status is None:
            return None
        stamp = (status.st_mtime_ns, status.st_size)
        if self._cache.get(path, (None,))[0] != stamp:
            value = None
            with contextlib.suppress(StriateError, ValueError):
                value = parse(path)
            self._cache[path] = (stamp, value)
        return self._cache[path][1]


def _matches(config: Mapping[str, Any], run: Mapping[str, Any]) -> bool:
    """Whether a run has all options that a search has chosen."""
    own = {name: value for name, value in config.items() if value is not None and name not in APART}
    return all(run.get(name) == value for name, value in own.items())


def _mean(found: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The mean of each number, or of each row of columns, that all runs have."""
    mean: dict[str, Any] = {}
    for name in found[0] if found else ():
        values: list[Any] = [one.get(name) for one in found]
        if all(isinstance(value, list) for value in values):
            mean[name] = [None if None in row else fmean(row) for row in zip(*values, strict=False)]
        elif all(isinstance(value, (int, float)) for value in values):
            mean[name] = fmean(values)
    return mean


def is_study(config: Mapping[str, Any]) -> bool:
    """Whether a configuration describes several runs: those of `--folds` or `--seeds`."""
    with contextlib.suppress(TypeError):  # a damaged value
        return RunConfig.describes_several(config)
    return False


def _config(path: Path) -> dict[str, Any]:
    values = strict_yaml.read(path).values
    return {name: value for name, value in values.items() if name not in _HIDDEN}


def _metrics(path: Path) -> dict[str, float]:
    """The metrics of the best epoch, and those of the held-out data with the prefix `test_`."""
    metrics = bundle.describe(path).metrics
    tested = metrics.get("test")
    every = {**metrics, **{f"test_{k}": v for k, v in (tested if isinstance(tested, dict) else {}).items()}}
    return {
        name: value
        for name, value in every.items()
        if isinstance(value, (int, float)) and math.isfinite(value)
    }


def _epochs(path: Path) -> dict[str, list[float | None]]:
    """The columns of results.csv; None in place of empty cells and of numbers that are not finite."""
    rows = [fields for _, fields in parse_csv(read_bytes(path, MAX_TABLE_BYTES).decode(), str(path))]
    header, *values = rows
    whole = [row for row in values if len(row) == len(header)]
    return {name: [_number(row[i]) for row in whole] for i, name in enumerate(header)}


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _modified(path: Path) -> float:
    status = probe(path)
    return 0.0 if status is None else status.st_mtime


def _state(run: Path) -> str:
    """`finished` with a report of its last epoch, `training` if it wrote something lately, else `stopped`."""
    last = max(_modified(run / name) for name in ("results.csv", "state"))
    if (reported := _modified(run / "report.html")) and reported >= _modified(run / "results.csv"):
        return "finished"
    return (
        "training" if time.time() - max(last, _modified(run / "config.yaml")) < ALIVE_SECONDS else "stopped"
    )
