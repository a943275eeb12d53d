"""Large arrays in the memory that earlier ones have left.

The pages of a new array come from the operating system, zeroed, one after the other: for a batch of images
that takes as long as filling it.
"""

from __future__ import annotations

import math
import sys
import threading
from typing import Any

import numpy as np
import numpy.typing as npt

LEAST = 1 << 20  # bytes; what is smaller malloc gives again by itself
KEPT = 512 << 20  # bytes of memory that is given again, in use or not

_blocks: list[npt.NDArray[np.uint8]] = []
_lock = threading.Lock()


def empty(shape: tuple[int, ...], dtype: npt.DTypeLike) -> npt.NDArray[Any]:
    """Like `numpy.empty`; memory that nobody holds any more, as array, view or tensor, is given again."""
    size = math.prod(shape) * np.dtype(dtype).itemsize
    if size < LEAST:
        return np.empty(shape, dtype)
    with _lock:
        # Whoever holds an array holds its block; only the list and this call refer to one that is free.
        free = [i for i in range(len(_blocks)) if sys.getrefcount(_blocks[i]) == 2]
        fitting = [i for i in free if _blocks[i].nbytes == size]
        if not fitting and sum(block.nbytes for block in _blocks) + size > KEPT:
            for i in reversed(free):
                del _blocks[i]
            if sum(block.nbytes for block in _blocks) + size > KEPT:
                return np.empty(shape, dtype)
        block = _blocks.pop(fitting[-1]) if fitting else np.empty(size, np.uint8)
        _blocks.append(block)
        return block.view(dtype).reshape(shape)
