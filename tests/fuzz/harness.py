"""Runs a reader on damaged copies of valid files: it may raise a StriateError and nothing else.

By default each test tries a few hundred copies, the same in each run. `STRIATE_FUZZ_SECONDS=60 pytest -s
tests/fuzz` tries other ones for that long per reader, and prints how many and the peak memory.
"""

import os
import random
import re
import time
import warnings
from pathlib import Path

from striate import cli
from striate.errors import StriateError, StriateWarning

MOST_MEMORY = 1 << 30  # bytes that damaged files may make a reader take
ABSURD = (
    b"-1", b"0", b"1e999", b"NaN", b"-Infinity", b"null", b"true", b"[]", b"{}", b'""', b"2147483648",
    b"18446744073709551616", b"9" * 5000, b"[" * 3000, b'"\\ud800"', b"\x00", b"\xff", b"1000000000", b"*a",
    b"&a", b"!!python/object:os.system", b"\r", b'"', b"\n", b",", b"0.5", b"../../etc", b"1" * 40,
)  # fmt: skip
_TOKEN = re.compile(rb'-?\d+(?:\.\d+)?|"[^"\\]{0,80}"|\b[a-z_]{2,20}\b')


def mutated(content: bytes, rng: random.Random) -> bytes:
    """A copy with one to four changes: bits, bytes, tokens, and parts that are cut, doubled or moved."""
    data = bytearray(content)
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        if not data:
            return bytes(data)
        at = rng.randrange(len(data)) if rng.random() < 0.5 else rng.randrange(min(len(data), 4096))
        length = rng.choice((1, 2, 4, 8, 64, 1000))
        kind = rng.randrange(8)
        if kind == 0:
            data[at] ^= 1 << rng.randrange(8)
        elif kind == 1:
            data[at] = rng.randrange(256)
        elif kind == 2:
            del data[at:]
        elif kind == 3:
            del data[at : at + length]
        elif kind == 4:
            data[at:at] = data[at : at + length]
        elif kind == 5:
            data[at : at + length] = rng.choice((b"\x00", b"\xff")) * length
        else:
            tokens = [found.span() for found in _TOKEN.finditer(data, max(0, at - 200), at + 200)]
            start, end = rng.choice(tokens) if tokens else (at, at + 1)
            data[start:end] = rng.choice(ABSURD)
    return bytes(data)


def fuzz(name, seeds, read, *, mutate=mutated, refused_seeds=(), count=150):
    """Call a reader on damaged copies of valid files.

    Args:
        name: of the reader, for the report.
        seeds: contents of valid files.
        read: is called with each copy.
        refused_seeds: contents of files that it refuses, which are changed too.
        mutate: makes a copy from a content and a random generator.
        count: number of copies, unless `STRIATE_FUZZ_SECONDS` is set.
    """
    seconds = float(os.environ.get("STRIATE_FUZZ_SECONDS", "0"))
    rng = random.Random(time.time_ns() if seconds else 0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", StriateWarning)
        for content in seeds:
            read(content)  # valid files are accepted
    peak, end = Peak(), time.monotonic() + seconds
    tried, errors = 0, []
    while tried < count if not seconds else time.monotonic() < end:
        content = mutate(rng.choice([*seeds, *refused_seeds]), rng)
        tried += 1
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", StriateWarning)
                read(content)
        except StriateError as error:
            errors.append(str(error))
        except BaseException:
            print(f"{name}: {content[:2000]!r}")
            raise
    print(f"{name}: {tried:,} files, {len(errors):,} refused, {peak.grown() >> 20:,} MiB more memory")
    assert peak.grown() < MOST_MEMORY
    assert not [error for error in errors if "\n" in error]


class Peak:
    """The most memory of this process since a moment, in bytes more than it had then."""

    def __init__(self):
        Path("/proc/self/clear_refs").write_text("5")  # `man 5 proc`: resets VmHWM
        self._before = _status("VmRSS")

    def grown(self):
        return _status("VmHWM") - self._before


def _status(name):
    return 1024 * int(re.search(rf"{name}:\s+(\d+) kB", Path("/proc/self/status").read_text())[1])


def refused(arguments, capsys, why):
    """A command ends with exit code 3, one line with the reason, and little memory."""
    peak = Peak()
    assert cli.run([str(word) for word in arguments]) == 3
    error = capsys.readouterr().err.strip()
    assert why in error
    assert "\n" not in error
    assert peak.grown() < MOST_MEMORY
