"""The image size for a time budget: the largest one that leaves time for enough epochs."""

from __future__ import annotations

import contextlib
import time

import torch

from striate import models
from striate.data import DataSet, Samples
from striate.errors import DecodeError
from striate.kernels import prepare
from striate.tasks.classification.config import ClassificationConfig
from striate.tasks.classification.loss import Criterion
from striate.training import schedule
from striate.training.schedule import FORWARD_SHARE, VALIDATION_SHARE
from striate.training.task import Context
from striate.transforms.preprocess import Preprocess

SIZES = (224, 192, 160, 128, 112, 96, 80, 64)


def choose_image_size(
    config: ClassificationConfig, dataset: DataSet, context: Context
) -> tuple[int | None, str]:
    """Choose the image size for a budget, if the user has not.

    Args:
        config: with a budget.
        dataset: with its splits.
        context: for the device, on which a few steps are measured.

    Returns:
        The size in pixels (None for the network's own), and a message about it.
    """
    row = models.describe(config.architecture)
    if config.imgsz is not None or row.sizes != "any" or models.is_foreign(config.architecture):
        return config.imgsz, ""
    train, test = dataset.splits["train"], dataset.splits.get("test", dataset.splits["val"])
    workers = context.distributed.workers(config.workers)
    reading = read_seconds(train, config.own_preprocess(None), workers)
    held_out = len(dataset.splits["val"]) + len(test)
    step = step_seconds(config, len(dataset.classes), context.device)
    left = config.budget_seconds - (len(train) + held_out) * reading
    epochs = enough_epochs(len(train), config.weights != "none")
    size = image_size(step, left, len(train), held_out, min(epochs, config.epochs or epochs))
    size = min(size, row.input_size)
    speed = 1 / (step * size**2)
    reason = f"about {speed:,.0f} images/s at {size} px here, so --imgsz {size} is used"
    return size, f"budget {config.shown_budget}: {reason}"


def enough_epochs(train: int, pretrained: bool) -> float:
    """Epochs after which larger images help more than further epochs.

    From random weights about 30,000 images should be seen, each at least 8 times; from pretrained weights a
    tenth of that, each 3 times.
    """
    return max(3.0, 3_000 / train) if pretrained else max(8.0, 30_000 / train)


def image_size(step: float, seconds: float, train: int, held_out: int, epochs: float) -> int:
    """The largest size for which there is time for so many epochs; the smallest one if there is none.

    Args:
        step: seconds of training per pixel of one channel.
        seconds: left for training and evaluation.
        train: number of training images.
        held_out: number of images that are evaluated at the end.
        epochs: over the training images.
    """
    left = (seconds - schedule.START_AND_REPORT) * (1 - VALIDATION_SHARE)
    for size in SIZES:
        if left >= step * size**2 * (epochs * train + FORWARD_SHARE * held_out):
            return size
    return SIZES[-1]


def step_seconds(config: ClassificationConfig, classes: int, device: torch.device) -> float:
    """Seconds of training per pixel of one channel, measured with a few steps on noise."""
    size, batch = 96, min(config.batch, 32)
    channels = config.channels or models.MODELS[config.architecture].channels
    network = models.build(config.architecture, num_classes=classes, in_channels=channels)
    network = prepare(network, device, training=True).train()
    images = torch.rand(batch, channels, size, size, device=device)
    labels = torch.zeros(batch, dtype=torch.long, device=device)
    seconds = []
    for _ in range(4):
        started = time.perf_counter()
        loss, _ = Criterion()(network(images), labels)
        torch.autograd.backward(loss)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        seconds.append(time.perf_counter() - started)
    return min(seconds) / (batch * size**2)


def read_seconds(samples: Samples, preprocess: Preprocess, workers: int) -> float:
    """Seconds to read one image with so many threads, measured on a few of them."""
    if samples.pixels is not None:
        return 0.0
    some = range(len(samples))[:: max(1, len(samples) // 8)][:8]
    started = time.perf_counter()
    for i in some:
        with contextlib.suppress(DecodeError):
            preprocess.read(samples.fetch(i))
    return (time.perf_counter() - started) / (len(some) * workers)
