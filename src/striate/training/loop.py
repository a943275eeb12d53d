"""The epochs of a training run."""

from __future__ import annotations

import copy
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import nn

from striate.data import Images
from striate.data.images.base import Indices
from striate.data.images.loader import Batch, stream
from striate.device import autocast, mixed_precision
from striate.errors import TrainingError
from striate.inference.classifier import logits
from striate.metrics.classification import top_k_accuracy
from striate.models.googlenet import AUXILIARY_WEIGHT, GoogLeNetOutput
from striate.progress import SILENT, Progress
from striate.training.config import TrainConfig
from striate.training.distributed import ALONE, World
from striate.training.profile import UNWATCHED, Stopwatch
from striate.training.schedule import Pace, batches
from striate.training.state import TrainState
from striate.training.step import learn
from striate.training.tally import EpochResult, Row
from striate.training.transfer import training_mode
from striate.transforms.augment import augment, pca_color
from striate.transforms.mixing import mix_batch
from striate.transforms.preprocess import Preprocess


class LossNotFiniteError(TrainingError):
    """The loss, or a weight, is infinite or not a number; what was saved before is sound.

    Attributes:
        samples: int64, positions in the training data of the batch that it happened with.
    """

    def __init__(self, what: str, why: str, fix: str, samples: Indices) -> None:
        super().__init__(what, why, fix)
        self.samples = samples


class Learning(Protocol):
    """What the loop itself asks of a run's configuration; its fields are `TrainConfig`'s."""

    @property
    def batch(self) -> int: ...  # noqa: D102
    @property
    def grad_clip(self) -> float: ...  # noqa: D102
    @property
    def patience(self) -> int: ...  # noqa: D102
    @property
    def peak_rate(self) -> float: ...  # noqa: D102
    @property
    def rollbacks(self) -> int: ...  # noqa: D102
    @property
    def save_every(self) -> int: ...  # noqa: D102
    @property
    def seed(self) -> int: ...  # noqa: D102


class Work(Protocol):
    """What a run is advanced by: what a batch is, what its loss is, how an epoch is measured.

    Attributes:
        config: how to train.
        device: where.
        pace: how large the steps are, and when it is over.
        watch: told what the time goes into.
        world: the processes that share the work.
        unit: what batches are made of, in messages.
        smaller: what to do where the memory does not suffice.
    """

    @property
    def config(self) -> Learning: ...  # noqa: D102
    @property
    def device(self) -> torch.device: ...  # noqa: D102
    @property
    def pace(self) -> Pace: ...  # noqa: D102
    @property
    def watch(self) -> Stopwatch: ...  # noqa: D102
    @property
    def world(self) -> World: ...  # noqa: D102
    @property
    def unit(self) -> str: ...  # noqa: D102
    @property
    def smaller(self) -> str: ...  # noqa: D102

    def order(self, epoch: int) -> list[Indices]:
        """What each batch of an epoch is made of; a function of the seed and the epoch."""

    def batches(self, epoch: int, order: list[Indices]) -> Generator[Any, None, None]:
        """The batches of that order: each has a length, `asked`, `samples`, and `weight`.

        `weight` is over how many terms the batch's mean loss is taken, those of all its parts together.
        """

    def losses(self, state: TrainState, batch: Any, parts: list[slice]) -> Iterator[PartLoss]:
        """The loss of each part of a batch, one after the other."""

    def measure(self, state: TrainState) -> Row:
        """The row of what was learnt since the last one."""


@dataclass(frozen=True)
class PartLoss:
    """What a part of a batch says.

    Attributes:
        loss: scalar, a mean over `weight` terms; to be differentiated.
        hits: how many of them were right, before this step; None where that was not counted.
        weight: how many terms.
    """

    loss: torch.Tensor
    hits: torch.Tensor | None
    weight: int


