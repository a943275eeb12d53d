"""The modules of `native/`, which are built at installation if there is a compiler."""

from __future__ import annotations

import importlib
from types import ModuleType


def load(name: str, version: int) -> ModuleType | None:
    """Return a native module; None if it was not built, or from sources of another version.

    Args:
        name: its full name.
        version: of its functions' arguments and results, as in its C++ file.
    """
    try:
        module = importlib.import_module(name)
    except ImportError:
        return None
    return module if getattr(module, "VERSION", None) == version else None
