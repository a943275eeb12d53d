"""MixUp and CutMix: mix the images of a batch, and their labels."""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from striate.errors import LayoutError, UsageError


class MixUp:
    """Blend each image with the previous one in the batch (Zhang et al. 2018, equation 1).

    Args:
        alpha: of Beta(alpha, alpha), the distribution of lambda, which is drawn once per batch.
        num_classes: required if labels are indices.
    """

    def __init__(self, *, alpha: float = 1.0, num_classes: int | None = None) -> None:
        if not alpha > 0:
            raise UsageError(f"{type(self).__name__}(alpha={alpha!r})", "it must be above 0")
        self.alpha, self.num_classes = alpha, num_classes

    def __call__(
        self, images: Tensor, labels: Tensor, *, generator: np.random.Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        """Mix a batch.

        Args:
            images: float or uint8 `[batch, channels, height, width]`.
            labels: int64 `[batch]`, or probabilities `[batch, classes]`.
            generator: of lambda and, for CutMix, the box; None for one that torch's generator seeds.

        Returns:
            Images, and float32 label probabilities `[batch, classes]`.

        Raises:
            LayoutError: the input is not a batch.
        """
        name = type(self).__name__
        if images.ndim != 4 or len(images) != len(labels):
            what = f"{name} got images {list(images.shape)} and labels {list(labels.shape)}"
            why = "it expects a batch: [batch, channels, height, width] and [batch]"
            raise LayoutError(what, why, "Call it on batches, after the transforms of images")
        if labels.ndim == 1:
            if self.num_classes is None:
                fix = f"Use {name}(num_classes=10)"
                raise UsageError(f"{name} with integer labels", "it needs num_classes", fix)
            labels = F.one_hot(labels, self.num_classes)
        generator = generator or np.random.default_rng(int(torch.randint(2**63 - 1, (), device="cpu")))
        images, lam = self.mix(images, generator)
        targets = labels.float()
        return images, lam * targets + (1 - lam) * targets.roll(1, 0)

    def mix(self, images: Tensor, generator: np.random.Generator) -> tuple[Tensor, float]:
        """Blend each image with the previous one (the first with the last); also return lambda."""
        lam = float(generator.beta(self.alpha, self.alpha))
        mixed = lam * images.float() + (1 - lam) * images.float().roll(1, 0)
        return (mixed.round() if images.dtype == torch.uint8 else mixed).to(images.dtype), lam


class CutMix(MixUp):
    """Paste a box of the previous image into each; labels mix by area (Yun et al. 2019, section 3.1)."""

    def mix(self, images: Tensor, generator: np.random.Generator) -> tuple[Tensor, float]:
        """Paste a box of the previous image; also return the area share of the image itself."""
        lam = float(generator.beta(self.alpha, self.alpha))
        H, W = images.shape[2:]
        x, y = int(generator.integers(W)), int(generator.integers(H))
        half = 0.5 * math.sqrt(1 - lam)  # half a side of the box, as a share of the image's side
        left, right = max(x - int(half * W), 0), min(x + int(half * W), W)
        above, below = max(y - int(half * H), 0), min(y + int(half * H), H)
        out = images.clone()
        out[:, :, above:below, left:right] = images.roll(1, 0)[:, :, above:below, left:right]
        return out, 1 - (right - left) * (below - above) / (H * W)


def mix_batch(
    images: Tensor, mixup: float, cutmix: float, *, seed: int, step: int, part: int = 0
) -> tuple[Tensor, float]:
    """Apply MixUp or CutMix to a batch; with both, each has probability 0.5.

    Args:
        images: `[batch, channels, height, width]`.
        mixup: alpha of MixUp, 0 for none.
        cutmix: alpha of CutMix, 0 for none.
        seed: of the run; the random numbers are a function of seed, step and part.
        step: of the run.
        part: index of the micro-batch in the step.

    Returns:
        The images, and lambda: the weight of each image's own label; the rest belongs to the previous image.
    """
    kinds = [kind(alpha=alpha) for kind, alpha in ((MixUp, mixup), (CutMix, cutmix)) if alpha]
    if not kinds:
        return images, 1.0
    generator = np.random.default_rng([seed, step, part])
    return kinds[int(generator.integers(len(kinds)))].mix(images, generator)
