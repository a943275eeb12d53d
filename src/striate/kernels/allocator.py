"""What is freed stays with the process, for the next large arrays and tensors.

glibc's malloc has the operating system map the memory of each large array anew, page by page and zeroed, and
gives it back as soon as it is freed. For a batch of images that takes as long as filling it, and for the
feature maps of a network up to as long as computing them, in every step again.
"""

from __future__ import annotations

import ctypes
import functools

_TRIM_THRESHOLD, _MMAP_MAX = -1, -4  # mallopt's numbers for its parameters, from glibc's malloc.h


@functools.cache
def keep() -> bool:
    """Have malloc keep what is freed from now on, for as long as the process lives.

    Returns:
        Whether it does; where the C library is another than glibc, nothing is changed.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, TypeError, OSError):  # macOS and musl; Windows
        return False
    return bool(mallopt(_MMAP_MAX, 0) and mallopt(_TRIM_THRESHOLD, -1))
