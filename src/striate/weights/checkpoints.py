"""Read weights of other libraries: `.pth` in both formats and `.safetensors`. No code in a file is executed.

Tensors are loaded to the CPU whatever their device, and floating-point tensors become float32.
"""

from __future__ import annotations

import argparse
import os
import re
import struct
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from striate.errors import BundleError, UsageError

_PARTS = ("state_dict", "model", "model_ema", "state_dict_ema")  # usual keys of nested weights
_PREFIXES = ("module.", "_orig_mod.", "model.", "net.", "network.")
_PROFILER = ("total_ops", "total_params")  # added by a widely used counter of operations
# Training scripts also save their options, and the best accuracy as a NumPy number.
_HARMLESS: list[Any] = [
    argparse.Namespace,
    np.dtype,
    np.dtypes.Float32DType,
    np.dtypes.Float64DType,
    np.dtypes.Int64DType,
    (np.float64(0).__reduce__()[0], "numpy._core.multiarray.scalar"),
    (np.float64(0).__reduce__()[0], "numpy.core.multiarray.scalar"),
]
_COPY = "Copy or download it again"


@dataclass(frozen=True)
class Checkpoint:
    """The tensors of a file.

    Attributes:
        state: key -> tensor on the CPU, floating-point ones in float32; keys without wrapper prefixes.
        notes: one line for each conversion.
    """

    state: dict[str, Tensor]
    notes: tuple[str, ...]


def read(path: str | os.PathLike[str], part: str | None = None) -> Checkpoint:
    """Read the weights of a `.pth` or `.safetensors` file.

    Args:
        path: the file; its first bytes decide the format, not its name.
        part: key of the weights in a nested file, such as `model_ema`; by default the first usual key.

    Raises:
        BundleError: the file is missing, truncated, damaged, a pickled module, or has no weights.
        UsageError: there is no such part.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            start = file.read(64)
    except OSError as error:
        why = "no such file" if isinstance(error, FileNotFoundError) else error.strerror or str(error)
        raise BundleError(f"cannot open {str(path)!r}", why, "Give a .pth or .safetensors file") from error
    if start[8:9] == b"{":
        content: Any = _safetensors(path)
    elif start.startswith(b"PK\x03\x04"):
        content = _zip(path)
    elif start.startswith(b"\x80"):
        content = _unpickled(path)
    else:
        seen = ascii(start[:24].decode("latin-1")) if start else "nothing: it is empty"
        raise BundleError(f"{str(path)!r} is no checkpoint", f"it starts with {seen}", _COPY)
    where, found, notes = _weights(path, content, part)
    if where:
        notes = [f"weights taken from {where!r}", *notes]
    return _cleaned(path, found, notes)


def _safetensors(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path, device="cpu")
    except SafetensorError as error:
        why = f"it is damaged or truncated ({' '.join(str(error).split())})"
        raise BundleError(f"cannot read {str(path)!r}", why, _COPY) from error


def _zip(path: Path) -> Any:
    """Read a zip archive, which is torch's current format, after checking its contents."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = [name.partition("/")[2] for name in archive.namelist()]
    except zipfile.BadZipFile as error:
        raise BundleError(
            f"{str(path)!r} is truncated",
            f"it ends after {path.stat().st_size:,} bytes, before the archive's directory",
            _COPY,
        ) from error
    if "constants.pkl" in names:
        raise BundleError(
            f"{str(path)!r} is a TorchScript program",
            "it contains code, which Striate does not execute",
            f"If you trust it, extract the weights: {_way_out(path, 'torch.jit.load({})')}",
        )
    if "data.pkl" not in names:
        raise BundleError(
            f"{str(path)!r} is no checkpoint", "it is a zip archive without a checkpoint", "Unpack it"
        )
    return _unpickled(path)


