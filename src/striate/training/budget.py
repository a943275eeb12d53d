"""Training as well as possible within a time: the size of the images, and a schedule that follows the clock.

The rate is a function of the share of the time that is gone, so that it has come down when the time is over,
on whatever machine and however busy it is. The end leaves time for the last measurement and the report.
"""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Callable
from typing import Protocol

import torch

from striate import models
from striate.data import Samples
from striate.device import placed
from striate.errors import DecodeError
from striate.training.config import TrainConfig
from striate.training.loop import loss_of
from striate.training.schedule import rate_at
from striate.training.state import TrainState
from striate.transforms.preprocess import Preprocess

SIZES = (224, 192, 160, 128, 112, 96, 80, 64)
AROUND = 8.0  # seconds for loading PyTorch before and drawing the report after
_CAUTION = 1.25  # an estimate may be wrong by so much
_FORWARD = 0.4  # of a training step's time, what the same images take in evaluation
_WHOLE = 10_000  # steps of a schedule that is walked along by the clock
_ROW = 0.005  # share of the time that lies between two rows at least
_VALIDATION = 0.1  # share of the time for measuring along the way


def fit_to(
    config: TrainConfig, train: int, held_out: int, classes: int, reading: float, device: torch.device
) -> tuple[TrainConfig, str]:
    """Choose the size of the images by the time there is, where the user has not.

    Args:
        config: with a budget.
        train: training images.
        held_out: images that are measured at the end, as often as they are.
        classes: how many there are.
        reading: seconds for an image file to be read.
        device: where it is going to train.

    Returns:
        The configuration with its size, and what is to be said of it.
    """
    architecture = models.MODELS[config.model]
    if config.imgsz is not None or architecture.sizes != "any":
        return config, ""
    step = step_seconds(config, classes, device)
    passes = enough_passes(train, config.weights != "none")
    size = image_size(step, config.budget_seconds - (train + held_out) * reading, train, held_out, passes)
    size = min(size, architecture.input_size)
    rate = 1 / (step * size**2)
    said = f"budget {config.budget}: some {rate:,.0f} images/s at {size} px here, so --imgsz {size} is chosen"
    return dataclasses.replace(config, imgsz=size), said


def enough_passes(train: int, weights: bool) -> float:
    """Passes over the images after which larger images are worth more than more passes.

    From fresh weights some 30,000 images are to be seen, and each image 8 times at least; from weights of
    others a tenth of that, and each 3 times.
    """
    return max(3.0, 3_000 / train) if weights else max(8.0, 30_000 / train)


def image_size(step: float, seconds: float, train: int, held_out: int, passes: float) -> int:
    """The largest size at which the time allows so many passes; the smallest, where none does.

    Args:
        step: seconds of training for each pixel of one channel of an image.
        seconds: that are left for training and measuring.
        train: training images.
        held_out: images that are measured at the end.
        passes: over the training images.
    """
    left = (seconds - AROUND) * (1 - _VALIDATION)
    for size in SIZES:
        if left >= step * size**2 * (passes * train + _FORWARD * held_out):
            return size
    return SIZES[-1]


def step_seconds(config: TrainConfig, classes: int, device: torch.device) -> float:
    """Seconds of training for each pixel of one channel of an image, from a few steps on noise."""
    size, batch = 96, min(config.batch, 32)
    channels = config.channels or models.MODELS[config.model].channels
    network = models.build(config.model, num_classes=classes, in_channels=channels)
    network = placed(network, device).train()
    images = torch.rand(batch, channels, size, size, device=device)
    truth = torch.zeros(batch, dtype=torch.long, device=device)
    seconds = []
    for _ in range(4):
        started = time.perf_counter()
        loss, _ = loss_of(network(images), truth, 0.0)
        torch.autograd.backward(loss)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        seconds.append(time.perf_counter() - started)
    return min(seconds) / (batch * size**2)


def reading_seconds(samples: Samples, preprocess: Preprocess, workers: int) -> float:
    """Seconds for an image of these to be read by so many threads, from a few of them."""
    if samples.pixels is not None:
        return 0.0
    some = range(len(samples))[:: max(1, len(samples) // 8)][:8]
    started = time.perf_counter()
    for i in some:
        with contextlib.suppress(DecodeError):
            preprocess.read(samples.fetch(i))
    return (time.perf_counter() - started) / (len(some) * workers)


class Timed(Protocol):
    """What a pace by the clock asks of a configuration; its fields are `TrainConfig`'s."""

    @property
    def batch(self) -> int: ...  # noqa: D102
    @property
    def budget_seconds(self) -> float: ...  # noqa: D102
    @property
    def peak_rate(self) -> float: ...  # noqa: D102
    @property
    def sched(self) -> str: ...  # noqa: D102
    @property
    def warmup(self) -> float: ...  # noqa: D102


class Budget:
    """A pace that follows the clock.

    Args:
        config: with a budget.
        elapsed: answers how long the run has taken, in all its processes.
        val: images that measure an epoch.
        last: images that are measured at the end.
        reading: seconds for one of them to be read.
        processes: that train and measure an epoch together; one of them measures the end.

    Attributes:
        image_seconds: that an image takes in evaluation at least, where that is known already.
    """

    epochs: int | None = None

    def __init__(
        self,
        config: Timed,
        elapsed: Callable[[], float],
        val: int,
        last: int,
        reading: float,
        processes: int = 1,
    ) -> None:
        self.image_seconds = 0.0
        self._config, self._elapsed = config, elapsed
        self._val, self._last, self._reading, self._processes = val, last, reading, processes
        self._image = self._step = 0.0  # seconds that the last step took, for an image and in all
        self._measuring: float | None = None  # seconds that the last validation took
        self._asked: float | None = None  # when it began
        self._before: float | None = None  # when the step under way began

    def rate(self, state: TrainState) -> float:
        """The schedule at this share of the time."""
        now = self._elapsed()
        if not state.step:
            state.learning_since = now
        if self._asked is not None:
            self._measuring, self._asked = now - self._asked, None
        self._before = now
        since = state.learning_since
        share = (now - since) / max(self._limit() - since, 1e-9)
        return self._rate_at(min(share, 1.0) * _WHOLE, _WHOLE)

    def ended(self, state: TrainState) -> bool:
        """Whether another step would come to its end too late."""
        now = self._elapsed()
        if self._before is not None:
            self._step, self._before = now - self._before, None
            self._image = self._step / self._config.batch
        return now + self._step > self._limit()

    def measures(self, state: TrainState) -> bool:
        """Whether measuring now takes a small share of the time since the last time."""
        least = _ROW * self._config.budget_seconds  # epochs on features take no time, and are many
        if self._validation() > _VALIDATION * state.tally.seconds or state.tally.seconds < least:
            return False
        self._asked = self._elapsed()
        return True

    def left(self, state: TrainState) -> float:
        """Seconds until training ends."""
        return self._limit() - self._elapsed()

    def _rate_at(self, step: float, total: float) -> float:
        assert isinstance(self._config, TrainConfig)  # the schedules of others are their own
        return rate_at(self._config, step, total)

    def _limit(self) -> float:
        """When training must end, for what follows it to be in time."""
        validation = self._validation()
        image = max(self._processes * validation / max(self._val, 1), self.image_seconds)
        evaluation = self._last * (image + self._reading)
        return self._config.budget_seconds - AROUND - _CAUTION * (validation + evaluation)

    def _validation(self) -> float:
        """Seconds to measure the validation images, as measured or estimated."""
        return _FORWARD * self._image * self._val if self._measuring is None else self._measuring
