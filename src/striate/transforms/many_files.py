"""Many small files at once, read by the native module without holding Python's lock.

Threads that read small files one by one with Python wait for its lock longer than for the disk: as long as
another thread runs, such as one that imports torch, for 5 ms after each system call.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Sequence
from types import ModuleType

import numpy as np
import numpy.typing as npt

from striate import native_modules

VERSION = 1  # of the functions' arguments, as in native/many_files.cpp

_START = 1 << 16  # bytes of a file that its checksum covers


@functools.cache
def native() -> ModuleType | None:
    """The native module; None if it was not built, or from older sources."""
    return native_modules.load("striate.transforms._files", VERSION)


def read_plain_pngs(paths: Sequence[str], out: npt.NDArray[np.uint8]) -> npt.NDArray[np.bool_]:
    """Read small PNG files of one size that hold nothing but pixels of 8-bit gray or RGB values.

    Args:
        paths: of the files.
        out: uint8 `[len(paths), height, width, 1 or 3]`, contiguous; receives the pixels.

    Returns:
        Bool `[len(paths)]`, False for files of another size or kind, for damaged ones, and for all files
        without the native module: `decode` reads those, or says what is wrong with them.
    """
    readable = np.zeros(len(paths), np.bool_)
    if (module := native()) is not None:
        module.read_pngs(list(paths), *out.shape[1:], out, readable)
    return readable


def file_sizes(paths: Sequence[str]) -> list[int]:
    """Return the size of each file in bytes; -1 for files that cannot be looked at."""
    if (module := native()) is None:
        return [_size(path) for path in paths]
    return _examined(module, paths, 0)[0]


def start_checksums(paths: Sequence[str]) -> list[int | None]:
    """Return a checksum of the first 64 KiB of each file; None for files that cannot be read.

    Without the native module all are 0: Python would take as long for them as for the whole files.
    """
    if (module := native()) is None:
        return [0] * len(paths)
    sizes, checksums = _examined(module, paths, _START)
    return [None if size < 0 else checksum for size, checksum in zip(sizes, checksums, strict=True)]


def _examined(module: ModuleType, paths: Sequence[str], most: int) -> tuple[list[int], list[int]]:
    out = np.empty((len(paths), 2), np.int64)
    module.examine(list(paths), most, out)
    return out[:, 0].tolist(), out[:, 1].tolist()


def _size(path: str) -> int:
    try:
        return os.stat(path).st_size  # noqa: PTH116 - half the time, and there may be a million
    except (OSError, ValueError):
        return -1
