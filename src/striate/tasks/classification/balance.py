"""Training on imbalanced classes: weights of classes in the loss, and balanced epochs."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import closing
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from striate.data import Images
from striate.training.schedule import Indices, cut, shuffled_batches

if TYPE_CHECKING:
    import torch

    from striate.data.images.loader import Batch
    from striate.tasks.classification.config import ClassificationConfig


def class_weights(kind: str, counts: Indices, beta: float, images: int) -> npt.NDArray[np.float64] | None:
    """The weight of each class in the loss; their mean over the training images is 1.

    Args:
        kind: `none`; `balanced`: inverse to the number of images, n / (K n_c) (King, Zeng 2001; in
            scikit-learn `class_weight="balanced"`); `effective`: inverse to the effective number of images,
            (1 - beta^n_c) / (1 - beta) (Cui et al. 2019, arXiv:1901.05555, equation 2). The paper scales the
            weights so that their sum is K; here they are `balanced` for beta -> 1, and 1 for beta = 0.
        counts: `[classes]`, training images of each; at least 1.
        beta: of `effective`, 0 <= beta < 1.
        images: number of training images.

    Returns:
        float64 `[classes]`; None for `none`.
    """
    if kind == "none":
        return None
    weights = 1 / _effective(counts, beta) if kind == "effective" else 1 / counts
    return np.asarray(weights * images / (weights @ counts), np.float64)


def positive_weights(kind: str, counts: Indices, beta: float, images: int) -> npt.NDArray[np.float64] | None:
    """The weight of the images of each class against all others, if images have several classes.

    Args:
        kind: `none`; `balanced`: the number of other images over that of the class's images, as in the
            documentation of torch's `BCEWithLogitsLoss`; `effective`: the same of their effective numbers.
        counts: `[classes]`, training images of each; at least 1.
        beta: as for `class_weights`.
        images: number of training images.

    Returns:
        float64 `[classes]`; None for `none`.
    """
    if kind == "none":
        return None
    others = np.maximum(images - counts, 1)
    if kind == "effective":
        return np.asarray(_effective(others, beta) / _effective(counts, beta), np.float64)
    return np.asarray(others / counts, np.float64)


def _effective(counts: Indices, beta: float) -> npt.NDArray[np.float64]:
    """The effective number of images, (1 - beta^n) / (1 - beta), without cancellation near beta = 1."""
    if beta == 0:
        return np.ones(len(counts))
    return np.asarray(np.expm1(counts * np.log(beta)) / (beta - 1), np.float64)


def epoch_order(config: ClassificationConfig, labels: Indices, epoch: int) -> list[Indices]:
    """The samples of each step of an epoch: those of `shuffled_batches` or `balanced_batches`."""
    if config.sampler == "balanced":
        return balanced_batches(labels, config.step_batch, seed=config.seed, epoch=epoch)
    return shuffled_batches(len(labels), config.step_batch, seed=config.seed, epoch=epoch)


def balanced_batches(labels: Indices, size: int, *, seed: int, epoch: int) -> list[Indices]:
    """The images of each batch of an epoch with as many of each class; a function of the arguments alone.

    An epoch has as many samples as there are images. Each class contributes the same number, up to one:
    random ones of a large class, and all of a small class several times. The k-th repetition of image i (from
    0) is sample i + k n, so that each repetition is augmented differently.

    Args:
        labels: `[n]`, of the training images.
        size: batch size.
        seed: of the run.
        epoch: from 0.
    """
    rng, n = np.random.Generator(np.random.Philox(key=[seed, epoch])), len(labels)
    classes = rng.permutation(np.unique(labels))  # the first of them contribute one more
    samples = []
    for place, label in enumerate(classes):
        members = np.flatnonzero(labels == label)
        wanted = (n - place + len(classes) - 1) // len(classes)
        rounds = -(-wanted // len(members))
        drawn = [rng.permutation(members) + n * repetition for repetition in range(rounds)]
        samples.append(np.concatenate(drawn)[:wanted])
    return cut(rng.permutation(np.concatenate(samples)), size)


def epoch_batches(
    config: ClassificationConfig,
    images: Images,
    order: Sequence[Indices],
    device: torch.device,
    workers: int,
) -> Generator[Batch, None, None]:
    """The batches of steps of `epoch_order`, on the device."""
    from striate.data.images.loader import stream  # loads torch, which opening data does not wait for

    read = stream_repeated if config.sampler == "balanced" else stream
    return read(images, order, device, workers=workers)


def stream_repeated(
    images: Images, order: Sequence[Indices], device: torch.device, *, workers: int
) -> Generator[Batch, None, None]:
    """`data.images.loader.stream` for batches of `balanced_batches`: `Batch.samples` counts repetitions."""
    from striate.data.images.loader import stream  # as above

    with closing(stream(images, [which % len(images) for which in order], device, workers=workers)) as found:
        for which, batch in zip(order, found, strict=True):
            # All repetitions of an image that cannot be read are left out.
            readable = (
                which if len(batch) == len(which) else which[np.isin(which % len(images), batch.samples)]
            )
            yield replace(batch, samples=readable)
