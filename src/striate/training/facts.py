"""Checks what a checkpoint says, besides its tensors, before anything uses it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from striate.bundle import Description
from striate.errors import DataError, UsageError
from striate.files import Fingerprint
from striate.training.checkpoint import Checkpoint
from striate.training.config import RunConfig
from striate.training.config_file import invalid_option
from striate.validation import InvalidValueError, require, require_fields


@dataclass(frozen=True)
class _Totals:
    """The types of `RunningTotals.to_json`."""

    loss: float | None  # null if it was not finite
    correct: int
    count: int
    seconds: float


@dataclass(frozen=True)
class _Values:
    """The types of `TrainState.to_json`."""

    epoch: int
    position: int
    step: int
    lr: float
    lr_scale: float
    micro_batches: int
    best_epoch: int
    rollbacks: int
    seconds: float
    training_since: float
    finished: bool
    rows: tuple[dict[str, float | None], ...]
    totals: _Totals
    scaler: dict[str, Any]


@dataclass(frozen=True)
class _Extension:
    """The types of the facts of `striate.training.extension`."""

    before: dict[str, Any]
    notes: tuple[str, ...]
    averaged: dict[str, float | None] | None
    cuts: tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class _Facts:
    """The types of the facts of a run; see `Checkpoint.facts`."""

    config: dict[str, Any]
    given: dict[str, Any]
    setup: dict[str, Any]
    environment: dict[str, str | int]
    description: dict[str, Any] | None
    extension: _Extension | None = None
    files: dict[str, Fingerprint] | None = None


def require_valid(checkpoint: Checkpoint, kind: type[RunConfig]) -> None:
    """Check the values and the facts of a checkpoint.

    Args:
        checkpoint: as it was read.
        kind: the class of the run's configuration.

    Raises:
        DataError: a field is missing, unknown, of the wrong type, or out of range; the message names it.
    """
    try:
        _require_values(checkpoint.values)
        require_fields(checkpoint.facts, _Facts, "facts")
        for name in ("config", "given"):
            if invalid := invalid_option(kind, checkpoint.facts[name]):
                raise InvalidValueError(f"facts.{name}", why=f"is damaged: {invalid[1]}")
        if checkpoint.facts["description"] is not None:
            Description.from_json(checkpoint.facts["description"])
    except (InvalidValueError, UsageError) as error:
        raise DataError(f"{checkpoint.path} is damaged", " ".join(str(error).split())) from error


def _require_values(values: Mapping[str, Any]) -> None:
    require_fields(values, _Values, "values")
    for name in ("epoch", "position", "step", "best_epoch", "rollbacks", "seconds", "lr", "lr_scale"):
        if values[name] < 0:
            raise InvalidValueError(f"values.{name}", values[name], "0 or more")
    if values["micro_batches"] < 1:
        raise InvalidValueError("values.micro_batches", values["micro_batches"], "1 or more")
    epochs = []
    for i, row in enumerate(values["rows"]):
        require(row.get("epoch"), int, f"values.rows[{i}].epoch")
        require(row.get("step"), int, f"values.rows[{i}].step")
        epochs.append(row["epoch"])
    if values["best_epoch"] not in (epochs or [0]):
        raise InvalidValueError("values.best_epoch", values["best_epoch"], "an epoch of values.rows")
