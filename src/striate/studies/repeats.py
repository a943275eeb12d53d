"""Cross-validation and repeated seeds: the same training several times, and the mean of its metrics."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from striate import markup
from striate.errors import UsageError
from striate.inference.evaluation import Evaluation, pool
from striate.metrics import multi_label
from striate.metrics.classification import METRICS
from striate.metrics.repeated_runs import Spread, spread
from striate.studies.runs import Trainer, create_folder, open_study, write_config
from striate.training.config import EXTENDING, RunConfig
from striate.training.options import flag

_SHARES = {"ece", *multi_label.METRICS, *(m.name for m in METRICS if m.format.endswith("%"))}  # from 0 to 1


@dataclass(frozen=True)
class Repeat:
    """One of several runs.

    Attributes:
        folder: of the run.
        seed: of the run.
        fold: that it was tested on; None without folds.
        best_epoch: the epoch of its best bundle.
        seconds: of training.
        trained_on: number of training images or pairs.
        evaluation: on its held-out data.
    """

    folder: Path
    seed: int
    fold: int | None
    best_epoch: int
    seconds: float
    trained_on: int
    evaluation: Any = field(repr=False)

    @property
    def best(self) -> Path:
        """Its bundle."""
        return self.folder / "best.safetensors"

    @property
    def n(self) -> int:
        """Number of held-out images or pairs."""
        return int(self.evaluation.headline()["n"])

    @property
    def held_out(self) -> tuple[str, ...]:
        """The held-out images or sources."""
        return tuple(getattr(self.evaluation, "names", None) or self.evaluation.sources)

    @property
    def metrics(self) -> dict[str, float]:
        """The metrics on its held-out data, by name."""
        found = self.evaluation.headline()
        return {name: value for name, value in found.items() if isinstance(value, float)}

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        return {
            "run": str(self.folder), "best": str(self.best), "seed": self.seed, "fold": self.fold,
            "best_epoch": self.best_epoch, "seconds": self.seconds, "split": self.evaluation.split,
            **self.evaluation.headline(),
        }  # fmt: skip


@dataclass(frozen=True)
class Repeats:
    """Several runs of the same training.

    Attributes:
        folder: that contains the runs.
        folds: number of folds; 0 without cross-validation.
        runs: in the order in which they were trained.
        pooled: the evaluation of the out-of-fold predictions of the first seed: each image once, by the run
            that was not trained on it. None without folds, and for images with several classes, because the
            thresholds of each run are its own.
        report: path of the HTML page.
    """

    folder: Path
    folds: int
    runs: tuple[Repeat, ...]
    pooled: Evaluation | None
    report: Path

    @property
    def spreads(self) -> dict[str, Spread]:
        """The mean of each metric over the runs, with its interval."""
        return {
            name: spread([run.metrics[name] for run in self.runs], self.test_to_train, share=name in _SHARES)
            for name in self.runs[0].metrics
        }

    @property
    def test_to_train(self) -> float:
        """Test images per training image if the runs have different test images; 0 if those are the same."""
        first, *others = self.runs
        same = not self.folds and all(run.held_out == first.held_out for run in others)
        return 0.0 if same else sum(r.n for r in self.runs) / sum(r.trained_on for r in self.runs)

    @property
    def mean(self) -> dict[str, float]:
        """The mean of each metric over the runs."""
        return {name: found.mean for name, found in self.spreads.items()}

    @property
    def std(self) -> dict[str, float]:
        """The standard deviation of each metric over the runs; NaN for one run."""
        return {name: found.std for name, found in self.spreads.items()}

    @property
    def interval(self) -> dict[str, tuple[float, float]]:
        """The 95 % interval of each mean (`metrics.repeated_runs.spread`)."""
        return {name: (found.low, found.high) for name, found in self.spreads.items()}

    @property
    def method(self) -> str:
        """How the intervals are computed, in words."""
        runs = f"Student's t over {len(self.runs)} runs"
        corrected = "corrected for training images that they share (Nadeau and Bengio 2003)"
        return f"{runs}, {corrected}" if self.test_to_train else runs

    def __repr__(self) -> str:
        """The folder and the mean of the first metric."""
        name, mean = next(iter(self.mean.items()))
        return f"Repeats({str(self.folder)!r}, {len(self.runs)} runs, mean {name} {mean:.4f})"

    def _repr_html_(self) -> str:
        """The mean of each metric with its interval, and the runs."""
        spreads, first = self.spreads, next(iter(self.runs[0].metrics))
        means = [
            (name, f"{s.mean:.4f}", "–" if math.isnan(s.low) else f"{s.low:.4f} to {s.high:.4f}")
            for name, s in spreads.items()
        ]
        runs = [
            (run.folder.name, run.seed, "" if run.fold is None else run.fold, f"{run.metrics[first]:.4f}")
            for run in self.runs
        ]
        return markup.panel(
            markup.title(f"{len(self.runs)} runs in {self.folder}"),
            markup.table(("metric", "mean", "95 % interval"), means), markup.note(self.method),
            markup.table(("run", "seed", "fold", first), runs), markup.note(f"report: {self.report}"),
        )  # fmt: skip

    def to_json(self) -> dict[str, Any]:
        """What `striate train --json` prints."""
        return {
            "run": str(self.folder),
            "report": str(self.report),
            "folds": self.folds,
            "seeds": sorted({run.seed for run in self.runs}),
            "mean": self.mean,
            "std": {name: None if math.isnan(value) else value for name, value in self.std.items()},
            "interval": {n: None if math.isnan(ends[0]) else list(ends) for n, ends in self.interval.items()},
            "interval_method": self.method,
            "out_of_fold": None if self.pooled is None else self.pooled.headline(),
            "runs": [run.to_json() for run in self.runs],
        }


def start(config: RunConfig) -> Path:
    """Create the folder of the runs that a configuration describes; raises DataError, UsageError."""
    folds, seeds = getattr(config, "folds", None) or 0, config.seeds
    parts = ([f"{folds}-folds"] if folds else []) + ([f"{seeds}-seeds"] if seeds > 1 else [])
    folder = create_folder(config, "-".join(parts))
    write_config(folder, config)
    return folder


def train(config: RunConfig, folder: Path, trainer: Trainer, changed: Mapping[str, Any]) -> Repeats:
    """Train all runs, or those that are not finished.

    Args:
        config: of all runs.
        folder: that `start` has created.
        trainer: how to train a run.
        changed: options for resuming them.

    Returns:
        The runs; the page is not written yet.

    Raises:
        DataError, UsageError, TrainingError, TrainingInterrupted: as for a single run.
    """
    if not_allowed := [name for name in EXTENDING if changed.get(name) is not None]:
        what = f"cannot resume {str(folder)!r} with {flag(not_allowed[0])}"
        raise UsageError(what, "it has several runs", "Extend one of them, or start anew with other options")
    runs = []
    with open_study(folder):
        plan = list(config.repeats())
        for number, (name, own) in enumerate(plan, 1):
            config.progress.info(f"run {number} of {len(plan)}: {name}")
            runs.append(_run(own.placed(folder, name), trainer, changed))
    folds = getattr(config, "folds", None) or 0
    first = [run.evaluation for run in runs if run.seed == config.seed]
    pooled = pool(first, "out-of-fold") if folds and isinstance(first[0], Evaluation) else None
    return Repeats(folder, folds, tuple(runs), pooled, folder / "report.html")


def _run(config: RunConfig, trainer: Trainer, changed: Mapping[str, Any]) -> Repeat:
    """Train one run; its network is not kept in memory."""
    training = trainer.advance(config, changed)
    finished = trainer.finish(training)
    own, data = training.config, getattr(training.task, "dataset", training.task.data)
    return Repeat(
        training.folder, own.seed, getattr(own, "fold", None), training.best_epoch, training.seconds,
        len(data.splits["train"]), finished.evaluation,
    )  # fmt: skip
