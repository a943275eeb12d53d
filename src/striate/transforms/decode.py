"""Decode images to upright 8-bit pixels, or raise an error with a one-line reason.

An image is a path, the bytes of a file, a file object, a Pillow image or an array; all give the same pixels.

* EXIF orientation is applied; a damaged EXIF block is ignored.
* `pixel_formats` says what becomes of values of more than 8 bits, transparency, CMYK and so on.
* Animations and files with several images: the first image is used.
* Truncated files raise an error, as do images of more than `MAX_PIXELS` and those that memory cannot hold.
"""

from __future__ import annotations

import contextlib
import functools
import io
import os
import struct
import threading
import warnings
from collections.abc import Iterator
from typing import BinaryIO, Literal

import numpy as np
from PIL import Image, UnidentifiedImageError

from striate.errors import DecodeError, LayoutError
from striate.transforms.image_file import LargeFile, open_content
from striate.transforms.jpeg import JpegPixels, Needed, reduce, reopened
from striate.transforms.pixel_formats import Array, Box, UnsupportedPixelsError
from striate.transforms.pixel_formats import Uint8Array as Uint8Array
from striate.transforms.pixels import ArrayPixels, ImagePixels, Pixels, orientation
from striate.transforms.plain_png import open_plain_png
from striate.transforms.tiff import parse

FileSource = str | os.PathLike[str] | bytes  # path of a file, or its bytes
ImageSource = FileSource | bytearray | memoryview | BinaryIO | Image.Image | Array

# Increase when the same file decodes to other pixels, so that cached images become invalid.
DECODER_VERSION = 2

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

# Held while an image or a file object is read, which is not safe in two threads at once: the same object may
# be given several times. Different ones rarely share a lock.
_LOCKS = tuple(threading.Lock() for _ in range(64))

# Damaged EXIF blocks are ignored, so Pillow's warning is of no use.
warnings.filterwarnings("ignore", message="Corrupt EXIF data", category=UserWarning)


def decode(source: ImageSource, channels: Literal[1, 3] = 3) -> Uint8Array:
    """Decode an image.

    Args:
        source: an image in any of the forms of `open_pixels`.
        channels: 3 for RGB, 1 for grayscale (ITU-R 601-2 luma, as in Pillow).

    Returns:
        uint8 array `[height, width, channels]`, 0 to 255.

    Raises:
        DecodeError: the file is missing, empty, damaged, truncated, too large or in an unknown format.
        LayoutError: the array or object is not an image.
    """
    with open_pixels(source, channels) as pixels:
        return pixels.to_array()


def open_image(source: ImageSource, channels: Literal[1, 3] = 3) -> Image.Image:
    """Decode an image to a Pillow image of mode `RGB`, or `L` for one channel; else like `decode`."""
    with open_pixels(source, channels) as pixels:
        return pixels.to_image()


class _PlainPixels(Pixels):
    """A decoded image of the right mode."""

    def __init__(self, image: Image.Image, channels: Literal[1, 3]) -> None:
        super().__init__(channels)
        self.size, self.is_plain, self._image = image.size, True, image

    def region(self, box: Box) -> Image.Image:
        """Return a region as a Pillow image."""
        return self._image if box == (0, 0, *self.size) else self._image.crop(box)

    def to_array(self) -> Uint8Array:
        """Return uint8 `[height, width, channels]`."""
        return np.array(self._image).reshape(self._image.height, self._image.width, -1)


