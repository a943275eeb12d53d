"""Preprocessing: how an image file becomes the network's input. The settings are one JSON value.

A `Preprocess` is stored in the bundle with the weights. Training, evaluation, prediction and export all use
its methods, in two steps: `fit` resizes and crops a decoded image to uint8 pixels of the input size, which
can be cached; `normalize` converts a batch of those to the float tensor that the network reads.
"""

from __future__ import annotations

import functools
import math
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from PIL import Image

from striate.errors import LayoutError, UsageError
from striate.transforms.decode import ImageSource, Uint8Array, decode, decode_errors, name_of, open_pixels
from striate.transforms.jpeg import Needed
from striate.transforms.multiband import array_bands, read_bands
from striate.transforms.pixel_formats import Array
from striate.transforms.pixels import ArrayPixels, Pixels
from striate.transforms.scaling import COPIED, Span, fits_at_once, scale, scale_by_torch
from striate.validation import InvalidValueError, field_types, require, require_fields

if TYPE_CHECKING:
    import torch

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

# Common normalizations by name: mean and std for values in 0 to 1.
NORMALIZATIONS: dict[str, tuple[tuple[float, float, float], tuple[float, float, float]]] = {
    "imagenet": (IMAGENET_MEAN, IMAGENET_STD),
    "half": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
    # (x - 127) / 128 for values in 0 to 255 (authors' code of EfficientNet-Lite).
    "lite": ((127 / 255,) * 3, (128 / 255,) * 3),
    # Subtracts the mean RGB value from values in 0 to 255 (Simonyan, Zisserman 2014, section 2.1).
    "vgg": ((123.68 / 255, 116.78 / 255, 103.94 / 255), (1 / 255, 1 / 255, 1 / 255)),
}

INTERPOLATIONS = {n: Image.Resampling[n.upper()] for n in ("nearest", "bilinear", "bicubic", "lanczos")}
MAX_CHANNELS = 16
MAX_SIDE = 8192  # pixels of a network's input, as for --imgsz
_FAR = 1e6  # from 0 to 1, the range of pixels; float32 still has six digits after a division by it
_LETTERBOX_GRAY = 114  # the gray of YOLO's letterbox, near the mean of photographs


