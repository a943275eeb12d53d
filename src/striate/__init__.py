"""Striate: from a folder of images to a measured, explained, portable model.

Every public name is resolved on first use, so that `import striate` loads neither torch nor anything else
that is heavy.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from striate import anatomy, data, metrics, models, transforms
    from striate.data.check import CheckReport, check
    from striate.inference.classifier import Classifier, Prediction, load
    from striate.inference.evaluation import Evaluation, evaluate
    from striate.inference.translator import Translator, evaluate_seq2seq, load_translator
    from striate.runs import Run, resume, train, train_seq2seq
    from striate.transforms.preprocess import Preprocess

__version__ = "0.1.0"

_HOMES = {
    "CheckReport": "striate.data.check",
    "Classifier": "striate.inference.classifier",
    "Evaluation": "striate.inference.evaluation",
    "Prediction": "striate.inference.classifier",
    "Preprocess": "striate.transforms.preprocess",
    "Run": "striate.runs",
    "Translator": "striate.inference.translator",
    "check": "striate.data.check",
    "evaluate": "striate.inference.evaluation",
    "evaluate_seq2seq": "striate.inference.translator",
    "load": "striate.inference.classifier",
    "load_translator": "striate.inference.translator",
    "resume": "striate.runs",
    "train": "striate.runs",
    "train_seq2seq": "striate.runs",
}
_MODULES = ("anatomy", "data", "metrics", "models", "transforms")

__all__ = [
    "CheckReport",
    "Classifier",
    "Evaluation",
    "Prediction",
    "Preprocess",
    "Run",
    "Translator",
    "__version__",
    "anatomy",
    "check",
    "data",
    "evaluate",
    "evaluate_seq2seq",
    "load",
    "load_translator",
    "metrics",
    "models",
    "resume",
    "train",
    "train_seq2seq",
    "transforms",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    if name in _MODULES:
        return importlib.import_module(f"striate.{name}")
    raise AttributeError(f"module 'striate' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
