"""Reading weights that others wrote: `.pth` of both formats and `.safetensors`, running none of their code.

Whatever device a file was saved on, its tensors come to the CPU; whatever precision, as float32.
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
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor

from striate.errors import BundleError, UsageError

_PARTS = ("state_dict", "model", "model_ema", "state_dict_ema")  # where training scripts keep the weights
_PREFIXES = ("module.", "_orig_mod.", "model.", "net.", "network.")
_PROFILER = ("total_ops", "total_params")  # what a widespread counter of operations leaves behind
_LEGACY = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."  # the number that torch's format before 1.6 begins with
# What training scripts keep beside the weights: their options, and the best accuracy as a NumPy number.
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
        state: name -> tensor on the CPU, floating ones in float32; no wrapper's prefix.
        notes: what was done to get there, a line for each thing.
    """

    state: dict[str, Tensor]
    notes: tuple[str, ...]


def read(path: str | os.PathLike[str], part: str | None = None) -> Checkpoint:
    """Read the weights of a `.pth` or `.safetensors` file.

    Args:
        path: the file; what it is, its first bytes say, not its name.
        part: where in a nested file the weights are, as `model_ema`; the first of the usual places if None.

    Raises:
        BundleError: missing, cut short, damaged, a pickled module, or without weights.
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
        raise BundleError(f"{str(path)!r} is no checkpoint", f"it begins with {seen}", _COPY)
    where, found, notes = _weights(path, content, part)
    if where:
        notes = [f"weights taken from {where!r}", *notes]
    return _cleaned(path, found, notes)


def _safetensors(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path, device="cpu")
    except SafetensorError as error:
        why = f"it is damaged or cut short ({' '.join(str(error).split())})"
        raise BundleError(f"cannot read {str(path)!r}", why, _COPY) from error


def is_safetensors(path: Path) -> bool:
    """Whether a file is whole and of the safetensors format."""
    try:
        with safe_open(path, "pt"):
            return True
    except (SafetensorError, OSError):
        return False


def _zip(path: Path) -> Any:
    """A file of torch's present format, after looking at what is in it."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = [name.partition("/")[2] for name in archive.namelist()]
    except zipfile.BadZipFile as error:
        raise BundleError(
            f"{str(path)!r} is cut short",
            f"its end, with the list of its {path.stat().st_size:,} bytes' contents, is missing",
            _COPY,
        ) from error
    if "constants.pkl" in names:
        raise BundleError(
            f"{str(path)!r} is a TorchScript program",
            "it holds code beside the weights, which Striate does not run",
            f"Take out the weights where you trust it: {_way_out(path, 'torch.jit.load({})')}",
        )
    if "data.pkl" not in names:
        raise BundleError(
            f"{str(path)!r} is no checkpoint", "it is a zip archive of something else", "Unpack it"
        )
    return _unpickled(path)


def _unpickled(path: Path) -> Any:
    """What torch reads without running anything; its many errors told apart."""
    try:
        with torch.serialization.safe_globals(_HARMLESS):
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises whatever its readers come upon
        message = " ".join(str(error).split())
        unsafe = re.search(r"GLOBAL ([\w.]+)", message)
        if unsafe:
            raise BundleError(
                f"{str(path)!r} is refused",
                f"it is a pickle of whole Python objects ({unsafe[1]}), and opening such a file runs code",
                "Where you trust it and have the code that wrote it, keep the weights alone: "
                + _way_out(path, "torch.load({}, weights_only=False)"),
            ) from error
        if "legacy .tar format" in message:
            why, fix = "it is of a format that torch wrote before 2017", "Save it again with a newer torch"
        elif isinstance(error, (EOFError, IndexError, struct.error)) or "unexpected EOF" in message:
            why, fix = f"it is cut short at {path.stat().st_size:,} bytes", _COPY
        else:
            why, fix = f"it is damaged or no checkpoint ({message[:200] or type(error).__name__})", _COPY
        raise BundleError(f"cannot read {str(path)!r}", why, fix) from error


def _way_out(path: Path, load: str) -> str:
    return f"`import torch; torch.save({load.format(repr(path.name))}.state_dict(), 'weights.pth')`"


def _weights(path: Path, content: Any, part: str | None) -> tuple[str, Mapping[str, Any], list[str]]:
    """Where the tensors are, the dict that has them, and notes."""
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
            note = f"the file also has weights under {', '.join(others)} (--part takes them)"
            return name, parts[name], [note] if others else []
    has = ", ".join(map(str, list(content)[:8]))
    fix = "Name the place with --part" if parts else "Give a file with a state_dict"
    raise BundleError(f"no weights found in {str(path)!r}", f"it holds {has or 'nothing'}", fix)


def _is_state(value: Any) -> bool:
    """Whether this is a dict of named tensors, perhaps with a number or two among them."""
    return (
        isinstance(value, Mapping)
        and all(isinstance(name, str) for name in value)
        and sum(isinstance(tensor, Tensor) for tensor in value.values()) * 2 > len(value)
        and not {"param_groups", "last_epoch"} & set(value)
    )


def _cleaned(path: Path, found: Mapping[str, Any], notes: list[str]) -> Checkpoint:
    """Without prefixes and what is no weight; floating tensors in float32, each its own."""
    state = {}
    kinds = set()
    for name, tensor in found.items():
        if not isinstance(tensor, Tensor) or name == "n_averaged" or name.endswith(_PROFILER):
            notes.append(f"left out {name}: it is no weight")
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
    """Names as the network itself has them: wrappers put a word before all of them."""
    state = {name.replace("_orig_mod.", ""): tensor for name, tensor in state.items()}
    while common := next((p for p in _PREFIXES if state and all(name.startswith(p) for name in state)), ""):
        state = {name.removeprefix(common): tensor for name, tensor in state.items()}
    return state
