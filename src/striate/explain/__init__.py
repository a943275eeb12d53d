"""Explain predictions, and test the explanations.

Names are imported on first use, because not all of them need torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from striate.explain.channels import feature_maps, filters
    from striate.explain.explainer import Explainer
    from striate.explain.explanation import explain
    from striate.explain.faithfulness import Faithfulness
    from striate.explain.methods import METHODS, Method, compute
    from striate.explain.randomization import Randomization
    from striate.explain.result import Explanation

_HOMES = {
    "METHODS": "methods", "Explainer": "explainer", "Explanation": "result", "Faithfulness": "faithfulness",
    "Method": "methods", "Randomization": "randomization", "compute": "methods", "explain": "explanation",
    "feature_maps": "channels", "filters": "channels",
}  # fmt: skip

__all__ = [
    "METHODS", "Explainer", "Explanation", "Faithfulness", "Method", "Randomization", "compute", "explain",
    "feature_maps", "filters",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
