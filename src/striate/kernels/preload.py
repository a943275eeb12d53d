"""torch's libraries are loaded by a thread, while Python reads the command line and the data's names."""

from __future__ import annotations

import ctypes
import importlib.util
import os
import sys
import threading
from pathlib import Path


def load_libraries() -> threading.Thread | None:
    """Begin to load the libraries that `import torch` loads first, in its order: a fifth of its time.

    `import torch` holds on to Python's lock meanwhile; here it is free. Where anything is not as it is known
    to be on Linux, nothing is done, and torch loads them itself.

    Returns:
        The thread that does it; None where there is nothing to do.
    """
    if sys.platform != "linux" or "torch" in sys.modules:
        return None
    found = importlib.util.find_spec("torch")
    if found is None or found.origin is None:
        return None
    thread = threading.Thread(target=_load, args=(Path(found.origin).parent / "lib",), daemon=True)
    thread.start()
    return thread


def _load(folder: Path) -> None:
    dlopen = ctypes.CDLL(None).dlopen  # called, it lets go of the lock; ctypes.CDLL does not
    dlopen.argtypes, dlopen.restype = (ctypes.c_char_p, ctypes.c_int), ctypes.c_void_p
    if dlopen(os.fsencode(folder / "libtorch_global_deps.so"), os.RTLD_NOW | os.RTLD_GLOBAL):
        dlopen(os.fsencode(folder / "libtorch_cpu.so"), os.RTLD_NOW)
