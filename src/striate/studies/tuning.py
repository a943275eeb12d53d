"""`striate tune`: search for better options by successive halving on the validation split."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from striate import markup
from striate.errors import TrainingError, UsageError
from striate.files import write_atomic
from striate.printable import counted
from striate.progress import SILENT
from striate.studies import halving, search_space
from striate.studies.runs import Trainer, create_folder, open_study, write_config
from striate.studies.trials import (
    TRIALS,
    Plan,
    Trial,
    best_of,
    read_plan,
    read_trials,
    write_plan,
    write_trials,
)
from striate.tasks.classification.config import ClassificationConfig
from striate.tasks.classification.opening import open_splits
from striate.training.config_file import config_text
from striate.training.options import seconds_of
from striate.training.run_folder import TrainingRun

OPTIONS = "options.yaml"  # of all trials
_PROBE = "probe"  # a run of one epoch, which shows how long one takes
_FULL_RUNS = 10  # so many whole runs fit into the budget, unless the user chooses the epochs
_LEAST_EPOCHS = 3


@dataclass(frozen=True)
class Tuning:
    """A search.

    Attributes:
        folder: with the runs.
        config: of all trials.
        plan: what it did.
        trials: what was trained, in this order.
        best: the best whole run.
        default: the whole run with the default options.
        chosen: the configuration of the best run, which config.yaml holds.
        evaluations: of the best run and of the default one, on their held-out images.
        report: path of the HTML page.
    """

    folder: Path
    config: ClassificationConfig
    plan: Plan
    trials: tuple[Trial, ...]
    best: Trial
    default: Trial
    chosen: ClassificationConfig
    evaluations: tuple[Any, Any] = field(repr=False)
    report: Path

    @property
    def is_better(self) -> bool:
        """Whether other options than the defaults are better on the validation images."""
        return self.best.trial != 0

    @property
    def model(self) -> Path:
        """The bundle of the best run."""
        return self.folder / self.best.name / "best.safetensors"

    def __repr__(self) -> str:
        """The folder and the options of the best run."""
        return f"Tuning({str(self.folder)!r}, {len(self.trials)} trials, best options {self.best.options})"

    def _repr_html_(self) -> str:
        """The trials, the last and best ones first, and the evaluation of the best run."""
        trials = sorted(self.trials, key=lambda trial: (trial.rung, trial.order), reverse=True)
        rows = [
            (
                trial.name,
                ", ".join(f"{name} {value}" for name, value in trial.options.items()) or "defaults",
                trial.epochs,
                trial.error if trial.value is None else f"{trial.value:.4f}",
            )
            for trial in trials
        ]
        return markup.panel(
            markup.title(f"{len(rows)} trials in {self.folder}"),
            markup.table(("run", "options", "epochs", f"val {self.plan.monitor}"), rows, left=2),
            markup.note(f"best model: {self.model}"),
            markup.note(f"report: {self.report}"),
            markup.shown(self.evaluations[0]),
        )

    def to_json(self) -> dict[str, Any]:
        """What `striate tune --json` prints."""
        best, default = (evaluation.headline() for evaluation in self.evaluations)
        return {
            "run": str(self.folder),
            "report": str(self.report),
            "config": str(self.folder / "config.yaml"),
            "best": str(self.model),
            "options": self.best.options,
            "epochs": self.best.epochs,
            "monitor": self.plan.monitor,
            "value": self.best.value,
            "default": self.default.value,
            "is_better": self.is_better,
            "split": self.evaluations[0].split,
            "evaluation": best,
            "default_evaluation": default,
            "trials": [{**dataclasses.asdict(trial), "value": trial.value} for trial in self.trials],
        }


def start(config: ClassificationConfig, given: Mapping[str, Any], budget: str | None, trials: int) -> Path:
    """Create the folder of a search.

    Args:
        config: of all trials.
        given: the options that the user has chosen; those of the search space stay as they are.
        budget: for all trials, such as 30m; None for no limit.
        trials: largest number of trials; 0 for no limit.

    Raises:
        DataError, UsageError: nothing to train on, no limit, or options that describe several runs.
    """
    if budget is None and not trials:
        raise UsageError("a search without an end", "there is no limit", "Give --budget 30m or --trials 30")
    if config.is_repeated:
        raise UsageError("tune with --folds or --seeds", "each trial is one run", "Leave them out")
    fixed = [name for name in search_space.SEARCHED if name in given]
    if len(fixed) == len(search_space.SEARCHED):
        raise UsageError("nothing to search", f"all of {', '.join(fixed)} are given", "Leave one of them out")
    open_splits(config)  # so that wrong data are reported before anything is written or trained
    folder = create_folder(config, "tune")
    epochs = config.epochs or 0 if budget else config.epoch_limit or 0
    plan = Plan(epochs, 0, seconds_of(budget) if budget else 0.0, trials, fixed)
    write_atomic(folder / OPTIONS, config_text(config.absolute().to_json()).encode())
    write_plan(folder, plan)
    return folder


def search(
    config: ClassificationConfig, folder: Path, trainer: Trainer, changed: Mapping[str, Any]
) -> Tuning:
    """Train trials until the budget or their number ends the search, or go on with a search.

    Args:
        config: of all trials.
        folder: that `start` has created.
        trainer: how to train a run.
        changed: options for resuming a run; `budget` replaces that of the search.

    Returns:
        The search; its page is not written yet.

    Raises:
        DataError, UsageError, TrainingInterrupted: as for a single run.
        TrainingError: training with the default options fails.
    """
    plan = read_plan(folder)
    changed = dict(changed)
    if budget := changed.pop("budget", None):
        plan = dataclasses.replace(plan, budget=seconds_of(budget))
    with open_study(folder):
        return _Search(config, folder, trainer, changed, plan).run()


class _Search:
    """A search while it runs."""

    def __init__(
        self,
        config: ClassificationConfig,
        folder: Path,
        trainer: Trainer,
        changed: Mapping[str, Any],
        plan: Plan,
    ) -> None:
        self.config, self.folder, self.trainer, self.changed, self.plan = (
            config,
            folder,
            trainer,
            changed,
            plan,
        )
        self.trials = list(read_trials(folder))

    def run(self) -> Tuning:
        if not self.plan.channels:
            self._probe()
        write_plan(self.folder, self.plan)
        rungs = halving.rungs(self.plan.epochs)
        top = len(rungs) - 1
        if not self.trials:
            self._train(0, top, rungs[top])
            if self.trials[0].score is None:
                self._forget()
        while True:
            results = {(trial.trial, trial.rung): trial.order for trial in self.trials}
            number, rung = halving.next_job(results, top, first=1)
            if self._ends(number, rung, rungs[rung]):
                break
            self._train(number, rung, rungs[rung])
            self._remove_weights(top)
        return self._result(top)

    def _probe(self) -> None:
        """Train the defaults for one epoch, to see the images and how long an epoch takes."""
        self.config.progress.info("one epoch with the default options, to see how long it takes")
        training = self._run({}, 1, _PROBE, self.config.progress)
        epochs = self.plan.epochs
        if not epochs:
            most = self.config.epoch_limit or 0
            fitting = int(self.plan.budget / _FULL_RUNS / max(training.seconds, 1e-9))
            epochs = max(_LEAST_EPOCHS, min(most, fitting))
            if epochs < most:
                self.config.progress.info(
                    f"{epochs} epochs instead of {most}, so that several runs fit into the budget"
                )
        channels = training.task.preprocess.channels
        self.plan = dataclasses.replace(
            self.plan,
            epochs=epochs,
            channels=channels,
            spent=training.seconds,
            monitor=training.config.monitor,
        )

    def _train(self, number: int, rung: int, epochs: int) -> None:
        """Train a trial and record it."""
        options = search_space.sample(self.config, number, self.plan.fixed, self.plan.channels)
        searched: dict[str, Any] = {name: options.get(name) for name in search_space.SEARCHED}
        trial = Trial(number, rung, epochs, **searched)
        try:
            training = self._run(options, epochs, trial.name, SILENT)
        except TrainingError as error:
            trial = dataclasses.replace(trial, error=error.what)
        else:
            row = training.best_row
            assert row is not None, "it has trained an epoch"
            score, *ties = row.monitored(self.plan.monitor)
            trial = dataclasses.replace(
                trial, score=score, tie=ties[0], best_epoch=training.best_epoch, seconds=training.seconds
            )
        self.trials.append(trial)
        write_trials(self.folder, self.trials)
        self.config.progress.info(self._line(trial))

    def _run(self, options: Mapping[str, Any], epochs: int, name: str, progress: Any) -> TrainingRun:
        config = dataclasses.replace(self.config, epochs=epochs, progress=progress, **options)
        return self.trainer.advance(config.placed(self.folder, name), self.changed)

    def _ends(self, number: int, rung: int, epochs: int) -> bool:
        """Whether the search ends before this job."""
        if self.plan.trials and number > self.plan.trials:
            return True
        if not self.plan.budget:
            return False
        options = search_space.sample(self.config, number, self.plan.fixed, self.plan.channels)
        return self._left() < epochs * self._epoch_seconds(options.get("transfer"))

    def _left(self) -> float:
        return self.plan.budget - self.plan.spent - sum(trial.seconds for trial in self.trials)

    def _epoch_seconds(self, transfer: str | None) -> float:
        """Seconds of an epoch in trials that train these layers, else in all trials."""
        timed = [trial for trial in self.trials if trial.score is not None]
        same = [trial for trial in timed if trial.transfer == transfer] or timed
        return sum(trial.seconds for trial in same) / max(1, sum(trial.epochs for trial in same))

    def _line(self, trial: Trial) -> str:
        options = ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in trial.options.items())
        found = f"val {self.plan.monitor} {trial.value:.4f}" if trial.value is not None else trial.error
        left = f", {max(0.0, self._left()):,.0f} s left" if self.plan.budget else ""
        what = f"trial {trial.trial}, {counted(trial.epochs, 'epoch')}, {options or 'default options'}"
        return f"{what}: {found} ({trial.seconds:,.1f} s{left})"

    def _remove_weights(self, top: int) -> None:
        """Delete the weights of all runs but the best whole one and the default one."""
        kept = {best_of(self.trials, top).name, self.trials[0].name}
        for name in {_PROBE, *(trial.name for trial in self.trials)} - kept:
            for path in [
                *(self.folder / name).glob("*.safetensors"),
                *(self.folder / name / "state").glob("*.safetensors"),
            ]:
                path.unlink()

    def _forget(self) -> None:
        """Refuse defaults that cannot be trained; a search that is resumed tries them again."""
        (failed,) = self.trials
        (self.folder / TRIALS).unlink()
        raise TrainingError(
            f"training with the default options fails: {failed.error}", "", "Give other options"
        )

    def _result(self, top: int) -> Tuning:
        best, default = best_of(self.trials, top), self.trials[0]
        chosen = dataclasses.replace(self.config, epochs=best.epochs, name=None, **best.options)
        write_config(self.folder, chosen)
        found = {
            trial: self.trainer.finish(self._run(trial.options, trial.epochs, trial.name, SILENT)).evaluation
            for trial in dict.fromkeys((best, default))  # which may be the same
        }
        return Tuning(
            self.folder, self.config, self.plan, tuple(self.trials), best, default, chosen,
            (found[best], found[default]), self.folder / "report.html",
        )  # fmt: skip
