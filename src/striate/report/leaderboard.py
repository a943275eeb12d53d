"""A table of runs, the best of each dataset first; runs that differ only by their seed are one row."""

from __future__ import annotations

import contextlib
import math
import os
import statistics
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from striate import bundle, strict_json
from striate.data.images.tables import read_split
from striate.errors import DataError, StriateError
from striate.files import probe
from striate.metrics.repeated_runs import spread
from striate.report.run_table import APART, RunTable, is_study
from striate.training.config_file import TUNING

# Of a bundle, the first one that it has.
_FIGURES = {"top1": "top-1", "map": "mAP", "exact": "exact match", "bleu": "BLEU"}
_SPLITS = ("test", "val")


@dataclass(frozen=True)
class Place:
    """Runs with equal options, but for the seed; or the runs of a study, such as a cross-validation.

    Attributes:
        dataset: its name.
        runs: their names.
        folders: of the runs.
        study: name of their study; None for runs that were trained one by one.
        model: the network, or the preset.
        metric: name of the figure.
        split: on which it was measured.
        values: of each run.
        seeds: of each run.
        folds: of each run; None without folds.
        mean: of the values; runs with the same seed count as one.
        sd: standard deviation between seeds or folds; None of a single one.
        interval: 95 % interval of the mean: of one run, for the choice of images; otherwise Student's t. None
            where it is not known.
        intervals: 95 % interval of each run, for the choice of images; None where it is not known.
    """

    dataset: str
    runs: tuple[str, ...]
    folders: tuple[str, ...]
    study: str | None
    model: str
    metric: str
    split: str
    values: tuple[float, ...]
    seeds: tuple[int, ...]
    folds: tuple[int | None, ...]
    mean: float
    sd: float | None
    interval: tuple[float, float] | None
    intervals: tuple[tuple[float, float] | None, ...]

    @property
    def label(self) -> str:
        """The metric and its split in words."""
        return f"{_FIGURES[self.metric]} ({self.split})"

    @property
    def unit(self) -> str:
        """Of the figure in percent; BLEU has none."""
        return "" if self.metric == "bleu" else " %"

    def show(self, value: float) -> str:
        """Format a value of the metric."""
        return f"{100 * value:.2f}{self.unit}"

    @property
    def title(self) -> str:
        """The study, or the runs."""
        return self.study or ", ".join(self.runs)

    @property
    def repeated(self) -> str:
        """How many seeds, folds and runs; empty of a single run."""
        seeds, folds, runs = len(set(self.seeds)), len(set(self.folds) - {None}), len(self.runs)
        parts = [f"{folds} folds"] * (folds > 1) + [f"{seeds} seeds"] * (seeds > 1)
        if runs > max(1, folds) * seeds:
            parts += [f"{runs} runs"] if parts else [f"{runs} runs with the same seed"]
        return ", ".join(parts)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)


@dataclass(frozen=True)
class _Run:
    """A run with metrics: its name, options, folder, bundle, and figure to rank by."""

    name: str
    config: dict[str, Any]
    folder: Path
    description: bundle.Description
    figure: tuple[str, str, float, tuple[float, float] | None]

    @property
    def seed(self) -> int:
        seed = self.config.get("seed")
        return seed if isinstance(seed, int) else 0  # an edited file may hold anything

    @property
    def dataset(self) -> tuple[str, ...]:
        """The full names of its data."""
        names = self.config.get("data") or self.description.provenance.get("data") or ""
        return tuple(
            os.path.realpath(name) if os.path.isabs(name) else name  # noqa: PTH117 - a name, no path
            for name in map(str, names if isinstance(names, list) else [names])
        )

    @property
    def compared(self) -> tuple[tuple[str, ...], str, str]:
        """Runs with other data, another metric or another split are not compared with this one."""
        return self.dataset, *self.figure[:2]


def leaderboard(*folders: Path) -> tuple[list[Place], list[str]]:
    """The runs that have a bundle with metrics: by dataset, metric and split, the highest mean first.

    Args:
        folders: one folder of runs; or several folders of runs, runs or studies (`--folds`, `--seeds`).

    Returns:
        The rows, and why runs are not among them.

    Raises:
        DataError: there are no runs with metrics.
    """
    groups: dict[str, tuple[str | None, list[_Run]]] = {}
    notes: list[str] = []
    for name, row, path in _candidates(folders):
        study = name if is_study(row["config"]) else None
        members = [(name, row, path)]
        if study is not None:
            members = [(f"{name}/{r['name']}", r, path / r["name"]) for r in RunTable(path).rows()]
        runs = [run for one in members if (run := _opened(*one)) is not None]
        if len(runs) < max(1, len(members)):
            left_out = f"{name}: runs without metrics are left out ({len(members) - len(runs):,})"
            notes.append(left_out if runs else _why_not(name, path))
        for run in runs:
            options = {key: value for key, value in run.config.items() if key not in APART}
            key = strict_json.dumps(
                [study, *run.compared, *([] if study else [dict(sorted(options.items()))])]
            )
            groups.setdefault(key, (study, []))[1].append(run)
    if not groups:
        why = "it has no finished runs" if len(folders) == 1 else "they have no finished runs"
        names = ", ".join(repr(str(folder)) for folder in folders)
        raise DataError(f"cannot compare the runs of {names}", why, "Give a folder of runs")
    labels = _short({run.dataset for _, runs in groups.values() for run in runs})
    places = [
        _place(labels[runs[0].dataset], study, sorted(runs, key=lambda run: run.name))
        for study, runs in groups.values()
    ]
    rank = {name: i for i, name in enumerate(_FIGURES)}
    places.sort(key=lambda p: (p.dataset, rank[p.metric], _SPLITS.index(p.split), -p.mean, p.runs))
    return places, notes


