"""Features of frozen layers, computed once instead of in every epoch."""

from __future__ import annotations

import contextlib
import copy
import errno
import itertools
import math
import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch
from torch import fx, nn

from striate.data import Images
from striate.data.images.decoded import MAX_BYTES_IN_MEMORY
from striate.data.images.loader import Batch, stream
from striate.device import autocast
from striate.errors import UsageError
from striate.inference.penultimate import Penultimate
from striate.kernels.folding import fold
from striate.tasks.classification.augmentation import augmented
from striate.tasks.classification.metrics import val_metrics
from striate.training.schedule import Indices
from striate.training.splitting import split_at_trainable
from striate.training.transfer import training_mode

if TYPE_CHECKING:
    from striate.inference.classifier import Classifier
    from striate.tasks.classification.task import Classification

_TOLERANCE = 1e-5  # of the largest feature: the difference that folding may make
_BUDGET_SHARE = 0.5  # of the time that is left, at most, for computing the features


@dataclass(frozen=True, eq=False)
class Features:
    """The output of the frozen layers for the images of a split.

    Attributes:
        values: float32 `[views, n, *shape]`, on the CPU.
        labels: int64 `[n]`.
        readable: bool `[n]`; the values of unreadable images are undefined.
    """

    values: torch.Tensor
    labels: Indices
    readable: npt.NDArray[np.bool_]

    def batches(self, order: Sequence[Indices], device: torch.device, view: int = 0) -> Iterator[Batch]:
        """Batches as from `data.images.loader.stream`, with features in place of pixels.

        Args:
            order: the samples of each batch.
            device: where the batches are needed.
            view: which augmentation of the images; they repeat after the last one.
        """
        for which in order:
            samples = which[self.readable[which]]
            values = self.values[view % len(self.values)].index_select(0, torch.from_numpy(samples))
            labels = torch.from_numpy(self.labels[samples])
            yield Batch(values.to(device), labels.to(device), samples, len(which))


class FrozenFeatures:
    """The features of a run, and the layers that are trained on them.

    Args:
        trainable: the graph of the network from features to scores.
        train: features of the training images, augmented as in training.
        val: features of the validation images.
        image_seconds: time of one image in the frozen layers.
    """

    def __init__(self, trainable: fx.Graph, train: Features, val: Features, image_seconds: float) -> None:
        self.train, self.val, self.image_seconds = train, val, image_seconds
        self._trainable = trainable
        self._modules: dict[nn.Module, nn.Module] = {}

    def module(self, network: nn.Module) -> nn.Module:
        """The layers after the frozen ones, of a network or its moving average, as one module."""
        if network not in self._modules:
            self._modules[network] = fx.GraphModule(network, self._trainable)
        return self._modules[network]

    @torch.inference_mode()
    def evaluate(self, network: nn.Module, batch: int, device: torch.device) -> dict[str, float]:
        """The validation columns of `ClassificationMetrics`."""
        scores = self._on_val(self.module(network.eval()), batch, device)
        return val_metrics(scores, self.val.labels[self.val.readable])

    @torch.inference_mode()
    def scores_and_features(
        self, classifier: Classifier, batch: int
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32], Indices]:
        """As `Classifier.scores_and_features` of the validation images, for a bundle of the run."""
        network: nn.Module = fx.GraphModule(copy.deepcopy(classifier.network), self._trainable)
        with contextlib.suppress(UsageError):  # the network's last layer is not known
            network = Penultimate(network, classifier.last_layer).joined()
        found, classes = self._on_val(network, batch, classifier.device), len(classifier.classes)
        return found[:, :classes], found[:, classes:], np.flatnonzero(self.val.readable)

    def _on_val(self, module: nn.Module, batch: int, device: torch.device) -> npt.NDArray[np.float32]:
        """What a module returns for the features of the readable validation images."""
        batches = self.val.batches(_in_order(self.val.labels, batch), device)
        return np.concatenate([module(part.pixels).float().cpu().numpy() for part in batches if len(part)])


def compute_features(
    task: Classification, network: nn.Module, seconds_left: float = math.inf
) -> tuple[FrozenFeatures | None, str]:
    """Compute the features of all images, if every epoch would compute the same ones.

    Args:
        task: on images.
        network: with frozen layers.
        seconds_left: of a time budget.

    Returns:
        The features or None; and a note about them.
    """
    config = task.config
    every_epoch = "the frozen layers run in every epoch"
    if reason := _why_not(task):
        return None, f"{every_epoch}: {reason}"
    training_mode(network)
    parts = split_at_trainable(network)
    if parts is None:
        return None, f"{every_epoch}: the network cannot be split after them"
    views = config.views if _variations(task) else 1
    train, val = len(task.train), len(task.val)
    rows, progress = views * train + val, task.context.progress
    progress.begin("frozen layers", rows)
    try:
        values, readable, seconds = _compute(_folded(parts.frozen, task), task, views, seconds_left)
    except _TooMuchError as error:
        return None, f"{every_epoch}: {error}"
    finally:
        progress.end()
    per_image = f"{views} augmentations" if views > 1 else "one version"
    size = values.numel() * values.element_size() / 1e6
    note = (
        f"the frozen layers ran once, in {seconds:.1f} s: {size:,.1f} MB of features for {per_image} of each "
        "image, on which the other layers are trained"
    )
    if task.given.augment == "auto" and not config.views:
        note += (
            "; --views 4 caches four augmentations of each, --augment standard makes new ones in every epoch"
        )
    end = views * train
    train_features = Features(
        values[:end].view(views, train, *values.shape[1:]), task.train.labels,
        np.logical_and.reduce(readable[:end].reshape(views, train)),
    )  # fmt: skip
    val_features = Features(values[None, end:], task.val.labels, readable[end:])
    return FrozenFeatures(parts.trainable, train_features, val_features, seconds / rows), note


