"""Read weights of other libraries: `.pth` in both formats and `.safetensors`. No code in a file is executed.

Tensors are loaded to the CPU whatever their device, and floating-point tensors become float32.
"""

from __future__ import annotations

import argparse
import os
import re
import struct
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from striate import tensor_file
from striate.errors import BundleError, UsageError
from striate.files import is_folder, probe, why_missing
from striate.reading import damage_errors, open_file
from striate.weights import file_kinds

# Usual keys of nested weights, the network itself before averages of it.
_PARTS = (
    "state_dict", "model_state_dict", "model", "net", "network", "weights", "params", "student", "module",
    "model_ema", "state_dict_ema", "ema", "ema_state_dict", "ema_model", "teacher",
)  # fmt: skip
_DEPTH = 3  # of nested weights
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
_GIVE = "Give a .pth or .safetensors file"
_MAX_RATIO = 4  # of what a file says that it contains to its size; torch does not compress
_MAX_IGNORED = 100  # kinds of objects in a pickle
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


class _Ignored:
    """Stands for an object in a pickle that is neither a tensor nor a plain value; none of its code runs."""

    def __new__(cls, *arguments: Any, **named: Any) -> _Ignored:
        return super().__new__(cls)

    def __init__(self, *arguments: Any, **named: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        pass


def read(path: str | os.PathLike[str], part: str | None = None) -> Checkpoint:
    """Read the weights of a `.pth` or `.safetensors` file.

    Args:
        path: the file; its first bytes decide the format, not its name.
        part: key of the weights in a nested file, such as `model_ema`, or what the names of a network's
            tensors start with, such as `encoder_q`; by default the first usual key.

    Raises:
        BundleError: the file is missing, truncated, damaged, a pickled module, or has no weights.
        UsageError: there is no such part.
    """
    path = Path(path)
    if probe(path) is None:
        raise BundleError(f"cannot open {str(path)!r}", *why_missing(path, _GIVE))
    if is_folder(path):
        raise file_kinds.refuse_folder(path)
    with open_file(path, BundleError) as file:
        start = file.read(512)
    if (refused := file_kinds.refuse(path, start)) is not None:
        raise refused
    ignored: list[str] = []
    if start[8:9] == b"{":
        content: Any = _safetensors(path)
    elif start.startswith(b"PK\x03\x04"):
        content, ignored = _zip(path)
    elif start.startswith(b"\x80"):
        content, ignored = _unpickled(path)
    else:
        seen = ascii(start[:24].decode("latin-1")) if start else "nothing: it is empty"
        raise BundleError(f"{str(path)!r} is no checkpoint", f"it starts with {seen}", _COPY)
    where, found, notes = _weights(path, content, part, ignored)
    if where:
        notes = [f"weights taken from {where!r}", *notes]
    if ignored:
        notes.append(f"ignored objects that are no weights: {', '.join(ignored[:5])}")
    return _cleaned(path, found, notes)


def _safetensors(path: Path) -> dict[str, Tensor]:
    try:
        return tensor_file.read_tensors(path, tensor_file.read_header(path, _COPY))
    except BundleError as error:
        why = f"it is damaged or truncated: {error.why}"
        raise BundleError(f"cannot read {str(path)!r}", why, _COPY) from error


def _zip(path: Path) -> tuple[Any, list[str]]:
    """Read a zip archive, which is torch's current format, after checking its contents."""
    size = path.stat().st_size
    if not zipfile.is_zipfile(path):
        why = f"it ends after {size:,} bytes, before the archive's directory"
        raise BundleError(f"{str(path)!r} is truncated", why, _COPY)
    with damage_errors(f"{str(path)!r} is damaged", _COPY, BundleError), zipfile.ZipFile(path) as archive:
        names = [name.partition("/")[2] for name in archive.namelist()]
        _require_intact(archive, size)
    if "constants.pkl" in names:
        raise BundleError(
            f"{str(path)!r} is a TorchScript program",
            "it contains code, which Striate does not execute",
            f"If you trust it, extract the weights: {_way_out(path, 'torch.jit.load({})')}",
        )
    return _unpickled(path)


def _require_intact(archive: zipfile.ZipFile, size: int) -> None:
    """Compare all members with their checksums, which torch does not; raises one of `reading.DAMAGE`."""
    members = archive.infolist()
    if sum(member.file_size for member in members) > _MAX_RATIO * size:
        raise ValueError("its members are larger than it can contain")
    if not any(member.CRC for member in members):  # torch.serialization.set_crc32_options(False)
        return
    if (name := archive.testzip()) is not None:
        raise zipfile.BadZipFile(f"{name!r} differs from its checksum")


def _unpickled(path: Path) -> tuple[Any, list[str]]:
    """Load a pickle with torch, without executing code, and explain its errors."""
    ignored: dict[str, type[_Ignored]] = {}
    while True:
        stand_ins = [(kind, name) for name, kind in ignored.items()]
        try:
            with torch.serialization.safe_globals([*_HARMLESS, *stand_ins]):
                return torch.load(path, map_location="cpu", weights_only=True), list(ignored)
        except Exception as error:  # torch raises any kind of error for damaged files
            message = " ".join(str(error).split())
            unsafe = re.search(r"Unsupported global: GLOBAL ([\w.]+)", message)
            if unsafe is None or unsafe[1] in ignored or len(ignored) == _MAX_IGNORED:
                raise _unreadable(path, message, error, list(ignored)) from error
            ignored[unsafe[1]] = type(unsafe[1], (_Ignored,), {})


def _unreadable(path: Path, message: str, error: Exception, ignored: list[str]) -> BundleError:
    """The error for a pickle that torch does not load."""
    if unsafe := re.search(r"GLOBAL ([\w.]+)", message):
        return _pickled_objects(path, [*ignored, unsafe[1]])
    if ignored:
        return _pickled_objects(path, ignored)
    if "legacy .tar format" in message:
        why, fix = "its format is older than 2017", "Save it again with a newer torch"
    elif isinstance(error, (EOFError, IndexError, struct.error)) or "unexpected EOF" in message:
        why, fix = f"it is truncated after {path.stat().st_size:,} bytes", _COPY
    else:
        why, fix = f"it is damaged or no checkpoint ({message[:200] or type(error).__name__})", _COPY
    return BundleError(f"cannot read {str(path)!r}", why, fix)


def _pickled_objects(path: Path, kinds: list[str], key: str = "") -> BundleError:
    """The error for objects whose weights cannot be had without their code."""
    return BundleError(
        f"{str(path)!r} is refused",
        f"it is a pickle of Python objects ({kinds[0]}), and opening such a file executes code",
        "If you trust it and have the code that wrote it, save the weights alone: "
        + _way_out(path, f"torch.load({{}}, weights_only=False){key}"),
    )


def _way_out(path: Path, load: str) -> str:
    """A command that saves the weights alone."""
    return f"`import torch; torch.save({load.format(repr(path.name))}.state_dict(), 'weights.pth')`"


def _weights(
    path: Path, content: Any, part: str | None, ignored: list[str]
) -> tuple[str, Mapping[str, Any], list[str]]:
    """Find the weights in a file's content. Returns their key, the tensors, and notes."""
    if isinstance(content, _Ignored):
        raise _pickled_objects(path, ignored)
    if not isinstance(content, Mapping):
        kind = type(content).__name__
        raise BundleError(
            f"{str(path)!r} has no weights", f"it holds a {kind}, not a dict", "Save a state_dict"
        )
    parts = dict(_nested(content))
    if part is not None:
        if part in parts:
            return part, parts[part], []
        return _with_prefix(path, content, parts, part)
    if _is_state(content):
        return "", content, []
    usual = [name for name in _PARTS if name in parts]
    if not usual and len(parts) > 1:
        fix = f"Choose one with --part: {', '.join(parts)}"
        raise BundleError(f"no weights found in {str(path)!r}", "it has several under unusual keys", fix)
    for name in (*usual, *parts):
        others = [other for other in parts if other != name]
        note = f"the file also has weights under {', '.join(others)} (--part selects them)"
        return name, parts[name], [note] if others else []
    if objects := [name for name, value in content.items() if isinstance(value, _Ignored)]:
        names = [name for name in (*_PARTS, *objects) if name in objects]
        raise _pickled_objects(path, [type(content[names[0]]).__name__], f"[{names[0]!r}]")
    has = ", ".join(map(str, list(content)[:8])) or "nothing"
    raise BundleError(
        f"no weights found in {str(path)!r}", f"it holds {has}", "Give a file with a state_dict"
    )


def _nested(content: Mapping[Any, Any], above: str = "", depth: int = _DEPTH) -> Iterator[tuple[str, Any]]:
    """The state dicts in a nested dict, with their keys joined by dots."""
    for name, value in content.items():
        if _is_state(value):
            yield f"{above}{name}", value
        elif isinstance(value, Mapping) and depth > 1 and "param_groups" not in value:  # of an optimizer
            yield from _nested(value, f"{above}{name}.", depth - 1)


def _with_prefix(
    path: Path, content: Mapping[str, Any], parts: Mapping[str, Any], part: str
) -> tuple[str, Mapping[str, Any], list[str]]:
    """The tensors whose names start with `part`, in the first state dict that has some."""
    for state in (content, *parts.values()):
        for prefix in (part, *(f"{wrapper}{part}" for wrapper in _PREFIXES)) if _is_state(state) else ():
            if found := {
                n.removeprefix(f"{prefix}."): t for n, t in state.items() if n.startswith(f"{prefix}.")
            }:
                return part, found, []
    has = f"it has {', '.join(parts)}" if parts else "it is not nested"
    raise UsageError(f"no weights under {part!r} in {str(path)!r}", has)


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
        if type(tensor) not in (Tensor, torch.nn.Parameter) or tensor.device.type != "cpu":
            why = f"{name} is a {type(tensor).__name__} on {tensor.device}, not a tensor with values"
            raise BundleError(f"cannot use {str(path)!r}", why, "Save it with dense floating tensors")
        if tensor.layout != torch.strided or tensor.is_quantized or tensor.is_complex():
            why = f"{name} is sparse, quantized or complex"
            raise BundleError(f"cannot use {str(path)!r}", why, "Save it with dense floating tensors")
        if tensor.nbytes > _MAX_RATIO * tensor.untyped_storage().nbytes():
            why = f"{name} has a shape of {list(tensor.shape)}, and fewer values"
            raise BundleError(f"cannot use {str(path)!r}", why, "Save it with .contiguous()")
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
