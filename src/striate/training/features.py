"""Frozen work is done once: what the frozen part of a network gives is kept, and the rest trains on that."""

from __future__ import annotations

import dataclasses
import errno
import math
import os
import shutil
import tempfile
import time
from collections.abc import Generator, Iterator, Sequence
from dataclasses import KW_ONLY, dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import fx, nn

from striate.data.images.base import Images, Indices
from striate.data.images.decoded import MAX_BYTES_IN_MEMORY
from striate.data.images.loader import Batch, stream
from striate.device import autocast, cpu_count
from striate.kernels.folding import fold
from striate.progress import SILENT, Progress
from striate.training.cut import cut
from striate.training.loop import Job, changed, judged
from striate.training.state import TrainState
from striate.training.transfer import training_mode

_TOLERANCE = 1e-5  # of the largest feature: what folding may change
_SHARE = 0.5  # of the time that is left of a budget, what computing once may take


@dataclass(frozen=True, eq=False)
class Features:
    """What the frozen part gives for the images of a split.

    Attributes:
        values: float32 `[views, n, *shape]`, on the CPU.
        labels: int64 `[n]`.
        readable: bool `[n]`; the values of the others are undefined.
    """

    values: torch.Tensor
    labels: Indices
    readable: npt.NDArray[np.bool_]

    def batches(
        self, order: Sequence[Indices], device: torch.device, view: int = 0
    ) -> Generator[Batch, None, None]:
        """The batches that `data.loader.stream` makes, with features in place of pixels.

        Args:
            order: the positions that each batch holds, int64.
            device: where the batches are to be.
            view: which change of the images; after the last comes the first again.
        """
        for which in order:
            samples = which[self.readable[which]]
            values = self.values[view % len(self.values)].index_select(0, torch.from_numpy(samples))
            labels = torch.from_numpy(self.labels[samples])
            yield Batch(values.to(device), labels.to(device), samples, len(which))


@dataclass(frozen=True)
class FeatureJob(Job):
    """A run on images whose network is frozen in part, on what that part gives for them.

    Attributes:
        steps: of the rest of the network, from features to scores.
        train_features: of the training images, changed as in training.
        val_features: of the validation images.
        image_seconds: that an image took on its way through the frozen part.
    """

    _: KW_ONLY
    steps: fx.Graph
    train_features: Features
    val_features: Features
    image_seconds: float
    _rests: dict[nn.Module, nn.Module] = field(default_factory=dict, init=False, repr=False)

    def batches(self, epoch: int, order: list[Indices]) -> Generator[Batch, None, None]:
        """Features and labels of that order."""
        return self.train_features.batches(order, self.device, self.config.change_of(epoch))

    def inputs(self, state: TrainState, batch: Batch, part: slice, number: int) -> tuple[torch.Tensor, float]:
        """The features; nothing is mixed."""
        return batch.pixels[part], 1.0

    def learner(self, network: nn.Module) -> nn.Module:
        """The rest of the network that trains, or of its moving average; it has the layers of that."""
        if network not in self._rests:
            self._rests[network] = fx.GraphModule(network, self.steps)
        return self._rests[network]

    @torch.inference_mode()
    def validate(self, network: nn.Module) -> tuple[float, float]:
        """Loss and accuracy on the validation images, by way of their features."""
        rest, features = self.learner(network.eval()), self.val_features
        batches = list(features.batches(_chunks(features.labels, self.config.batch), self.device))
        scores = [rest(batch.pixels).float().cpu().numpy() for batch in batches if len(batch)]
        return judged(np.concatenate(scores), features.labels[features.readable])


def compute(
    network: nn.Module, job: Job, folder: Path, progress: Progress = SILENT, left: float = math.inf
) -> tuple[FeatureJob | None, str]:
    """Take all images through the frozen part of a network, where every epoch would do the same again.

    Args:
        network: as it is to train.
        job: how.
        folder: for a file without a name, where the memory does not take what a head is to train on.
        progress: is told of each batch.
        left: seconds that are left of the run's time.

    Returns:
        The same job on features, or None where there are none to be kept; and a sentence about that, empty
        where nothing is frozen.
    """
    if job.config.transfer == "all":
        return None, ""
    again = "the frozen part of the network computes anew in every epoch"
    if reason := _why_not(job):
        return None, f"{again}: {reason}"
    training_mode(network)
    parts = cut(network)
    if parts is None:
        return None, f"{again}: the network cannot be cut where that part ends"
    views = job.config.views if _changes(job) else 1
    train, val = len(job.train), len(job.val)
    rows = views * train + val
    progress.begin("frozen part", rows)
    try:
        values, readable, seconds = _filled(_quick(parts.frozen, job), job, views, folder, progress, left)
    except _TooMuchError as error:
        return None, f"{again}: {error}"
    finally:
        progress.end()
    said = (
        f"the frozen part of the network has computed once, in {seconds:.1f} s: {_size(values)} of features "
        f"for {f'{views} views' if views > 1 else 'one view'} of each image, which the rest trains on"
    )
    if job.config.augment == "auto" and not job.config.views:
        said += "; --views 4 gives it four changes of each, --augment standard new ones in every epoch"
    cut_at = views * train
    fields = {field.name: getattr(job, field.name) for field in dataclasses.fields(job)}
    return FeatureJob(
        **fields,
        steps=parts.rest,
        train_features=Features(
            values[:cut_at].view(views, train, *values.shape[1:]),
            job.train.labels,
            np.logical_and.reduce(readable[:cut_at].reshape(views, train)),
        ),
        val_features=Features(values[None, cut_at:], job.val.labels, readable[cut_at:]),
        image_seconds=seconds / rows,
    ), said


