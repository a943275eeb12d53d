"""A run's folder and what is written into it.

`runs/<name>/` holds `config.yaml`, `split.csv`, `problems.csv`, `results.csv` and the bundles
`best.safetensors` and `last.safetensors`; in `state/` is what a resumed run goes on from. Each file is
written aside and renamed. The folder is complete after the first epoch and each later one that is saved.
"""

from __future__ import annotations

import csv
import dataclasses
import io
import os
import re
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import nn

from striate import bundle
from striate.bundle import Description
from striate.data import DataSet, Problem
from striate.data.images.in_memory import IN_MEMORY_SUFFIX
from striate.data.images.tables import to_csv
from striate.errors import DataError
from striate.files import write_atomic
from striate.training.config import TrainConfig
from striate.training.tally import EpochResult


@dataclass(kw_only=True)
class RunFolder:
    """What every training run leaves.

    Attributes:
        folder: `runs/<name>`.
        description: what its bundles say of themselves.
        notes: what else should be known.
        epochs: a row for each epoch that was measured.
        best_epoch: the one that `best.safetensors` is of; 0 before the first is finished.
        seconds: from start to end.
        profile: seconds by what they went into, where that was measured.
        leads: this process is the one of several that writes; always so of one.
    """

    folder: Path
    description: Description
    notes: list[str]
    epochs: list[Any] = field(default_factory=list)
    best_epoch: int = 0
    seconds: float = 0.0
    profile: dict[str, float] = field(default_factory=dict)
    leads: bool = True

    @property
    def best(self) -> Path:
        """The bundle of the epoch that did best on the validation data."""
        return self.folder / "best.safetensors"

    @property
    def last(self) -> Path:
        """The bundle of the last epoch, or of the moment the run was interrupted."""
        return self.folder / "last.safetensors"

    def write_results(self, rows: Sequence[Any], best_epoch: int) -> None:
        """Write down the rows so far; at least one."""
        self.epochs, self.best_epoch = list(rows), best_epoch
        write_atomic(self.folder / "results.csv", _csv(type(rows[0]), self.epochs))

    def write_bundle(
        self, path: Path, network: nn.Module | Mapping[str, torch.Tensor], row: Any | None
    ) -> None:
        """Write a network, or its weights, with the figures of an epoch."""
        metrics = {} if row is None else dataclasses.asdict(row)
        bundle.write(path, network, dataclasses.replace(self.description, metrics=metrics))


@dataclass(kw_only=True)
class TrainedRun(RunFolder):
    """What a training run on images leaves.

    Attributes:
        config: what it was told, with every default filled in.
        dataset: the divided data it trained on.
        epochs: rows of `EpochResult`.
        train: how many images trained.
        problems: images that could not be read, as far as they were asked for.
    """

    config: TrainConfig
    dataset: DataSet
    train: int
    problems: tuple[Problem, ...]
    epochs: list[EpochResult] = field(default_factory=list)

    @property
    def images_per_second(self) -> float:
        """Training images a second, the median of the epochs; 0 before the first is finished."""
        return statistics.median([row.images_per_second for row in self.epochs] or [0.0])

    def left_out(self, problems: tuple[Problem, ...], train: int) -> None:
        """Write down which images could not be read, and that `train` others did train."""
        self.problems, self.train = problems, train
        provenance = {**self.description.provenance, "training_images": train}
        self.description = dataclasses.replace(self.description, provenance=provenance)
        if self.leads:
            write_atomic(self.folder / "problems.csv", _csv(Problem, problems))


def writable(out: str) -> Path:
    """The folder for runs, made if need be; raises DataError if nothing can be written there."""
    folder = Path(out).expanduser()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except FileExistsError as error:
        raise DataError(f"cannot write to {out!r}", "it is a file", "Choose another --out") from error
    except OSError as error:
        raise DataError(
            f"cannot write to {out!r}", error.strerror or str(error), "Choose another --out"
        ) from error
    if not os.access(folder, os.W_OK):
        raise DataError(f"cannot write to {out!r}", "no permission", "Choose another --out")
    return folder


def name_of(config: TrainConfig) -> str:
    """The name of a run's folder: as told, else the data's and the network's."""
    return config.name or f"{_called(config.source)}-{config.model}"


def reserve(out: Path, name: str) -> Path:
    """Make the run's folder; a name that is taken gets a number, so that no run overwrites another."""
    for number in range(1, 10_000):
        folder = out / (name if number == 1 else f"{name}-{number}")
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            continue
        return folder
    raise DataError(
        f"cannot make a folder for run {name!r}", f"{out} has 9,999 of that name", "Choose --name"
    )


def _called(source: str) -> str:
    """What a run is called after: its data's file or folder, without suffix and braces."""
    name = re.sub(
        r"\.(tar|tar\.gz|tgz)$|\{.*?\}", "", Path(source).absolute().name.removesuffix(IN_MEMORY_SUFFIX)
    )
    return Path(name).stem.strip("-_. ") or "data"


def write_down(run: TrainedRun) -> None:
    """Write what is known before the first epoch."""
    text = yaml.safe_dump(run.config.to_json(), sort_keys=False, allow_unicode=True)
    write_atomic(run.folder / "config.yaml", text.encode())
    write_atomic(run.folder / "split.csv", to_csv(_rows(run.dataset)))
    write_atomic(run.folder / "problems.csv", _csv(Problem, run.problems))


def read_problems(folder: Path) -> tuple[Problem, ...]:
    """The unreadable images that a run has noted."""
    try:
        text = (folder / "problems.csv").read_text(encoding="utf-8", errors="surrogateescape")
    except FileNotFoundError:
        return ()
    return tuple(Problem(row["path"], row["reason"]) for row in csv.DictReader(io.StringIO(text, newline="")))


def _rows(dataset: DataSet) -> Iterable[tuple[str, str, str]]:
    for name, samples in dataset.splits.items():
        for path, label in zip(samples.names, samples.labels, strict=True):
            place = str(Path(path).absolute()) if dataset.root else path
            yield place, dataset.classes[label], name


def _csv(kind: type, records: Sequence[Any]) -> bytes:
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([field.name for field in dataclasses.fields(kind)])
    writer.writerows(dataclasses.astuple(record) for record in records)
    return text.getvalue().encode("utf-8", "surrogateescape")