def _why_not(task: Classification) -> str:
    """Why the features of one epoch do not hold for the next; empty if they do."""
    config = task.config
    if task.context.distributed.size > 1:
        return "several processes share each step"
    if config.unfreeze_every:
        return "--unfreeze-every trains more of them later"
    if config.mixup or config.cutmix:
        return "MixUp and CutMix mix the images before them"
    variations = _variations(task)
    if not variations or config.views:
        return ""
    return f"the images vary ({variations}); without that, or with --views 4, they would run once"


def _variations(task: Classification) -> str:
    """What varies the training images, empty for nothing."""
    config = task.config
    chosen, _ = config.augmentation(task.preprocess, len(task.train))
    found = [f"augmentation {config.to_json()['augment'] if callable(chosen) else chosen}"] * (
        chosen != "none"
    )
    return ", ".join([*found, *([f"lighting {config.lighting:g}"] if config.lighting else [])])


def _folded(frozen: nn.Module, task: Classification) -> nn.Module:
    """The frozen layers, folded if only a head follows.

    Trainable blocks with norms may amplify rounding differences within a few steps.
    """
    if task.config.transfer == "last":
        return frozen
    return fold(frozen, (task.preprocess.channels, *task.preprocess.size), _TOLERANCE)


class _TooMuchError(Exception):
    """The features do not fit, or take too long."""


def _compute(
    frozen: nn.Module, task: Classification, views: int, seconds_left: float
) -> tuple[torch.Tensor, npt.NDArray[np.bool_], float]:
    """Features of train, augmentation by augmentation, then of val; which are valid; and the seconds it took.

    Raises:
        _TooMuchError: with the reason.
    """
    rows = views * len(task.train) + len(task.val)
    values, readable = torch.empty(0), np.zeros(rows, np.bool_)
    done, started, seconds = 0, time.perf_counter(), 0.0
    passes = [_outputs(frozen, task, task.train, view * len(task.train), view) for view in range(views)]
    passes.append(_outputs(frozen, task, task.val, views * len(task.train), None))
    for places, outputs, requested in itertools.chain.from_iterable(passes):
        if outputs is not None:
            if not readable.any():
                folder = None if task.config.transfer == "last" else task.folder
                values = _allocate(rows, outputs.shape[1:], folder)
            values.index_copy_(0, torch.from_numpy(places), outputs)
            readable[places] = True
        done += requested
        task.context.progress.advance(requested)
        seconds = time.perf_counter() - started
        if (total := seconds / done * rows) > _BUDGET_SHARE * seconds_left:
            raise _TooMuchError(
                f"one pass would take {total:.0f} s, and {seconds_left:.0f} s of the budget are left"
            )
    return values, readable, seconds


def _outputs(
    frozen: nn.Module, task: Classification, images: Images, first_row: int, view: int | None
) -> Iterator[tuple[Indices, torch.Tensor | None, int]]:
    """Rows, their features on the CPU, and how many images were requested, batch by batch.

    One pass over a split in its own order, so that rounding is the same whenever it is made. A batch without
    any readable image has no features.
    """
    context = task.context
    order = _in_order(images.labels, task.config.batch)
    loading = stream(images, order, context.device, workers=context.distributed.workers(task.config.workers))
    for batch in context.stopwatch.each("waiting for data", loading):
        if not len(batch):
            yield batch.samples, None, batch.requested
            continue
        with context.stopwatch.phase("frozen layers"), torch.inference_mode():
            pixels = batch.pixels
            if view is not None:
                pixels = augmented(task.config, task.preprocess, pixels, view, batch.samples)
            # As in the loop: training runs in mixed precision, validation does not.
            with autocast(context.device, None if view is None else task.precision):
                outputs = frozen(task.preprocess.normalize(pixels)).float().cpu()
        yield first_row + batch.samples, outputs, batch.requested


def _in_order(labels: Indices, size: int) -> list[Indices]:
    return np.split(np.arange(len(labels)), range(size, len(labels), size))


def _allocate(rows: int, shape: torch.Size, folder: Path | None) -> torch.Tensor:
    """Float32 `[rows, *shape]` in memory, or memory-mapped in an unnamed file of a folder.

    Raises:
        _TooMuchError: there is no space for it.
    """
    size = 4 * rows * math.prod(shape)
    if size <= MAX_BYTES_IN_MEMORY:
        return torch.empty((rows, *shape))
    if folder is None:
        limit = MAX_BYTES_IN_MEMORY / 1e9
        raise _TooMuchError(f"{size / 1e9:.1f} GB of features are more than {limit:.1f} GB of memory")
    with tempfile.TemporaryFile(dir=folder) as file:  # without a name: gone with the process, however it ends
        try:
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(file.fileno(), 0, size)  # a full disk must not be noticed later
            elif shutil.disk_usage(folder).free < size:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as error:
            raise _TooMuchError(
                f"there is no space for {size / 1e9:.1f} GB of features in {folder} ({error.strerror})"
            ) from error
        return torch.from_numpy(np.memmap(file, np.float32, "r+", shape=(rows, *shape)))
