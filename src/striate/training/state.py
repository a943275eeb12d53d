"""Everything that changes during training, and nothing else: what a checkpoint holds.

The order of the samples, their augmentation and dropout are functions of the seed, the epoch and the step, so
no random generator has to be saved.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

from striate.validation import require_fields

_LOOK_EVERY = 50  # steps between two reads of the loss on a GPU; each read waits for the GPU


@dataclass(frozen=True)
class EpochMetrics:
    """One row of results.csv; each task adds its own columns, and the `seconds` of the epoch with validation.

    Attributes:
        epoch: from 1.
        step: optimizer steps so far.
        lr: learning rate of the last step.
        train_loss: mean over the epoch, with label smoothing and augmentation.
        MONITORS: the metrics of `--monitor`: column, and 1 if larger is better, -1 if smaller is.
    """

    MONITORS: ClassVar[Mapping[str, tuple[str, int]]]

    epoch: int
    step: int
    lr: float
    train_loss: float

    @property
    def is_finite(self) -> bool:
        """Whether all figures are finite: if not, the network has diverged and must not become the best."""
        values = (value for value in dataclasses.astuple(self) if isinstance(value, float))
        return all(map(math.isfinite, values))

    def monitored(self, metric: str) -> tuple[float, ...]:
        """What decides the best epoch: a metric of `MONITORS`, then the validation loss; larger is better."""
        columns = (self.MONITORS[name] for name in (metric, "loss"))
        return tuple(sign * getattr(self, column) for column, sign in columns)

    @property
    def log_line(self) -> tuple[str, str]:
        """Loss and metrics in words, and the speed in words."""
        raise NotImplementedError


class RunningTotals:
    """Loss and correct answers since the last evaluation, summed on the device without waiting for it."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._look_every = 1 if device.type == "cpu" else _LOOK_EVERY
        self.reset()

    def reset(self) -> None:
        """Start again from zero."""
        self.count = 0
        self._loss = torch.zeros((), device=self._device, dtype=torch.float64)
        self._correct = torch.zeros((), device=self._device, dtype=torch.int64)
        self._first_nonfinite = torch.full((), -1, device=self._device, dtype=torch.int64)
        self.start_clock()
        self._before = 0.0

    def start_clock(self) -> None:
        """Measure the time of this epoch from now on."""
        self._started = time.perf_counter()

    def add(self, sums: torch.Tensor, terms: int, step: int) -> None:
        """Count one step.

        Args:
            sums: float64 `[2]`, loss and correct answers summed over the step's images or tokens.
            terms: how many those are.
            step: from 0.
        """
        loss, correct = sums
        self._loss += loss
        self._correct += correct.long()
        self._first_nonfinite = torch.where(
            (self._first_nonfinite < 0) & ~loss.isfinite(), step, self._first_nonfinite
        )
        self.count += terms

    @property
    def loss(self) -> float:
        """Mean loss so far."""
        return float(self._loss) / max(1, self.count)

    @property
    def accuracy(self) -> float:
        """Share of correct answers so far."""
        return float(self._correct) / max(1, self.count)

    @property
    def seconds(self) -> float:
        """Time since the last evaluation, without the time between a kill and the resumption."""
        return self._before + time.perf_counter() - self._started

    def figures(self, step: int) -> dict[str, float]:
        """Loss and accuracy for the progress bar; empty for most steps."""
        if step % (10 * self._look_every):
            return {}
        return {"loss": self.loss, "top1": self.accuracy} if int(self._correct) else {"loss": self.loss}

    def first_nonfinite_step(self, step: int, *, now: bool = False) -> int | None:
        """The first step whose loss was not finite, None while there is none.

        Args:
            step: the step that has just been made; on a GPU only every fiftieth is looked at.
            now: look in any case.
        """
        if not now and step % self._look_every:
            return None
        first = int(self._first_nonfinite)
        return None if first < 0 else first

    def to_json(self) -> dict[str, Any]:
        """The exact sums as plain values."""
        return {
            "loss": float(self._loss), "correct": int(self._correct), "count": self.count,
            "seconds": self.seconds,
        }  # fmt: skip

    def from_json(self, values: Mapping[str, Any]) -> None:
        """Continue from saved sums."""
        self.reset()
        self._loss += values["loss"]
        self._correct += values["correct"]
        self.count, self._before = values["count"], values["seconds"]


