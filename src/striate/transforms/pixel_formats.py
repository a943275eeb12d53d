"""Convert the stored values of an image to 8-bit RGB or grayscale, as the file's header defines them.

* Integers of more than 8 bits and floats are scaled by the range of their type: 0 is black and the largest
  value white. TIFFs with PhotometricInterpretation 0 (WhiteIsZero) are inverted.
  Pillow keeps only the high byte of 16-bit RGB, which differs from that by at most 1 of 255.
* Transparent pixels become white: alpha, premultiplied alpha, palette, and the key of a PNG's tRNS chunk,
  which is compared at the bit depth of the file (PNG specification, third edition, section 11.3.1.1).
* CMYK, YCbCr, LAB, palette and 1-bit images are converted to RGB or grayscale.
"""

from __future__ import annotations

import functools
import io
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from striate.errors import LayoutError

if TYPE_CHECKING:
    from PIL import ImageCms

Uint8Array = npt.NDArray[np.uint8]
Array = npt.NDArray[Any]
Box = tuple[int, int, int, int]  # left, top, right, bottom

_BAND = 1 << 20  # pixels that are converted at once
_BITS, _PHOTOMETRIC, _SAMPLE_FORMAT = 258, 262, 339  # tags of TIFF
_WHITE_IS_ZERO, _SIGNED = 0, 2


class UnsupportedPixelsError(ValueError):
    """Values without a known white, or in a layout that Pillow would read wrongly."""


@dataclass(frozen=True)
class _Levels:
    """How gray values of more than 8 bits, or signed ones, become 0 to 255."""

    white: float
    inverted: bool
    key: int | None  # the value that is transparent

    def apply(self, part: Image.Image) -> Image.Image:
        values = np.asarray(part)
        scaled = np.rint(values.astype(np.float64) * (255.0 / self.white)).astype(np.uint8)
        if self.inverted:
            scaled = 255 - scaled
        if self.key is not None:
            scaled[values == self.key] = 255
        return Image.fromarray(scaled)


class StoredImage:
    """The pixels of a Pillow image, loaded, with what the header says about their values."""

    def __init__(self, image: Image.Image) -> None:
        """Load the image; raises Pillow's exceptions, or UnsupportedPixelsError."""
        rawmode = _rawmode(image)
        low = _low_bytes(image) if rawmode == "RGB;16B" else None
        _name_16_bit_planes(image, rawmode)
        image.load()
        self._image = image
        self._levels = _levels(image)
        self._key = _key(image, rawmode)
        self._low = low

    @property
    def size(self) -> tuple[int, int]:
        """Width and height as stored, before EXIF orientation."""
        return self._image.size

    def is_plain(self, mode: str) -> bool:
        """Return whether the image needs no conversion to `mode`."""
        return self._image.mode == mode and self._levels is None and not self._image.has_transparency_data

    def region(self, box: Box, mode: str) -> Image.Image:
        """Convert a region to `RGB` or `L`; the whole image is not copied if it needs no conversion."""
        part = self._image if box == (0, 0, *self._image.size) else self._image.crop(box)
        if self.is_plain(mode):
            return part
        if self._levels is not None:
            part = self._levels.apply(part)
        elif part.mode == "LAB":
            part = _lab_to_srgb().apply(part)
        elif part.mode in ("La", "RGBa"):  # premultiplied
            part = part.convert(part.mode.upper())
        if self._low is not None and self._key is not None:
            part = _clear(part, self._low.crop(box), self._key)
        elif part.has_transparency_data:
            part = _on_white(part, self._key)
        return part if part.mode == mode else part.convert(mode)


def from_array(values: Array) -> Image.Image:
    """Convert a region of an array, as `check_array` accepts them, to a Pillow image of 8 bits."""
    if values.dtype == np.bool_:
        values = values * np.uint8(255)
    elif values.dtype == np.uint16:
        values = np.rint(values * (255.0 / 65535)).astype(np.uint8)
    return Image.fromarray(values[:, :, 0] if values.shape[2] == 1 else values)


def check_array(values: Array) -> Array:
    """Return an image as `[height, width, channels]`; raises LayoutError if it is not one.

    Args:
        values: uint8, uint16 or bool, `[height, width]` or `[height, width, channels]`: 1 channel for gray, 2
            for gray and alpha, 3 for RGB, 4 for RGB and alpha. The largest value of the type is white.
    """
    values = values[:, :, None] if values.ndim == 2 else values
    if (
        values.dtype not in (np.uint8, np.uint16, np.bool_)
        or values.ndim != 3
        or values.shape[2] not in range(1, 5)
    ):
        why = "images must be uint8 [height, width, 1 or 3], with alpha 2 or 4; uint16 and bool are scaled"
        fix = "Permute the axes and scale to 0-255 first"
        raise LayoutError(f"an image of shape {values.shape} and type {values.dtype}", why, fix)
    return values