@contextlib.contextmanager
def open_pixels(
    source: ImageSource, channels: Literal[1, 3] = 3, needed: Needed | None = None
) -> Iterator[Pixels]:
    """Decode an image without copying it: the one way from any image to pixels.

    Args:
        source: one of

            * a path, or the bytes of a file,
            * a file object, opened for reading bytes; it is read from its start if it can be,
            * a Pillow image of any mode, with its current frame. Its EXIF orientation applies, and so do the
              tags of a TIFF or PNG that Pillow has opened (a `copy()` has lost the tags),
            * an array: uint8, uint16 or bool, `[height, width]` or `[height, width, channels]`, of 1 channel
              for gray, 2 for gray and alpha, 3 for RGB, 4 for RGB and alpha.
        channels: 3 for RGB, 1 for grayscale.
        needed: returns the smallest size at which a JPEG file may be decoded, for its width and height;
            larger ones are decoded at 1/2, 1/4 or 1/8 of their size. None for full size. An array, and a
            Pillow image that is loaded already, have their own size.

    Raises:
        DecodeError: the file is missing, empty, damaged, truncated, too large or in an unknown format, or
            memory cannot hold it; also for errors inside the `with` block.
        LayoutError: the array or object is not an image.
    """
    name = name_of(source)
    if isinstance(source, Image.Image):
        with decode_errors(name), _lock_of(source):
            check_size(source.size)
            image = source if needed is None else reopened(source)
            frame = None if image is source else reduce(image, needed)
            pixels: Pixels = ImagePixels(image, channels)
            pixels.frame = frame
        with decode_errors(name):
            yield pixels
    elif isinstance(source, np.ndarray):
        pixels = ArrayPixels(source, channels)
        with decode_errors(name):
            check_size(pixels.size)
            yield pixels
    else:
        with content_of(source) as data, contextlib.ExitStack() as stack:
            small = open_plain_png(data) if isinstance(data, bytes) else None
            if small is not None and small.mode == ("RGB" if channels == 3 else "L"):
                with decode_errors(name):
                    check_size(small.size)
                yield _PlainPixels(small, channels)
                return
            image = stack.enter_context(open_bytes(data, name))
            frame = reduce(image, needed)
            plain = image.format == "JPEG" and image.mode == ("RGB" if channels == 3 else "L")
            if isinstance(data, bytes) and plain and orientation(image) == 1:
                pixels = JpegPixels(image, data, channels)
            else:
                pixels = ImagePixels(image, channels)
            pixels.frame = frame
            yield pixels


@contextlib.contextmanager
def open_bytes(data: bytes | BinaryIO, name: str = "image bytes") -> Iterator[Image.Image]:
    """Open an image file lazily: the header is read, the pixels are not.

    Args:
        data: bytes of the file, or the open file.
        name: of the file, for messages.

    Raises:
        DecodeError: the bytes are empty, damaged, truncated, too large or in an unknown format, or memory
            cannot hold the image; also for errors inside the `with` block.
    """
    if not data:
        raise _error(name, "the file is empty (0 bytes)")
    start, file = (data, io.BytesIO(data)) if isinstance(data, bytes) else (_start_of(data), data)
    with decode_errors(name, start):
        if isinstance(data, LargeFile):
            data.allow_pixels(0)
        try:
            found = Image.open(file, formats=COMMON_FORMATS)
        except UnidentifiedImageError:
            found = Image.open(file, formats=_all_formats())
        with found as image:
            check_size(image.size)
            if isinstance(data, LargeFile):
                data.allow_pixels(image.width * image.height)
            yield image


def _start_of(file: BinaryIO) -> bytes:
    file.seek(0)
    return file.read(512)


def to_array(image: Image.Image, channels: Literal[1, 3] = 3) -> Uint8Array:
    """Decode an opened image to upright uint8 `[height, width, channels]`; raises Pillow's exceptions."""
    return ImagePixels(image, channels).to_array()


def is_image_name(name: str) -> bool:
    """Return whether a file name has an image suffix and is not hidden."""
    return not name.startswith(".") and name[name.rfind(".") :].lower() in SUFFIXES


def name_of(source: ImageSource) -> str:
    """Return the name of an image for messages: its path; `array` for an image in memory.

    Raises:
        LayoutError: the object is not an image.
    """
    if isinstance(source, (str, os.PathLike)):
        return os.fspath(source)
    if isinstance(source, (bytes, bytearray, memoryview)):
        return "image bytes"
    if isinstance(source, (Image.Image, np.ndarray)):
        return "array"
    if callable(getattr(source, "read", None)):
        name = getattr(source, "name", None)
        return name if isinstance(name, str) and name else "file object"
    why = "an image is a path, the bytes of a file, a file object, a Pillow image or a uint8 array"
    raise LayoutError(f"a {type(source).__name__} is no image", why, "For many, use predict_many")


