"""The epochs of a training run."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn
from torch.optim.swa_utils import AveragedModel

from striate.data import Loaded
from striate.data.loader import Source, stream
from striate.device import autocast, cpu_count, mixed_precision
from striate.errors import TrainingError
from striate.metrics.classification import top_k_accuracy
from striate.models.googlenet import AUXILIARY_WEIGHT, GoogLeNetOutput
from striate.prediction import logits
from striate.progress import Progress
from striate.training.config import TrainConfig
from striate.training.schedule import batches, learning_rate
from striate.training.transfer import training_mode
from striate.transforms.augment import augment
from striate.transforms.preprocess import Preprocess


@dataclass(frozen=True)
class EpochResult:
    """One row of `results.csv`.

    Attributes:
        epoch: counts from 1.
        step: optimizer steps so far.
        lr: learning rate of the last step.
        train_loss: mean over the epoch's images, as they were augmented.
        train_top1: share that was right, before the step that learnt from it.
        val_loss: cross-entropy on the validation images, in nats.
        val_top1: share of them that is right.
        seconds: the epoch took, validation included.
        images_per_second: training images, validation not included.
    """

    epoch: int
    step: int
    lr: float
    train_loss: float
    train_top1: float
    val_loss: float
    val_top1: float
    seconds: float
    images_per_second: float


def fit(
    network: nn.Module,
    preprocess: Preprocess,
    train: Source,
    val: Loaded,
    config: TrainConfig,
    device: torch.device,
    progress: Progress,
    after_epoch: Callable[[EpochResult, nn.Module], bool],
    head: str | None = None,
) -> None:
    """Train in place.

    Args:
        network: on `device`.
        preprocess: the contract; `train` holds its canvases, `val` its final size.
        train: at least two images.
        val: what measures each epoch.
        config: how.
        device: where.
        progress: is told of each batch.
        after_epoch: is given each epoch's figures and the network that earned them (the moving average
            where there is one); answers whether to go on.
        head: name of the module that trains at the full rate, where the rest has weights that are worth
            keeping and trains at the backbone's; None where all is fresh.

    Raises:
        TrainingError: the loss is no longer finite.
    """
    recipe = config.augmentation(preprocess)
    optimizer = make_optimizer(network, config, head)
    precision = mixed_precision(device, config.amp)
    scaler = torch.amp.GradScaler(device.type, enabled=precision is torch.float16)
    average = moving_average(network, config.ema) if config.ema else None
    workers = config.workers or cpu_count()
    total = config.epochs * len(batches(len(train), config.batch, seed=config.seed, epoch=0))
    step, rate = 0, 0.0

    for epoch in range(config.epochs):
        training_mode(network)
        tally = Tally(device)
        progress.begin(f"epoch {epoch + 1}/{config.epochs}", len(train))
        order = batches(len(train), config.batch, seed=config.seed, epoch=epoch)
        for batch in stream(train, order, device, workers=workers):
            rate = learning_rate(
                step, total=total, peak=config.peak_rate, kind=config.sched, warmup=config.warmup
            )
            for group in optimizer.param_groups:
                group["lr"] = rate * group["share"]
            if not len(batch):  # none of its files can be read; it counts, so that the schedule is the same
                step += 1
                continue
            pixels = augment(
                batch.pixels, preprocess.size, recipe, seed=config.seed, epoch=epoch, samples=batch.samples
            )
            with autocast(device, precision):
                scores = network(preprocess.normalize(pixels))
                loss, scores = loss_of(scores, batch.labels, config.label_smoothing)
            torch.autograd.backward(scaler.scale(loss))
            if config.grad_clip:
                scaler.unscale_(optimizer)
                nn.utils.clip_grad_norm_(network.parameters(), config.grad_clip)
            scaler.step(optimizer)
            scaler.update()
            optimizer.zero_grad(set_to_none=True)
            if average is not None:
                average.update_parameters(network)
            step += 1
            tally.add(loss, scores, batch.labels)
            progress.advance(batch.asked, **tally.shown(step))
            tally.require_finite(step, epoch, rate)
        progress.end()

        tally.require_finite(step, epoch, rate, now=True)
        seconds = time.perf_counter() - tally.started
        measured = network if average is None else average.module
        val_loss, val_top1 = validate(measured, preprocess, val, config.batch, device)
        result = EpochResult(
            epoch=epoch + 1,
            step=step,
            lr=rate,
            train_loss=tally.loss,
            train_top1=tally.top1,
            val_loss=val_loss,
            val_top1=val_top1,
            seconds=time.perf_counter() - tally.started,
            images_per_second=len(train) / seconds,
        )
        if not after_epoch(result, measured):
            return


def validate(
    network: nn.Module, preprocess: Preprocess, val: Loaded, batch: int, device: torch.device
) -> tuple[float, float]:
    """Cross-entropy in nats and top-1 accuracy on held-out images."""
    network.eval()
    scores = logits(network, preprocess, val.images, device, batch)
    loss = F.cross_entropy(torch.from_numpy(scores), torch.from_numpy(val.labels))
    return float(loss), top_k_accuracy(scores, val.labels, 1)


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


def make_optimizer(network: nn.Module, config: TrainConfig, head: str | None = None) -> torch.optim.Optimizer:
    """SGD or AdamW over what trains, with weight decay on matrices and kernels only.

    Biases and the scales of norms are vectors; decaying them does not regularise (Goyal et al. 2017,
    section 5.1; He et al. 2019, "Bag of Tricks", section 3.1).
    """
    backbone = config.backbone_rate / config.peak_rate if head is not None else 1.0
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in network.named_parameters():
        if parameter.requires_grad:
            share = 1.0 if head is not None and name.startswith(f"{head}.") else backbone
            decay = config.decay if parameter.ndim > 1 else 0.0
            groups.setdefault((share, decay), []).append(parameter)
    groups_of = [
        {"params": parameters, "weight_decay": decay, "share": share}
        for (share, decay), parameters in groups.items()
    ]
    if config.opt == "sgd":
        return torch.optim.SGD(groups_of, lr=config.peak_rate, momentum=0.9)
    return torch.optim.AdamW(groups_of, lr=config.peak_rate)


def moving_average(network: nn.Module, decay: float) -> AveragedModel:
    """An exponential moving average of weights and buffers, whose memory grows with the run.

    The decay of update t is min(decay, (1 + t) / (10 + t)), so that the random start is forgotten soon
    (as TensorFlow's ExponentialMovingAverage has it). Counters are copied.
    """

    def mix(old: torch.Tensor, new: torch.Tensor, updates: torch.Tensor | int) -> torch.Tensor:
        if not old.is_floating_point():
            return new
        kept = min(decay, (1 + int(updates)) / (10 + int(updates)))
        return torch.lerp(new, old, kept)

    return AveragedModel(network, avg_fn=mix, use_buffers=True)


class Tally:
    """Loss and hits of an epoch, summed on the device so that the host need not wait for each step."""

    def __init__(self, device: torch.device) -> None:
        self.started = time.perf_counter()
        self._every = 1 if device.type == "cpu" else 50  # steps between two looks; each one waits for a GPU
        self._loss = torch.zeros((), device=device, dtype=torch.float64)
        self._hits = torch.zeros((), device=device, dtype=torch.int64)
        self._count = 0

    def add(self, loss: torch.Tensor, scores: torch.Tensor, truth: torch.Tensor) -> None:
        """Count one batch."""
        self._loss += loss.detach().double() * len(truth)
        self._hits += (scores.detach().argmax(dim=1) == truth).sum()
        self._count += len(truth)

    @property
    def loss(self) -> float:
        """Mean over the images so far."""
        return float(self._loss) / self._count

    @property
    def top1(self) -> float:
        """Share of the images so far that was right."""
        return float(self._hits) / self._count

    def shown(self, step: int) -> dict[str, float]:
        """What stands beside the progress bar."""
        return {"loss": self.loss, "top1": self.top1} if step % (10 * self._every) == 0 else {}

    def require_finite(self, step: int, epoch: int, rate: float, *, now: bool = False) -> None:
        """Stop a run that has gone astray.

        Raises:
            TrainingError: the loss is infinite or not a number.
        """
        if (now or step % self._every == 0) and not math.isfinite(float(self._loss)):
            raise TrainingError(
                f"the loss is {self.loss:g} at step {step} of epoch {epoch + 1}",
                f"the learning rate {rate:g} is probably too high",
                f"Try --lr {rate / 10:.2g}, or --grad-clip 1",
            )
