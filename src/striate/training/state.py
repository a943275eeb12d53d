"""What a run carries from one step to the next.

The order of the images, their augmentation and dropout are functions of the seed, the epoch and the step, so
there is no generator whose state would belong here.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

from striate.device import mixed_precision
from striate.training.config import TrainConfig
from striate.training.optimizer import make_optimizer, moving_average
from striate.training.tally import EpochResult, Row, Tally


@dataclass
class TrainState:
    """Everything that changes while a run goes on; `loop.fit` advances it in place.

    Attributes:
        network: what learns, on its device.
        optimizer: over what trains of it.
        scaler: of the loss in float16; without effect elsewhere.
        average: the moving average of the weights, where there is one.
        tally: sums since the last row.
        epoch: how many passes over the data are finished.
        position: how many batches of the next pass are finished.
        step: how many batches in all.
        rate: learning rate of the last step.
        rate_share: what the schedule's rate is multiplied by; below 1 once the run was rolled back.
        parts: how many parts a batch is cut into, for want of memory; their gradients are summed.
        rows: a row for each epoch that was measured.
        row_kind: what a row is: a dataclass that has what `Row` asks for.
        best_epoch: the one of the best row, 0 before there is one.
        best: weights of the best epoch while no bundle holds them; None otherwise.
        rollbacks: how often the run was set back to a saved state with a lower rate.
        learning_since: seconds into the run at which the first step began, where the clock decides the rate.
        seconds: that the run had taken when it was last saved.
        finished: nothing is left to do.
        busy: a step is being made, so that this is not whole; never saved.
    """

    network: nn.Module
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    average: AveragedModel | None
    tally: Tally
    epoch: int = 0
    position: int = 0
    step: int = 0
    rate: float = 0.0
    rate_share: float = 1.0
    parts: int = 1
    rows: list[Any] = field(default_factory=list)
    row_kind: type = EpochResult
    best_epoch: int = 0
    best: dict[str, torch.Tensor] | None = None
    rollbacks: int = 0
    learning_since: float = 0.0
    seconds: float = 0.0
    finished: bool = False
    busy: bool = False

    @classmethod
    def fresh(
        cls, network: nn.Module, config: TrainConfig, device: torch.device, head: str | None = None
    ) -> TrainState:
        """The state that a run begins with.

        Args:
            network: on `device`, frozen where it is to be.
            config: how it is to learn.
            device: where.
            head: name of the module that trains at the full rate, where the rest has weights that are
                worth keeping and trains at the backbone's; None where all is fresh.
        """
        half = mixed_precision(device, config.amp) is torch.float16
        return cls(
            network=network,
            optimizer=make_optimizer(network, config, head),
            scaler=torch.amp.GradScaler(device.type, enabled=half),
            average=moving_average(network, config.ema) if config.ema else None,
            tally=Tally(device),
            parts=config.accumulate,
        )

    @property
    def measured(self) -> nn.Module:
        """The network whose weights are kept: the moving average where there is one."""
        return self.network if self.average is None else self.average.module

    @property
    def sound(self) -> bool:
        """Whether every weight is finite."""
        values = [v for v in self.network.state_dict().values() if v.is_floating_point()]
        return bool(torch.stack([value.isfinite().all() for value in values]).all())

    def record(self, row: Row) -> None:
        """Count a row."""
        self.rows.append(row)
        if not self.best_epoch or row.merit > self.best_row.merit:
            self.best_epoch, self.best = row.epoch, None
        self.tally.clear()

    @property
    def best_row(self) -> Any:
        """The row of the best epoch; raises StopIteration before there is one."""
        return next(row for row in self.rows if row.epoch == self.best_epoch)

    def keep_best(self) -> None:
        """Hold on to the weights as they are now, as those of the best epoch."""
        self.best = {name: value.detach().clone() for name, value in self.measured.state_dict().items()}

    def tensors(self) -> dict[str, torch.Tensor]:
        """All of it that is tensors, by name; not copied."""
        found = {f"network.{name}": value for name, value in self.network.state_dict().items()}
        if self.average is not None:
            found |= {f"average.{name}": value for name, value in self.average.state_dict().items()}
        found |= {f"best.{name}": value for name, value in (self.best or {}).items()}
        for index, parameter in enumerate(self._trained()):
            for name, value in self.optimizer.state.get(parameter, {}).items():
                if isinstance(value, torch.Tensor):
                    found[f"optimizer.{index}.{name}"] = value
        return found

    def to_json(self) -> dict[str, Any]:
        """All of it that is not tensors, as plain values."""
        return {
            **{name: getattr(self, name) for name in _PLAIN},
            "rows": [dataclasses.asdict(row) for row in self.rows],
            "tally": self.tally.to_json(),
            "scaler": self.scaler.state_dict(),
        }

    def restore(self, tensors: Mapping[str, torch.Tensor], values: Mapping[str, Any]) -> None:
        """Become what `tensors()` and `to_json()` were of, in place; without tensors, in all other respects.

        Raises:
            KeyError, RuntimeError: they are of another network or optimizer.
        """
        self.busy = False
        self.best = _below("best.", tensors) or None
        if tensors:
            self._restore_tensors(tensors)
        for name in _PLAIN:
            setattr(self, name, values[name])
        self.rows[:] = [self.row_kind(**row) for row in values["rows"]]
        self.tally.from_json(values["tally"])
        if values["scaler"]:
            self.scaler.load_state_dict(values["scaler"])

    def _restore_tensors(self, tensors: Mapping[str, torch.Tensor]) -> None:
        self.network.load_state_dict(_below("network.", tensors))
        if self.average is not None:
            self.average.load_state_dict(_below("average.", tensors))
        self.optimizer.state.clear()
        index = 0
        for group in self.optimizer.param_groups:
            on_device = bool(group.get("fused") or group.get("capturable"))  # where a counter of steps lies
            for parameter in group["params"]:
                for name, value in _below(f"optimizer.{index}.", tensors).items():
                    self.optimizer.state[parameter][name] = _placed(value, parameter, on_device)
                index += 1

    def _trained(self) -> list[torch.Tensor]:
        return [parameter for group in self.optimizer.param_groups for parameter in group["params"]]


_PLAIN = (
    "epoch", "position", "step", "rate", "rate_share", "parts", "best_epoch", "rollbacks", "seconds",
    "learning_since", "finished",
)  # fmt: skip


def _below(prefix: str, tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def _placed(value: torch.Tensor, parameter: torch.Tensor, counter_on_device: bool) -> torch.Tensor:
    """A copy where the optimizer itself would have put it, with the parameter's strides."""
    if value.shape == parameter.shape:
        return torch.empty_like(parameter, dtype=value.dtype, requires_grad=False).copy_(value)
    return value.to(parameter.device if counter_on_device else "cpu", copy=True)
