"""Mixing the samples of a batch, labels with them: MixUp and CutMix, under torchvision's names."""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F

from striate.errors import LayoutError, UsageError


class MixUp:
    """Each image is blended with its neighbour in the batch (Zhang et al. 2018, equation 1).

    Args:
        alpha: of the Beta(alpha, alpha) that the share is drawn from, once for a batch.
        num_classes: where labels are indices.
    """

    def __init__(self, *, alpha: float = 1.0, num_classes: int | None = None) -> None:
        if not alpha > 0:
            raise UsageError(f"{type(self).__name__}(alpha={alpha!r})", "it must be above 0")
        self.alpha, self.num_classes = alpha, num_classes

    def __call__(
        self, images: torch.Tensor, labels: torch.Tensor, *, generator: np.random.Generator | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Mix a batch.

        Args:
            images: float or uint8 `[batch, channels, height, width]`.
            labels: int64 `[batch]`, or shares `[batch, classes]`.
            generator: of the share and, for CutMix, the place; None for one that torch's generator seeds.

        Returns:
            The images, and float32 shares `[batch, classes]` that sum to 1.

        Raises:
            LayoutError: it is not a batch.
        """
        name = type(self).__name__
        if images.ndim != 4 or len(images) != len(labels):
            raise LayoutError(
                f"{name} got images {list(images.shape)} and labels {list(labels.shape)}",
                "it mixes the samples of a batch: [batch, channels, height, width] and [batch]",
                "Call it on batches, after the transforms of the images",
            )
        if labels.ndim == 1:
            if self.num_classes is None:
                raise UsageError(
                    f"{name} of labels that are indices",
                    "it must know how many classes there are",
                    f"Use {name}(num_classes=...)",
                )
            labels = F.one_hot(labels, self.num_classes)
        generator = generator or np.random.default_rng(int(torch.randint(2**63 - 1, ())))
        images, share = self.mix(images, generator)
        truth = labels.float()
        return images, share * truth + (1 - share) * truth.roll(1, 0)

    def mix(self, images: torch.Tensor, generator: np.random.Generator) -> tuple[torch.Tensor, float]:
        """Mix each image with the one before it (the first with the last); answers its own share, too."""
        share = self._share(generator)
        mixed = share * images.float() + (1 - share) * images.float().roll(1, 0)
        return (mixed.round() if images.dtype == torch.uint8 else mixed).to(images.dtype), share

    def _share(self, generator: np.random.Generator) -> float:
        return float(generator.beta(self.alpha, self.alpha))


class CutMix(MixUp):
    """A rectangle of each image is its neighbour's; labels mix by area (Yun et al. 2019, section 3.1)."""

    def mix(self, images: torch.Tensor, generator: np.random.Generator) -> tuple[torch.Tensor, float]:
        """Paste a rectangle of the image before; answers the share of the area that is its own, too."""
        share = self._share(generator)
        H, W = images.shape[2:]
        x, y = int(generator.integers(W)), int(generator.integers(H))
        half = 0.5 * math.sqrt(1 - share)
        left, right = max(x - int(half * W), 0), min(x + int(half * W), W)
        above, below = max(y - int(half * H), 0), min(y + int(half * H), H)
        out = images.clone()
        out[:, :, above:below, left:right] = images.roll(1, 0)[:, :, above:below, left:right]
        return out, 1 - (right - left) * (below - above) / (H * W)


def mix_batch(
    images: torch.Tensor, mixup: float, cutmix: float, *, seed: int, step: int, part: int = 0
) -> tuple[torch.Tensor, float]:
    """Mix a batch by MixUp or CutMix, either being as likely where both are asked for.

    Args:
        images: `[batch, channels, height, width]`.
        mixup: alpha of MixUp, 0 for none.
        cutmix: alpha of CutMix, 0 for none.
        seed: of the run; the randomness is a function of it and the next two.
        step: of the run.
        part: of the step's batch.

    Returns:
        The images, and the share of each that is its own; the rest is of the one before it in the batch.
    """
    kinds = [kind(alpha=alpha) for kind, alpha in ((MixUp, mixup), (CutMix, cutmix)) if alpha]
    if not kinds:
        return images, 1.0
    generator = np.random.default_rng([seed, step, part])
    return kinds[int(generator.integers(len(kinds)))].mix(images, generator)
