"""Metrics: functions of arrays that return frozen records."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from striate.metrics import detection

__all__ = ["detection"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        return importlib.import_module(f"striate.metrics.{name}")
    raise AttributeError(f"module 'striate.metrics' has no attribute {name!r}")
