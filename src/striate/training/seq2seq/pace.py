"""The schedule of a run on pairs: by its steps, or by the clock."""

from __future__ import annotations

from striate.training.budget import Budget
from striate.training.schedule import learning_rate
from striate.training.seq2seq.config import Rates
from striate.training.state import TrainState


class Passes:
    """So many passes over the pairs, each of them measured.

    Args:
        epochs: how many.
        batches: of each.
        rates: the schedule.
    """

    def __init__(self, epochs: int, batches: int, rates: Rates) -> None:
        self.epochs: int | None = epochs
        self.steps = epochs * batches
        self._rates = rates

    def rate(self, state: TrainState) -> float:
        """The schedule at this step."""
        return rate_at(self._rates, state.step, self.steps)

    def ended(self, state: TrainState) -> bool:
        """Whether all steps are made."""
        return state.step >= self.steps

    def measures(self, state: TrainState) -> bool:
        """Always."""
        return True

    def left(self, state: TrainState) -> float:
        """As long for each step to come as for those behind."""
        done: float = sum(row.seconds for row in state.rows)
        return done * (self.steps - state.step) / max(1, state.step)


class Clock(Budget):
    """A time; what counts is tokens, not images."""

    rates: Rates

    def _rate_at(self, step: float, total: float) -> float:
        return rate_at(self.rates, step, total)


def rate_at(rates: Rates, step: float, total: float) -> float:
    """The learning rate of a step of so many."""
    return learning_rate(step, total=total, peak=rates.peak_rate, kind=rates.sched, warmup=rates.warmup)
