"""Load the libraries of torch in a thread, while Python reads the command line and the data's file names."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import importlib.util
import os
import sys
import threading
from collections.abc import Iterator
from pathlib import Path


def load_libraries() -> threading.Thread | None:
    """Start loading the libraries that `import torch` loads first, in its order: a fifth of its time.

    `import torch` holds Python's lock meanwhile; this thread does not. On other systems than Linux, or with
    an unknown layout of torch's files, nothing happens, and torch loads the libraries itself.

    Returns:
        The thread; None if there is nothing to load.
    """
    if sys.platform != "linux" or "torch" in sys.modules:
        return None
    spec = importlib.util.find_spec("torch")
    if spec is None or spec.origin is None:
        return None
    thread = threading.Thread(target=_load, args=(Path(spec.origin).parent / "lib",), daemon=True)
    thread.start()
    return thread


def _load(folder: Path) -> None:
    dlopen = ctypes.CDLL(None).dlopen  # calling it releases the lock; ctypes.CDLL does not
    dlopen.argtypes, dlopen.restype = (ctypes.c_char_p, ctypes.c_int), ctypes.c_void_p
    if dlopen(os.fsencode(folder / "libtorch_global_deps.so"), os.RTLD_NOW | os.RTLD_GLOBAL):
        dlopen(os.fsencode(folder / "libtorch_cpu.so"), os.RTLD_NOW)


@contextlib.contextmanager
def without_garbage_collection() -> Iterator[None]:
    """Import torch without garbage collection of its objects, now or later: saves a tenth of the time."""
    if "torch" in sys.modules or not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()  # otherwise the first collection afterwards would traverse all of them
        gc.enable()