@dataclass(frozen=True)
class Job:
    """What stays as it is while a run on images goes on.

    Attributes:
        preprocess: the contract; `train` holds its canvases, `val` its final size.
        train: at least two images that can be read; the others are left out of their batches.
        val: what measures each epoch; at least one image that can be read.
        config: how to train.
        device: where.
        pace: how large the steps are, and when it is over.
        watch: told what the time goes into.
        world: the processes that share the work.
    """

    preprocess: Preprocess
    train: Images
    val: Images
    config: TrainConfig
    device: torch.device
    pace: Pace
    watch: Stopwatch = UNWATCHED
    world: World = ALONE

    unit: ClassVar[str] = "images"
    smaller: ClassVar[str] = "Use a smaller --imgsz or a smaller --model, or end what else uses that memory"

    @property
    def precision(self) -> torch.dtype | None:
        """The type for mixed precision, None for plain float32."""
        return mixed_precision(self.device, self.config.amp)

    def order(self, epoch: int) -> list[Indices]:
        """The images of each batch of an epoch, which counts from 0."""
        return batches(len(self.train), self.config.batch, seed=self.config.seed, epoch=epoch)

    def batches(self, epoch: int, order: list[Indices]) -> Generator[Batch, None, None]:
        """Pixels and labels of that order."""
        workers = self.world.workers(self.config.workers)
        return stream(self.train, order, self.device, workers=workers)

    def losses(self, state: TrainState, batch: Batch, parts: list[slice]) -> Iterator[PartLoss]:
        """Augment, mix, and compare the scores with the labels."""
        smoothing = self.config.label_smoothing
        for number, part in enumerate(parts):
            truth = batch.labels[part]
            with self.watch.phase("augmentation"):
                inputs, own = self.inputs(state, batch, part, number)
            with self.watch.phase("forward"), autocast(self.device, self.precision):
                output = self.world.joint(self.learner(state.network))(inputs)
                loss, scores = loss_of(output, truth, smoothing)
                if own < 1:  # the rest of each image is the one before it
                    other, _ = loss_of(output, truth.roll(1), smoothing)
                    loss = own * loss + (1 - own) * other
            yield PartLoss(loss, (scores.detach().argmax(dim=1) == truth).sum(), len(truth))

    def inputs(self, state: TrainState, batch: Batch, part: slice, number: int) -> tuple[torch.Tensor, float]:
        """What is shown of one part of a batch, and the share of each image that is its own."""
        config, preprocess = self.config, self.preprocess
        epoch = config.change_of(state.epoch)
        pixels = changed(batch.pixels[part], self, epoch, batch.samples[part])
        return mix_batch(
            preprocess.normalize(pixels), config.mixup, config.cutmix,
            seed=config.seed, step=state.step, part=self.world.rank + self.world.size * number,
        )  # fmt: skip

    def learner(self, network: nn.Module) -> nn.Module:
        """What of a network turns inputs into scores: all of it."""
        return network

    def measure(self, state: TrainState) -> EpochResult:
        """The row of what was learnt since the last one."""
        seconds = state.tally.seconds
        with self.watch.phase("validation"):
            self.world.same_buffers(state.measured)
            val_loss, val_top1 = self.validate(state.measured)
        return EpochResult(
            epoch=state.epoch + 1,
            step=state.step,
            lr=state.rate,
            train_loss=state.tally.loss,
            train_top1=state.tally.top1,
            val_loss=val_loss,
            val_top1=val_top1,
            seconds=state.tally.seconds,
            images_per_second=state.tally.count / seconds,
        )

    def validate(self, network: nn.Module) -> tuple[float, float]:
        """Loss and accuracy on the validation images."""
        workers = self.world.workers(self.config.workers)
        return validate(
            network, self.preprocess, self.val, self.config.batch, self.device, workers, self.world
        )


def fit(
    state: TrainState,
    job: Work,
    progress: Progress = SILENT,
    after_step: Callable[[], None] = lambda: None,
    after_epoch: Callable[[Any], None] = lambda row: None,
) -> None:
    """Advance a run from where it stands to its end.

    Args:
        state: fresh, or restored; changed in place.
        job: what to do.
        progress: is told of each batch.
        after_step: is called after each step, when the state is whole.
        after_epoch: is called after each epoch that was measured, with its row; the state is whole there too.

    Raises:
        LossNotFiniteError: with the step, the learning rate and the batch.
        TrainingError: there is not enough memory for even two of a batch.
    """
    while not state.finished:
        whole = _learn_epoch(state, job, progress, after_step)
        require_sound(state, job)
        over = job.pace.ended(state)
        row = job.measure(state) if over or job.pace.measures(state) else None
        state.busy = True
        if whole:
            state.epoch, state.position = state.epoch + 1, 0
        if row is not None:
            state.record(row)
            patience = job.config.patience
            state.finished = over or 0 < patience <= row.epoch - state.best_epoch
            after_epoch(row)
        state.busy = False


