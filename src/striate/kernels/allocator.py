"""Keep freed memory in the process, for the next large arrays and tensors.

glibc's malloc maps the memory of each large array from the operating system, page by page and zeroed, and
returns it when the array is freed. For a batch of images that takes as long as filling it, and for the
feature maps of a network up to as long as computing them, in every step.
"""

from __future__ import annotations

import ctypes
import functools

_TRIM_THRESHOLD, _MMAP_MAX = -1, -4  # parameter numbers of mallopt, from glibc's malloc.h


@functools.cache
def keep() -> bool:
    """Make malloc keep freed memory from now on, until the process ends.

    Returns:
        Whether it does; C libraries other than glibc are not changed.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, TypeError, OSError):  # macOS and musl; Windows
        return False
    return bool(mallopt(_MMAP_MAX, 0) and mallopt(_TRIM_THRESHOLD, -1))
