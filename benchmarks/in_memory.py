"""A training run on images in memory: no files, no checkpoints, no report."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import torch
from torch import nn

from striate import models
from striate.data import InMemoryImages
from striate.tasks.classification.config import ClassificationConfig
from striate.tasks.classification.options import EPOCHS
from striate.tasks.classification.task import Classification
from striate.training.distributed import SINGLE, Distributed
from striate.training.loop import Training
from striate.training.preparation import initial_state
from striate.training.profile import OFF
from striate.training.schedule import EpochSchedule
from striate.training.task import Context, Setup
from striate.transforms.preprocess import Preprocess


def random_network(config: ClassificationConfig, preprocess: Preprocess, device: torch.device) -> nn.Module:
    """The network of `config` for ten classes, with random weights."""
    options: dict[str, Any] = {}
    if models.MODELS[config.architecture].sizes == "argument":
        options["input_size"] = preprocess.size
    torch.manual_seed(config.seed)
    return models.build(config.architecture, num_classes=10, in_channels=preprocess.channels, **options).to(
        device
    )


def noise(preprocess: Preprocess, count: int, *, uncropped: bool = False) -> InMemoryImages:
    """Random images of ten random classes, of the network's input size or as large as before the crop."""
    rng = np.random.default_rng(0)
    size = preprocess.uncropped_size if uncropped else preprocess.size
    images = rng.integers(0, 256, (count, *size, preprocess.channels), np.uint8)
    return InMemoryImages(images, rng.integers(0, 10, count), ("noise",) * count, ())


def make_training(
    config: ClassificationConfig,
    network: nn.Module,
    train: InMemoryImages,
    val: InMemoryImages,
    device: torch.device,
    distributed: Distributed = SINGLE,
) -> Training:
    """Prepare `striate.training.loop.fit` for images in memory.

    Args:
        config: what the user would give.
        network: on the device.
        train: training images; uncropped if the augmentation crops them.
        val: validation images.
        device: where to train.
        distributed: the processes that train together.
    """
    preprocess = config.own_preprocess(None)
    task = Classification(config, None, Context(device, distributed, config.progress, OFF))
    task.given, task.head, task.preprocess = config, None, preprocess
    task.config = dataclasses.replace(
        config, lr=config.peak_lr, weight_decay=config.decay,
        augment=config.augmentation(preprocess, len(train))[0],
    )  # fmt: skip
    task.train, task.val, task.train_count = train, val, len(train)  # type: ignore[assignment]
    task.setup = Setup(task.config, None, network)  # type: ignore[arg-type]  # no bundle is written
    steps_per_epoch = len(task.order(0))
    epochs = config.epochs or EPOCHS
    steps = epochs * steps_per_epoch
    return Training(
        task, task.config, initial_state(task, task.setup, device),
        EpochSchedule(epochs, steps_per_epoch, task.lr_schedule(steps)),
        task.training_module(network), task.context,
    )  # fmt: skip


def noise_training(config: ClassificationConfig, device: torch.device, images: int) -> Training:
    """Prepare a training run on this many images of noise."""
    preprocess = config.own_preprocess(None)
    cropped = config.augmentation(preprocess, images)[0] != "none"
    train, val = noise(preprocess, images, uncropped=cropped), noise(preprocess, 2)
    return make_training(config, random_network(config, preprocess, device), train, val, device)