def _learn_epoch(state: TrainState, job: Work, progress: Progress, after_step: Callable[[], None]) -> bool:
    """Learn from what is left of an epoch; answers whether there was time for all of it."""
    order = job.order(state.epoch)
    left = order[state.position :]
    training_mode(state.network)
    of = f"/{job.pace.epochs}" if job.pace.epochs else ""
    progress.begin(f"epoch {state.epoch + 1}{of}", sum(map(len, left)), job.unit)
    with closing(job.batches(state.epoch, list(map(job.world.share, left)))) as loading:
        for whole, share in zip(left, job.watch.each("waiting for data", loading), strict=True):
            state.rate = state.rate_share * job.pace.rate(state)
            state.busy = True
            batch = job.world.usable(share)
            counts, weights = job.world.counts(len(batch), batch.weight)
            if sum(counts) >= min(2, len(whole)):  # one image has no batch statistics
                learn(state, job, batch, counts, weights, progress)
            state.position += 1
            state.step += 1
            state.busy = False
            progress.advance(len(whole), **state.tally.shown(state.step))
            _require_finite(state, job, state.tally.astray(state.step))
            after_step()
            if job.pace.ended(state):
                break
    progress.end()
    return state.position == len(order)


def changed(pixels: torch.Tensor, job: Job, epoch: int, samples: Indices) -> torch.Tensor:
    """Training images, uint8, as an epoch shows them, at their final size."""
    config, preprocess = job.config, job.preprocess
    recipe = config.augmentation(preprocess, len(job.train)) if len(samples) else "none"
    pixels = augment(pixels, preprocess.size, recipe, seed=config.seed, epoch=epoch, samples=samples)
    return pca_color(pixels, config.lighting, seed=config.seed, epoch=epoch, samples=samples)


def require_sound(state: TrainState, job: Work) -> None:
    """Refuse a state that is not worth keeping.

    Raises:
        LossNotFiniteError: a loss since the last row, or a weight, is infinite or not a number.
    """
    _require_finite(state, job, state.tally.astray(state.step, now=True))
    if not job.world.all(state.sound):
        _require_finite(state, job, state.step - 1)


def _require_finite(state: TrainState, job: Work, astray: int | None) -> None:
    if astray is None:
        return
    batch = astray - (state.step - state.position)  # of this epoch: the one before it was looked at
    raise LossNotFiniteError(
        f"the loss is not finite at step {astray + 1}, batch {batch + 1} of epoch {state.epoch + 1}",
        f"the learning rate {state.rate:.2g} is probably too high",
        f"Try --lr {state.rate_share * job.config.peak_rate / 10:.2g}, or --grad-clip 1",
        job.order(state.epoch)[batch],
    )


def validate(
    network: nn.Module,
    preprocess: Preprocess,
    val: Images,
    batch: int,
    device: torch.device,
    workers: int = 2,
    world: World = ALONE,
) -> tuple[float, float]:
    """Cross-entropy in nats and top-1 accuracy on those held-out images that can be read.

    Each process of `world` measures some of the batches, and all have the answer.
    """
    network.eval()
    network = copy.copy(network)  # the layers, without what torch.compile made of them for training
    order = np.split(np.arange(len(val)), range(batch, len(val), batch))[world.rank :: world.size]
    scores, which = logits(network, preprocess, val, device, batch, workers=workers, order=order)
    return judged(scores, val.labels[which], world)


def judged(scores: npt.NDArray[np.float32], labels: Indices, world: World = ALONE) -> tuple[float, float]:
    """Cross-entropy in nats and top-1 accuracy of scores `[n, classes]`, each process having some of them."""
    sums = torch.zeros(3, dtype=torch.float64)
    if len(labels):
        losses = F.cross_entropy(torch.from_numpy(scores), torch.from_numpy(labels), reduction="none")
        hits = round(top_k_accuracy(scores, labels, 1) * len(labels))
        sums = torch.tensor([losses.double().sum(), hits, len(labels)], dtype=torch.float64)
    world.add_up(sums)
    loss, right, count = sums.tolist()
    return loss / count, right / count


def loss_of(
    output: torch.Tensor | GoogLeNetOutput, truth: torch.Tensor, smoothing: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """The training loss, and the scores `[batch, classes]` that count as the answer.

    GoogLeNet's auxiliary heads add their losses with weight 0.3 (Szegedy et al. 2015, section 5).
    """
    if isinstance(output, torch.Tensor):
        return F.cross_entropy(output, truth, label_smoothing=smoothing), output
    loss = F.cross_entropy(output.logits, truth, label_smoothing=smoothing)
    for scores in (output.aux1, output.aux2):
        loss = loss + AUXILIARY_WEIGHT * F.cross_entropy(scores, truth, label_smoothing=smoothing)
    return loss, output.logits
