"""Decode image files to upright 8-bit pixels, or raise an error with a one-line reason.

* EXIF orientation is applied; a damaged EXIF block is ignored.
* 16-bit values are scaled to 8 bits, not clipped.
* Transparent pixels (alpha, palette or color key) become white.
* CMYK, YCbCr, LAB, palette and 1-bit images are converted to RGB or grayscale.
* Animations and files with several images: the first image is used.
* Truncated files raise an error, as do images of more than `MAX_PIXELS`.
"""

from __future__ import annotations

import contextlib
import functools
import io
import os
import stat
import struct
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt
import simplejpeg
from PIL import Image, UnidentifiedImageError

from striate.errors import DecodeError

if TYPE_CHECKING:
    from PIL import ImageCms

Uint8Array = npt.NDArray[np.uint8]
FileSource = str | os.PathLike[str] | bytes  # path of a file, or its bytes

# Increase when the same file decodes to other pixels, so that cached images become invalid.
DECODER_VERSION = 1

# Pillow's own limit, twice its warning threshold: 512 MiB of RGB.
MAX_PIXELS = 178_956_970

# Raster formats only: for EPS, Pillow would run Ghostscript, and images must not run programs.
# Pillow preloads readers of the common formats; loading the others takes 20 ms.
COMMON_FORMATS = ("JPEG", "PNG", "GIF", "BMP", "PPM")
OTHER_FORMATS = ("MPO", "WEBP", "AVIF", "DIB", "TIFF", "JPEG2000", "ICO", "TGA", "HEIF")

SUFFIXES = frozenset({
    ".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".apng", ".webp", ".avif", ".gif", ".bmp", ".dib",
    ".tif", ".tiff", ".jp2", ".j2k", ".ppm", ".pgm", ".pbm", ".pnm", ".ico", ".tga", ".heic", ".heif",
})  # fmt: skip

TRUNCATED = "the image is truncated"  # start of the reason for each truncated file

ORIENTATION_TAG = 0x0112  # of EXIF
_TRANSPOSES = {
    2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_270, 7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}  # fmt: skip


class _NoKnownWhiteError(ValueError):
    """Values in a range without a known white."""


# Damaged EXIF blocks are ignored, so Pillow's warning is of no use.
warnings.filterwarnings("ignore", message="Corrupt EXIF data", category=UserWarning)


def decode(source: FileSource, channels: Literal[1, 3] = 3, *, at_least: int | None = None) -> Uint8Array:
    """Decode an image file.

    Args:
        source: path of a file, or its bytes.
        channels: 3 for RGB, 1 for grayscale (ITU-R 601-2 luma, as in Pillow).
        at_least: minimum of both sides in pixels; larger JPEGs are decoded at 1/2, 1/4 or 1/8 of their size,
            which is much faster. None for full size.

    Returns:
        uint8 array `[height, width, channels]`, 0 to 255.

    Raises:
        DecodeError: the file is missing, empty, damaged, truncated, too large or in an unknown format.
    """
    data, name = _bytes_of(source)
    with open_bytes(data, name) as image:
        full_size = image.size
        if at_least is not None:
            image.draft(None, (at_least, at_least))
        plain = image.format == "JPEG" and image.mode == ("RGB" if channels == 3 else "L")
        if plain and image.size == full_size and _orientation(image) is None:
            # Bit-identical to Pillow, which takes a third longer to copy the pixels. If libjpeg-turbo reports
            # an error, Pillow decides.
            with contextlib.suppress(ValueError):
                pixels: Uint8Array = simplejpeg.decode_jpeg(data, "RGB" if channels == 3 else "GRAY")
                return pixels
        return to_array(image, channels)


def open_image(source: FileSource, channels: Literal[1, 3] = 3) -> Image.Image:
    """Decode an image file to a Pillow image of mode `RGB`, or `L` for one channel; else like `decode`."""
    data, name = _bytes_of(source)
    with open_bytes(data, name) as image:
        return _eight_bit(image, channels)


@contextlib.contextmanager
def open_bytes(data: bytes, name: str = "image bytes") -> Iterator[Image.Image]:
    """Open an image file lazily: the header is read, the pixels are not.

    Args:
        data: bytes of the file.
        name: of the file, for messages.

    Raises:
        DecodeError: the bytes are empty, damaged, truncated, too large or in an unknown format; also for
            errors inside the `with` block.
    """
    if not data:
        raise _error(name, "the file is empty (0 bytes)")
    try:
        try:
            found = Image.open(io.BytesIO(data), formats=COMMON_FORMATS)
        except UnidentifiedImageError:
            found = Image.open(io.BytesIO(data), formats=_all_formats())
        with found as image:
            if image.width * image.height > MAX_PIXELS:
                raise Image.DecompressionBombError
            yield image
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise _error(name, f"it has more than {MAX_PIXELS:,} pixels") from error
    except _NoKnownWhiteError as error:
        raise _error(name, str(error)) from error
    except Exception as error:  # decoders raise any exception on damaged bytes
        raise _error(name, _reason(data, error)) from error


