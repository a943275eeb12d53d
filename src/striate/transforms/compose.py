"""Chains of transforms: Compose, ToTensor and Normalize."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from striate.errors import UsageError
from striate.transforms.mixing import MixUp
from striate.transforms.transform import Transform, stage_of, to_batch


class ToTensor(Transform):
    """Convert 8-bit pixels in 0-255 to float32 in 0-1, `[channels, height, width]` or a batch."""

    stages = ("pixels",)

    def __call__(self, image: Any) -> Tensor:
        """Convert an image or a batch to float32 in 0-1."""
        batch, _ = to_batch(image, "ToTensor")
        self.require(stage_of(batch))
        out = batch.float() / 255
        return out[0] if isinstance(image, Image.Image) or image.ndim < 4 else out

    def batch(self, images: Tensor, rand: Tensor) -> Tensor:
        """Convert a batch to float32 in 0-1."""
        return images.float() / 255


class Normalize(Transform):
    """Subtract the mean of each channel and divide by its standard deviation.

    Args:
        mean, std: one number per channel, for values in 0 to 1.
    """

    stages = ("unit",)

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        if len(mean) != len(std) or not all(value > 0 for value in std):
            what = f"Normalize({list(mean)}, {list(std)})"
            raise UsageError(what, "each channel needs a mean, and a std above 0")
        self.mean, self.std = list(mean), list(std)

    def batch(self, images: Tensor, rand: Tensor) -> Tensor:
        """Normalize a batch."""
        if images.shape[1] != len(self.mean):
            what = f"Normalize with {len(self.mean)} means on an image with {images.shape[1]} channels"
            raise UsageError(what, "each channel needs its own mean and std")
        mean, std = (
            torch.tensor(v, dtype=torch.float32, device=images.device).view(-1, 1, 1)
            for v in (self.mean, self.std)
        )
        return (images - mean) / std


class Compose:
    """Apply several transforms in order.

    Args:
        transforms: list of transforms, or of any callables that map an image to an image.

    Raises:
        UsageError: the argument is not a list, or the order is not valid.
    """

    def __init__(self, transforms: Sequence[Callable[[Any], Any]]) -> None:
        if not isinstance(transforms, (list, tuple)):
            what = f"Compose({type(transforms).__name__})"
            raise UsageError(what, "it expects a list", "Use Compose([a, b])")
        for step in transforms:
            if isinstance(step, (list, tuple)):
                raise UsageError("a list inside Compose", "it is not a transform", "Wrap it: Compose([...])")
            if isinstance(step, MixUp):
                name, why = type(step).__name__, "it mixes a batch and its labels"
                raise UsageError(f"{name} inside Compose", why, f"Call it last: {name}(...)(images, labels)")
            if isinstance(step, type) or not callable(step):
                raise UsageError(f"Compose: {step!r}", "it is not a transform", "Use instances: Resize(256)")
        self.transforms = list(transforms)
        self._check_order()

    def __call__(self, image: Any) -> Any:
        """Transform an image or a batch."""
        for step in self.transforms:
            image = step(image)
        return image

    def __repr__(self) -> str:
        """Return the constructor call."""
        return f"Compose({self.transforms!r})"

    def _check_order(self) -> None:
        stage = ""  # unknown at the start, and after a transform of another library
        for i, step in enumerate(self.transforms):
            if not isinstance(step, Transform):
                stage = ""
                continue
            if stage:
                step.require(stage)
            if isinstance(step, ToTensor):
                stage = "unit"
            elif isinstance(step, Normalize):
                if any(isinstance(later, ToTensor) for later in self.transforms[i:]):
                    why = "it expects a float tensor"
                    raise UsageError("Normalize before ToTensor", why, "Put ToTensor() before it")
                stage = "normalized"
