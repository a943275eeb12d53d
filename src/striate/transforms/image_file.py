"""Open image files: small ones as bytes, large ones from the disk, reading only what their format needs."""

from __future__ import annotations

import contextlib
import io
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from striate.errors import DecodeError
from striate.transforms.pixel_formats import UnsupportedPixelsError

LARGE_FILE = 1 << 25  # bytes of a file above which it is decoded from the disk
MAX_FILE_BYTES = 1 << 32  # of a file; a TIFF, the largest, cannot have more either
MAX_WHOLE_BYTES = 1 << 28  # of a file in a format that Pillow reads as a whole, such as WebP

_HEADER_BYTES = 1 << 26  # that are read before the pixels: sizes, profiles, notes
_PIXEL_BYTES = 8  # that may be read for each pixel: 16-bit RGBA


class LargeFile(io.BufferedReader):
    """An image file that is read from the disk, up to a number of bytes that depends on its pixels."""

    _left = _HEADER_BYTES

    def allow_pixels(self, count: int) -> None:
        """Allow the bytes of so many pixels to be read."""
        self._left = _HEADER_BYTES + _PIXEL_BYTES * count

    def read(self, size: int | None = -1, /) -> bytes:
        """Read so many bytes; all if negative. Raises UnsupportedPixelsError if they are too many."""
        if size is None or size < 0:
            count = os.fstat(self.fileno()).st_size
            if count > MAX_WHOLE_BYTES:
                why = f"it has {count:,} bytes; a file in this format may have {MAX_WHOLE_BYTES:,}"
                raise UnsupportedPixelsError(why)
            return super().read()
        if size > self._left:
            raise UnsupportedPixelsError("more bytes would be read than such an image can have")
        data = super().read(size)
        self._left -= len(data)
        return data


@contextlib.contextmanager
def open_content(source: str | os.PathLike[str]) -> Iterator[bytes | LargeFile]:
    """Yield the bytes of an image file, or the open file if it is large. Raises DecodeError."""
    path = Path(source)
    what = f"cannot decode {str(path)!r}"
    try:
        status = path.stat()
        # Opening a named pipe or a terminal would block forever.
        if not stat.S_ISREG(status.st_mode):
            raise DecodeError(what, "it is not a regular file")
        if status.st_size > MAX_FILE_BYTES:
            why = f"it has {status.st_size:,} bytes; the limit for an image file is {MAX_FILE_BYTES:,}"
            raise DecodeError(what, why)
        content = path.read_bytes() if status.st_size <= LARGE_FILE else LargeFile(io.FileIO(path))
    except FileNotFoundError as error:
        raise DecodeError(what, "no such file") from error
    except (OSError, ValueError) as error:
        raise DecodeError(what, getattr(error, "strerror", None) or str(error)) from error
    except MemoryError as error:
        raise DecodeError(what, f"out of memory for its {status.st_size:,} bytes") from error
    if isinstance(content, bytes):
        yield content
    else:
        with content:
            yield content