@contextlib.contextmanager
def content_of(source: FileSource | bytearray | memoryview | BinaryIO) -> Iterator[bytes | BinaryIO]:
    """Yield the bytes of a file; or the open file if it is too large to be in memory besides its pixels."""
    if isinstance(source, (str, os.PathLike)):
        with open_content(source) as content:
            yield content
    else:
        yield source if isinstance(source, LargeFile) else _bytes_of(source)


def _bytes_of(source: bytes | bytearray | memoryview | BinaryIO) -> bytes:
    """Return the bytes of an image in memory or in a file object."""
    if isinstance(source, bytes):
        return source
    if isinstance(source, (bytearray, memoryview)):
        return bytes(source)
    name = name_of(source)
    with decode_errors(name), _lock_of(source):
        with contextlib.suppress(AttributeError, OSError):  # a pipe or an HTTP response cannot be rewound
            source.seek(0)
        data = source.read()
    if not isinstance(data, (bytes, bytearray)):
        raise LayoutError(f"{name!r} is open as text", "an image is read as bytes", 'Open it in mode "rb"')
    return bytes(data)


def _lock_of(source: object) -> threading.Lock:
    return _LOCKS[id(source) // 64 % len(_LOCKS)]


def check_size(size: tuple[int, int]) -> None:
    """Raise the exceptions that `decode_errors` reports for images without pixels, or with too many."""
    if size[0] * size[1] > MAX_PIXELS:
        raise Image.DecompressionBombError
    if min(size) < 1:
        raise UnsupportedPixelsError(f"it has no pixels ({size[0]}x{size[1]})")


@contextlib.contextmanager
def decode_errors(name: str, data: bytes = b"") -> Iterator[None]:
    """Raise DecodeError with a one-line reason for any exception inside the `with` block.

    Args:
        name: of the image.
        data: bytes of its file, if there is one.
    """
    try:
        yield
    except (DecodeError, LayoutError):
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise _error(name, f"it has more than {MAX_PIXELS:,} pixels") from error
    except UnsupportedPixelsError as error:
        raise _error(name, str(error)) from error
    except Exception as error:  # decoders raise any exception on damaged bytes
        raise _error(name, _reason(data, error)) from error


def _error(name: str, why: str) -> DecodeError:
    return DecodeError(f"cannot decode {name!r}", why)


@functools.cache
def _all_formats() -> tuple[str, ...]:
    Image.init()  # loads Pillow's readers; keeps plug-ins such as pillow-heif
    return tuple(name for name in (*COMMON_FORMATS, *OTHER_FORMATS) if name in Image.OPEN)


def _reason(data: bytes, error: Exception) -> str:
    """Return the reason why bytes could not be decoded, in the words of users."""
    text = " ".join(str(error).split())
    # Pillow has an OSError of its own, and torch a RuntimeError, for memory that runs out.
    if isinstance(error, MemoryError) or "out of memory" in text or "allocate memory" in text:
        return "out of memory for its pixels"
    if isinstance(error, UnidentifiedImageError):
        return _unknown_format(data)
    if "truncated" in text.lower() or isinstance(error, (EOFError, struct.error)):
        return f"{TRUNCATED} ({text or 'the file ends too early'})"
    return f"the image is damaged ({text or type(error).__name__})"


def _unknown_format(data: bytes) -> str:
    """Return what a file is that Pillow cannot identify."""
    if data[4:8] == b"ftyp" and data[8:12] in (b"heic", b"heix", b"hevc", b"mif1", b"msf1"):
        return "it is HEIC, which Pillow cannot read; convert it to JPEG or PNG"
    if (tiff := parse(data)) is not None and tiff.bands > 4:
        return f"it has {tiff.bands} bands, which --channels {tiff.bands} reads; this is for RGB or grayscale"
    if data[:4] in (b"II*\0", b"MM\0*"):
        return "it is a TIFF of a kind that Pillow cannot read; convert it to PNG or to an 8-bit TIFF"
    start = data[:16].lstrip().lower()
    if start.startswith((b"<!doctype", b"<html", b"<?xml", b"<svg")):
        return "it is a web page or XML, not an image"
    if b"\0" not in data[:512] and data[:512].isascii():
        return "it is text, not an image"
    return "it is not in a supported image format"