def bands(width: int, height: int) -> Iterator[tuple[int, int]]:
    """Yield the first and the last row (exclusive) of each band of about a million pixels."""
    rows = max(1, _BAND // max(1, width))
    return ((top, min(height, top + rows)) for top in range(0, height, rows))


def _rawmode(image: Image.Image) -> str:
    """Return how Pillow will unpack the values, such as `L;2`; empty if the image is already loaded."""
    tile = getattr(image, "tile", None)
    if not tile:
        return ""
    arguments = tile[0][3]
    return str(arguments[0] if isinstance(arguments, tuple) and arguments else arguments)


def _tags(image: Image.Image) -> Any:
    return getattr(image, "tag_v2", {}) if image.format == "TIFF" else {}


def _first(value: Any) -> Any:
    return value[0] if isinstance(value, tuple) else value


def _name_16_bit_planes(image: Image.Image, rawmode: str) -> None:
    """Have planes of 16 bits read as such: Pillow reads those of an uncompressed TIFF as 8-bit."""
    if not _tags(image) or len(rawmode) != 1 or image.mode == "P" or _first(image.tag_v2[_BITS]) != 16:  # type: ignore[attr-defined]
        return
    if image.mode not in ("RGB", "RGBA"):
        raise UnsupportedPixelsError(f"it is a TIFF with separate planes of 16-bit {image.mode}")
    order = "L" if image.tag_v2.prefix == b"II" else "B"  # type: ignore[attr-defined]
    image.tile = [  # type: ignore[attr-defined]
        tile._replace(args=(f"{tile.args[0]};16{order}", *tile.args[1:]))
        for tile in image.tile  # type: ignore[attr-defined]
    ]


def _levels(image: Image.Image) -> _Levels | None:
    """Return how to scale gray values that are not plain 8-bit ones; None if they are."""
    tags, mode = _tags(image), image.mode
    bits, signed = _first(tags.get(_BITS, 16)), _first(tags.get(_SAMPLE_FORMAT, 1)) == _SIGNED
    if mode.startswith("I;16"):
        key = image.info.get("transparency")
        inverted = tags.get(_PHOTOMETRIC) == _WHITE_IS_ZERO
        return _Levels(2.0**bits - 1, inverted, key if isinstance(key, int) else None)
    if mode == "L" and signed:
        return _Levels(_white(image, 127.0), False, None)
    if mode == "I":  # 16-bit values in a wider type, as Pillow reads PGM and signed TIFF
        return _Levels(_white(image, 32767.0 if signed and bits == 16 else 65535.0), False, None)
    if mode == "F":
        return _Levels(_white(image, 255.0), tags.get(_PHOTOMETRIC) == _WHITE_IS_ZERO, None)
    return None


def _white(image: Image.Image, top: float) -> float:
    """Return the value of white; raises UnsupportedPixelsError for values outside of 0 to `top`."""
    low, high = np.inf, -np.inf
    for first, last in bands(*image.size):
        values = np.asarray(image.crop((0, first, image.width, last)))
        low, high = np.minimum(low, values.min()), np.maximum(high, values.max())  # NaN if any value is
    if not (low >= 0 and high <= top):
        why = f"its {image.mode!r} values are in {low:g} to {high:g}, a range without a known white"
        raise UnsupportedPixelsError(why)
    return 1.0 if image.mode == "F" and high <= 1 else top


def _key(image: Image.Image, rawmode: str) -> Any:
    """Return the transparency key of a gray or RGB image in the values of its pixels; None without one.

    Args:
        image: loaded.
        rawmode: of the file, empty if the image was already loaded.
    """
    key = image.info.get("transparency")
    if image.mode == "L" and isinstance(key, int):
        bits = {"L;2": 2, "L;4": 4}.get(rawmode, 8) if rawmode else _gray_bits(image, key)
        return (key & (2**bits - 1)) * (255 // (2**bits - 1))
    if image.mode == "RGB" and isinstance(key, tuple):
        if rawmode == "RGB;16B":
            return key
        # Of 16-bit RGB that is already loaded, only the high bytes are left.
        shift = 8 if not rawmode and max(key) > 255 else 0
        return tuple(value >> shift & 255 for value in key)
    return None


def _gray_bits(image: Image.Image, key: int) -> int:
    """Infer the bit depth of a loaded gray image with a key, which Pillow does not keep.

    With 2 bits the pixels are multiples of 85, with 4 of 17. As an 8-bit value no pixel would have this key.
    """
    used = [value for value, count in enumerate(image.histogram()) if count]
    for bits in (2, 4):
        step = 255 // (2**bits - 1)
        if 0 < key < 2**bits and all(value % step == 0 for value in used):
            return bits
    return 8


def file_content(image: Image.Image) -> bytes | None:
    """Return the file of a Pillow image, which stays at its place in it; None without an open file."""
    file = getattr(image, "fp", None)
    if file is None:
        return None
    place = file.tell()
    file.seek(0)
    data: bytes = file.read()
    file.seek(place)
    return data


def _low_bytes(image: Image.Image) -> Image.Image | None:
    """Return the low bytes of the channels of a 16-bit RGB PNG with a key; None without a key."""
    data = file_content(image) if "transparency" in image.info else None
    if data is None:
        return None
    low = Image.open(io.BytesIO(data), formats=("PNG",))
    # The file has big-endian values; the unpacker of little-endian ones takes the other byte.
    low.tile = [tile._replace(args="RGB;16L") for tile in low.tile]
    low.load()
    return low


def _clear(part: Image.Image, low: Image.Image, key: tuple[int, ...]) -> Image.Image:
    """Make the pixels white whose high and low bytes are those of the key."""
    pixels, rest = np.array(part), np.asarray(low)
    high_key, low_key = [value >> 8 for value in key], [value & 255 for value in key]
    pixels[(pixels == high_key).all(axis=2) & (rest == low_key).all(axis=2)] = 255
    return Image.fromarray(pixels)


def _on_white(part: Image.Image, key: Any) -> Image.Image:
    """Composite an image with transparency on white."""
    if key is not None:
        part = part.copy()
        part.info["transparency"] = key
    rgba = part.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba)


@functools.cache
def _lab_to_srgb() -> ImageCms.ImageCmsTransform:
    from PIL import ImageCms  # a separate library that very few images need

    lab, srgb = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
    return ImageCms.buildTransform(lab, srgb, "LAB", "RGB")
