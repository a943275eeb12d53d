"""The preprocessing contract: how an image becomes what a network sees, as one JSON-able value.

A `Preprocess` is stored in the bundle beside the weights, and its methods are the only path from a file
to a tensor, in training, evaluation, prediction and everything built on them. The path has two halves:
`fit` turns decoded pixels of any size into uint8 pixels of the network's size (that is what may be kept),
and `normalize` turns a batch of those into the float tensor that the network reads.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from PIL import Image

from striate.errors import LayoutError, UsageError
from striate.transforms.decode import Uint8Array, decode, open_image

if TYPE_CHECKING:
    import torch

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

# The ways of the field, by name: what is subtracted from, and what divides, values of 0 to 1.
NORMALIZATIONS: dict[str, tuple[tuple[float, float, float], tuple[float, float, float]]] = {
    "imagenet": (IMAGENET_MEAN, IMAGENET_STD),
    "half": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
    # Plain subtraction of the mean RGB value, in 0 to 255 (Simonyan, Zisserman 2014, section 2.1).
    "vgg": ((123.68 / 255, 116.78 / 255, 103.94 / 255), (1 / 255, 1 / 255, 1 / 255)),
}

INTERPOLATIONS = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}
_IN_CACHE = 1 << 18  # float32 values: one MiB
_LETTERBOX_GRAY = 114  # the gray of YOLO's letterbox, near the mean of photographs


@dataclass(frozen=True)
class Preprocess:
    """How an image becomes a tensor.

    Attributes:
        size: height and width of the network's input, in pixels.
        resize: `crop` scales the shorter side to `shorter_side` and cuts out the centre; `squash` scales
            both sides, each by its own factor; `letterbox` scales the longer side and pads with gray; `line`
            scales to the height, and only what is wider than `size` then is squashed: images of a line of
            text, which come out as wide as they are.
        shorter_side: for `crop`, the shorter side before the cut, in pixels; at least max(size).
        interpolation: `nearest`, `bilinear`, `bicubic` or `lanczos`; antialiased when shrinking.
        channels: 3 for RGB, 1 for grayscale.
        mean: subtracted from each channel after scaling to 0-1.
        std: divides each channel after that.
    """

    size: tuple[int, int] = (224, 224)
    resize: Literal["crop", "squash", "letterbox", "line"] = "crop"
    shorter_side: int = 256
    interpolation: str = "bilinear"
    channels: Literal[1, 3] = 3
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD

    def __post_init__(self) -> None:
        """Refuse values that contradict each other; raises UsageError."""
        if min(self.size) < 1:
            raise _bad("size", self.size, "both sides must be at least 1 pixel")
        if self.resize not in ("crop", "squash", "letterbox", "line"):
            raise _bad("resize", self.resize, "it must be crop, squash, letterbox or line")
        if self.resize == "crop" and self.shorter_side < max(self.size):
            raise _bad("shorter_side", self.shorter_side, f"it must be at least {max(self.size)}, the crop")
        if self.interpolation not in INTERPOLATIONS:
            raise _bad("interpolation", self.interpolation, f"it must be one of {', '.join(INTERPOLATIONS)}")
        if self.channels not in (1, 3):
            raise _bad("channels", self.channels, "it must be 1 (grayscale) or 3 (RGB)")
        if not len(self.mean) == len(self.std) == self.channels:
            raise _bad("mean, std", (self.mean, self.std), f"each needs {self.channels} values")
        if min(self.std) <= 0:
            raise _bad("std", self.std, "every value must be above 0")

    @classmethod
    def for_size(cls, size: int, channels: Literal[1, 3] = 3, **others: Any) -> Preprocess:
        """The usual contract for square inputs of `size` pixels.

        Photographs for networks of more than 64 px are scaled to 8/7 of the crop, as 256 for 224 (He et
        al. 2016 after Krizhevsky et al. 2012); small images keep all they have. Grayscale is centred on
        0.5, RGB on ImageNet's statistics.
        """
        gray = {"mean": (0.5,), "std": (0.5,)} if channels == 1 else {}
        margin = size if size <= 64 else round(size * 8 / 7)
        return cls(**{"size": (size, size), "shorter_side": margin, "channels": channels, **gray, **others})

    @classmethod
    def for_line(cls, height: int, width: int, channels: Literal[1, 3] = 1) -> Preprocess:
        """The usual contract for images of a line of text: of one height, up to `width` pixels wide."""
        half = (0.5,) * channels
        return cls(size=(height, width), resize="line", channels=channels, mean=half, std=half)

    @property
    def uncropped_size(self) -> tuple[int, int]:
        """Height and width that `resize_uncropped` gives: room around the crop for random crops in training."""
        if self.resize != "crop":
            return self.size
        scale = self.shorter_side / max(self.size)
        return round(self.size[0] * scale), round(self.size[1] * scale)

    def decode(self, source: str | os.PathLike[str] | bytes) -> Uint8Array:
        """Decode a file to uint8 `[height, width, channels]` at its own size; raises DecodeError."""
        return decode(source, self.channels)

    def fit(self, image: Uint8Array) -> Uint8Array:
        """Bring one image to the network's size, as evaluation and prediction see it.

        Args:
            image: uint8 `[height, width]` or `[height, width, 1 or 3]` of any size.

        Returns:
            uint8 `[size[0], size[1], channels]`; of a `line` `[size[0], up to size[1], channels]`.

        Raises:
            LayoutError: the array is not laid out like that.
        """
        return self._fit(self._picture(image))

    def resize_uncropped(self, image: Uint8Array) -> Uint8Array:
        """Like `fit`, with the margin that training cuts its random crops from: `uncropped_size`.

        It is scaled by torch, which takes a fifth of the time, to within one level of 255 of what Pillow
        gives.
        """
        if self.interpolation not in ("bilinear", "bicubic"):
            picture = self._picture(image)
            return self._place(picture.size, self.uncropped_size, partial(self._scale, picture))
        if np.shape(image)[2:] != (self.channels,) or image.dtype != np.uint8:
            image = self._pixels(self._picture(image))
        pixels = np.require(image, requirements=("C", "W"))  # else torch copies, or warns
        size = (pixels.shape[1], pixels.shape[0])
        return self._place(size, self.uncropped_size, partial(self._scale_by_torch, pixels))

    def read(self, source: str | os.PathLike[str] | bytes | Uint8Array, *, crop: bool = True) -> Uint8Array:
        """Decode a file and bring it to the network's size: `fit(decode(source))`, or `resize_uncropped` of it.

        What is decoded already, as for `fit`, is brought to the size.

        With `crop=False` a JPEG of at least twice its size is decoded at 1/2, 1/4 or 1/8 of the size; what is
        then scaled down differs from all pixels scaled down by half a level of 255 on average, far less than
        the random crop that follows. `fit` reads every pixel.

        Raises:
            DecodeError: the file cannot be decoded.
        """
        if isinstance(source, np.ndarray):
            return self.fit(source) if crop else self.resize_uncropped(source)
        if crop:
            return self._fit(open_image(source, self.channels))
        return self.resize_uncropped(self.decode_uncropped(source))

    def decode_uncropped(self, source: str | os.PathLike[str] | bytes | Uint8Array) -> Uint8Array:
        """The half of `read(source, crop=False)` that takes no torch: the other half is `resize_uncropped`.

        Returns:
            uint8 `[height, width, channels]` of any size.

        Raises:
            DecodeError: the file cannot be decoded.
        """
        if isinstance(source, np.ndarray):
            return source
        # A letterbox fits the longer side; the shorter one may be of any size.
        enough = None if self.resize == "letterbox" else 2 * max(self.uncropped_size)
        return decode(source, self.channels, at_least=enough)

    def normalize(self, batch: torch.Tensor) -> torch.Tensor:
        """Turn pixels into the network's input: scale to 0-1, subtract the mean, divide by the std.

        Args:
            batch: uint8, or float of the range 0-255: `[batch, height, width, channels]`, on any device.

        Returns:
            float32 `[batch, channels, height, width]` on the same device.

        Raises:
            LayoutError: the axes are not in that order.
        """
        import torch

        if batch.ndim != 4 or batch.shape[3] != self.channels:
            raise LayoutError(
                f"a batch of shape {tuple(batch.shape)}",
                f"pixels are [batch, height, width, {self.channels}]",
                "Permute the axes first",
            )
        nchw = batch.permute(0, 3, 1, 2)
        # Three steps, not one multiply-add: the same roundings as torchvision's ToTensor + Normalize.
        if batch.device.type != "cpu":
            shift, scale = (_on_device(tuple(values), batch.device) for values in (self.mean, self.std))
            moved = nchw.to(torch.float32, memory_format=torch.contiguous_format)
            return moved.div_(255).sub_(shift).div_(scale)
        # Some images at a time, which stay in the processor's cache from step to step.
        mean, std = (np.array(values, np.float32)[:, None, None] for values in (self.mean, self.std))
        pixels, out = nchw.numpy(), np.empty(tuple(nchw.shape), np.float32)
        at_once = max(1, _IN_CACHE // max(1, math.prod(nchw.shape[1:])))
        for at in range(0, len(out), at_once):
            part = out[at : at + at_once]
            part[:] = pixels[at : at + at_once]
            part /= np.float32(255)
            part -= mean
            part /= std
        return torch.from_numpy(out)

    def to_json(self) -> dict[str, Any]:
        """The contract as plain JSON values."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in dataclasses.asdict(self).items()}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Preprocess:
        """The inverse of `to_json`; raises UsageError for unknown or contradictory values."""
        known = {field.name for field in dataclasses.fields(cls)}
        if not isinstance(values, dict) or (unknown := set(values) - known):
            odd = ", ".join(sorted(unknown)) if isinstance(values, dict) else repr(values)
            raise _bad("preprocess", odd, f"its fields are {', '.join(sorted(known))}")
        try:
            fields: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
            return cls(**fields)
        except TypeError as error:
            raise _bad("preprocess", values, str(error)) from error

    def _fit(self, picture: Image.Image) -> Uint8Array:
        return self._place(picture.size, self.size, partial(self._scale, picture))

    def _place(
        self, given: tuple[int, int], size: tuple[int, int], scale: Callable[[int, int], Uint8Array]
    ) -> Uint8Array:
        """An image of this width and height in one of this height and width; `scale` gives it in any."""
        (own_width, own_height), (height, width) = given, size
        if self.resize == "squash":
            return scale(height, width)
        if self.resize == "line":
            return scale(height, min(width, max(1, round(own_width * height / own_height))))
        if self.resize == "letterbox":
            ratio = min(height / own_height, width / own_width)
            inner_h = max(1, round(own_height * ratio))
            inner_w = max(1, round(own_width * ratio))
            page = np.full((height, width, self.channels), _LETTERBOX_GRAY, np.uint8)
            top, left = (height - inner_h) // 2, (width - inner_w) // 2
            page[top : top + inner_h, left : left + inner_w] = scale(inner_h, inner_w)
            return page
        # torchvision's Resize(int) and CenterCrop, to the pixel: the longer side is truncated, not rounded.
        if own_width <= own_height:
            scaled = (int(self.shorter_side * own_height / own_width), self.shorter_side)
        else:
            scaled = (self.shorter_side, int(self.shorter_side * own_width / own_height))
        top, left = round((scaled[0] - height) / 2), round((scaled[1] - width) / 2)
        return scale(*scaled)[top : top + height, left : left + width]

    def _picture(self, image: Uint8Array) -> Image.Image:
        shape = np.shape(image)
        if (
            image.dtype != np.uint8
            or len(shape) not in (2, 3)
            or (len(shape) == 3 and shape[2] not in (1, 3))
        ):
            raise LayoutError(
                f"an image of shape {shape} and type {image.dtype}",
                "an image is uint8 [height, width, 1 or 3]",
                "Permute the axes and scale to 0-255 first",
            )
        picture = Image.fromarray(image[:, :, 0] if len(shape) == 3 and shape[2] == 1 else image)
        return picture.convert("RGB" if self.channels == 3 else "L")

    def _pixels(self, picture: Image.Image) -> Uint8Array:
        return np.array(picture, dtype=np.uint8).reshape(picture.height, picture.width, self.channels)

    def _scale(self, picture: Image.Image, height: int, width: int) -> Uint8Array:
        if picture.size != (width, height):
            picture = picture.resize((width, height), INTERPOLATIONS[self.interpolation])
        return self._pixels(picture)

    def _scale_by_torch(self, pixels: Uint8Array, height: int, width: int) -> Uint8Array:
        if pixels.shape[:2] == (height, width):
            return pixels
        import torch
        import torch.nn.functional as F

        # `pixels[None]` has a stride of 0, which hides from torch that the channels lie last.
        nchw = torch.from_numpy(pixels)[None].permute(0, 3, 1, 2)
        scaled = F.interpolate(
            nchw, (height, width), mode=self.interpolation, antialias=True, align_corners=False
        )
        values: Uint8Array = scaled[0].permute(1, 2, 0).numpy()
        return values


@functools.lru_cache(maxsize=32)
def _on_device(values: tuple[float, ...], device: torch.device) -> torch.Tensor:
    """A value for each channel, float32 `[1, channels, 1, 1]`: once, since a copy to a GPU waits for it."""
    import torch

    with torch.inference_mode(False):  # it is also used in training
        return torch.tensor(values, device=device).view(1, -1, 1, 1)


def _bad(field: str, value: object, why: str) -> UsageError:
    return UsageError(f"preprocessing {field} = {value!r}", why)
