"""The learning rate as a pure function of the step, the order of the images, and when a run is over."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from striate.training.config import TrainConfig
    from striate.training.state import TrainState


def learning_rate(
    step: float,
    *,
    total: float,
    peak: float,
    kind: str = "cosine",
    warmup: float = 0.0,
    milestones: Sequence[float] = (0.5, 0.75),
    gamma: float = 0.1,
) -> float:
    """The learning rate of one step.

    Args:
        step: counts from 0 to `total - 1`.
        total: steps of the whole run.
        peak: the largest rate.
        kind: `cosine` falls to zero along half a cosine (Loshchilov, Hutter 2017, equation 5); `step`
            falls at each milestone, as it is set to a tenth after half and again after three quarters of
            the steps (He et al. 2016, section 4.2); `constant` stays; `inverse-sqrt` falls with
            the square root of the steps since the start (Vaswani et al. 2017, section 5.3).
        warmup: share of all steps over which the rate first rises linearly (Goyal et al. 2017).
        milestones: shares of all steps, for `step`.
        gamma: what `step` multiplies the rate with at each.
    """
    rising = math.ceil(warmup * total)
    if step < rising:
        return peak * (step + 1) / rising
    if kind == "constant":
        return peak
    if kind == "inverse-sqrt":
        return peak * math.sqrt(max(1, rising) / (step + 1))
    if kind == "step":
        return peak * gamma ** sum(step >= total * milestone for milestone in milestones)
    return peak * 0.5 * (1 + math.cos(math.pi * (step - rising) / max(1, total - rising)))


def rate_at(config: TrainConfig, step: float, total: float) -> float:
    """The learning rate that a configuration has at a step of so many."""
    return learning_rate(
        step, total=total, peak=config.peak_rate, kind=config.sched, warmup=config.warmup,
        milestones=config.drops, gamma=config.gamma,
    )  # fmt: skip


def batches(count: int, size: int, *, seed: int, epoch: int) -> list[npt.NDArray[np.int64]]:
    """The order of one epoch, cut into batches; a function of the arguments alone.

    A last batch of one joins the one before it: a single image has no batch statistics, and BatchNorm
    refuses it.

    Args:
        count: samples.
        size: of a batch.
        seed: of the run.
        epoch: counts from 0.

    Returns:
        Arrays of indices that together hold each of 0 to `count - 1` once.
    """
    order = np.random.Generator(np.random.Philox(key=[seed, epoch])).permutation(count)
    cuts = list(range(size, count, size))
    if cuts and count - cuts[-1] == 1:
        cuts.pop()
    return np.split(order, cuts)


def slices(count: int, parts: int) -> list[slice]:
    """Cut `count` images into so many parts of nearly one size, each of two images at least."""
    parts = max(1, min(parts, count // 2))
    cuts = [count * i // parts for i in range(parts + 1)]
    return [slice(start, stop) for start, stop in itertools.pairwise(cuts)]


class Pace(Protocol):
    """How large each step is, and when a run is over.

    Attributes:
        epochs: how many there will be, where that is known.
    """

    epochs: int | None

    def rate(self, state: TrainState) -> float:
        """The learning rate of the next step."""

    def ended(self, state: TrainState) -> bool:
        """Whether there is no next step."""

    def measures(self, state: TrainState) -> bool:
        """Whether the validation images measure the epoch that has just ended."""

    def left(self, state: TrainState) -> float:
        """Seconds until training ends, as far as can be told."""


class Epochs:
    """So many passes over the images, each of them measured.

    Args:
        config: says how many, and which schedule.
        count: of training images.
    """

    def __init__(self, config: TrainConfig, count: int) -> None:
        self._config = config
        self.epochs: int | None = config.epochs
        self.steps = config.epochs * len(batches(count, config.batch, seed=config.seed, epoch=0))

    def rate(self, state: TrainState) -> float:
        """The schedule at this step."""
        return rate_at(self._config, state.step, self.steps)

    def ended(self, state: TrainState) -> bool:
        """Whether all steps are made."""
        return state.step >= self.steps

    def measures(self, state: TrainState) -> bool:
        """Always."""
        return True

    def left(self, state: TrainState) -> float:
        """As long for each epoch to come as for those behind."""
        seconds: float = sum(row.seconds for row in state.rows) / max(1, len(state.rows))
        return seconds * (self._config.epochs - len(state.rows))
