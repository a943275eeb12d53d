"""Read files that users give: regular files only, up to a limit, and damage as one error in one line.

Every reader of a file in a foreign format opens it here. A named pipe, a terminal or a device could block
forever or never end; sizes in headers may be anything; and libraries raise any exception on damaged bytes.
"""

from __future__ import annotations

import contextlib
import gzip
import io
import lzma
import os
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterator
from typing import BinaryIO, cast

from striate.errors import DataError, StriateError, access_error

MAX_TABLE_BYTES = 1 << 30  # of a table or list that is read as a whole, such as a CSV file
MAX_JSON_BYTES = 1 << 32  # of a COCO file
MAX_LIST_BYTES = 1 << 24  # of a short text, such as a list of class names

GZIP = b"\x1f\x8b"  # first bytes of gzipped data
RATIO_FREE_BYTES = 1 << 26  # of a file's content that may be compressed to any size
_PART = 1 << 16
MAX_RATIO = 100  # of decompressed to compressed bytes beyond that; DEFLATE itself reaches 1,032
DEFLATE_RATIO = 1032  # RFC 1951: at best, one bit stands for 258 bytes twice

# What Python's and other libraries raise when they read damaged files.
DAMAGE = (
    ValueError, TypeError, LookupError, ArithmeticError, RuntimeError, EOFError, OSError, MemoryError,
    SyntaxError, struct.error, zlib.error, lzma.LZMAError, zipfile.BadZipFile,
)  # fmt: skip

_KINDS = (
    (stat.S_ISDIR, "folder", "Give a file"),
    (stat.S_ISFIFO, "named pipe", "Write its content to a file first"),
    (stat.S_ISSOCK, "socket", "Give a file"),
    (stat.S_ISCHR, "device", "Give a file"),
    (stat.S_ISBLK, "device", "Give a file"),
)


def open_file(
    path: str | os.PathLike[str], kind: type[DataError] = DataError, what: str = ""
) -> io.BufferedReader:
    """Open a regular file for reading; a symbolic link is followed.

    Args:
        path: of the file.
        kind: class of the error.
        what: what failed, for the message.

    Raises:
        DataError: no such file, no permission, or it is a folder, a pipe, a socket or a device.
    """
    what = what or f"cannot read {os.fspath(path)!r}"
    try:
        _check_regular(os.stat(path).st_mode, what, kind)  # noqa: PTH116 - opening a device may act on it
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    except OSError as error:
        raise access_error(error, what, "", kind) from error
    except ValueError as error:  # a zero byte, or letters that the system's encoding lacks
        raise kind(what, str(error), "Check the spelling of the path") from error
    file = os.fdopen(descriptor, "rb")
    try:
        _check_regular(os.fstat(descriptor).st_mode, what, kind)
    except DataError:
        file.close()
        raise
    return file


def read_bytes(path: str | os.PathLike[str], limit: int, kind: type[DataError] = DataError) -> bytes:
    """Read a regular file whole.

    Args:
        path: of the file.
        limit: the largest size in bytes.
        kind: class of the error.

    Raises:
        DataError: as for `open_file`; or the file is larger, or memory cannot hold it.
    """
    what = f"cannot read {os.fspath(path)!r}"
    with open_file(path, kind) as file:
        size = os.fstat(file.fileno()).st_size
        if size > limit:
            raise kind(what, f"it has {size:,} bytes; the limit for such a file is {limit:,}")
        with damage_errors(what, kind=kind):
            content = file.read(size)
            while len(content) <= limit and (more := file.read(_PART)):  # files of /proc state no size
                content += more
        if len(content) > limit:
            raise kind(what, f"it has more than {limit:,} bytes, the limit for such a file")
    return content


@contextlib.contextmanager
def damage_errors(what: str, fix: str = "", kind: type[DataError] = DataError) -> Iterator[None]:
    """Raise a DataError, with the reason in one line, for what libraries raise on damaged content.

    Args:
        what: what failed, with the name of the file.
        fix: what to do next.
        kind: class of the error.
    """
    try:
        yield
    except DAMAGE as error:
        if isinstance(error, StriateError):
            raise
        raise kind(what, reason(error), fix) from error


def reason(error: BaseException) -> str:
    """Why content cannot be read, in one line of at most 200 characters."""
    if isinstance(error, MemoryError):
        return "out of memory"
    text = " ".join((getattr(error, "strerror", None) or str(error)).split())
    if not text or isinstance(error, LookupError):
        text = f"{type(error).__name__}: {text}" if text else type(error).__name__
    return text if len(text) <= 200 else f"{text[:197]}..."


class Inflated(io.RawIOBase):
    """The content of a gzipped stream, decompressed as it is read; raises ValueError for a bomb.

    Args:
        stream: the gzipped bytes, from their start; need not be seekable.
        limit: the largest number of decompressed bytes; None if they are used as they arrive.
    """

    def __init__(self, stream: BinaryIO, limit: int | None = None) -> None:
        self._counter = _Counter(stream)
        self._gzip = gzip.GzipFile(fileobj=cast(BinaryIO, self._counter))
        self._limit, self._count = limit, 0

    def readable(self) -> bool:
        """Return True."""
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        """Read into a buffer; returns the number of bytes."""
        data = self._gzip.read(len(buffer))
        buffer[: len(data)] = data
        self._count += len(data)
        if self._limit is not None and self._count > self._limit:
            raise ValueError(f"its content has more than {self._limit:,} bytes")
        check_ratio(self._count, self._counter.count)
        return len(data)


class _Counter(io.RawIOBase):
    """Counts the bytes that are read from a stream."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream, self.count = stream, 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        data = self._stream.read(len(buffer))
        buffer[: len(data)] = data
        self.count += len(data)
        return len(data)


def check_ratio(content: int, compressed: int) -> None:
    """Refuse a decompression bomb: raises ValueError.

    Args:
        content: number of decompressed bytes, so far or as a header states it.
        compressed: number of bytes that they were decompressed from.
    """
    if content > RATIO_FREE_BYTES and content > MAX_RATIO * compressed:
        why = f"{compressed:,} bytes decompress to {content:,} or more"
        raise ValueError(f"{why}; beyond {RATIO_FREE_BYTES >> 20} MiB, at most {MAX_RATIO} times as many may")


def _check_regular(mode: int, what: str, kind: type[DataError]) -> None:
    if stat.S_ISREG(mode):
        return
    name, fix = next(
        ((name, fix) for test, name, fix in _KINDS if test(mode)), ("special file", "Give a file")
    )
    raise kind(what, f"it is a {name}, not a regular file", fix)
