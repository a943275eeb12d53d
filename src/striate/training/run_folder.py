"""A run folder and the files that the engine writes into it.

`runs/<name>/` holds `config.yaml`, `results.csv` and the bundles `best.safetensors` and `last.safetensors`;
`state/` holds the checkpoints. A task adds its own files, such as `split.csv`. Each file is written to a
temporary name and renamed.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from striate import bundle
from striate.bundle import Description
from striate.csv_file import write_csv
from striate.errors import DataError, access_error
from striate.files import Fingerprint, expanded, probe, write_atomic
from striate.reading import MAX_TABLE_BYTES, read_bytes
from striate.training.callbacks import Callbacks
from striate.training.config_file import DATA_TABLE, FORMAT, NAME, config_text


@dataclass(kw_only=True)
class TrainingRun:
    """A run during and after training, and its folder.

    Attributes:
        task: with its data and network.
        folder: `runs/<name>`.
        config: the configuration with all defaults filled in.
        description: the header of its bundles.
        notes: warnings for the report.
        epochs: a row for each evaluated epoch.
        best_epoch: the epoch of `best.safetensors`; 0 before the first one.
        averaged: the number of last epochs whose average is `best.safetensors` instead; 0 if it is not one.
        seconds: duration of the run.
        profile: seconds by phase, with `--profile`.
        joules: energy of the processors since this process began to train; None if it cannot be read.
        is_main: whether this process writes; always true of a single process.
        callbacks: of the main process.
    """

    task: Any
    folder: Path
    config: Any
    description: Description
    notes: list[str]
    epochs: list[Any] = field(default_factory=list)
    best_epoch: int = 0
    averaged: int = 0
    seconds: float = 0.0
    profile: dict[str, float] = field(default_factory=dict)
    joules: float | None = None
    is_main: bool = True
    callbacks: Callbacks = field(default_factory=Callbacks)

    @property
    def best(self) -> Path:
        """The bundle of the best epoch on the validation data."""
        return self.folder / "best.safetensors"

    @property
    def last(self) -> Path:
        """The bundle of the last epoch, or of the moment of an interruption."""
        return self.folder / "last.safetensors"

    @property
    def last_epoch(self) -> int:
        """The last epoch that was evaluated, even if a budget ended it early; 0 before there is one."""
        return self.epochs[-1].epoch if self.epochs else 0

    @property
    def best_row(self) -> Any | None:
        """The row of the best epoch, None before there is one."""
        return next((row for row in self.epochs if row.epoch == self.best_epoch), None)

    @property
    def config_bytes(self) -> bytes:
        """The content of config.yaml."""
        return config_text({"format": FORMAT, **self.config.to_json()}).encode()

    def write_config(self) -> None:
        """Write config.yaml."""
        write_atomic(self.folder / NAME, self.config_bytes)

    def fingerprints(self, recorded: Mapping[str, Any] | None) -> dict[str, dict[str, Any]]:
        """Fingerprints of the configuration and of the files that say what the run trains on, as JSON values.

        Args:
            recorded: those that a checkpoint has, which are kept; None for those of the present files.
        """
        if recorded is not None:
            return dict(recorded)
        names = (NAME, *self.task.inputs, DATA_TABLE)
        paths = {name: self.folder / name for name in names}
        return {
            name: dataclasses.asdict(Fingerprint.of(read_bytes(path, MAX_TABLE_BYTES)))
            for name, path in paths.items()
            if probe(path) is not None
        }

    def write_results(self, rows: Sequence[Any], best_epoch: int) -> None:
        """Write results.csv; there is at least one row."""
        self.epochs, self.best_epoch = list(rows), best_epoch
        write_csv(self.folder / "results.csv", self.epochs)

    def write_bundle(
        self, path: Path, network: nn.Module | Mapping[str, torch.Tensor], row: Any | None
    ) -> None:
        """Write a network, or its weights, with the metrics of an epoch."""
        metrics = {} if row is None else dataclasses.asdict(row)
        bundle.write(path, network, dataclasses.replace(self.description, metrics=metrics))


def require_unchanged(folder: Path, recorded: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Compare the files of a run with their fingerprints.

    Returns:
        A note if the configuration was edited; its options are compared one by one elsewhere.

    Raises:
        DataError: another file has changed or is missing.
    """
    notes = []
    for name, values in recorded.items():
        path = folder / name
        fix = "Restore it from a backup, or start a new run"
        error = Fingerprint(**values).error(path, read_bytes(path, MAX_TABLE_BYTES), fix)
        if error is not None and name != NAME:
            raise error
        if error is not None:
            notes.append(f"{path} was edited since the run wrote it, but no option that decides the weights")
    return notes


def writable(out: str) -> Path:
    """The parent folder of runs, created if need be; raises DataError if it cannot be written to."""
    folder = expanded(out)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except FileExistsError as error:
        raise DataError(f"cannot write to {out!r}", "it is a file", "Choose another --out") from error
    except OSError as error:
        raise access_error(error, f"cannot write to {out!r}", "Choose another --out") from error
    if not os.access(folder, os.W_OK):
        raise DataError(f"cannot write to {out!r}", "no permission", "Choose another --out")
    return folder
