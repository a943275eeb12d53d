"""Whole studies: train or resume their runs, then write their page."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from striate.errors import UsageError
from striate.files import probe
from striate.report.page import write_report
from striate.report.prediction_table import write_predictions
from striate.studies import repeats, repeats_report, tuning, tuning_report
from striate.studies.label_errors import write_label_errors
from striate.studies.repeats import Repeats
from striate.studies.runs import Trainer, new_study
from striate.studies.tuning import Tuning
from striate.tasks.classification.config import ClassificationConfig
from striate.training.config import EXTENDING, RunConfig
from striate.training.config_file import TUNING, parse_config, read_config, read_options
from striate.training.options import announce_unit, flag

__all__ = ["Trainer", "resume", "train", "tune"]

_BUDGET = "30m"  # of a search


def train(config: RunConfig, trainer: Trainer) -> Repeats:
    """Train all runs of a cross-validation, or of several seeds, and write their page.

    Raises:
        DataError, UsageError, TrainingError, TrainingInterrupted: as for a single run.
    """
    folder = repeats.start(config)
    with new_study(folder):
        return _finish(config, folder, {}, trainer)


def tune(
    config: RunConfig, given: Mapping[str, Any], budget: str | None, trials: int | None, trainer: Trainer
) -> Tuning:
    """Search for better options, and write the page of the search.

    Args:
        config: of all trials.
        given: the options that the user has chosen.
        budget: for all trials, such as 30m; None for no limit, or for 30m without `trials`.
        trials: largest number of trials; None for no limit.
        trainer: how to train a run.

    Raises:
        DataError, UsageError, TrainingError, TrainingInterrupted: as for a single run.
    """
    if not isinstance(config, ClassificationConfig):
        raise UsageError(
            f"tune for {config.task}", "it searches options of image classification", "Use train"
        )
    limit = budget if budget is not None or trials is not None else _BUDGET
    announce_unit(limit, config.progress)
    folder = tuning.start(config, given, limit, trials or 0)
    with new_study(folder):
        return _finish_tuning(tuning.search(config, folder, trainer, {}))


def resume(
    folder: Path,
    kind_of: Callable[[str], type[RunConfig]],
    changed: Mapping[str, Any],
    trainer: Trainer,
) -> Repeats | Tuning | None:
    """Continue a cross-validation, runs with several seeds, or a search for options.

    Args:
        folder: with the runs.
        kind_of: returns the class of a task's configuration.
        changed: options that the user gives anew, as for a single run; None for those that are not given.
        trainer: how to train a run.

    Returns:
        The study; None if the folder is that of a single run.

    Raises:
        DataError, UsageError, TrainingError, TrainingInterrupted: as for a single run.
    """
    if probe(folder / TUNING) is not None:
        return _resume_tuning(folder, changed, trainer)
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
    if found.pooled is not None and (warning := write_label_errors(folder, found.pooled)):
        config.progress.warn(warning)
    return found


def _resume_tuning(folder: Path, changed: Mapping[str, Any], trainer: Trainer) -> Tuning:
    given = {name: value for name, value in changed.items() if value is not None}
    if wrong := [name for name in ("epochs", "patience") if name in given]:
        what = f"cannot resume {str(folder)!r} with {flag(wrong[0])}"
        raise UsageError(what, "it is a search", "Only --budget gives it a new end")
    values = read_options(folder / tuning.OPTIONS)
    known = {name: value for name, value in given.items() if name != "budget"}
    config = parse_config(ClassificationConfig, {**values, **known})
    return _finish_tuning(tuning.search(config, folder, trainer, given))


def _finish_tuning(found: Tuning) -> Tuning:
    write_report(tuning_report.describe(found), found.folder)
    return found
