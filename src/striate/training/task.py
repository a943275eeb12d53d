"""The interface between the training engine and a task: batches, their loss, and the metrics of an epoch.

Everything else (steps, distributed training, checkpoints, EMA, mixed precision, budgets, interrupts) is the
engine's and works for every task. `striate.tasks` has the implementations.
"""

from __future__ import annotations

import datetime
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, Protocol

import torch
from torch import nn

from striate.bundle import Description
from striate.device import mixed_precision
from striate.progress import Progress
from striate.sections import Remark
from striate.training.distributed import Distributed
from striate.training.profile import Stopwatch
from striate.training.schedule import EvaluationCost, Indices, LRSchedule
from striate.training.state import EpochMetrics, TrainState
from striate.version import __version__


class Loss(NamedTuple):
    """The loss of a micro-batch.

    Attributes:
        value: scalar tensor, the mean over `terms`.
        correct: how many of the answers were correct before this step; None if that is not counted.
        terms: how many images or tokens the mean is over.
    """

    value: torch.Tensor
    correct: torch.Tensor | None
    terms: int


class Batch(Protocol):
    """What the engine asks of a batch; `len()` is its number of samples.

    Attributes:
        samples: int64 `[batch]`, of `Task.order`.
        terms: how many images or tokens the mean loss is over.
        requested: how many samples were asked for; unreadable ones are left out.
    """

    @property
    def samples(self) -> Indices: ...  # noqa: D102
    @property
    def terms(self) -> int: ...  # noqa: D102
    @property
    def requested(self) -> int: ...  # noqa: D102

    def __len__(self) -> int: ...
    def part(self, rows: slice) -> Any:
        """Some of its samples."""


@dataclass(frozen=True)
class Context:
    """What a run gives its task.

    Attributes:
        device: where to train.
        distributed: the processes that train together.
        progress: receives messages and progress updates.
        stopwatch: measures phases, for `--profile`.
    """

    device: torch.device
    distributed: Distributed
    progress: Progress
    stopwatch: Stopwatch

    def announce(self, notes: Iterable[str]) -> None:
        """Print notes for the report; all but remarks are warnings."""
        for note in notes:
            (self.progress.info if isinstance(note, Remark) else self.progress.warn)(note)

    def inform(self, *messages: str) -> list[Remark]:
        """Print messages; returns them as remarks for the report."""
        remarks = [Remark(message) for message in messages]
        self.announce(remarks)
        return remarks


@dataclass
class Setup:
    """What training starts with, as a task prepares it.

    Attributes:
        config: with all defaults filled in; `config.yaml` holds it.
        description: the header of the run's bundles.
        network: on the device, with its initial weights, frozen as asked.
        facts: plain values that a resumed run needs to rebuild the network.
        notes: warnings for the report; the list is also that of the run, so a task may append to it later.
    """

    config: Any
    description: Description
    network: nn.Module
    facts: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def provenance(**known: Any) -> dict[str, Any]:
    """How a bundle came to be: the versions, the time, and what the task knows."""
    created = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
    return {"striate": __version__, "torch": torch.__version__, "created": created, **known}


