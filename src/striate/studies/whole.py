"""Whole studies: train or resume their runs, then write their page."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from striate.report.page import write_report
from striate.report.prediction_table import write_predictions
from striate.studies import repeats, repeats_report
from striate.studies.repeats import Repeats
from striate.studies.runs import Trainer
from striate.training.config import EXTENDING, RunConfig
from striate.training.config_file import parse_config, read_config


def train(config: RunConfig, trainer: Trainer) -> Repeats:
    """Train all runs of a cross-validation, or of several seeds, and write their page.

    Raises:
        DataError, UsageError, TrainingError, TrainingInterrupted: as for a single run.
    """
    return _finish(config, repeats.start(config), {}, trainer)


def resume(
    folder: Path,
    kind_of: Callable[[str], type[RunConfig]],
    changed: Mapping[str, Any],
    trainer: Trainer,
) -> Repeats | None:
    """Continue a cross-validation, or runs with several seeds.

    Args:
        folder: with the runs.
        kind_of: returns the class of a task's configuration.
        changed: options that the user gives anew, as for a single run; None for those that are not given.
        trainer: how to train a run.

    Returns:
        The runs; None if the folder is that of a single run.

    Raises:
        DataError, UsageError, TrainingError, TrainingInterrupted: as for a single run.
    """
    values = read_config(folder, kind_of)
    kind = kind_of(values["task"])
    if not kind.describes_several(values):
        return None
    given = {name: value for name, value in changed.items() if value is not None}
    known = {name: value for name, value in given.items() if name not in EXTENDING}
    return _finish(parse_config(kind, {**values, **known}), folder, given, trainer)


def _finish(config: RunConfig, folder: Path, changed: Mapping[str, Any], trainer: Trainer) -> Repeats:
    found = repeats.train(config, folder, trainer, changed)
    write_report(repeats_report.describe(found, config), folder, figures=config.figures, full=config.full)
    if (every := repeats_report.predictions(found)) is not None:
        write_predictions(folder, every[0], parquet=config.parquet, more=every[1])
    return found
