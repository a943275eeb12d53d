"""Images per second of a network: its bare loop, the training loop, prediction; on noise held in memory."""

from __future__ import annotations

import statistics
import time
from typing import Any

import numpy as np
import torch
from torch import nn

from striate import models
from striate.data import InMemoryImages
from striate.device import autocast, mixed_precision
from striate.inference.classifier import logits
from striate.kernels.folding import fold
from striate.training.config import TrainConfig
from striate.training.loop import Job, fit, loss_of
from striate.training.optimizer import make_optimizer
from striate.training.schedule import Epochs
from striate.training.state import TrainState
from striate.training.transfer import training_mode
from striate.transforms.preprocess import Preprocess


def network_of(config: TrainConfig, preprocess: Preprocess, device: torch.device) -> nn.Module:
    """Of ten classes, with fresh weights."""
    options: dict[str, Any] = {}
    if models.MODELS[config.model].sizes == "argument":
        options["input_size"] = preprocess.size
    torch.manual_seed(0)
    return models.build(config.model, num_classes=10, in_channels=preprocess.channels, **options).to(device)


def noise(preprocess: Preprocess, count: int, *, canvas: bool = False) -> InMemoryImages:
    """Images and labels without meaning."""
    rng = np.random.default_rng(0)
    size = preprocess.uncropped_size if canvas else preprocess.size
    images = rng.integers(0, 256, (count, *size, preprocess.channels), np.uint8)
    return InMemoryImages(images, rng.integers(0, 10, count), ("noise",) * count, ())


def bare_rate(config: TrainConfig, device: torch.device, steps: int) -> float:
    """Forward, backward and step on one batch that never changes: what no training loop can beat."""
    preprocess = config.preprocess(None)
    network = network_of(config, preprocess, device)
    training_mode(network)
    optimizer = make_optimizer(network, config)
    pixels = noise(preprocess, config.batch)
    x = preprocess.normalize(torch.from_numpy(pixels.images)).to(device)
    y = torch.from_numpy(pixels.labels).to(device)
    half = mixed_precision(device, config.amp)
    times = []
    for _ in range(2):
        started = time.perf_counter()
        for _ in range(steps):
            with autocast(device, half):
                loss, _ = loss_of(network(x), y, 0.0)
            torch.autograd.backward(loss)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        _wait(device)
        times.append(time.perf_counter() - started)
    return steps * config.batch / times[-1]


def loop_rate(config: TrainConfig, device: torch.device, steps: int) -> float:
    """The training loop, data in memory; the median of the epochs after the first."""
    preprocess, images = config.preprocess(None), steps * config.batch
    train = noise(preprocess, images, canvas=config.augmentation(preprocess, images) != "none")
    state = TrainState.fresh(network_of(config, preprocess, device), config, device)
    fit(state, Job(preprocess, train, noise(preprocess, 2), config, device, Epochs(config, images)))
    return float(statistics.median(row.images_per_second for row in state.rows[1:]))


def predict_rate(config: TrainConfig, device: torch.device, steps: int) -> float:
    """Prediction as `predict` and `evaluate` do it, folded; the better of two passes."""
    preprocess = config.preprocess(None)
    shape = (preprocess.channels, *preprocess.size)
    with torch.inference_mode():
        network = fold(network_of(config, preprocess, device).eval(), shape)
    images = noise(preprocess, steps * config.batch)
    rates = []
    for _ in range(2):
        started = time.perf_counter()
        logits(network, preprocess, images, device, config.batch)
        _wait(device)
        rates.append(len(images) / (time.perf_counter() - started))
    return max(rates)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