def to_array(image: Image.Image, channels: Literal[1, 3] = 3) -> Uint8Array:
    """Decode an opened image to upright uint8 `[height, width, channels]`; raises Pillow's exceptions."""
    upright = _eight_bit(image, channels)
    return np.array(upright, dtype=np.uint8).reshape(upright.height, upright.width, channels)


def is_image_name(name: str) -> bool:
    """Return whether a file name has an image suffix and is not hidden."""
    return not name.startswith(".") and Path(name).suffix.lower() in SUFFIXES


def read_file(source: str | os.PathLike[str]) -> bytes:
    """Read the bytes of a regular file; raises DecodeError."""
    path = Path(source)
    try:
        # Opening a named pipe or a terminal would block forever.
        if not stat.S_ISREG(path.stat().st_mode):
            raise _error(str(path), "it is not a regular file")
        return path.read_bytes()
    except FileNotFoundError as error:
        raise _error(str(path), "no such file") from error
    except (OSError, ValueError) as error:
        raise _error(str(path), getattr(error, "strerror", None) or str(error)) from error


def _bytes_of(source: FileSource) -> tuple[bytes, str]:
    """Return the bytes of a file, and its name for messages."""
    if isinstance(source, bytes):
        return source, "image bytes"
    return read_file(source), os.fspath(source)


def _error(name: str, why: str) -> DecodeError:
    return DecodeError(f"cannot decode {name!r}", why)


@functools.cache
def _all_formats() -> tuple[str, ...]:
    Image.init()  # loads Pillow's readers; keeps plug-ins such as pillow-heif
    return tuple(name for name in (*COMMON_FORMATS, *OTHER_FORMATS) if name in Image.OPEN)


def _orientation(image: Image.Image) -> Image.Transpose | None:
    """Return the transpose of the EXIF orientation (Pillow has already applied that of a TIFF)."""
    try:
        return _TRANSPOSES.get(image.getexif().get(ORIENTATION_TAG, 1))
    except Exception:  # ignore a damaged EXIF block
        return None


def _eight_bit(image: Image.Image, channels: int) -> Image.Image:
    """Load the pixels and convert them to upright `RGB` or `L`, from any Pillow mode."""
    image.load()
    if (turn := _orientation(image)) is not None:
        image = image.transpose(turn)
    if image.mode.startswith("I;16") or image.mode in ("I", "F"):
        image = _scaled(image)
    if image.mode == "LAB":
        image = _lab_to_srgb().apply(image)
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba)
    mode = "RGB" if channels == 3 else "L"
    return image if image.mode == mode else image.convert(mode)


def _scaled(image: Image.Image) -> Image.Image:
    """Scale 16-bit integers or floats to 8-bit grayscale, by the range of the type, not of the values."""
    values = np.asarray(image).astype(np.float64)
    low, high = values.min(), values.max()
    float_top = 1.0 if high <= 1.0 else 255.0
    top = float_top if image.mode == "F" else 65535.0
    if not (low >= 0 and high <= top):  # also true for NaN
        why = f"its {image.mode!r} values are in {low:g} to {high:g}, a range without a known white"
        raise _NoKnownWhiteError(why)
    scaled = np.rint(values * (255.0 / top)).astype(np.uint8)
    key = image.info.get("transparency")
    if image.mode.startswith("I;16") and isinstance(key, int):
        scaled[values == key] = 255  # color key of a 16-bit grayscale PNG: transparent
    return Image.fromarray(scaled)


@functools.cache
def _lab_to_srgb() -> ImageCms.ImageCmsTransform:
    from PIL import ImageCms  # a separate library that very few images need

    lab, srgb = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
    return ImageCms.buildTransform(lab, srgb, "LAB", "RGB")


def _reason(data: bytes, error: Exception) -> str:
    """Return the reason why bytes could not be decoded, in the words of users."""
    if isinstance(error, UnidentifiedImageError):
        if data[4:8] == b"ftyp" and data[8:12] in (b"heic", b"heix", b"hevc", b"mif1", b"msf1"):
            return "it is HEIC, which Pillow cannot read; convert it to JPEG or PNG"
        start = data[:16].lstrip().lower()
        if start.startswith((b"<!doctype", b"<html", b"<?xml", b"<svg")):
            return "it is a web page or XML, not an image"
        if b"\0" not in data[:512] and data[:512].isascii():
            return "it is text, not an image"
        return "it is not in a supported image format"
    text = " ".join(str(error).split())
    if "truncated" in text.lower() or isinstance(error, (EOFError, struct.error)):
        return f"{TRUNCATED} ({text or 'the file ends too early'})"
    return f"the image is damaged ({text or type(error).__name__})"