@dataclass(frozen=True)
class Preprocess:
    """How an image becomes a tensor.

    Attributes:
        size: height and width of the network's input, in pixels.
        resize: `crop` resizes the shorter side to `shorter_side` and crops the center; `squash` resizes both
            sides without keeping the aspect ratio; `letterbox` resizes the longer side and pads with gray;
            `line`, for lines of text, resizes to the height and keeps the width variable, up to the width of
            `size`.
        shorter_side: for `crop`, the shorter side before the crop, in pixels; at least max(size).
        interpolation: `nearest`, `bilinear`, `bicubic` or `lanczos`; antialiased when downscaling.
        channels: 3 for RGB, 1 for grayscale; 2 and 4 to 16 for images of so many bands, which are not
            converted.
        mean: subtracted from each channel after scaling to 0-1.
        std: divides each channel after that.
        reducing_gap: JPEG files are decoded at 1/2, 1/4 or 1/8 of their size as long as both sides are at
            least this many times as long as after resizing, as Pillow's `reducing_gap` of thumbnails; 0 for
            full size.
    """

    size: tuple[int, int] = (224, 224)
    resize: Literal["crop", "squash", "letterbox", "line"] = "crop"
    shorter_side: int = 256
    interpolation: str = "bilinear"
    channels: int = 3
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    reducing_gap: float = 0.0

    def __post_init__(self) -> None:
        """Check the types, then the values; raises UsageError."""
        for name, hint in field_types(Preprocess).items():
            try:
                require(getattr(self, name), hint, name)
            except InvalidValueError as error:
                raise _bad(name, getattr(self, name), str(error)) from error
        if min(self.size) < 1:
            raise _bad("size", self.size, "both sides must be at least 1 pixel")
        if max(self.size) > MAX_SIDE:
            raise _bad("size", self.size, f"at most {MAX_SIDE:,} pixels are supported")
        if self.shorter_side > 2 * MAX_SIDE:
            raise _bad("shorter_side", self.shorter_side, f"at most {2 * MAX_SIDE:,} pixels are supported")
        if self.resize not in ("crop", "squash", "letterbox", "line"):
            raise _bad("resize", self.resize, "it must be crop, squash, letterbox or line")
        if self.resize == "crop" and self.shorter_side < max(self.size):
            raise _bad("shorter_side", self.shorter_side, f"it must be at least {max(self.size)}, the crop")
        if self.interpolation not in INTERPOLATIONS:
            raise _bad("interpolation", self.interpolation, f"it must be one of {', '.join(INTERPOLATIONS)}")
        if self.reducing_gap and not 1 <= self.reducing_gap <= MAX_SIDE:
            raise _bad("reducing_gap", self.reducing_gap, f"it must be 0, or from 1 to {MAX_SIDE:,}")
        if not 1 <= self.channels <= MAX_CHANNELS:
            why = f"it must be 1 (grayscale), 3 (RGB), or another number of bands up to {MAX_CHANNELS}"
            raise _bad("channels", self.channels, why)
        if not len(self.mean) == len(self.std) == self.channels:
            raise _bad("mean, std", (self.mean, self.std), f"each needs {self.channels} values")
        if min(self.std) <= 0:
            raise _bad("std", self.std, "every value must be above 0")
        if min(self.std) < 1 / _FAR or max(*map(abs, self.mean), *self.std) > _FAR:
            why = f"values are at most {_FAR:g}, std at least {1 / _FAR:g}"
            raise _bad("mean, std", (self.mean, self.std), why)

    @classmethod
    def for_size(cls, size: int, channels: int = 3, **others: Any) -> Preprocess:
        """Create the usual preprocessing for square inputs of `size` pixels.

        Above 64 px the shorter side is resized to 8/7 of the crop, such as 256 for 224 (He et al. 2016 after
        Krizhevsky et al. 2012); small images are not cropped. Mean and std are ImageNet's for RGB, else 0.5.
        """
        gray = {} if channels == 3 else {"mean": (0.5,) * channels, "std": (0.5,) * channels}
        margin = size if size <= 64 else round(size * 8 / 7)
        return cls(**{"size": (size, size), "shorter_side": margin, "channels": channels, **gray, **others})

    @classmethod
    def for_line(cls, height: int, width: int, channels: Literal[1, 3] = 1) -> Preprocess:
        """Create the usual preprocessing for lines of text: one height, up to `width` pixels wide."""
        half = (0.5,) * channels
        return cls(size=(height, width), resize="line", channels=channels, mean=half, std=half)

    @property
    def summary(self) -> str:
        """Size and normalization in words."""
        mean, std = (", ".join(f"{value:g}" for value in values) for values in (self.mean, self.std))
        return f"{self.size[1]}x{self.size[0]} pixels, mean {mean}, standard deviation {std}"

    @property
    def uncropped_size(self) -> tuple[int, int]:
        """Height and width of the resized image before the crop, from which training takes random crops."""
        if self.resize != "crop":
            return self.size
        scale = self.shorter_side / max(self.size)
        return round(self.size[0] * scale), round(self.size[1] * scale)

    def only_decodes(self, *, crop: bool) -> bool:
        """Return whether `read` leaves an image of `size`, without the crop of `uncropped_size`, as it is."""
        height, width = self.size
        whole = Span.whole(width, width), Span.whole(height, height)
        return self.channels in (1, 3) and (not crop or self._spans((width, height), self.size) == whole)

    def decode(self, source: ImageSource) -> Uint8Array:
        """Decode an image in any form of `read`, in its own size.

        Returns:
            uint8 `[height, width, channels]`.

        Raises:
            DecodeError, LayoutError: as `read`.
        """
        if self.channels not in (1, 3):
            return read_bands(source, self.channels)
        return decode(source, self._rgb_or_gray)

    def fit(self, image: Array) -> Uint8Array:
        """Resize and crop one image to the network's input size, for evaluation and prediction.

        Args:
            image: uint8 `[height, width]` or `[height, width, 1 or 3]` of any size, or another array that
                `transforms.decode.open_pixels` takes; with other `channels`, `[height, width, channels]`.

        Returns:
            uint8 `[size[0], size[1], channels]`; for `line` `[size[0], up to size[1], channels]`.

        Raises:
            LayoutError: the array has another shape or dtype.
        """
        if self.channels not in (1, 3):
            bands = array_bands(image, self.channels)
            return np.concatenate([self._of_band.fit(band) for band in np.moveaxis(bands, 2, 0)], axis=2)
        return self._fit(ArrayPixels(image, self.channels), self.size)

    def resize_uncropped(self, image: Array | ArrayPixels) -> Uint8Array:
        """Resize one image to `uncropped_size` without cropping, for random crops in training.

        Uses torch, which is five times as fast as Pillow; values differ by at most 1 of 255. An array that
        has that size already is returned as it is.

        Args:
            image: an array as for `fit`, or what `decode_uncropped` returns.
        """
        whole = not isinstance(image, ArrayPixels) or image.frame is None
        values = image.values if isinstance(image, ArrayPixels) else image
        if whole and values.shape == (*self.uncropped_size, self.channels) and values.dtype == np.uint8:
            return values
        if isinstance(image, ArrayPixels):
            return self._resize_uncropped(image)
        if self.channels not in (1, 3):
            bands = np.moveaxis(array_bands(image, self.channels), 2, 0)
            return np.concatenate([self._of_band.resize_uncropped(band) for band in bands], axis=2)
        return self._resize_uncropped(ArrayPixels(image, self.channels))

    def _resize_uncropped(self, pixels: ArrayPixels) -> Uint8Array:
        x, y = self._spans_in(pixels, self.uncropped_size)
        by_torch = self.interpolation in ("bilinear", "bicubic") and fits_at_once(x, y)
        if not by_torch or x.offset or y.offset:
            return self._fit(pixels, self.uncropped_size)
        image = pixels.values
        if np.shape(image)[2:] != (self.channels,) or image.dtype != np.uint8:
            image = pixels.to_array()
        scaled = scale_by_torch(np.require(image, requirements=("C", "W")), x, y, self.interpolation)
        kept = scaled[y.start : y.start + y.kept, x.start : x.start + x.kept]
        return self._padded(kept, self.uncropped_size)

    def read(self, source: ImageSource, *, crop: bool = True) -> Uint8Array:
        """Decode an image and resize it to the network's input size: one way for every kind of source.

        Beyond the decoded image, of any shape and size, this takes at most 64 MiB for a conversion to 8-bit
        RGB, and 16 MiB or 256 bytes per pixel of the result for each step of resizing.

        Args:
            source: a path, the bytes of a file, a file object, a Pillow image, or an array as for `fit`:
                see `transforms.decode.open_pixels`.
            crop: True for `fit`; False for `resize_uncropped`.

        Raises:
            DecodeError: the image cannot be decoded, or memory cannot hold it.
            LayoutError: the array or object is not an image.
        """
        if crop and self.channels not in (1, 3):
            bands = read_bands(source, self.channels)
            with decode_errors(name_of(source)):
                return self.fit(bands)
        if crop:
            with open_pixels(source, self._rgb_or_gray, self._needed) as pixels:
                return self._fit(pixels, self.size)
        decoded = self.decode_uncropped(source)
        with decode_errors(name_of(source)):
            return self.resize_uncropped(decoded)

    def decode_uncropped(self, source: ImageSource) -> Array | ArrayPixels:
        """Decode an image for `resize_uncropped`, without importing torch: the first half of `read`.

        Returns:
            Its pixels, of any size; `uncropped_size` if the image is very large. An array is returned as it
            is.

        Raises:
            DecodeError, LayoutError: as `read`.
        """
        if isinstance(source, np.ndarray):
            return source
        if self.channels not in (1, 3):
            return read_bands(source, self.channels)
        with open_pixels(source, self._rgb_or_gray, self._needed) as pixels:
            if math.prod(pixels.size) > COPIED:
                return self._fit(pixels, self.uncropped_size)
            decoded = ArrayPixels(pixels.to_array(), self.channels)
            decoded.frame = pixels.frame
            return decoded

    def normalize(self, batch: torch.Tensor) -> torch.Tensor:
        """Convert pixels to the network's input: scale to 0-1, subtract the mean, divide by the std.

        Args:
            batch: uint8, or float in 0-255, `[batch, height, width, channels]`, on any device.

        Returns:
            float32 `[batch, channels, height, width]` on the same device.

        Raises:
            LayoutError: the axes have another order.
        """
        from striate.transforms import normalization

        if batch.ndim != 4 or batch.shape[3] != self.channels:
            why = f"pixels are [batch, height, width, {self.channels}]"
            raise LayoutError(f"a batch of shape {tuple(batch.shape)}", why, "Permute the axes first")
        return normalization.normalize(batch, tuple(self.mean), tuple(self.std))

    def to_json(self) -> dict[str, Any]:
        """Convert to JSON values, without what earlier versions do not know."""
        values = {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}
        if not self.reducing_gap:
            del values["reducing_gap"]
        return values

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Preprocess:
        """Create from `to_json` values; raises UsageError for unknown fields and invalid values."""
        try:
            require_fields(values, cls, "preprocess")
        except InvalidValueError as error:
            known = ", ".join(sorted(field_types(cls)))
            raise UsageError("invalid preprocess", str(error), f"Its fields are {known}") from error
        own: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
        return cls(**own)

    @property
    def _rgb_or_gray(self) -> Literal[1, 3]:
        return 1 if self.channels == 1 else 3

    @functools.cached_property
    def _of_band(self) -> Preprocess:
        """The preprocessing of one band by itself."""
        return replace(self, channels=1, mean=self.mean[:1], std=self.std[:1])

    def _fit(self, pixels: Pixels, size: tuple[int, int]) -> Uint8Array:
        """Resize and crop with Pillow; `size` is height and width of the result."""
        x, y = self._spans_in(pixels, size)
        kept = scale(pixels, x, y, INTERPOLATIONS[self.interpolation])
        return self._padded(np.array(kept).reshape(y.kept, x.kept, self.channels), size)

    @property
    def _needed(self) -> Needed | None:
        """How large the pixels of a JPEG file must be, given its size; None if it is decoded at full size."""
        return self._size_with_gap if self.reducing_gap else None

    def _size_with_gap(self, own: tuple[int, int]) -> tuple[int, int]:
        x, y = self._spans(own, self.uncropped_size)
        return math.ceil(self.reducing_gap * x.scaled), math.ceil(self.reducing_gap * y.scaled)

    def _spans_in(self, pixels: Pixels, size: tuple[int, int]) -> tuple[Span, Span]:
        """Return how decoded pixels are resized and cropped: as the whole image, whatever their size."""
        if pixels.frame is None:
            return self._spans(pixels.size, size)
        x, y = self._spans(pixels.frame.full_size, size)
        left, top, right, bottom = pixels.frame.box
        return (
            replace(x, own=pixels.size[0], offset=left, extent=right - left),
            replace(y, own=pixels.size[1], offset=top, extent=bottom - top),
        )

    def _spans(self, own: tuple[int, int], size: tuple[int, int]) -> tuple[Span, Span]:
        """Return how the width and the height are resized and cropped.

        Args:
            own: width and height of the image.
            size: height and width of the result.
        """
        (own_width, own_height), (height, width) = own, size
        if self.resize == "squash":
            return Span.whole(own_width, width), Span.whole(own_height, height)
        if self.resize == "line":
            wanted = min(width, max(1, round(own_width * height / own_height)))
            return Span.whole(own_width, wanted), Span.whole(own_height, height)
        if self.resize == "letterbox":
            ratio = min(height / own_height, width / own_width)
            inner_h, inner_w = max(1, round(own_height * ratio)), max(1, round(own_width * ratio))
            return Span.whole(own_width, inner_w), Span.whole(own_height, inner_h)
        # As torchvision's Resize(int) and CenterCrop: the longer side is truncated, not rounded.
        if own_width <= own_height:
            scaled = (int(self.shorter_side * own_height / own_width), self.shorter_side)
        else:
            scaled = (self.shorter_side, int(self.shorter_side * own_width / own_height))
        top, left = round((scaled[0] - height) / 2), round((scaled[1] - width) / 2)
        return Span(own_width, scaled[1], left, width), Span(own_height, scaled[0], top, height)

    def _padded(self, image: Uint8Array, size: tuple[int, int]) -> Uint8Array:
        """Center an image in gray, for letterbox; return others as they are."""
        if self.resize != "letterbox" or image.shape[:2] == size:
            return image
        (height, width), (inner_h, inner_w) = size, image.shape[:2]
        out = np.full((height, width, self.channels), _LETTERBOX_GRAY, np.uint8)
        top, left = (height - inner_h) // 2, (width - inner_w) // 2
        out[top : top + inner_h, left : left + inner_w] = image
        return out


def _bad(field: str, value: object, why: str) -> UsageError:
    return UsageError(f"preprocessing {field} = {value!r}", why)
