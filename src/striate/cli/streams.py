"""Standard input, output and error in any environment: closed, on a full device, in any encoding."""

from __future__ import annotations

import codecs
import contextlib
import errno
import io
import os
import sys
from collections.abc import Iterator
from typing import Any, TextIO

from striate.errors import access_error


def repair() -> None:
    """Replace closed streams (`2>&-`); make all letters, and names of any bytes, printable."""
    codecs.register_error("striate", _encode)
    for name in ("stdin", "stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None or getattr(stream, "closed", False):
            setattr(sys, name, io.TextIOWrapper(io.BytesIO()) if name == "stdin" else _nowhere())
        elif hasattr(stream, "reconfigure"):
            with contextlib.suppress(OSError):  # standard input that has been read from
                stream.reconfigure(errors="surrogateescape" if name == "stdin" else "striate")
    if not isinstance(sys.stderr, _Messages):
        sys.stderr = _Messages(sys.stderr)


def _nowhere() -> TextIO:
    """A stream that loses what is written."""
    try:
        return open(os.devnull, "w")  # noqa: PTH123 - open until the process ends
    except OSError:  # too many open files
        return io.StringIO()


def _encode(error: UnicodeError) -> tuple[str | bytes, int]:
    """Encode bytes that were no text as themselves, and letters that the encoding lacks as escapes."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    letter, place = error.object[error.start], error.start + 1
    if "\udc80" <= letter <= "\udcff":
        return bytes([ord(letter) - 0xDC00]), place
    return letter.encode("ascii", "backslashreplace"), place


def flush() -> None:
    """Write what standard output and standard error still hold.

    Raises:
        BrokenPipeError: the program that reads the output has ended.
        DataError: the device is full.
    """
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        _discard(sys.stdout)
        raise access_error(error, "cannot write to standard output") from error
    sys.stderr.flush()


def discard() -> None:
    """Send all further output nowhere: both streams are flushed at exit, and either may be broken."""
    _discard(sys.stdout)
    _discard(sys.stderr)


def _discard(stream: TextIO) -> None:
    with contextlib.suppress(OSError, ValueError, AttributeError):
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, stream.fileno())
        os.close(null)


class _Messages:
    """Standard error without errors of a full device: a message that is lost must not end a run."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        with self._tolerant():
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        with self._tolerant():
            self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    @contextlib.contextmanager
    def _tolerant(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if error.errno == errno.EPIPE:
                raise
