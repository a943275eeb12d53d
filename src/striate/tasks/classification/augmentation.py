"""From a batch of uint8 images to the network's input in training."""

from __future__ import annotations

from typing import Any

import torch

from striate.data.images.loader import Batch
from striate.tasks.classification.config import ClassificationConfig
from striate.training.schedule import Indices
from striate.transforms.augment import augment, pca_color
from striate.transforms.mixing import mix_batch
from striate.transforms.preprocess import Preprocess


def training_input(
    config: ClassificationConfig, preprocess: Preprocess, batch: Batch, epoch: int, step: int, index: int
) -> tuple[torch.Tensor, float]:
    """Augment, normalize and mix a micro-batch.

    Args:
        config: with its defaults filled in.
        preprocess: of the run.
        batch: uint8 images, uncropped if the augmentation crops them.
        epoch: from 0.
        step: of the run.
        index: of the micro-batch in the step.

    Returns:
        float32 `[batch, channel, height, width]`, and the share of each image that is not mixed in.
    """
    pixels = augmented(config, preprocess, batch.pixels, config.augmentation_epoch(epoch), batch.samples)
    images = preprocess.normalize(pixels)
    return mix_batch(images, config.mixup, config.cutmix, seed=config.seed, step=step, part=index)


def augmented(
    config: ClassificationConfig, preprocess: Preprocess, pixels: torch.Tensor, epoch: int, samples: Indices
) -> torch.Tensor:
    """Training images, uint8, augmented as in an epoch and cropped to their final size."""
    chosen = config.augment if len(samples) else "none"
    drawn: dict[str, Any] = {"seed": config.seed, "epoch": epoch, "samples": samples}
    return pca_color(augment(pixels, preprocess.size, chosen, **drawn), config.lighting, **drawn)