@dataclass
class TrainState:
    """Everything that changes during training; `loop.fit` advances it in place.

    Attributes:
        network: what is trained, on its device.
        optimizer: over its trainable parameters.
        scaler: of the loss in float16; disabled otherwise.
        ema_model: exponential moving average of the weights, if there is one.
        totals: loss and accuracy since the last evaluation.
        row: the class of `rows`.
        monitor: the metric that decides the best epoch.
        epoch: completed passes over the data.
        position: completed steps of the current epoch.
        step: completed steps.
        lr: learning rate of the last step.
        lr_scale: factor on the schedule; below 1 after a rollback.
        micro_batches: into how many micro-batches a step is split; their gradients are summed.
        rows: one for each evaluated epoch.
        best_epoch: epoch of the best row, 0 before there is one.
        best: weights of the best epoch until a bundle holds them.
        averaged: metrics of averaged weights that a bundle holds as the best, from before the run was
            extended; they are saved elsewhere.
        rollbacks: how often the run returned to a checkpoint with a lower learning rate.
        training_since: seconds into the run at the first step, for a time budget.
        seconds: of the run at its last checkpoint.
        finished: whether training has ended.
        in_step: whether a step is in progress, so that this state is not consistent; never saved.
    """

    network: nn.Module
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    ema_model: AveragedModel | None
    totals: RunningTotals
    row: type[EpochMetrics]
    monitor: str
    epoch: int = 0
    position: int = 0
    step: int = 0
    lr: float = 0.0
    lr_scale: float = 1.0
    micro_batches: int = 1
    rows: list[Any] = field(default_factory=list)
    best_epoch: int = 0
    best: dict[str, torch.Tensor] | None = None
    averaged: Any = None
    rollbacks: int = 0
    training_since: float = 0.0
    seconds: float = 0.0
    finished: bool = False
    in_step: bool = False

    @property
    def evaluated_network(self) -> nn.Module:
        """The network that is evaluated and saved: the moving average if there is one."""
        return self.network if self.ema_model is None else self.ema_model.module

    @property
    def all_finite(self) -> bool:
        """Whether every weight is finite, also in the moving average."""
        networks = {id(network): network for network in (self.network, self.evaluated_network)}.values()
        values = [v for n in networks for v in n.state_dict().values() if v.is_floating_point() and v.numel()]
        # The least and the greatest value are NaN if any is; finding them takes a fifth of the time of a test
        # of each value.
        bounds = [torch.stack(torch.aminmax(value)) for value in values]
        return bool(torch.stack([bound.isfinite().all() for bound in bounds]).all())

    def record(self, row: EpochMetrics) -> None:
        """Add the row of an epoch, and start the sums of the next one."""
        self.rows.append(row)
        if not self.best_epoch or self.is_better(row):
            self.best_epoch, self.best = row.epoch, None
        self.totals.reset()

    def is_better(self, row: EpochMetrics, margin: float = 0.0) -> bool:
        """Whether a row is better than the best one so far, or worse by less than a margin of the metric."""
        rivals = [self.best_row, self.averaged] if self.best_is_average else [self.best_row]
        value, *ties = row.monitored(self.monitor)
        best = max(rival.monitored(self.monitor) for rival in rivals)
        return row.is_finite and (value + margin, *ties) > best

    @property
    def best_is_average(self) -> bool:
        """Whether the averaged weights from before an extension are still the best."""
        return self.averaged is not None and self.best_row.step <= self.averaged.step

    @property
    def best_row(self) -> Any:
        """The row of the best epoch; raises StopIteration before there is one."""
        return next(row for row in self.rows if row.epoch == self.best_epoch)

    def keep_best(self) -> None:
        """Copy the present weights as those of the best epoch."""
        weights = self.evaluated_network.state_dict()
        self.best = {name: value.detach().clone() for name, value in weights.items()}

    def tensors(self) -> dict[str, torch.Tensor]:
        """All tensors by name, not copied."""
        found = {f"network.{name}": value for name, value in self.network.state_dict().items()}
        if self.ema_model is not None:
            found |= {f"ema.{name}": value for name, value in self.ema_model.state_dict().items()}
        found |= {f"best.{name}": value for name, value in (self.best or {}).items()}
        trained = (parameter for group in self.optimizer.param_groups for parameter in group["params"])
        for index, parameter in enumerate(trained):
            for name, value in self.optimizer.state.get(parameter, {}).items():
                if isinstance(value, torch.Tensor):
                    found[f"optimizer.{index}.{name}"] = value
        return found

    def to_json(self) -> dict[str, Any]:
        """Everything that is not a tensor, as plain values."""
        return {
            **{name: getattr(self, name) for name in _PLAIN},
            "rows": [dataclasses.asdict(row) for row in self.rows],
            "totals": self.totals.to_json(),
            "scaler": self.scaler.state_dict(),
        }

    def restore(self, tensors: Mapping[str, torch.Tensor], values: Mapping[str, Any]) -> None:
        """Load what `tensors()` and `to_json()` returned, in place.

        Args:
            tensors: may be empty: then the weights stay as they are.
            values: plain.

        Raises:
            KeyError, RuntimeError, ValueError: they belong to another network, optimizer or task.
        """
        self.in_step = False
        self.best = _below("best.", tensors) or None
        if tensors:
            self._restore_tensors(tensors)
        for name in _PLAIN:
            setattr(self, name, values[name])
        for i, row in enumerate(values["rows"]):
            require_fields(row, self.row, f"rows[{i}]")
        self.rows[:] = [self.row(**row) for row in values["rows"]]
        self.totals.from_json(values["totals"])
        if values["scaler"]:
            self.scaler.load_state_dict(values["scaler"])

    def _restore_tensors(self, tensors: Mapping[str, torch.Tensor]) -> None:
        self.network.load_state_dict(_below("network.", tensors))
        if self.ema_model is not None:
            self.ema_model.load_state_dict(_below("ema.", tensors))
        self.optimizer.state.clear()
        index = 0
        for group in self.optimizer.param_groups:
            counter_on_device = bool(group.get("fused") or group.get("capturable"))
            for parameter in group["params"]:
                for name, value in _below(f"optimizer.{index}.", tensors).items():
                    self.optimizer.state[parameter][name] = _like(value, parameter, counter_on_device)
                index += 1


_PLAIN = (
    "epoch", "position", "step", "lr", "lr_scale", "micro_batches", "best_epoch", "rollbacks", "seconds",
    "training_since", "finished",
)  # fmt: skip


def _below(prefix: str, tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def _like(value: torch.Tensor, parameter: torch.Tensor, counter_on_device: bool) -> torch.Tensor:
    """A copy of an optimizer's tensor where the optimizer would have put it, with the parameter's strides."""
    if value.shape == parameter.shape:
        return torch.empty_like(parameter, dtype=value.dtype, requires_grad=False).copy_(value)
    return value.to(parameter.device if counter_on_device else "cpu", copy=True)
