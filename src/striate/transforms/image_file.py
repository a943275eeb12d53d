"""Open image files: small ones as bytes, large ones from the disk, reading only what their format needs."""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Iterator

from striate.errors import DecodeError
from striate.reading import open_file, reason
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
    with open_file(source, DecodeError, f"cannot decode {os.fspath(source)!r}") as file:
        size = os.fstat(file.fileno()).st_size
        if size > MAX_FILE_BYTES:
            why = f"it has {size:,} bytes; the limit for an image file is {MAX_FILE_BYTES:,}"
            raise DecodeError(f"cannot decode {os.fspath(source)!r}", why)
        if size > LARGE_FILE:
            with LargeFile(file.raw) as large:
                yield large
            return
        try:
            content = file.read()
        except (OSError, MemoryError) as error:
            raise DecodeError(f"cannot decode {os.fspath(source)!r}", reason(error)) from error
    yield content
