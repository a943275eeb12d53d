"""A `Training` on a few images in memory, for tests of the training loop and of the modules around it."""

import dataclasses

import numpy as np
import torch
from torch import nn

from striate.data import InMemoryImages
from striate.progress import SILENT
from striate.tasks.classification.config import ClassificationConfig
from striate.tasks.classification.task import Classification
from striate.training.distributed import SINGLE
from striate.training.loop import Training
from striate.training.preparation import initial_state
from striate.training.profile import OFF
from striate.training.schedule import EpochSchedule
from striate.training.task import Context, Setup
from striate.transforms.preprocess import Preprocess

CPU = torch.device("cpu")
PREPROCESS = Preprocess.for_size(32)


def two_classes(n, seed=0):
    """Dark and bright images of noise."""
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % 2
    images = rng.integers(0, 120, (n, 32, 32, 3)) + labels[:, None, None, None] * 130
    return InMemoryImages(images.astype(np.uint8), labels.astype(np.int64), ("x",) * n, ())


def small_network():
    """A convolution, a BatchNorm and a classifier with a bias."""
    torch.manual_seed(0)
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 2)]
    return nn.Sequential(nn.Conv2d(3, 8, 3, 4), nn.BatchNorm2d(8), nn.ReLU(), *head)


def make_training(
    network,
    train,
    val,
    *,
    preprocess=PREPROCESS,
    head=None,
    folder=None,
    distributed=SINGLE,
    progress=SILENT,
    **options,
):
    """A training before its first step; `head` as for `parameter_groups`."""
    given = ClassificationConfig("x", **{"model": "resnet20", "epochs": 2, "batch": 4, **options})
    task = Classification(given, None, Context(CPU, distributed, progress, OFF))
    task.given, task.head, task.preprocess, task.folder = given, head, preprocess, folder
    task.config = dataclasses.replace(
        given,
        lr=given.peak_lr,
        weight_decay=given.decay,
        augment=given.augmentation(preprocess, len(train))[0],
    )
    task.train, task.val, task.train_count = train, val, len(train)
    task.setup = Setup(task.config, None, network)
    steps_per_epoch = len(task.order(0))
    schedule = EpochSchedule(given.epochs, steps_per_epoch, task.lr_schedule(given.epochs * steps_per_epoch))
    state = initial_state(task, task.setup, CPU)
    return Training(task, task.config, state, schedule, task.training_module(network), task.context)
