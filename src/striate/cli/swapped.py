"""The error for a command line whose model comes after its images or data."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path

from striate.cli.commands import COMMANDS
from striate.errors import DataError, StriateError, UsageError

# As a command line begins; `seq2seq train` has its data first.
_MODEL_FIRST = (
    "predict", "explain", "embed", "evaluate", "calibrate", "export", "explore", "seq2seq evaluate",
    "seq2seq translate",
)  # fmt: skip


def model_first(error: StriateError, argv: Sequence[str]) -> StriateError:
    """The error of a command, or a clearer one if its first argument is no model and a later one is."""
    start = 2 if isinstance(COMMANDS.get(argv[0]), dict) else 1
    command = " ".join(argv[:start])
    if not isinstance(error, DataError) or not command.startswith(_MODEL_FIRST):
        return error
    first, *others = argv[start:] or ("",)
    with contextlib.suppress(OSError):  # a name that cannot be one
        model = next((word for word in others if _is_model(Path(word))), None)
        if model is not None and Path(first).exists() and not _is_model(Path(first)):
            fix = f"Give the model first: `striate {command} {model} {first}`"
            return UsageError(f"{first!r} is no model, and {model!r} is one", "", fix)
    return error


def _is_model(path: Path) -> bool:
    """Whether a path is that of a bundle, an ONNX file or the folder of a run."""
    if path.suffix.lower() in (".safetensors", ".onnx"):
        return path.is_file()
    return (path / "best.safetensors").is_file()
