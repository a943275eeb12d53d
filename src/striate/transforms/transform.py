"""What every transform has in common: which images it takes, and where its randomness comes from.

A transform works on a whole batch `[batch, channels, height, width]` at once, each sample with its own random
parameters. A single image is a batch of one:

* a Pillow image (`L` or `RGB`) comes back as one,
* so does a NumPy array, uint8 `[height, width]`, `[height, width, channels]` or `[batch, height, width,
  channels]`,
* and a tensor `[channels, height, width]` or `[batch, channels, height, width]`, uint8 of 0-255 or float of
  0-1.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from PIL import Image

from striate.errors import LayoutError, UsageError


class Transform:
    """A change of images, called with one image or a batch of them.

    Attributes:
        draws: random numbers in [0, 1) that each sample takes.
        stages: of the way from a file to the network, those that it may stand at: `pixels` (uint8, or a
            Pillow image), `unit` (float of 0-1, after `ToTensor`), `normalized` (after `Normalize`).
    """

    num_random: int = 0
    stages: tuple[str, ...] = ("pixels", "unit")

    def __call__(self, image: Any) -> Any:
        """Transform an image, or each of a batch; what comes back is of the same kind.

        The random numbers are those of torch's global generator: `torch.manual_seed` repeats them.

        Raises:
            LayoutError: it is no image, or its axes are not where they should be.
            UsageError: it is at a stage at which this transform means nothing.
        """
        batch, back = to_batch(image, type(self).__name__)
        self.require(stage_of(batch))
        rand = torch.rand(len(batch), self.num_random).to(batch.device)  # on the CPU: alike for every device
        return back(self.batch(batch, rand))

    def batch(self, images: torch.Tensor, rand: torch.Tensor) -> torch.Tensor:
        """Transform a batch.

        Args:
            images: uint8 of 0-255 or float of 0-1, `[batch, channels, height, width]`.
            rand: float `[batch, draws]` in [0, 1), on the device of `images`.

        Returns:
            Of the same type, `[batch, channels, *size]`.
        """
        raise NotImplementedError

    def require(self, stage: str) -> None:
        """Raises UsageError if the transform cannot stand at this stage of the way."""
        if stage in self.stages:
            return
        name = type(self).__name__
        if stage == "pixels":
            raise UsageError(f"{name} on 8-bit pixels", "it takes a float tensor", "Put ToTensor() before it")
        if "unit" in self.stages:
            raise UsageError(
                f"{name} after Normalize", "it takes values of 0 to 1", "Put Normalize last, after it"
            )
        raise UsageError(f"{name} on a float tensor", "it takes 8-bit pixels", "Put it before ToTensor()")

    def __repr__(self) -> str:
        """As it was made."""
        values = ", ".join(f"{k}={v!r}" for k, v in vars(self).items() if not k.startswith("_"))
        return f"{type(self).__name__}({values})"


def stage_of(batch: torch.Tensor) -> str:
    """`pixels` for uint8, `unit` for float."""
    return "pixels" if batch.dtype == torch.uint8 else "unit"


def to_batch(image: Any, name: str) -> tuple[torch.Tensor, Callable[[torch.Tensor], Any]]:
    """An image as a batch `[batch, channels, height, width]`, and the way back to what it was.

    Raises:
        LayoutError: it is no image.
    """
    if isinstance(image, Image.Image):
        if image.mode not in ("L", "RGB"):
            raise LayoutError(
                f"{name} got a Pillow image of mode {image.mode!r}", "it takes L or RGB",
                'Convert it first: image.convert("RGB")',
            )  # fmt: skip
        pixels = np.array(image)
        return to_batch(pixels, name)[0], lambda out: Image.fromarray(
            (out[0, 0] if out.shape[1] == 1 else out[0].permute(1, 2, 0)).contiguous().cpu().numpy()
        )
    if isinstance(image, np.ndarray):
        if image.dtype != np.uint8 or image.ndim not in (2, 3, 4):
            raise LayoutError(
                f"{name} got an array {image.dtype} {list(image.shape)}",
                "it takes uint8 [height, width], [height, width, channels] or a batch of the latter",
            )
        pixels = image if image.ndim > 2 else image[:, :, None]
        own = np.ascontiguousarray(pixels) if pixels.flags.writeable else pixels.copy()
        tensor = torch.from_numpy(own).movedim(-1, -3)
        batch, back = to_batch(tensor, name)
        flat = image.ndim == 2
        return batch, lambda out: back(out)[0].numpy() if flat else back(out).movedim(-3, -1).numpy()
    if isinstance(image, torch.Tensor):
        if image.ndim not in (3, 4) or not (image.dtype == torch.uint8 or image.is_floating_point()):
            raise LayoutError(
                f"{name} got a tensor {image.dtype} {list(image.shape)}",
                "it takes uint8 or float, [channels, height, width] or [batch, channels, height, width]",
            )
        if image.ndim == 4:
            return image, lambda out: out
        return image[None], lambda out: out[0]
    raise LayoutError(
        f"{name} got {type(image).__name__!r}", "it takes a Pillow image, a NumPy array or a tensor"
    )


def max_value(images: torch.Tensor) -> int:
    """The value that is white: 255 of uint8, 1 of float."""
    return 255 if images.dtype == torch.uint8 else 1


def check_size(size: int | tuple[int, int] | list[int], name: str) -> tuple[int, int]:
    """Height and width of a size, one number for a square; raises UsageError."""
    pair = (size, size) if isinstance(size, int) else tuple(size)
    if len(pair) == 1:
        pair *= 2
    if len(pair) != 2 or not all(isinstance(side, int) and side > 0 for side in pair):
        raise UsageError(f"{name}(size={size!r})", "it must be one or two whole numbers of at least 1")
    return pair[0], pair[1]


def check_range(
    name: str, value: float | tuple[float, float], low: float, high: float
) -> tuple[float, float]:
    """A range of values inside [low, high]; one number v means that alone. Raises UsageError."""
    pair = (value, value) if isinstance(value, (int, float)) else tuple(value)
    if len(pair) != 2 or not low <= pair[0] <= pair[1] <= high:
        raise UsageError(f"{name} = {value!r}", f"it must be an increasing pair within {low:g} to {high:g}")
    return float(pair[0]), float(pair[1])


def between(rand: torch.Tensor, low: float, high: float) -> torch.Tensor:
    """Uniform in [low, high)."""
    return low + (high - low) * rand


def bernoulli(rand: torch.Tensor, p: float, name: str) -> torch.Tensor:
    """Bool `[batch]`, True with probability p; raises UsageError if p is none."""
    if not 0 <= p <= 1:
        raise UsageError(f"{name}(p={p!r})", "a probability lies between 0 and 1")
    return rand < p


def is_numpy_friendly(images: torch.Tensor) -> bool:
    """Whether NumPy can work on them where they are."""
    usual = images.dtype in (torch.uint8, torch.float32)
    return usual and images.device.type == "cpu" and not images.requires_grad
