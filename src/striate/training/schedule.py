"""The learning rate as a pure function of the step, the order of the samples, and when a run ends."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from striate.training.distributed import Distributed
    from striate.training.state import TrainState

Indices = npt.NDArray[np.int64]  # positions of samples in the training data

START_AND_REPORT = 8.0  # seconds of a budget for loading PyTorch before training and for the report after it
FORWARD_SHARE = 0.4  # time of a forward pass in evaluation, relative to a training step
VALIDATION_SHARE = 0.1  # of a budget, at most, goes into validation during training
_SAFETY = 1.25  # factor on estimated times
_RESOLUTION = 10_000  # steps of a schedule that follows the clock
_MIN_EPOCH_SHARE = 0.005  # of a budget that lies at least between two evaluations


@dataclass(frozen=True)
class LRSchedule:
    """A learning rate schedule with linear warm-up.

    Attributes:
        peak: the largest rate.
        kind: `cosine` decays to zero along half a cosine (Loshchilov, Hutter 2017, equation 5); `step`
            multiplies the rate by `gamma` at each milestone (He et al. 2016, section 4.2); `constant` keeps
            it; `inverse-sqrt` decays with the square root of the step (Vaswani et al. 2017, section 5.3).
        warmup: share of all steps over which the rate rises linearly (Goyal et al. 2017).
        milestones: shares of all steps, for `step`.
        gamma: factor at each milestone, for `step`.
    """

    peak: float
    kind: str = "cosine"
    warmup: float = 0.0
    milestones: Sequence[float] = (0.5, 0.75)
    gamma: float = 0.1

    def at(self, step: float, total: float) -> float:
        """The learning rate of a step, from 0 to `total - 1`."""
        warmup = math.ceil(self.warmup * total)
        if step < warmup:
            return self.peak * (step + 1) / warmup
        if self.kind == "constant":
            return self.peak
        if self.kind == "inverse-sqrt":
            return self.peak * math.sqrt(max(1, warmup) / (step + 1))
        if self.kind == "step":
            return self.peak * self.gamma ** sum(step >= total * milestone for milestone in self.milestones)
        return self.peak * 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, total - warmup)))


def shuffled_batches(count: int, size: int, *, seed: int, epoch: int) -> list[Indices]:
    """The samples of each batch of an epoch; a function of the arguments alone.

    A last batch of one sample joins the batch before it, because BatchNorm has no statistics of one image.

    Args:
        count: number of samples.
        size: batch size.
        seed: of the run.
        epoch: from 0.

    Returns:
        Arrays of indices that together hold each of 0 to `count - 1` once.
    """
    return cut(np.random.Generator(np.random.Philox(key=[seed, epoch])).permutation(count), size)


def cut(order: Indices, size: int) -> list[Indices]:
    """Cut the samples of an epoch into batches, as `shuffled_batches` does."""
    cuts = list(range(size, len(order), size))
    if cuts and len(order) - cuts[-1] == 1:
        cuts.pop()
    return np.split(order, cuts)


def split_evenly(count: int, parts: int) -> list[slice]:
    """Split `count` samples into `parts` slices of nearly equal size, each of two samples at least."""
    parts = max(1, min(parts, count // 2))
    cuts = [count * i // parts for i in range(parts + 1)]
    return [slice(start, stop) for start, stop in itertools.pairwise(cuts)]


class EpochSchedule:
    """A fixed number of epochs, each of which ends with an evaluation.

    Args:
        epochs: how many.
        steps_per_epoch: optimizer steps of each.
        lr: the learning rate schedule.
        skipped: steps of them that are left out.
    """

    def __init__(self, epochs: int, steps_per_epoch: int, lr: LRSchedule, skipped: int = 0) -> None:
        self.epochs: int | None = epochs
        self.steps = epochs * steps_per_epoch - skipped
        self.peak_lr = lr.peak
        self._lr = lr

    def lr(self, state: TrainState) -> float:
        """The learning rate of the next step."""
        return self._lr.at(state.step, self.steps)

    def ended(self, state: TrainState) -> bool:
        """Whether all steps are done."""
        return state.step >= self.steps

    def should_evaluate(self, state: TrainState) -> bool:
        """Every epoch ends with an evaluation."""
        return True

    def seconds_left(self, state: TrainState) -> float:
        """Estimated seconds until training ends, from the mean time of a step so far."""
        return _seconds_for(state, self.steps - state.step)


def _seconds_for(state: TrainState, steps: int) -> float:
    """Estimated seconds of further steps, from the mean time of a step so far."""
    seconds: float = sum(row.seconds for row in state.rows)
    return seconds * steps / max(1, state.rows[-1].step if state.rows else state.step)


@dataclass(frozen=True)
class EvaluationCost:
    """How much is evaluated, in the unit of `Optimization.batch` (images or tokens).

    Attributes:
        val: after an epoch.
        test: after training.
        read_seconds: to read one of them from disk.
        sample_seconds: a lower bound of the time to evaluate one of them.
    """

    val: int
    test: int
    read_seconds: float = 0.0
    sample_seconds: float = 0.0


class TimeBudget:
    """A schedule that follows the clock and leaves time for the final evaluation and the report.

    The learning rate is a function of the share of the time that has passed, so it has decayed when the time
    is up, however fast or busy the machine is. With several processes the clock of the first one counts. If
    the number of epochs is limited too, the larger of the two shares counts.

    Args:
        seconds: for the whole run.
        step_batch: samples (or tokens) per optimizer step.
        lr: the learning rate schedule.
        clock: returns the seconds that the run has taken, in all of its processes.
        cost: of evaluations.
        distributed: the processes.
        epochs: how many at most; None for no limit.
        steps_per_epoch: optimizer steps of each.
        skipped: steps of them that are left out.

    Attributes:
        cost: may be replaced by a better estimate.
    """

    def __init__(
        self,
        seconds: float,
        step_batch: int,
        lr: LRSchedule,
        clock: Callable[[], float],
        cost: EvaluationCost,
        distributed: Distributed,
        epochs: int | None = None,
        steps_per_epoch: int = 0,
        skipped: int = 0,
    ) -> None:
        self.epochs = epochs
        self.steps = math.inf if epochs is None else epochs * steps_per_epoch - skipped
        self.peak_lr = lr.peak
        self._seconds, self._batch, self._lr = seconds, step_batch, lr
        self._local_clock, self.cost, self._distributed = clock, cost, distributed
        self._step_seconds = self._sample = 0.0  # time of the last step, and per sample
        self._validation: float | None = None  # seconds of the last evaluation
        self._evaluation_started: float | None = None
        self._step_started: float | None = None

    def lr(self, state: TrainState) -> float:
        """The learning rate at this share of the time, or of the steps if that is larger."""
        now = self._clock()
        if not state.step:
            state.training_since = now
        if self._evaluation_started is not None:
            self._validation, self._evaluation_started = now - self._evaluation_started, None
        self._step_started = now
        since = state.training_since
        share = (now - since) / max(self._end() - since, 1e-9)
        share = max(share, state.step / self.steps)
        return self._lr.at(min(share, 1.0) * _RESOLUTION, _RESOLUTION)

    def ended(self, state: TrainState) -> bool:
        """Whether all steps are done, or another one would end too late."""
        now = self._clock()
        if self._step_started is not None:
            self._step_seconds, self._step_started = now - self._step_started, None
            self._sample = self._step_seconds / self._batch
        return state.step >= self.steps or now + self._step_seconds > self._end()

    def should_evaluate(self, state: TrainState) -> bool:
        """Whether an evaluation now takes a small share of the time since the last one."""
        since_last = self._distributed.broadcast_object(state.totals.seconds)
        shortest = _MIN_EPOCH_SHARE * self._seconds  # epochs on precomputed features are short
        if self._validation_seconds() > VALIDATION_SHARE * since_last or since_last < shortest:
            return False
        self._evaluation_started = self._clock()
        return True

    def seconds_left(self, state: TrainState) -> float:
        """Seconds until training ends."""
        left = self._end() - self._local_clock()
        return left if self.epochs is None else min(left, _seconds_for(state, int(self.steps) - state.step))

    def _clock(self) -> float:
        return float(self._distributed.broadcast_object(self._local_clock()))

    def _end(self) -> float:
        """When training must end, to leave time for what follows."""
        validation = self._validation_seconds()
        sample = max(self._distributed.size * validation / max(self.cost.val, 1), self.cost.sample_seconds)
        final = self.cost.test * (sample + self.cost.read_seconds)
        return self._seconds - START_AND_REPORT - _SAFETY * (validation + final)

    def _validation_seconds(self) -> float:
        """Seconds of an evaluation, measured or estimated from a training step."""
        return FORWARD_SHARE * self._sample * self.cost.val if self._validation is None else self._validation


Schedule = EpochSchedule | TimeBudget