class Task(ABC):
    """One task in one run.

    Args:
        config: the task's configuration, as the user gave it.
        data: what `config.open_data` returned.
        context: the run's device, processes and progress.

    Attributes:
        setup: what `prepare` returned.
        folder: of the run, once it exists.
    """

    inputs: ClassVar[tuple[str, ...]] = ()  # files of the run folder that evaluation reads
    unit: ClassVar[str]  # what batches consist of, in messages: images, pairs
    row: ClassVar[type[EpochMetrics]]  # of results.csv
    memory_hint: ClassVar[str]  # what to do when memory runs out
    dynamic_shapes: ClassVar[bool] = False  # whether batches differ in shape, for torch.compile
    adam: ClassVar[Mapping[str, Any]] = {}  # AdamW's settings, if not torch's

    few_steps: int = 50  # a run with fewer optimizer steps gets a warning

    setup: Setup
    folder: Path

    def __init__(self, config: Any, data: Any, context: Context) -> None:
        self.config, self.data, self.context = config, data, context

    # Before the first step

    @abstractmethod
    def prepare(self, resumed: Mapping[str, Any] | None) -> Setup:
        """Load the data and build the network; writes nothing.

        Args:
            resumed: the facts of the checkpoint that the run resumes from, with `description`; None at the
                start.

        Raises:
            DataError, UsageError: nothing to train on, weights that do not fit, ...
        """

    @abstractmethod
    def fingerprint(self) -> str:
        """What identifies the data, as text; two processes, or a run and its resumption, compare it."""

    @abstractmethod
    def changes(self, folder: Path, facts: Mapping[str, Any]) -> list[str]:
        """Sentences that say how the data differ from those of a run that is being resumed."""

    def write_inputs(self, folder: Path) -> None:  # noqa: B027 - a task may have nothing to write
        """Write what is known before the first epoch: the split, unreadable files, the fingerprint."""

    @abstractmethod
    def introduce(self) -> list[str]:
        """Lines that say what trains on what."""

    @abstractmethod
    def parameter_groups(self, network: nn.Module) -> list[dict[str, Any]]:
        """The optimizer's groups: `params`, `weight_decay`, and `lr_scale`, the group's share of the rate."""

    @abstractmethod
    def lr_schedule(self, steps: int | None) -> LRSchedule:
        """The learning rate schedule for this many steps; None if a time budget decides."""

    @abstractmethod
    def evaluation_cost(self) -> EvaluationCost:
        """How much is evaluated after an epoch and at the end, for a time budget."""

    def precompute(self, state: TrainState, seconds_left: float) -> None:  # noqa: B027 - as above
        """Compute once what every epoch would repeat, if there is time for it."""

    # In every epoch

    def start_epoch(self, network: nn.Module, epoch: int) -> bool:
        """Choose what is trained in an epoch, from 0; returns whether that has changed.

        The optimizer has all parameters that are trained at the beginning of a run, before the first call.
        """
        return False

    @abstractmethod
    def order(self, epoch: int) -> list[Indices]:
        """The samples of each optimizer step of an epoch; a function of the seed and the epoch (from 0)."""

    @abstractmethod
    def batches(self, epoch: int, order: Sequence[Indices]) -> Iterator[Any]:
        """The batches of this order, on the device, read ahead in the background."""

    def training_module(self, network: nn.Module) -> nn.Module:
        """The module whose forward pass `loss` calls, for DistributedDataParallel and torch.compile."""
        return network

    @abstractmethod
    def loss(self, module: nn.Module, batch: Any, state: TrainState, index: int) -> Loss:
        """The loss of one micro-batch.

        Args:
            module: of `training_module`, possibly wrapped.
            batch: the micro-batch.
            state: for its epoch and step.
            index: of the micro-batch in the step, across all processes.
        """

    @abstractmethod
    def evaluate(self, network: nn.Module) -> dict[str, Any]:
        """The columns of `row` that the validation data give; in every process the same."""

    @abstractmethod
    def make_row(self, state: TrainState, metrics: Mapping[str, Any], per_second: float) -> EpochMetrics:
        """The row of results.csv for the epoch that has just ended.

        Args:
            state: with the totals of the epoch.
            metrics: what `evaluate` returned.
            per_second: images or tokens per second in training.
        """

    def after_epoch(self, row: EpochMetrics | None) -> None:  # noqa: B027 - as above
        """Write down what came up during an epoch, such as unreadable files; None after an interruption."""

    def rewritten(self) -> list[str]:
        """The files that have changed while the run was reading them, since the last call."""
        return []

    @abstractmethod
    def names_of(self, samples: Indices) -> list[str]:
        """Where training samples come from, for messages."""

    @property
    def precision(self) -> torch.dtype | None:
        """The type for mixed precision, None for plain float32."""
        return mixed_precision(self.context.device, self.config.amp)

    # After training

    def averaging_margin(self, best: Any) -> float:
        """How much worse the averaged weights may be than the best epoch, in its monitored metric.

        The best of many epochs on few validation data is the best by chance in part. The average of the last
        epochs was not chosen, so it is kept if the data cannot tell that it is worse.

        Args:
            best: the row of the best epoch.
        """
        return 0.0

    @abstractmethod
    def evaluate_held_out(self, run: Any) -> Any:
        """Evaluate the best bundle on the test split, or on val if there is none."""

    @abstractmethod
    def report(self, run: Any, evaluation: Any) -> list[Any]:
        """The sections of the report (`striate.sections`)."""

    @abstractmethod
    def summary(self, run: Any, evaluation: Any) -> dict[str, Any]:
        """What `striate train --json` prints, besides the paths."""
