"""Images per second of a network: its bare loop, the training loop, prediction; on noise in memory."""

from __future__ import annotations

import statistics
import time

import torch
from in_memory import noise, noise_training, random_network

from striate.device import autocast, mixed_precision
from striate.inference.scores import logits
from striate.kernels.folding import fold
from striate.tasks.classification.config import ClassificationConfig
from striate.tasks.classification.loss import Criterion
from striate.tasks.classification.network import parameter_groups
from striate.training.loop import fit
from striate.training.optimizer import make_optimizer
from striate.training.transfer import training_mode


def bare_rate(config: ClassificationConfig, device: torch.device, steps: int) -> float:
    """Forward, backward and step on one batch that never changes: no training loop can be faster."""
    preprocess = config.own_preprocess(None)
    network = random_network(config, preprocess, device)
    training_mode(network)
    optimizer = make_optimizer(parameter_groups(config, network, None), config, {})
    pixels = noise(preprocess, config.batch)
    x = preprocess.normalize(torch.from_numpy(pixels.images)).to(device)
    y = torch.from_numpy(pixels.labels).to(device)
    half = mixed_precision(device, config.amp)
    times = []
    for _ in range(2):
        started = time.perf_counter()
        for _ in range(steps):
            with autocast(device, half):
                loss, _ = Criterion()(network(x), y)
            torch.autograd.backward(loss)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        _wait(device)
        times.append(time.perf_counter() - started)
    return steps * config.batch / times[-1]


def loop_rate(config: ClassificationConfig, device: torch.device, steps: int) -> float:
    """The training loop with data in memory; the median of the epochs after the first."""
    training = noise_training(config, device, steps * config.batch)
    fit(training)
    return float(statistics.median(row.images_per_second for row in training.state.rows[1:]))


def predict_rate(config: ClassificationConfig, device: torch.device, steps: int) -> float:
    """Prediction with the folded network, as in `predict` and `evaluate`; the better of two passes."""
    preprocess = config.own_preprocess(None)
    shape = (preprocess.channels, *preprocess.size)
    with torch.inference_mode():
        network = fold(random_network(config, preprocess, device).eval(), shape)
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
