"""Looking for a learning rate: it rises from step to step, and the loss is watched.

Smith 2017, "Cyclical Learning Rates for Training Neural Networks", section 3.3 (the range test), the rate
rising by a factor, as is usual since then.
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

from striate.data.images.loader import stream
from striate.device import cpu_count
from striate.errors import TrainingError
from striate.progress import SILENT, Progress
from striate.training.config import TrainConfig
from striate.training.folder import name_of, reserve, writable
from striate.training.loop import Job
from striate.training.schedule import Epochs
from striate.training.session import prepare
from striate.training.state import TrainState
from striate.training.step import learn
from striate.training.transfer import training_mode

LOW, HIGH, STEPS = 1e-6, 10.0, 150
_SMOOTH = 0.9  # of the loss that is looked at, the share that is of the steps before
_LOST = 3.0  # times the lowest loss, above which there is no more to see


@dataclass(frozen=True)
class RateSearch:
    """What a search for a learning rate has seen.

    Attributes:
        folder: for its files, made if need be.
        model: the network.
        rates: float64 `[steps]`, rising by one factor.
        losses: float64 `[steps]`, of the batch before the step at that rate was made.
        smooth: float64 `[steps]`, their running mean, corrected for its start.
    """

    folder: Path
    model: str
    rates: npt.NDArray[np.float64]
    losses: npt.NDArray[np.float64]
    smooth: npt.NDArray[np.float64]

    @property
    def lowest(self) -> float:
        """The rate at which the smooth loss is lowest: what lies above it does harm."""
        return float(self.rates[np.argmin(self.smooth)])

    @property
    def rate(self) -> float:
        """The suggestion: a tenth of the rate of the lowest loss, well below where it begins to rise."""
        return self.lowest / 10

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "rate": self.rate,
            "lowest": self.lowest,
            "rates": self.rates.tolist(),
            "losses": self.losses.tolist(),
        }


def find_rate(config: TrainConfig, progress: Progress = SILENT) -> RateSearch:
    """Let the rate rise until the loss does, on a network that is then thrown away.

    Args:
        config: of the run that the rate is for.
        progress: is told of each step.

    Raises:
        DataError, UsageError: as `striate.training.session.train`.
        TrainingError: the loss is not finite from the first steps on.
    """
    ready = prepare(dataclasses.replace(config, budget=None), progress)
    config = ready.config
    state = TrainState.fresh(ready.network, config, ready.place, ready.head)
    pace = Epochs(config, len(ready.train))
    job = Job(ready.description.contract, ready.train, ready.val, config, ready.place, pace)
    training_mode(ready.network)
    factor = (HIGH / LOW) ** (1 / (STEPS - 1))
    losses: list[float] = []
    progress.begin("looking for a learning rate", STEPS, "steps")
    order = list(itertools.islice(itertools.chain.from_iterable(map(job.order, itertools.count())), STEPS))
    for batch in stream(ready.train, order, ready.place, workers=config.workers or cpu_count()):
        if len(batch) < min(2, batch.requested):
            continue
        state.rate = LOW * factor ** len(losses)
        state.tally.clear()
        learn(state, job, batch, [len(batch)], [batch.weight], progress)
        state.step += 1
        loss = state.tally.loss
        progress.advance(1, loss=loss)
        if not math.isfinite(loss):
            break
        losses.append(loss)
        smooth = smoothed(losses)
        if smooth[-1] > _LOST * smooth.min():
            break
    progress.end()
    if len(losses) < 10:
        raise TrainingError(
            "no learning rate was found",
            f"the loss is not finite after {len(losses)} steps",
            "Check the images",
        )
    folder = reserve(writable(config.out), f"{name_of(config)}-lr")
    rates = LOW * factor ** np.arange(len(losses))
    return RateSearch(folder, config.model, rates, np.array(losses), smoothed(losses))


def smoothed(losses: list[float]) -> npt.NDArray[np.float64]:
    """The running mean with the weight of a loss falling by a tenth a step, corrected for its start."""
    mean, means = 0.0, []
    for step, loss in enumerate(losses, 1):
        mean = _SMOOTH * mean + (1 - _SMOOTH) * loss
        means.append(mean / (1 - _SMOOTH**step))
    return np.array(means)
