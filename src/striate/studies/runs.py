"""The runs of a study: each is an ordinary run in a folder of the study, and is trained or resumed as one."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from striate.errors import StriateError, UsageError
from striate.files import probe, write_atomic
from striate.progress import Progress
from striate.training import checkpoint
from striate.training.checkpointer import locked
from striate.training.config import RunConfig
from striate.training.config_file import FORMAT, NAME, config_text
from striate.training.launcher import read_environment
from striate.training.run_folder import TrainingRun, writable
from striate.training.run_names import announce_taken, create


class StudyInterrupted(KeyboardInterrupt):
    """Ctrl-C or SIGTERM during a study; its folder has everything to resume from.

    Attributes:
        folder: of the study.
        terminated: whether it was SIGTERM.
    """

    def __init__(self, folder: Path, terminated: bool) -> None:
        super().__init__(f"{folder} was interrupted and can be resumed")
        self.folder, self.terminated = folder, terminated


@contextlib.contextmanager
def open_study(folder: Path) -> Iterator[None]:
    """Lock the folder of a study, and say which study a signal interrupts.

    Raises:
        UsageError: another process works in it, or several processes were started to train together.
        StudyInterrupted: Ctrl-C or SIGTERM.
    """
    _require_one_process()
    with locked(folder):
        try:
            yield
        except KeyboardInterrupt as stop:
            raise StudyInterrupted(folder, getattr(stop, "terminated", False)) from stop


@contextlib.contextmanager
def new_study(folder: Path) -> Iterator[None]:
    """Around the runs of a new study: if the first one cannot begin, its folder is removed."""
    try:
        yield
    except StriateError:
        if not any(path.is_dir() for path in folder.iterdir()):
            shutil.rmtree(folder)
        raise


class Resume(Protocol):
    """A function that resumes a run."""

    def __call__(self, folder: Path, progress: Progress, **changed: Any) -> TrainingRun:
        """Resume the run in a folder, with options that the user changes."""


@dataclass(frozen=True)
class Trainer:
    """How a study trains and evaluates a run.

    Attributes:
        train: train a new run.
        resume: continue a stopped run; returns a finished one unchanged.
        finish: evaluate a run, and write its report; returns a record with `evaluation` and `report`.
    """

    train: Callable[[RunConfig], TrainingRun]
    resume: Resume
    finish: Callable[[TrainingRun], Any]

    def advance(self, config: RunConfig, changed: Mapping[str, Any]) -> TrainingRun:
        """Train a run of a study, or resume it if it has begun.

        Args:
            config: with the folder of the study as `out`, and the name of the run.
            changed: options for resuming a run.
        """
        folder = Path(config.out) / config.run_name
        if probe(folder) is not None and not checkpoint.exists(folder):
            shutil.rmtree(folder)  # the process died before the first checkpoint
        if probe(folder) is not None:
            rest = {name: value for name, value in changed.items() if name != "progress"}
            return self.resume(folder, config.progress, **rest)
        return self.train(config)


def _require_one_process() -> None:
    launch = read_environment()
    if launch is not None and launch.size > 1:
        raise UsageError(
            f"several runs (--folds, --seeds, tune) in {launch.size} processes that train together",
            "only a single run can be shared among processes",
            "Start it without torchrun, or train one run at a time",
        )


def create_folder(config: RunConfig, suffix: str) -> Path:
    """Create the folder of a new study.

    Args:
        config: of the study; its name is that of the folder.
        suffix: of the name, if the user has not given one.

    Raises:
        UsageError: several processes train together.
        DataError: the folder cannot be created.
    """
    _require_one_process()
    named = config if config.name is not None else config.renamed(suffix)
    announce_taken(named)
    return create(writable(config.out), named.run_name)


def write_config(folder: Path, config: RunConfig) -> None:
    """Write the config.yaml of a study."""
    write_atomic(folder / NAME, config_text({"format": FORMAT, **config.absolute().to_json()}).encode())
