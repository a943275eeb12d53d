"""What is counted during an epoch, and the row that it becomes."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any, Protocol

import torch


class Row(Protocol):
    """What every kind of row in `results.csv` has."""

    @property
    def epoch(self) -> int:
        """Counts from 1."""

    @property
    def step(self) -> int:
        """Optimizer steps so far."""

    @property
    def seconds(self) -> float:
        """That the epoch took, validation included."""

    @property
    def merit(self) -> tuple[float, ...]:
        """What the best epoch has most of."""

    @property
    def told(self) -> tuple[str, str]:
        """The row in words: what was learnt, and how fast."""


@dataclass(frozen=True)
class EpochResult:
    """One row of `results.csv`.

    Attributes:
        epoch: counts from 1.
        step: optimizer steps so far.
        lr: learning rate of the last step.
        train_loss: mean over the epoch's images, as they were augmented.
        train_top1: share that was right, before the step that learnt from it.
        val_loss: cross-entropy on the validation images, in nats.
        val_top1: share of them that is right.
        seconds: the epoch took, validation included.
        images_per_second: training images, validation not included.
    """

    epoch: int
    step: int
    lr: float
    train_loss: float
    train_top1: float
    val_loss: float
    val_top1: float
    seconds: float
    images_per_second: float

    @property
    def merit(self) -> tuple[float, float]:
        """What the best epoch has most of: accuracy, then a low loss."""
        return self.val_top1, -self.val_loss

    @property
    def told(self) -> tuple[str, str]:
        """The row in words: what was learnt, and how fast."""
        learnt = (
            f"loss {self.train_loss:.4f}  top1 {self.train_top1:.4f}  "
            f"val loss {self.val_loss:.4f}  val top1 {self.val_top1:.4f}"
        )
        return learnt, f"{self.images_per_second:,.0f} images/s"


class Tally:
    """Loss and hits since the last row, summed on the device so that the host need not wait for each step."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._every = 1 if device.type == "cpu" else 50  # steps between two looks; each one waits for a GPU
        self.clear()

    def clear(self) -> None:
        """Begin again."""
        self.count = 0
        self._loss = torch.zeros((), device=self._device, dtype=torch.float64)
        self._hits = torch.zeros((), device=self._device, dtype=torch.int64)
        self._astray = torch.full((), -1, device=self._device, dtype=torch.int64)
        self._started, self._before = time.perf_counter(), 0.0

    def begin(self) -> None:
        """Let the time of the row under way go on from now."""
        self._started = time.perf_counter()

    def add(self, sums: torch.Tensor, weight: int, step: int) -> None:
        """Count one batch.

        Args:
            sums: float64 `[2]`, loss and hits over its images (or tokens).
            weight: how many those are.
            step: counts from 0.
        """
        loss, hits = sums
        self._loss += loss
        self._hits += hits.long()
        self._astray = torch.where((self._astray < 0) & ~loss.isfinite(), step, self._astray)
        self.count += weight

    @property
    def loss(self) -> float:
        """Mean over the images (or tokens) so far."""
        return float(self._loss) / max(1, self.count)

    @property
    def top1(self) -> float:
        """Share of them that was right."""
        return float(self._hits) / max(1, self.count)

    @property
    def seconds(self) -> float:
        """Time since the last row, without the time between a kill and the resumption."""
        return self._before + time.perf_counter() - self._started

    def shown(self, step: int) -> dict[str, float]:
        """What stands beside the progress bar."""
        return {"loss": self.loss, "top1": self.top1} if step % (10 * self._every) == 0 else {}

    def astray(self, step: int, *, now: bool = False) -> int | None:
        """The first step whose loss was not finite, None while there is none.

        Args:
            step: the step that has just been made; on a GPU one in fifty is a look.
            now: look in any case.
        """
        if not now and step % self._every:
            return None
        first = int(self._astray)
        return None if first < 0 else first

    def to_json(self) -> dict[str, Any]:
        """The sums as plain values, exactly."""
        return {
            "loss": float(self._loss),
            "hits": int(self._hits),
            "count": self.count,
            "seconds": self.seconds,
        }

    def from_json(self, values: dict[str, Any]) -> None:
        """Go on from sums that were written down."""
        self.clear()
        self._loss += values["loss"]
        self._hits += values["hits"]
        self.count, self._before = values["count"], values["seconds"]