def _why_not(job: Job) -> str:
    """What makes features of one epoch unfit for the next, empty for nothing."""
    if job.world.size > 1:
        return "several processes divide each batch"
    if job.config.mixup or job.config.cutmix:
        return "MixUp and CutMix blend the images that it sees"
    changes = _changes(job)
    if not changes or job.config.views:
        return ""
    return f"the images change ({changes}); without that, or with --views 4 of each, it would compute once"


def _changes(job: Job) -> str:
    """What changes the training images, empty for nothing."""
    config = job.config
    recipe = config.augmentation(job.preprocess, len(job.train))
    name = recipe if isinstance(recipe, str) else config.to_json()["augment"]
    changes = [f"augmentation {name}"] if recipe != "none" else []
    return ", ".join([*changes, *([f"lighting {config.lighting:g}"] if config.lighting else [])])


def _quick(frozen: nn.Module, job: Job) -> nn.Module:
    """The frozen part, folded where a head trains on it.

    Blocks with norms of their own may carry even the last bit of what they read far within a few steps.
    """
    if job.config.transfer == "last":
        return frozen
    return fold(frozen, (job.preprocess.channels, *job.preprocess.size), _TOLERANCE)


class _TooMuchError(Exception):
    """The features do not fit, or take too long."""


def _filled(
    frozen: nn.Module, job: Job, views: int, folder: Path, progress: Progress, left: float
) -> tuple[torch.Tensor, npt.NDArray[np.bool_], float]:
    """Features of train, view by view, then of val; which of them there are; and the seconds it took.

    Raises:
        _TooMuchError: why there are none.
    """
    rows = views * len(job.train) + len(job.val)
    values, readable = torch.empty(0), np.zeros(rows, np.bool_)
    done, started, seconds = 0, time.perf_counter(), 0.0
    for places, answers, asked in _answers(frozen, job, views):
        if answers is not None:
            if not readable.any():
                values = _room(rows, answers.shape[1:], None if job.config.transfer == "last" else folder)
            values.index_copy_(0, torch.from_numpy(places), answers)
            readable[places] = True
        done += asked
        progress.advance(asked)
        seconds = time.perf_counter() - started
        if (all_of_it := seconds / done * rows) > _SHARE * left:
            raise _TooMuchError(f"once would take {all_of_it:.0f} s, and {left:.0f} s are left of the budget")
    return values, readable, seconds


def _answers(frozen: nn.Module, job: Job, views: int) -> Iterator[tuple[Indices, torch.Tensor | None, int]]:
    """Rows, their features on the CPU, and how many images were asked for: train, view by view; then val."""
    at = 0
    for view in range(views):
        yield from _passed(frozen, job, job.train, at, view)
        at += len(job.train)
    yield from _passed(frozen, job, job.val, at, None)


def _passed(
    frozen: nn.Module, job: Job, source: Images, at: int, view: int | None
) -> Iterator[tuple[Indices, torch.Tensor | None, int]]:
    """One pass over a source, in its own order, so that it rounds alike whenever it is made.

    Of a batch that holds no image that can be read there are no features.
    """
    config, preprocess = job.config, job.preprocess
    order = _chunks(source.labels, config.batch)
    loading = stream(source, order, job.device, workers=config.workers or cpu_count())
    for batch in job.watch.each("waiting for data", loading):
        if not len(batch):
            yield batch.samples, None, batch.requested
            continue
        with job.watch.phase("frozen part"), torch.inference_mode():
            pixels = batch.pixels
            if view is not None:
                pixels = changed(pixels, job, view, batch.samples)
            # As the loop does: its forward is in mixed precision, its validation is not.
            with autocast(job.device, job.precision if view is not None else None):
                answers = frozen(preprocess.normalize(pixels)).float().cpu()
        yield at + batch.samples, answers, batch.requested


def _chunks(labels: Indices, size: int) -> list[Indices]:
    return np.split(np.arange(len(labels)), range(size, len(labels), size))


def _room(rows: int, shape: torch.Size, folder: Path | None) -> torch.Tensor:
    """Float32 `[rows, *shape]` in memory, else in a file of `folder` that is mapped into it.

    Raises:
        _TooMuchError: there is no room for it.
    """
    size = 4 * rows * math.prod(shape)
    if size <= MAX_BYTES_IN_MEMORY:
        return torch.empty((rows, *shape))
    if folder is None:
        raise _TooMuchError(
            f"{size / 1e9:.1f} GB of features are more than {MAX_BYTES_IN_MEMORY / 1e9:.1f} GB of memory"
        )
    with tempfile.TemporaryFile(
        dir=folder
    ) as file:  # without a name: gone with the process, whatever ends it
        try:
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(file.fileno(), 0, size)  # a mapped file must not find the disk full later
            elif shutil.disk_usage(folder).free < size:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as error:
            raise _TooMuchError(
                f"there is no room for {size / 1e9:.1f} GB of features in {folder} ({error.strerror})"
            ) from error
        return torch.from_numpy(np.memmap(file, np.float32, "r+", shape=(rows, *shape)))


def _size(values: torch.Tensor) -> str:
    return f"{values.numel() * values.element_size() / 1e6:,.1f} MB"
