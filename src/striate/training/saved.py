"""Saved states: `runs/<name>/state/` holds the two newest, each whole or not there at all.

A state is a safetensors file named after its step. The tensors are those of `TrainState`; the header has its
other values and the facts of the run, and a SHA-256 of all of it. Nothing in it is executed when it is read.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from striate.errors import DataError
from striate.files import write_atomic

FOLDER = "state"
_KEEP = 2
_FORMAT = 1
_DTYPES = {
    torch.float64: "F64", torch.int64: "I64", torch.float32: "F32", torch.int32: "I32", torch.float16: "F16",
    torch.bfloat16: "BF16", torch.int16: "I16", torch.uint8: "U8", torch.int8: "I8", torch.bool: "BOOL",
}  # fmt: skip


@dataclass(frozen=True)
class Saved:
    """A state as it was read.

    Attributes:
        path: of the file.
        values: what `TrainState.to_json` gave.
        facts: what else the run wrote down.
        tensors: what `TrainState.tensors` gave, on the CPU; empty of a run that has made no step, and of one
            that is finished.
    """

    path: Path
    values: dict[str, Any]
    facts: dict[str, Any]
    tensors: dict[str, torch.Tensor]


def write(
    run: Path, tensors: Mapping[str, torch.Tensor], values: Mapping[str, Any], facts: Mapping[str, Any]
) -> None:
    """Save a state of a run, and let go of all but the two newest.

    Args:
        run: the run's folder.
        tensors: by name, on any device.
        values: plain, with the `step`.
        facts: plain.

    Raises:
        DataError: no room, no permission; the states before it still stand.
    """
    arrays = {name: _bytes(tensor) for name, tensor in tensors.items()}
    table, at = {}, 0
    for name in sorted(
        arrays, key=lambda name: (-tensors[name].element_size(), name)
    ):  # aligned, largest first
        entry = {"dtype": _DTYPES[tensors[name].dtype], "shape": list(tensors[name].shape)}
        table[name] = {**entry, "data_offsets": [at, at + len(arrays[name])]}
        at += len(arrays[name])
    text = json.dumps({"format": _FORMAT, "values": values, "facts": facts}, ensure_ascii=True)
    digest = _digest(text, table, (arrays[name] for name in table))
    header = json.dumps({"__metadata__": {"striate-state": text, "sha256": digest}, **table}).encode()
    header += b" " * (-len(header) % 8)
    pieces: list[bytes | memoryview] = [
        len(header).to_bytes(8, "little"),
        header,
        *(arrays[name] for name in table),
    ]
    write_atomic(run / FOLDER / f"{values['step']:012}.safetensors", pieces)
    for old in _files(run)[_KEEP:]:
        old.unlink(missing_ok=True)


def newest(run: Path) -> tuple[Saved, list[str]]:
    """Read the newest state that is whole.

    Returns:
        The state, and a sentence for each newer one that is damaged; those files are removed.

    Raises:
        DataError: there is none.
    """
    damaged = []
    for path in _files(run):
        try:
            saved = read(path)
        except DataError as error:
            damaged.append((path, str(error).rstrip(".")))
            continue
        for broken, _ in damaged:
            broken.unlink(missing_ok=True)
        return saved, [sentence for _, sentence in damaged]
    raise DataError(
        f"cannot resume {str(run)!r}",
        "; ".join(sentence for _, sentence in damaged) or "it holds no saved state",
        "Start again with `striate train`; its last.safetensors, if there is one, can be given as --weights",
    )


def read(path: Path) -> Saved:
    """Read one state.

    Raises:
        DataError: it is damaged, or not a state at all.
    """
    try:
        content = memoryview(path.read_bytes())
        length = int.from_bytes(content[:8], "little")
        table = json.loads(bytes(content[8 : 8 + length]))
        metadata = table.pop("__metadata__")
        data = content[8 + length :]
        spans = {name: data[slice(*entry["data_offsets"])] for name, entry in table.items()}
        whole = _digest(metadata["striate-state"], table, spans.values()) == metadata["sha256"]
        says = json.loads(metadata["striate-state"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{path} is damaged", " ".join(str(error).split()) or "it is no state") from error
    if not whole:
        raise DataError(f"{path} is damaged", "its checksum is another")
    if says["format"] > _FORMAT:
        raise DataError(
            f"{path} is of format {says['format']}", "a newer Striate wrote it", "Upgrade Striate"
        )
    types = {name: dtype for dtype, name in _DTYPES.items()}
    tensors = {}
    for name, entry in table.items():
        tensor = torch.empty(entry["shape"], dtype=types[entry["dtype"]])
        if tensor.numel():
            tensor.view(-1).view(torch.uint8).numpy()[:] = np.frombuffer(spans[name], np.uint8)
        tensors[name] = tensor
    return Saved(path, says["values"], says["facts"], tensors)


def before(state: Saved) -> Saved | None:
    """The state that was saved before this one, if it is there and whole."""
    for path in _files(state.path.parents[1]):
        if path < state.path:
            with contextlib.suppress(DataError):
                return read(path)
    return None


def finished(run: Path) -> dict[str, Any] | None:
    """The values of a run that is finished, None of any other; reads no tensors."""
    for path in _files(run)[:1]:
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError, AttributeError):
            with path.open("rb") as file:
                header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
            values: dict[str, Any] = json.loads(header["__metadata__"]["striate-state"])["values"]
            return values if values["finished"] else None
    return None


def any_of(run: Path) -> bool:
    """Whether a run has saved a state."""
    return bool(_files(run))


def forget_all_but_newest(run: Path) -> None:
    """Remove older states, when a run is finished."""
    for old in _files(run)[1:]:
        old.unlink(missing_ok=True)


def _files(run: Path) -> list[Path]:
    """The states of a run, newest first."""
    return sorted((run / FOLDER).glob("[0-9]*.safetensors"), reverse=True)


def _bytes(tensor: torch.Tensor) -> memoryview:
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    return flat.view(torch.uint8).numpy().data if flat.numel() else memoryview(b"")


def _digest(text: str, table: Mapping[str, Any], arrays: Iterable[memoryview]) -> str:
    digest = hashlib.sha256(text.encode())
    digest.update(json.dumps(table, sort_keys=True).encode())
    for array in arrays:
        digest.update(array)
    return digest.hexdigest()