def _candidates(folders: Sequence[Path]) -> Iterable[tuple[str, dict[str, Any], Path]]:
    """Name, row and folder of each run or study: those given, and those in the folders given."""
    for folder in folders:
        own = RunTable(folder.absolute().parent).row(folder.absolute())
        if own is not None and probe(folder / TUNING) is None:
            yield folder.name if len(folders) == 1 else str(folder), own, folder
            continue
        for row in RunTable(folder).rows():
            yield row["name"] if len(folders) == 1 else str(folder / row["name"]), row, folder / row["name"]


def _opened(name: str, row: dict[str, Any], path: Path) -> _Run | None:
    """A run with its metrics; None if it has none."""
    with contextlib.suppress(StriateError, OSError):
        description = bundle.describe(bundle.path_of(path))
        if (figure := _figure(description.metrics)) is not None:
            return _Run(name, row["config"], path, description, figure)
    return None


def _why_not(name: str, path: Path) -> str:
    """Why a run, a study or a search is not ranked."""
    if probe(path / TUNING) is not None:
        return f"{name} is not ranked: it is a search; `striate compare {path}` ranks its trials"
    return f"{name} is not ranked: it has no bundle with metrics"


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


def _short(datasets: Iterable[tuple[str, ...]]) -> dict[tuple[str, ...], str]:
    """A name for each dataset: the last parts of its paths, as many as it takes to tell them apart."""
    found: dict[tuple[str, ...], str] = {}
    for parts in range(1, 99):
        rest = [paths for paths in datasets if paths not in found]
        names = {paths: ", ".join("/".join(Path(p).parts[-parts:]) for p in paths) for paths in rest}
        for paths, name in names.items():
            if list(names.values()).count(name) == 1 or parts >= max(len(Path(p).parts) for p in paths):
                found[paths] = name
    return found


def _place(dataset: str, study: str | None, runs: list[_Run]) -> Place:
    values, config = tuple(run.figure[2] for run in runs), runs[0].config
    seeds = tuple(run.seed for run in runs)
    samples = list(values)
    if study is None:
        samples = [
            statistics.fmean(v for v, s in zip(values, seeds, strict=True) if s == seed)
            for seed in sorted(set(seeds))
        ]
    ends = runs[0].figure[3]
    if len(samples) > 1:
        ratio = _test_to_train(runs)
        found = spread(samples, ratio or 0.0, share=True)
        ends = None if ratio is None or math.isnan(found.low) else (found.low, found.high)
    return Place(
        dataset, tuple(run.name for run in runs), tuple(str(run.folder) for run in runs), study,
        str(config.get("model") or config.get("preset") or ""), runs[0].figure[0], runs[0].figure[1], values,
        seeds, tuple(run.config.get("fold") for run in runs), statistics.fmean(samples),
        statistics.stdev(samples) if len(samples) > 1 else None, ends,
        tuple(run.figure[3] for run in runs),
    )  # fmt: skip


def _test_to_train(runs: Sequence[_Run]) -> float | None:
    """Test images per training image if the runs have different test images, else 0; None if not known."""
    if all(run.config.get("fold") is None for run in runs) and len(set(map(_held_out, runs))) == 1:
        return 0.0
    tested = [run.description.metrics[runs[0].figure[1]].get("n") for run in runs]
    trained = [
        run.description.provenance.get("training_images", run.description.provenance.get("training_pairs"))
        for run in runs
    ]
    known = [count for count in (*tested, *trained) if isinstance(count, int) and count > 0]
    if len(known) < 2 * len(runs):
        return None
    return float(sum(known[: len(runs)]) / sum(known[len(runs) :]))


def _held_out(run: _Run) -> Hashable:
    """What tells whether two runs were measured on the same images: those in split.csv, or its digest."""
    table = run.folder / "split.csv"
    if probe(table) is None:
        return None  # the data have their own splits
    with contextlib.suppress(StriateError):
        return frozenset(read_split(table).get(run.figure[1], []))
    recorded = run.description.provenance.get("inputs")
    return strict_json.dumps(recorded) if recorded else run.folder
