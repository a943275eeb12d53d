"""Choose the kernel: the native module if it was built, otherwise the same functions in NumPy."""

from __future__ import annotations

import functools
import logging
import os
from types import ModuleType

from striate import native_modules
from striate.metrics.detection import reference

VERSION = 6  # of the functions' arguments and results, as in native/module.cpp

_native = native_modules.load("striate.metrics.detection._native", VERSION)


@functools.cache
def _warn_once() -> None:
    logging.getLogger("striate").warning(
        "the native detection kernel was not built from these sources, so the slower NumPy version is used; "
        "install a C++17 compiler and reinstall striate to build it"
    )


def native() -> ModuleType | None:
    """The native module, or None and a warning, printed once, if it is missing."""
    if _native is None:
        _warn_once()
    return _native


def functions() -> ModuleType:
    """The module with `evaluate` and `places`."""
    return native() or reference


def thread_count(threads: int | None) -> int:
    """`threads` if given, otherwise the number of cores that this process may use, at most 8."""
    if threads is not None:
        return max(1, threads)
    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(available, 8)
