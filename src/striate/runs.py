"""A whole run in one call: train, measure what was held out, write the report."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from striate import bundle
from striate.data import open_data
from striate.errors import unknown_name
from striate.progress import SILENT, Progress
from striate.training import ahead, recipes
from striate.training.config import TrainConfig, implied_model
from striate.training.interrupts import TrainingInterrupted
from striate.training.seq2seq.config import SeqConfig

if TYPE_CHECKING:
    from striate.inference.evaluation import Evaluation
    from striate.inference.translator import TextEvaluation
    from striate.training.folder import TrainedRun
    from striate.training.seq2seq.session import SeqRun


@dataclass(frozen=True)
class Run:
    """A finished run.

    Attributes:
        training: its epochs, configuration and folder.
        evaluation: of the best bundle on the test split, or on val where there is none.
        report: path of the HTML page.
    """

    training: TrainedRun
    evaluation: Evaluation
    report: Path

    @property
    def best(self) -> Path:
        """The bundle to use."""
        return self.training.best

    def to_json(self) -> dict[str, Any]:
        """What `striate train --json` prints."""
        training, evaluation = self.training, self.evaluation
        best = next((row for row in training.epochs if row.epoch == training.best_epoch), None)
        return {
            "run": str(training.folder),
            "best": str(training.best),
            "last": str(training.last),
            "report": str(self.report),
            "epochs": len(training.epochs),
            "best_epoch": training.best_epoch,
            "val_top1": best.val_top1 if best else None,
            "split": evaluation.split,
            "n": evaluation.n,
            "top1": evaluation.top1,
            "top1_ci": list(evaluation.top1_ci),
            "unreadable": [problem.path for problem in (*training.problems, *evaluation.problems)],
            "seconds": training.seconds,
            "images_per_second": training.images_per_second,
            **({"profile": training.profile} if training.profile else {}),
        }


def train(data: Any, progress: Progress = SILENT, **options: Any) -> Run:
    """Train a network on a folder of images, measure it, and write a report.

    Args:
        data: as for `striate.data.open_data`: a path, a pair of arrays, a torch `Dataset`, ...
        progress: is told of each stage.
        options: the other fields of `striate.training.config.TrainConfig`: `model`, `epochs`, `lr`, ... With
            `recipe`, the fields that are not given are those of `striate.training.recipes`.

    Raises:
        DataError, UsageError, TrainingError: as `striate.training.session.train`.
        TrainingInterrupted: Ctrl-C; the run's folder is complete up to there, with its report.
    """
    fields = [field.name for field in dataclasses.fields(TrainConfig)]
    for name in options:
        if name not in fields:
            raise unknown_name("option", name, fields)
    if "model" not in options and (model := implied_model(options.get("weights", "none"))):
        options["model"] = model
    if options.get("recipe") is not None:
        model = options.pop("model", TrainConfig.model)
        options, said = recipes.apply(options.pop("recipe"), model, options)
        progress.info(said)
    path = isinstance(data, (str, os.PathLike))
    config = TrainConfig(data=os.fspath(data) if path else open_data(data), **options)
    return _finished(lambda: ahead.train(config, progress), progress)


def _finished(training: Callable[[], TrainedRun], progress: Progress) -> Run:
    try:
        run = training()
    except TrainingInterrupted as interrupted:
        if not interrupted.terminated:
            finish(interrupted.run, progress)
        raise
    return finish(run, progress)


def resume(folder: str | os.PathLike[str], progress: Progress = SILENT, **options: Any) -> Run:
    """Go on with a run that was stopped or killed; on the CPU it ends with the weights of one that never was.

    Args:
        folder: `runs/<name>`.
        progress: is told of each stage.
        options: fields of `TrainConfig` that may be others than before: `device`, `workers`, `save_every`,
            `rollbacks`, and `data`, where the images lie elsewhere now; objects must be given again.

    Raises:
        DataError, UsageError, TrainingError: as `striate.training.session.resume`.
        TrainingInterrupted: as `train`.
    """
    from striate.training.session import resume as resume_training

    if not isinstance(options.get("data"), (str, type(None))):
        options["data"] = open_data(options["data"])
    return _finished(lambda: resume_training(folder, progress, **options), progress)


def finish(run: TrainedRun, progress: Progress = SILENT) -> Run:
    """Measure the best bundle on what was held out, note the figures in it, write the report.

    Of several processes each measures, and the first one writes; the others must be able to read its folder.
    """
    # Neither is needed, and their libraries are not loaded, before there is something to report.
    from striate.inference.evaluation import evaluate
    from striate.report.page import write_report

    held_out = "test" if "test" in run.dataset.splits else "val"
    evaluation = evaluate(
        run.folder, replace(run.dataset, source=run.config.source), split=held_out, batch=run.config.batch,
        device=run.config.device, workers=run.config.workers, cache=run.config.cache, progress=progress,
    )  # fmt: skip
    if held_out == "val":
        note = "The val images also chose the best epoch, so this accuracy flatters a little"
        evaluation = replace(evaluation, notes=(*evaluation.notes, note))
    measured = evaluation.to_json()
    if not run.leads:
        return Run(run, evaluation, run.folder / "report.html")
    figures = {key: measured[key] for key in ("n", "top1", "top5", "top1_ci", "ece")}
    bundle.add_metrics(run.best, {evaluation.split: figures})
    return Run(run, evaluation, write_report(evaluation, run.folder, model=str(run.best), run=run))


@dataclass(frozen=True)
class SeqFinished:
    """A finished run on pairs.

    Attributes:
        training: its epochs, configuration and folder.
        evaluation: of the best bundle on the test split, or on val where there is none.
        report: path of the HTML page.
    """

    training: SeqRun
    evaluation: TextEvaluation
    report: Path

    @property
    def best(self) -> Path:
        """The bundle to use."""
        return self.training.best

    def to_json(self) -> dict[str, Any]:
        """What `striate seq2seq train --json` prints."""
        training = self.training
        best = next((row for row in training.epochs if row.epoch == training.best_epoch), None)
        return {
            "run": str(training.folder),
            "best": str(training.best),
            "last": str(training.last),
            "report": str(self.report),
            "epochs": len(training.epochs),
            "best_epoch": training.best_epoch,
            "val_error": best.val_error if best else None,
            "val_exact": best.val_exact if best else None,
            **self.evaluation.to_json(),
            "seconds": training.seconds,
            "notes": [*training.notes, *self.evaluation.notes],
        }


def train_seq2seq(*data: str | os.PathLike[str], progress: Progress = SILENT, **options: Any) -> SeqFinished:
    """Train a Transformer on pairs of texts, or of images and their text, measure it, and write a report.

    Args:
        data: as for `striate.data.text.pairs.open_pairs`.
        progress: is told of each stage.
        options: the other fields of `striate.training.seq2seq.config.SeqConfig`: `epochs`, `tokens`, ...

    Raises:
        DataError, UsageError, TrainingError: as `striate.training.seq2seq.session.train_pairs`.
        TrainingInterrupted: Ctrl-C; the run's folder is complete up to there, with its report.
    """
    fields = [field.name for field in dataclasses.fields(SeqConfig)]
    for name in options:
        if name not in fields:
            raise unknown_name("option", name, fields)
    from striate.training.seq2seq.session import train_pairs

    config = SeqConfig(data=tuple(os.fspath(place) for place in data), **options)
    try:
        run = train_pairs(config, progress)
    except TrainingInterrupted as interrupted:
        if not interrupted.terminated:
            finish_seq2seq(interrupted.run, progress)
        raise
    return finish_seq2seq(run, progress)


def finish_seq2seq(run: SeqRun, progress: Progress = SILENT) -> SeqFinished:
    """Measure the best bundle on what was held out, note the figures in it, write the report."""
    from striate.inference.translator import load_translator, measure_on
    from striate.report.seq2seq_page import write_seq2seq_report

    held_out = "test" if "test" in run.data.splits else "val"
    translator = load_translator(run.best, run.config.device)
    evaluation = measure_on(translator, run.data, held_out, progress=progress)
    if held_out == "val":
        note = "The val pairs also chose the best epoch, so these figures flatter a little"
        evaluation = replace(evaluation, notes=(*evaluation.notes, note))
    bundle.add_metrics(run.best, {held_out: evaluation.scores.to_json()})
    return SeqFinished(run, evaluation, write_seq2seq_report(evaluation, run, translator))
