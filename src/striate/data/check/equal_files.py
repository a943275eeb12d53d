"""Find equal files quickly: by size, then by a checksum of their starts, then by content."""

from __future__ import annotations

import hashlib
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any

from striate.errors import DataError
from striate.reading import read_bytes
from striate.transforms.image_file import LARGE_FILE
from striate.transforms.many_files import file_sizes, start_checksums

_AT_ONCE = 256  # files between two looks at the clock, unless they are read whole


def equal_files(paths: Sequence[str], *, seconds: float) -> list[list[int]]:
    """Return the indices of each group of equal files, of those that are found in about this time.

    Leaves out files that are empty, unreadable or larger than 32 MiB.
    """
    deadline = time.monotonic() + seconds
    groups = [list(range(len(paths)))]
    for keys, at_once in ((_sizes, _AT_ONCE), (start_checksums, _AT_ONCE), (_digests, 1)):
        groups = [alike for own in groups for alike in _alike(own, paths, keys, at_once, deadline)]
    return groups


def _alike(
    group: list[int],
    paths: Sequence[str],
    keys: Callable[[Sequence[str]], Sequence[Any]],
    at_once: int,
    deadline: float,
) -> list[list[int]]:
    """Divide a group of files by a key; leaves out files alone with theirs, and those without one."""
    by_key = defaultdict(list)
    for start in range(0, len(group), at_once):
        if time.monotonic() > deadline:
            break
        part = group[start : start + at_once]
        for i, key in zip(part, keys([paths[i] for i in part]), strict=True):
            if key is not None:
                by_key[key].append(i)
    return [own for own in by_key.values() if len(own) > 1]


def _sizes(paths: Sequence[str]) -> list[int | None]:
    return [size if size > 0 else None for size in file_sizes(paths)]


def _digests(paths: Sequence[str]) -> list[bytes | None]:
    """Digests of the files' contents."""
    found: list[bytes | None] = []
    for path in paths:
        try:
            found.append(hashlib.blake2b(read_bytes(path, LARGE_FILE)).digest())
        except (OSError, DataError):
            found.append(None)
    return found
