"""The learning rate range test: the rate rises from step to step until the loss diverges.

Smith 2017, "Cyclical Learning Rates for Training Neural Networks", section 3.3; the rate rises by a constant
factor, as in later implementations.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from striate.errors import TrainingError
from striate.training.config import RunConfig
from striate.training.distributed import SINGLE
from striate.training.loop import Training, train_step
from striate.training.preparation import initial_state
from striate.training.profile import OFF
from striate.training.run_folder import writable
from striate.training.run_names import create
from striate.training.schedule import EpochSchedule, LRSchedule
from striate.training.task import Context, Task
from striate.training.transfer import training_mode

LOW, HIGH, STEPS = 1e-6, 10.0, 150
_SMOOTH = 0.9  # weight of earlier steps in the running mean of the loss
_DIVERGED = 3.0  # times the lowest loss: the search ends


@dataclass(frozen=True)
class LRSearch:
    """The result of a search for a learning rate.

    Attributes:
        folder: for its files.
        model: the network.
        lrs: float64 `[steps]`, the learning rates, rising by a constant factor.
        losses: float64 `[steps]`, of each batch before the step with that rate.
        smooth: float64 `[steps]`, their running mean, corrected for its start.
    """

    folder: Path
    model: str
    lrs: npt.NDArray[np.float64]
    losses: npt.NDArray[np.float64]
    smooth: npt.NDArray[np.float64]

    @property
    def lowest(self) -> float:
        """The learning rate with the lowest smoothed loss."""
        return float(self.lrs[np.argmin(self.smooth)])

    @property
    def lr(self) -> float:
        """The suggestion: a tenth of the rate with the lowest loss, well below where the loss rises."""
        return self.lowest / 10

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        rates, losses = self.lrs.tolist(), self.losses.tolist()
        return {"rate": self.lr, "lowest": self.lowest, "rates": rates, "losses": losses}


def find_lr(kind: type[Task], config: RunConfig) -> LRSearch:
    """Raise the learning rate until the loss diverges, on a network that is thrown away.

    Args:
        kind: the task.
        config: of the run that the learning rate is for.

    Raises:
        DataError, UsageError: as `striate.training.run.train`.
        TrainingError: the loss is not finite from the first steps on.
    """
    config, progress = dataclasses.replace(config, budget=None), config.progress
    context = Context(SINGLE.device(config.device), SINGLE, progress, OFF)
    with config.open_data() as data:
        task = kind(config, data, context)
        task.setup = task.prepare(None)
        losses, lrs = _range_test(task)
    if len(losses) < 10:
        why = f"the loss is not finite after {len(losses)} steps"
        raise TrainingError("no learning rate was found", why, "Check the data")
    config = task.setup.config
    folder = create(writable(config.out), f"{config.run_name}-lr")
    model = task.setup.description.architecture
    return LRSearch(folder, model, lrs, np.array(losses), smoothed(losses))


def _range_test(task: Task) -> tuple[list[float], npt.NDArray[np.float64]]:
    """The loss at each learning rate, until it diverges; and the rates."""
    config, network, context = task.setup.config, task.setup.network, task.context
    state = initial_state(task, task.setup, context.device)
    schedule = EpochSchedule(config.epochs, len(task.order(0)), LRSchedule(HIGH))
    training = Training(task, config, state, schedule, task.training_module(network), context)
    training_mode(network)
    factor = (HIGH / LOW) ** (1 / (STEPS - 1))
    losses: list[float] = []
    context.progress.begin("searching for a learning rate", STEPS, "steps")
    order = list(itertools.islice(itertools.chain.from_iterable(map(task.order, itertools.count())), STEPS))
    for samples, batch in zip(order, task.batches(0, order), strict=True):
        if len(batch) < min(2, len(samples)):
            continue
        state.lr = LOW * factor ** len(losses)
        state.totals.reset()
        train_step(training, batch, len(samples))
        state.step += 1
        loss = state.totals.loss
        context.progress.advance(1, loss=loss)
        if not math.isfinite(loss):
            break
        losses.append(loss)
        smooth = smoothed(losses)
        if smooth[-1] > _DIVERGED * smooth.min():
            break
    context.progress.end()
    return losses, LOW * factor ** np.arange(len(losses))


def smoothed(losses: list[float]) -> npt.NDArray[np.float64]:
    """The exponential running mean of the losses, corrected for its start."""
    mean, means = 0.0, []
    for step, loss in enumerate(losses, 1):
        mean = _SMOOTH * mean + (1 - _SMOOTH) * loss
        means.append(mean / (1 - _SMOOTH**step))
    return np.array(means)
