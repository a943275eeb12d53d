"""Striate: from a folder of images to an evaluated model in one file, with a report.

Every public name is resolved on first use, so `import striate` loads neither torch nor anything else that is
slow to import.
"""

from __future__ import annotations

from striate.version import __version__

TYPE_CHECKING = False  # as in `typing`, whose import takes longer than everything else here
if TYPE_CHECKING:
    from typing import Any

    from striate import anatomy, data, explain, metrics, models, transforms
    from striate.api import evaluate, export, load, resume, train, train_seq2seq, tune
    from striate.data.check import CheckReport, check
    from striate.inference.classifier import Classifier
    from striate.inference.comparison import compare
    from striate.inference.evaluation import Evaluation
    from striate.inference.prediction import Prediction
    from striate.inference.recalibration import calibrate
    from striate.inference.text_evaluation import evaluate_seq2seq
    from striate.inference.text_explanation import explain_seq2seq
    from striate.inference.translator import Translator, load_translator
    from striate.training.finished_run import Run
    from striate.transforms.preprocess import Preprocess

_HOMES = {
    "CheckReport": "striate.data.check",
    "Classifier": "striate.inference.classifier",
    "Evaluation": "striate.inference.evaluation",
    "Prediction": "striate.inference.prediction",
    "Preprocess": "striate.transforms.preprocess",
    "Run": "striate.training.finished_run",
    "Translator": "striate.inference.translator",
    "calibrate": "striate.inference.recalibration",
    "compare": "striate.inference.comparison",
    "check": "striate.data.check",
    "evaluate": "striate.api",
    "evaluate_seq2seq": "striate.inference.text_evaluation",
    "explain_seq2seq": "striate.inference.text_explanation",
    "export": "striate.api",
    "load": "striate.api",
    "load_translator": "striate.inference.translator",
    "resume": "striate.api",
    "train": "striate.api",
    "train_seq2seq": "striate.api",
    "tune": "striate.api",
}
_MODULES = ("anatomy", "data", "explain", "metrics", "models", "transforms")

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
    "calibrate",
    "check",
    "compare",
    "data",
    "evaluate",
    "evaluate_seq2seq",
    "explain",
    "explain_seq2seq",
    "export",
    "load",
    "load_translator",
    "metrics",
    "models",
    "resume",
    "train",
    "train_seq2seq",
    "transforms",
    "tune",
]


def __getattr__(name: str) -> Any:
    import importlib

    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    if name in _MODULES:
        return importlib.import_module(f"striate.{name}")
    raise AttributeError(f"module 'striate' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
