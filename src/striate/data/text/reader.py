"""Lines of text: the one reader for training, evaluation and translation."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from typing import Any, BinaryIO, cast

from striate.data.text.tokens import normalize_text
from striate.errors import DataError
from striate.reading import GZIP, Inflated, damage_errors, open_file

_LONGEST = 1 << 26  # bytes of a line
_BYTE_ORDER_MARK = "\ufeff"


def read_lines(path: str | os.PathLike[str]) -> Iterator[str]:
    """Read the lines of a text file; see `lines_of`.

    Raises:
        DataError: the file cannot be read, or a line is not UTF-8.
    """
    with open_file(path) as file:
        yield from lines_of(file, os.fspath(path))


def lines_of(stream: BinaryIO, name: str) -> Iterator[str]:
    """Yield the lines of UTF-8 text as they arrive, without their ends and byte order marks.

    A line ends at LF or CRLF; a lone CR belongs to the line, as does every other separator. Only text without
    any LF (old Mac files) has CR as its line end. Gzipped text is recognized by its content.

    Args:
        stream: for reading, such as `sys.stdin.buffer`.
        name: of the stream, for messages.

    Raises:
        DataError: the stream cannot be read, or a line is not UTF-8; the message has its number.
    """
    with damage_errors(f"cannot read {name!r}"):
        for number, raw in enumerate(_bounded_lines(_decompressed(stream)), 1):
            try:
                line = raw.decode("utf-8")
            except UnicodeDecodeError as error:
                why, fix = "the line is not valid UTF-8", "Save the text as UTF-8"
                raise DataError(f"{name}:{number}", why, fix) from error
            line = line.removeprefix(_BYTE_ORDER_MARK)  # in later lines too: of files that were concatenated
            if number == 1 and "\r" in line and not line.endswith("\n"):
                yield from line.removesuffix("\r").split("\r")
            else:
                yield line.removesuffix("\n").removesuffix("\r")


def clean_text(text: str) -> str:
    """Return a source or target as models see it: in NFC, without blanks and byte order marks at its ends.

    Raises:
        DataError: it has bytes that are not UTF-8, as arguments of a command may have.
    """
    if any("\ud800" <= c <= "\udfff" for c in text):
        raise DataError(f"cannot read {text!r}", "it is not valid UTF-8")
    return normalize_text(text.strip().strip(_BYTE_ORDER_MARK).strip())


def _decompressed(stream: BinaryIO) -> BinaryIO:
    """The stream, or what it contains if it is gzipped."""
    buffered = stream if isinstance(stream, io.BufferedReader) else io.BufferedReader(cast(Any, stream))
    if buffered.peek(len(GZIP))[: len(GZIP)] == GZIP:
        return cast(BinaryIO, io.BufferedReader(Inflated(cast(BinaryIO, buffered)), 1 << 17))
    return buffered


def _bounded_lines(stream: BinaryIO) -> Iterator[bytes]:
    """Yield the lines with their ends; raises ValueError for one that is too long."""
    while line := stream.readline(_LONGEST + 1):
        if len(line) > _LONGEST:
            raise ValueError(f"a line has more than {_LONGEST:,} bytes")
        yield line
