"""Decode an image file to 8-bit pixels, the right way up, or refuse it with a one-line reason.

What is done to the odd ones:

* EXIF orientation is applied; a damaged EXIF block is passed over.
* 16-bit values are scaled to 8 bits, not clipped.
* Transparent pixels (alpha, palette or colour-key transparency) are laid on white.
* CMYK, YCbCr, LAB, palette and 1-bit images are converted to RGB or grayscale.
* Of an animation, or a file with several pictures, the first one is taken.
* Truncated files are refused, not half decoded; so are images of more than `MAX_PIXELS`.
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

# Raised whenever the same file would decode to other pixels, so that no cache keeps the old ones.
DECODER_VERSION = 1

# Twice Pillow's default warning threshold, where Pillow itself starts to refuse: 512 MiB of RGB.
MAX_PIXELS = 178_956_970

# Raster formats only: Pillow would hand an EPS file to Ghostscript, and a picture must not run programs.
# Pillow has readers of the usual ones at hand; loading all others takes 20 ms.
COMMON_FORMATS = ("JPEG", "PNG", "GIF", "BMP", "PPM")
OTHER_FORMATS = ("MPO", "WEBP", "AVIF", "DIB", "TIFF", "JPEG2000", "ICO", "TGA", "HEIF")

SUFFIXES = frozenset({
    ".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".apng", ".webp", ".avif", ".gif", ".bmp", ".dib",
    ".tif", ".tiff", ".jp2", ".j2k", ".ppm", ".pgm", ".pbm", ".pnm", ".ico", ".tga", ".heic", ".heif",
})  # fmt: skip

TRUNCATED = "the image is cut short"  # how the reason of every truncated file begins

ORIENTATION_TAG = 0x0112  # of EXIF
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class _NoKnownWhiteError(ValueError):
    """Values whose range does not tell which of them is white."""


# A damaged EXIF block is passed over, and Pillow's remark on it helps nobody.
warnings.filterwarnings("ignore", message="Corrupt EXIF data", category=UserWarning)


def decode(
    source: str | os.PathLike[str] | bytes, channels: Literal[1, 3] = 3, *, at_least: int | None = None
) -> Uint8Array:
    """Decode one image.

    Args:
        source: path of a file, or the bytes of one.
        channels: 3 for RGB, 1 for grayscale (ITU-R 601-2 luma, as Pillow converts).
        at_least: pixels that both sides must keep. A JPEG that is much larger is decoded at 1/2, 1/4 or 1/8
            of its size, which takes a fraction of the time; None for every pixel.

    Returns:
        uint8 array `[height, width, channels]`, 0 to 255.

    Raises:
        DecodeError: the file is missing, empty, damaged, truncated, too large or of no readable format.
    """
    data, name = _bytes_of(source)
    with open_bytes(data, name) as image:
        whole = image.size
        if at_least is not None:
            image.draft(None, (at_least, at_least))
        plain = image.format == "JPEG" and image.mode == ("RGB" if channels == 3 else "L")
        if plain and image.size == whole and _turn(image) is None:
            # libjpeg-turbo's pixels, to the bit those of Pillow, which takes a third more time to carry them
            # through its own memory. What it finds fault with is for Pillow to judge.
            with contextlib.suppress(ValueError):
                pixels: Uint8Array = simplejpeg.decode_jpeg(data, "RGB" if channels == 3 else "GRAY")
                return pixels
        return to_array(image, channels)


def open_image(source: str | os.PathLike[str] | bytes, channels: Literal[1, 3] = 3) -> Image.Image:
    """Decode one image to Pillow's mode `RGB`, or `L` for one channel; like `decode` otherwise."""
    data, name = _bytes_of(source)
    with open_bytes(data, name) as image:
        image.load()
        return _eight_bit(_upright(image), channels)


@contextlib.contextmanager
def open_bytes(data: bytes, name: str = "image bytes") -> Iterator[Image.Image]:
    """An image whose header is read and whose pixels are not; what fails inside `with` is told as here.

    Args:
        data: the bytes of a file.
        name: what to call it in an error.

    Raises:
        DecodeError: the bytes are empty, damaged, truncated, too large or of no readable format.
    """
    if not data:
        raise _refuse(name, "the file is empty (0 bytes)")
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
        raise _refuse(name, f"it has more than {MAX_PIXELS:,} pixels") from error
    except _NoKnownWhiteError as error:
        raise _refuse(name, str(error)) from error
    except Exception as error:  # on hostile bytes decoders raise anything at all; this is the boundary
        raise _refuse(name, _reason(data, error)) from error


