"""One transform after the other, and the step from pixels to the network's floats."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from PIL import Image

from striate.errors import UsageError
from striate.transforms.mixing import MixUp
from striate.transforms.transform import Transform, to_batch


class ToTensor(Transform):
    """8-bit pixels 0-255 to float32 0-1, channels first: `[channels, height, width]`, or a batch of it."""

    stages = ("pixels",)

    def __call__(self, image: Any) -> torch.Tensor:
        """float32, 0 to 1."""
        batch, _ = to_batch(image, "ToTensor")
        self.require("pixels" if batch.dtype == torch.uint8 else "unit")
        out = batch.float() / 255
        one = isinstance(image, Image.Image) or image.ndim == 2 or image.ndim == 3
        return out[0] if one else out

    def batch(self, images: torch.Tensor, rand: torch.Tensor) -> torch.Tensor:
        """float32, 0 to 1."""
        return images.float() / 255


class Normalize(Transform):
    """Subtract a mean from each channel and divide by a standard deviation.

    Args:
        mean, std: one number for each channel, for values of 0 to 1.
    """

    stages = ("unit",)

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        if len(mean) != len(std) or not all(value > 0 for value in std):
            raise UsageError(
                f"Normalize({list(mean)}, {list(std)})", "each channel has a mean, and a std above 0"
            )
        self.mean, self.std = list(mean), list(std)

    def batch(self, images: torch.Tensor, rand: torch.Tensor) -> torch.Tensor:
        """Normalise a batch."""
        if images.shape[1] != len(self.mean):
            raise UsageError(
                f"Normalize with {len(self.mean)} means of an image of {images.shape[1]} channels",
                "each channel has its own",
            )
        mean, std = (torch.tensor(v, device=images.device).view(-1, 1, 1) for v in (self.mean, self.std))
        return (images - mean) / std


class Compose:
    """One transform after the other.

    Args:
        transforms: a list of transforms, or of any callables that take and give an image.

    Raises:
        UsageError: it is no list, or the order makes no sense.
    """

    def __init__(self, transforms: Sequence[Callable[[Any], Any]]) -> None:
        if not isinstance(transforms, (list, tuple)):
            raise UsageError(
                f"Compose({type(transforms).__name__})", "it takes a list of transforms", "Compose([a, b])"
            )
        for step in transforms:
            if isinstance(step, (list, tuple)):
                raise UsageError("a list within Compose", "it is no transform", "Wrap it: Compose([...])")
            if isinstance(step, MixUp):
                name = type(step).__name__
                raise UsageError(
                    f"{name} within Compose",
                    "it mixes a batch and its labels",
                    f"Call it last: {name}(...)(images, labels)",
                )
            if isinstance(step, type) or not callable(step):
                raise UsageError(f"Compose: {step!r}", "it is no transform", "Give instances: Resize(256)")
        self.transforms = list(transforms)
        self._check_order()

    def __call__(self, image: Any) -> Any:
        """Transform an image, or each of a batch."""
        for step in self.transforms:
            image = step(image)
        return image

    def __repr__(self) -> str:
        """As it was made."""
        return f"Compose({self.transforms!r})"

    def _check_order(self) -> None:
        stage = ""  # unknown: of what it will be called with, or of what another's transform gives
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
                    raise UsageError(
                        "Normalize before ToTensor", "it takes a float tensor", "Put ToTensor() before it"
                    )
                stage = "normalized"
