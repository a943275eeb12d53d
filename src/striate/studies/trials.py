"""The trials of a search, and the files that record them: tune.json and trials.csv."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from striate import strict_json
from striate.csv_file import read_table, write_csv
from striate.errors import DataError
from striate.files import probe, write_atomic
from striate.reading import MAX_TABLE_BYTES, read_bytes
from striate.studies import halving, search_space
from striate.training.config_file import TUNING
from striate.validation import InvalidValueError, require_fields

TRIALS = "trials.csv"


@dataclass(frozen=True)
class Plan:
    """What a search does, as its folder says.

    Attributes:
        epochs: of a whole run; 0 before the probe.
        channels: of the images; 0 before the probe.
        budget: seconds for all trials; 0 for no limit.
        trials: largest number of trials besides the defaults; 0 for no limit.
        fixed: options that the user has chosen, which are not searched.
        spent: seconds of the probe.
        monitor: the metric that decides between trials; empty before the probe.
    """

    epochs: int
    channels: int
    budget: float
    trials: int
    fixed: list[str]
    spent: float = 0.0
    monitor: str = ""


@dataclass(frozen=True)
class Trial:
    """Options that were trained for some epochs.

    Attributes:
        trial: its number; 0 for the defaults.
        rung: from 0; the highest one has whole runs.
        epochs: for which it was trained.
        lr: learning rate; None for the default.
        weight_decay: the same for the weight decay.
        augment: the same for the augmentation.
        transfer: the same for the layers that are trained.
        score: the monitored metric of the best epoch, larger is better; None if training failed.
        tie: what decides between equal scores; larger is better.
        best_epoch: the best epoch.
        seconds: of training.
        error: why training failed; empty if it did not.
    """

    trial: int
    rung: int
    epochs: int
    lr: float | None
    weight_decay: float | None
    augment: str | None
    transfer: str | None
    score: float | None = None
    tie: float = 0.0
    best_epoch: int = 0
    seconds: float = 0.0
    error: str = ""

    @property
    def options(self) -> dict[str, Any]:
        """The options that are not the defaults."""
        values = {name: getattr(self, name) for name in search_space.SEARCHED}
        return {name: value for name, value in values.items() if value is not None}

    @property
    def order(self) -> halving.Score:
        """For comparisons, larger is better."""
        return halving.WORST if self.score is None else (self.score, self.tie)

    @property
    def name(self) -> str:
        """Of its run folder."""
        return f"trial-{self.trial:03}-{self.epochs}-epochs"

    @property
    def value(self) -> float | None:
        """The monitored metric; a loss is positive."""
        return None if self.score is None else abs(self.score)


def best_of(trials: list[Trial], top: int) -> Trial:
    """The best whole run; the defaults unless another one is better in the monitored metric itself."""
    default, *_ = trials
    best = max((trial for trial in trials if trial.rung == top), key=lambda trial: trial.order)
    return default if best.score == default.score else best


def read_plan(folder: Path) -> Plan:
    """The plan of a search; raises DataError if it is damaged."""
    path = folder / TUNING
    try:
        values = strict_json.loads(read_bytes(path, MAX_TABLE_BYTES))
        require_fields(values, Plan, TUNING)
        return Plan(**values)
    except (ValueError, InvalidValueError) as error:
        raise DataError(f"cannot read {str(path)!r}", " ".join(str(error).split()), "Restore it") from error


def write_plan(folder: Path, plan: Plan) -> None:
    """Write the plan of a search."""
    write_atomic(folder / TUNING, f"{strict_json.dumps(dataclasses.asdict(plan), indent=2)}\n".encode())


def read_trials(folder: Path) -> list[Trial]:
    """The trials that a search has recorded; raises DataError if they are damaged."""
    path = folder / TRIALS
    if probe(path) is None:
        return []
    columns = [column.name for column in dataclasses.fields(Trial)]
    found = []
    for line, row in read_table(path, columns):
        values: dict[str, Any] = dict(zip(columns, row, strict=True))
        try:
            for name in ("trial", "rung", "epochs", "best_epoch"):
                values[name] = int(values[name])
            for name in ("lr", "weight_decay", "score", "tie", "seconds"):
                values[name] = None if values[name] == "" else float(values[name])
        except ValueError as error:
            raise DataError(f"{path}:{line}", str(error), "Restore it") from error
        values |= {name: values[name] or None for name in ("augment", "transfer")}
        found.append(Trial(**values))
    return found


def write_trials(folder: Path, trials: list[Trial]) -> None:
    """Record the trials of a search; there is at least one."""
    write_csv(folder / TRIALS, trials)
