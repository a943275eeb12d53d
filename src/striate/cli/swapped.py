"""The error for a command line whose model comes after its images or data."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path

from striate.cli.commands import COMMANDS, Command
from striate.errors import DataError, StriateError, UsageError

_MODEL_FIRST = ("predict", "explain", "embed", "evaluate", "calibrate", "export", "explore", "seq2seq")


def model_first(error: StriateError, argv: Sequence[str]) -> StriateError:
    """The error of a command, or a clearer one if its first argument is no model and a later one is."""
    if not isinstance(error, DataError) or argv[0] not in _MODEL_FIRST:
        return error
    start = 1 if isinstance(COMMANDS[argv[0]], Command) else 2
    first, *others = argv[start:] or ("",)
    with contextlib.suppress(OSError):  # a name that cannot be one
        model = next((word for word in others if _is_model(Path(word))), None)
        if model is not None and Path(first).exists() and not _is_model(Path(first)):
            command = " ".join(["striate", *argv[:start]])
            fix = f"Give the model first: `{command} {model} {first}`"
            return UsageError(f"{first!r} is no model, and {model!r} is one", "", fix)
    return error


def _is_model(path: Path) -> bool:
    """Whether a path is that of a bundle, an ONNX file or the folder of a run."""
    if path.suffix.lower() in (".safetensors", ".onnx"):
        return path.is_file()
    return (path / "best.safetensors").is_file()