def to_array(image: Image.Image, channels: Literal[1, 3] = 3) -> Uint8Array:
    """Decode an opened image: uint8 `[height, width, channels]`, upright; raises what Pillow raises."""
    image.load()
    upright = _eight_bit(_upright(image), channels)
    return np.array(upright, dtype=np.uint8).reshape(upright.height, upright.width, channels)


def is_image_name(name: str) -> bool:
    """Whether a file of this name is taken for an image: by its suffix, hidden files excepted."""
    return not name.startswith(".") and Path(name).suffix.lower() in SUFFIXES


def read_file(source: str | os.PathLike[str]) -> bytes:
    """The bytes of a regular file; raises DecodeError where there is none, or it cannot be read."""
    path = Path(source)
    try:
        # Opening a named pipe or a terminal would wait for ever.
        if not stat.S_ISREG(path.stat().st_mode):
            raise _refuse(str(path), "it is not a regular file")
        return path.read_bytes()
    except FileNotFoundError as error:
        raise _refuse(str(path), "no such file") from error
    except (OSError, ValueError) as error:
        raise _refuse(str(path), getattr(error, "strerror", None) or str(error)) from error


def _bytes_of(source: str | os.PathLike[str] | bytes) -> tuple[bytes, str]:
    """The bytes of a file, and what to call it."""
    if isinstance(source, bytes):
        return source, "image bytes"
    return read_file(source), os.fspath(source)


def _refuse(name: str, why: str) -> DecodeError:
    return DecodeError(f"cannot decode {name!r}", why)


@functools.cache
def _all_formats() -> tuple[str, ...]:
    Image.init()  # loads Pillow's readers, and keeps one that the user registered, such as pillow-heif's
    return tuple(name for name in (*COMMON_FORMATS, *OTHER_FORMATS) if name in Image.OPEN)


def _turn(image: Image.Image) -> Image.Transpose | None:
    """What the EXIF orientation asks for (Pillow has already applied a TIFF's own)."""
    try:
        return _UPRIGHT.get(image.getexif().get(ORIENTATION_TAG, 1))
    except Exception:  # a damaged EXIF block is no reason to lose the picture
        return None


def _upright(image: Image.Image) -> Image.Image:
    turn = _turn(image)
    return image if turn is None else image.transpose(turn)


def _eight_bit(image: Image.Image, channels: int) -> Image.Image:
    """Convert any of Pillow's modes to `RGB` or `L`."""
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
    """Scale 16-bit integers or floats to 8-bit grayscale by the range of their type, never by content."""
    values = np.asarray(image).astype(np.float64)
    low, high = values.min(), values.max()
    float_top = 1.0 if high <= 1.0 else 255.0
    top = float_top if image.mode == "F" else 65535.0
    if not (low >= 0 and high <= top):  # also true of NaN
        raise _NoKnownWhiteError(
            f"its {image.mode!r} values run from {low:g} to {high:g}, a range with no known white"
        )
    scaled = np.rint(values * (255.0 / top)).astype(np.uint8)
    key = image.info.get("transparency")
    if image.mode.startswith("I;16") and isinstance(key, int):
        scaled[values == key] = 255  # the colour key of a 16-bit grayscale PNG, laid on white
    return Image.fromarray(scaled)


@functools.cache
def _lab_to_srgb() -> ImageCms.ImageCmsTransform:
    from PIL import ImageCms  # a library of its own, which next to no image needs

    lab, srgb = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
    return ImageCms.buildTransform(lab, srgb, "LAB", "RGB")


def _reason(data: bytes, error: Exception) -> str:
    """Why these bytes could not be decoded, in words of the user rather than of the decoder."""
    if isinstance(error, UnidentifiedImageError):
        if data[4:8] == b"ftyp" and data[8:12] in (b"heic", b"heix", b"hevc", b"mif1", b"msf1"):
            return "it is HEIC, which Pillow cannot read; convert it to JPEG or PNG"
        start = data[:16].lstrip().lower()
        if start.startswith((b"<!doctype", b"<html", b"<?xml", b"<svg")):
            return "it is a web page or XML, not an image"
        if b"\0" not in data[:512] and data[:512].isascii():
            return "it is text, not an image"
        return "its bytes are of no image format that Striate reads"
    text = " ".join(str(error).split())
    if "truncated" in text.lower() or isinstance(error, (EOFError, struct.error)):
        return f"{TRUNCATED} ({text or 'the file ends too early'})"
    return f"the image is damaged ({text or type(error).__name__})"
