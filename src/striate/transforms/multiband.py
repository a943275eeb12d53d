"""Images of other numbers of channels than grayscale and RGB: each band as it is stored, scaled to 8 bits.

Nothing is known about the colors of such bands, so nothing is converted: a model that reads N channels needs
images of N bands. Values of 16 bits are scaled by the range of their type.
"""

from __future__ import annotations

import contextlib
from typing import Any, BinaryIO

import numpy as np
from PIL import Image

from striate.errors import LayoutError
from striate.printable import counted
from striate.transforms import decode
from striate.transforms.pixel_formats import Array, Uint8Array, UnsupportedPixelsError
from striate.transforms.tiff import BYTE_ORDERS, Tiff, parse

_MOST_BYTES = 1 << 30  # of all bands


def read_bands(source: decode.ImageSource, channels: int) -> Uint8Array:
    """Read an image of so many bands.

    Args:
        source: as for `decode.open_pixels`: a TIFF of any number of bands; another file, a Pillow image or an
            array with so many channels.
        channels: of the network, neither 1 nor 3.

    Returns:
        uint8 `[height, width, channels]`.

    Raises:
        DecodeError: the file cannot be read, or has another number of bands.
        LayoutError: the array has another number of channels, shape or type.
    """
    if isinstance(source, np.ndarray):
        return array_bands(source, channels)
    name = decode.name_of(source)
    if isinstance(source, Image.Image):
        with decode.decode_errors(name):
            return _of_image(source, channels)
    with decode.content_of(source) as content, decode.decode_errors(name):
        tiff = _tiff_of(content)
        if tiff is None or tiff.bands != channels:
            if tiff is not None and tiff.bands > 4:
                raise UnsupportedPixelsError(_another(tiff.bands, channels))
            with decode.open_bytes(content, name) as image:
                return _of_image(image, channels)
        width, height = tiff.size
        decode.check_size((width, height))
        if width * height * channels * 2 > _MOST_BYTES:
            raise UnsupportedPixelsError(f"its {channels} bands are too large ({width}x{height})")
        return to_8_bits(tiff.read())


def array_bands(values: Array, channels: int) -> Uint8Array:
    """An array `[height, width, channels]` of uint8, uint16 or bool as uint8; raises LayoutError."""
    if values.ndim != 3 or values.dtype not in (np.uint8, np.uint16, np.bool_):
        why = f"this model reads uint8, uint16 or bool [height, width, {channels}]"
        raise LayoutError(f"an image of shape {values.shape} and type {values.dtype}", why)
    if values.shape[2] != channels:
        raise LayoutError(f"an image of shape {values.shape}", _another(values.shape[2], channels))
    return to_8_bits(values)


def to_8_bits(values: Array) -> Uint8Array:
    """Scale bool and uint16 to 0 to 255 by the range of the type."""
    if values.dtype == np.uint8:
        return values
    return np.rint(values * (255.0 if values.dtype == np.bool_ else 255.0 / 65535)).astype(np.uint8)


def visible(image: Uint8Array) -> Uint8Array:
    """An image as RGB or grayscale, `[height, width, 3 or 1]`: of many bands, the first three."""
    return image[:, :, :3] if image.shape[2] >= 3 else image[:, :, :1]


def to_picture(pixels: Uint8Array) -> Image.Image:
    """An array `[height, width]` or `[height, width, channels]` as a Pillow image, as `visible`."""
    if pixels.ndim == 3:
        bands = visible(pixels)
        pixels = bands[:, :, 0] if bands.shape[2] == 1 else bands
    return Image.fromarray(np.ascontiguousarray(pixels))


def visible_bands(content: Any, name: str) -> Uint8Array | None:
    """The first bands of a TIFF file that Pillow cannot read, as `visible`; None for any other file.

    Raises:
        DecodeError: the file has so many bands, and is damaged.
    """
    count = count_bands(content)
    if count is None:
        return None
    with decode.decode_errors(name):
        return visible(read_bands(content, count))


def count_bands(source: Any) -> int | None:
    """The bands of a TIFF file that is neither grayscale nor RGB, with or without alpha; None for others."""
    if isinstance(source, np.ndarray):
        count = source.shape[2] if source.ndim == 3 else 1
        return count if count > 4 else None
    with contextlib.suppress(Exception), decode.content_of(source) as content:
        tiff = _tiff_of(content)
        return tiff.bands if tiff is not None and tiff.bands > 4 else None
    return None


def _of_image(image: Image.Image, channels: int) -> Uint8Array:
    """The bands of a Pillow image of 8 bits, as they are stored."""
    count = len(image.getbands())
    if image.mode == "P" or count != channels:
        raise UnsupportedPixelsError(_another(count, channels))
    pixels: Uint8Array = np.array(image)
    return pixels


def _another(has: int, channels: int) -> str:
    return f"it has {counted(has, 'channel')}; this model reads images of {channels}"


def _tiff_of(content: bytes | BinaryIO) -> Tiff | None:
    """The tags of a TIFF; a large file is read only if it is one."""
    if isinstance(content, bytes):
        return parse(content)
    content.seek(0)
    if content.read(2) not in BYTE_ORDERS:
        return None
    content.seek(0)
    return parse(content.read())
