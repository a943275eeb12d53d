"""The kernel at hand: the native one where it was built, else the same functions in NumPy."""

from __future__ import annotations

import importlib
import logging
import os
from types import ModuleType

from striate.metrics.detection import reference

try:
    _native: ModuleType | None = importlib.import_module("striate.metrics.detection._native")
except ImportError:
    _native = None

_said: list[bool] = []


def native() -> ModuleType | None:
    """The native module, or None; says once that it is missing."""
    if _native is None and not _said:
        _said.append(True)
        logging.getLogger("striate").warning(
            "the native detection kernel was not built, so the slower NumPy version is used; "
            "install a C++17 compiler and reinstall striate to have it"
        )
    return _native


def functions() -> ModuleType:
    """The module with `evaluate` and `places`."""
    return native() or reference


def thread_count(threads: int | None) -> int:
    """`threads`, or as many as this process may run on, at most 8."""
    if threads is not None:
        return max(1, threads)
    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(available, 8)