def _unpickled(path: Path) -> Any:
    """Load a pickle with torch, without executing code, and explain its errors."""
    try:
        with torch.serialization.safe_globals(_HARMLESS):
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises any kind of error for damaged files
        message = " ".join(str(error).split())
        unsafe = re.search(r"GLOBAL ([\w.]+)", message)
        if unsafe:
            raise BundleError(
                f"{str(path)!r} is refused",
                f"it is a pickle of Python objects ({unsafe[1]}), and opening such a file executes code",
                "If you trust it and have the code that wrote it, save the weights alone: "
                + _way_out(path, "torch.load({}, weights_only=False)"),
            ) from error
        if "legacy .tar format" in message:
            why, fix = "its format is older than 2017", "Save it again with a newer torch"
        elif isinstance(error, (EOFError, IndexError, struct.error)) or "unexpected EOF" in message:
            why, fix = f"it is truncated after {path.stat().st_size:,} bytes", _COPY
        else:
            why, fix = f"it is damaged or no checkpoint ({message[:200] or type(error).__name__})", _COPY
        raise BundleError(f"cannot read {str(path)!r}", why, fix) from error


def _way_out(path: Path, load: str) -> str:
    """A command that saves the weights alone."""
    return f"`import torch; torch.save({load.format(repr(path.name))}.state_dict(), 'weights.pth')`"


def _weights(path: Path, content: Any, part: str | None) -> tuple[str, Mapping[str, Any], list[str]]:
    """Find the weights in a file's content. Returns their key, the tensors, and notes."""
    if not isinstance(content, Mapping):
        kind = type(content).__name__
        raise BundleError(
            f"{str(path)!r} has no weights", f"it holds a {kind}, not a dict", "Save a state_dict"
        )
    parts = {name: value for name, value in content.items() if _is_state(value)}
    if part is not None:
        if part not in parts:
            has = f"it has {', '.join(map(str, parts))}" if parts else "it is not nested"
            raise UsageError(f"no weights under {part!r} in {str(path)!r}", has)
        return part, parts[part], []
    if _is_state(content):
        return "", content, []
    for name in _PARTS:
        if name in parts:
            others = [str(other) for other in parts if other != name]
            note = f"the file also has weights under {', '.join(others)} (--part selects them)"
            return name, parts[name], [note] if others else []
    has = ", ".join(map(str, list(content)[:8]))
    fix = "Name their key with --part" if parts else "Give a file with a state_dict"
    raise BundleError(f"no weights found in {str(path)!r}", f"it holds {has or 'nothing'}", fix)


def _is_state(value: Any) -> bool:
    """Whether a value is a state dict: a dict of tensors, maybe with a few other values."""
    return (
        isinstance(value, Mapping)
        and all(isinstance(name, str) for name in value)
        and sum(isinstance(tensor, Tensor) for tensor in value.values()) * 2 > len(value)
        and not {"param_groups", "last_epoch"} & set(value)
    )


def _cleaned(path: Path, found: Mapping[str, Any], notes: list[str]) -> Checkpoint:
    """Convert floating-point tensors to float32; drop prefixes and entries that are no weights."""
    state = {}
    kinds = set()
    for name, tensor in found.items():
        if not isinstance(tensor, Tensor) or name == "n_averaged" or name.endswith(_PROFILER):
            notes.append(f"ignored {name}: not a weight")
            continue
        if tensor.layout != torch.strided or tensor.is_quantized or tensor.is_complex():
            why = f"{name} is sparse, quantized or complex"
            raise BundleError(f"cannot use {str(path)!r}", why, "Save it with dense floating tensors")
        if tensor.is_floating_point() and tensor.dtype != torch.float32:
            kinds.add(str(tensor.dtype).removeprefix("torch."))
            tensor = tensor.float()
        state[name] = tensor.detach()
    if kinds:
        notes.append(f"converted from {', '.join(sorted(kinds))} to float32")
    return Checkpoint(_without_prefixes(state), tuple(notes))


def _without_prefixes(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Remove the prefixes that wrappers such as DataParallel add to every key."""
    state = {name.replace("_orig_mod.", ""): tensor for name, tensor in state.items()}
    while common := next((p for p in _PREFIXES if state and all(name.startswith(p) for name in state)), ""):
        state = {name.removeprefix(common): tensor for name, tensor in state.items()}
    return state
