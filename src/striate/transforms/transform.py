"""The base class of transforms: types of images and random numbers.

A transform works on a batch `[batch, channels, height, width]`, with separate random parameters for each
sample. The result has the type of the input:

* a Pillow image (`L` or `RGB`),
* a NumPy array, uint8 `[height, width]`, `[height, width, channels]` or `[batch, height, width, channels]`,
* a tensor `[channels, height, width]` or `[batch, channels, height, width]`, uint8 in 0-255 or float in 0-1.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from striate.errors import LayoutError, UsageError


class Transform:
    """A transform of one image or of a batch of images.

    Attributes:
        num_random: number of random numbers per sample.
        stages: valid positions in a chain: `pixels` (uint8 or Pillow), `unit` (float in 0-1, after
            `ToTensor`), `normalized` (after `Normalize`).
    """

    num_random: int = 0
    stages: tuple[str, ...] = ("pixels", "unit")

    def __call__(self, image: Any) -> Any:
        """Transform an image or a batch; the result has the same type.

        Random numbers come from torch's global generator: `torch.manual_seed` makes them reproducible.

        Raises:
            LayoutError: the input is not an image, or its axes have another order.
            UsageError: the transform is not valid at this stage.
        """
        batch, back = to_batch(image, type(self).__name__)
        self.require(stage_of(batch))
        rand = torch.rand(
            len(batch), self.num_random, dtype=torch.float32, device="cpu"
        )  # on the CPU: the same numbers for all devices
        return back(self.batch(batch, rand.to(batch.device)))

    def batch(self, images: Tensor, rand: Tensor) -> Tensor:
        """Transform a batch.

        Args:
            images: uint8 in 0-255 or float in 0-1, `[batch, channels, height, width]`.
            rand: uniform random numbers in [0, 1), float `[batch, num_random]`, on the device of `images`.

        Returns:
            `[batch, channels, *size]` of the same dtype.
        """
        raise NotImplementedError

    def require(self, stage: str) -> None:
        """Raise UsageError if the transform is not valid at this stage."""
        if stage in self.stages:
            return
        if stage == "pixels":
            where, why, fix = "on 8-bit pixels", "it expects a float tensor", "Put ToTensor() before it"
        elif "unit" in self.stages:
            where, why, fix = "after Normalize", "it expects values in 0 to 1", "Put Normalize last, after it"
        else:
            where, why, fix = "on a float tensor", "it expects 8-bit pixels", "Put it before ToTensor()"
        raise UsageError(f"{type(self).__name__} {where}", why, fix)

    def __repr__(self) -> str:
        """Return the constructor call."""
        values = ", ".join(f"{k}={v!r}" for k, v in vars(self).items() if not k.startswith("_"))
        return f"{type(self).__name__}({values})"


def stage_of(batch: Tensor) -> str:
    """Return `pixels` for uint8, `unit` for float."""
    return "pixels" if batch.dtype == torch.uint8 else "unit"


def to_batch(image: Any, name: str) -> tuple[Tensor, Callable[[Tensor], Any]]:
    """Convert an image to a batch `[batch, channels, height, width]`; also return the inverse function.

    Raises:
        LayoutError: the input is not an image.
    """
    if isinstance(image, Image.Image):
        if image.mode not in ("L", "RGB"):
            what = f"a Pillow image of mode {image.mode!r}"
            fix = "Decode it first: striate.transforms.decode.open_image(image)"
            raise LayoutError(f"{name} got {what}", "it expects L or RGB", fix)
        return to_batch(np.array(image), name)[0], lambda out: Image.fromarray(
            (out[0, 0] if out.shape[1] == 1 else out[0].permute(1, 2, 0)).contiguous().cpu().numpy()
        )
    if isinstance(image, np.ndarray):
        if image.dtype != np.uint8 or image.ndim not in (2, 3, 4):
            why = "it expects uint8 [height, width], [height, width, channels] or a batch of the latter"
            raise LayoutError(f"{name} got an array {image.dtype} {list(image.shape)}", why)
        pixels = image if image.ndim > 2 else image[:, :, None]
        own = np.ascontiguousarray(pixels) if pixels.flags.writeable else pixels.copy()
        batch, back = to_batch(torch.from_numpy(own).movedim(-1, -3), name)
        flat = image.ndim == 2
        return batch, lambda out: back(out)[0].numpy() if flat else back(out).movedim(-3, -1).numpy()
    if isinstance(image, Tensor):
        if image.ndim not in (3, 4) or not (image.dtype == torch.uint8 or image.is_floating_point()):
            why = "it expects uint8 or float, [channels, height, width] or [batch, channels, height, width]"
            raise LayoutError(f"{name} got a tensor {image.dtype} {list(image.shape)}", why)
        if image.ndim == 4:
            return image, lambda out: out
        return image[None], lambda out: out[0]
    why = "it expects a Pillow image, a NumPy array or a tensor"
    raise LayoutError(f"{name} got {type(image).__name__!r}", why)


def max_value(images: Tensor) -> int:
    """Return the value of white: 255 for uint8, 1 for float."""
    return 255 if images.dtype == torch.uint8 else 1


def between(rand: Tensor, low: float, high: float) -> Tensor:
    """Scale random numbers in [0, 1) to [low, high)."""
    return low + (high - low) * rand


def bernoulli(rand: Tensor, p: float, name: str) -> Tensor:
    """Return bool `[batch]`, True with probability p; raises UsageError if p is not in [0, 1]."""
    if not 0 <= p <= 1:
        raise UsageError(f"{name}(p={p!r})", "a probability must be between 0 and 1")
    return rand < p


def is_numpy_friendly(images: Tensor) -> bool:
    """Return whether NumPy can process the tensor without a copy."""
    usual = images.dtype in (torch.uint8, torch.float32)
    return usual and images.device.type == "cpu" and not images.requires_grad
