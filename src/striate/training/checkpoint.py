"""Checkpoint files: `runs/<name>/state/` holds the two newest, each complete or absent.

A checkpoint is a safetensors file named after its step. The tensors are those of `TrainState`; the header has
its other values, the facts of the run, and a SHA-256 over everything. Reading one executes no code. Earlier
formats are converted when they are read; docs/compatibility.md has the policy.
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

from striate import strict_json
from striate.errors import DataError
from striate.files import write_atomic
from striate.training.config_file import CHECKPOINTS, FORMAT, current_config

_KEEP = 2
_DTYPES = {
    torch.float64: "F64", torch.int64: "I64", torch.float32: "F32", torch.int32: "I32", torch.float16: "F16",
    torch.bfloat16: "BF16", torch.int16: "I16", torch.uint8: "U8", torch.int8: "I8", torch.bool: "BOOL",
}  # fmt: skip


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint that was read.

    Attributes:
        path: of the file.
        values: what `TrainState.to_json` returned.
        facts: of the run: `config`, `given` (the configuration as the user gave it), `setup` (what the task
            needs to rebuild the network), `environment`, and `description` of the bundle, None before the
            first step.
        tensors: what `TrainState.tensors` returned, on the CPU; empty before the first step, and of a
            finished run.
        extended: whether the run has just got a new length, which the file does not know yet.
    """

    path: Path
    values: dict[str, Any]
    facts: dict[str, Any]
    tensors: dict[str, torch.Tensor]
    extended: bool = False


def write(
    run: Path, tensors: Mapping[str, torch.Tensor], values: Mapping[str, Any], facts: Mapping[str, Any]
) -> None:
    """Write a checkpoint of a run, and remove all but the two newest.

    Args:
        run: the run folder.
        tensors: by name, on any device.
        values: plain, with `step`.
        facts: plain.

    Raises:
        WriteError: no space or no permission; earlier checkpoints are untouched.
    """
    arrays = {name: _bytes(tensor) for name, tensor in tensors.items()}
    table, at = {}, 0
    for name in sorted(arrays, key=lambda name: (-tensors[name].element_size(), name)):  # aligned
        entry = {"dtype": _DTYPES[tensors[name].dtype], "shape": list(tensors[name].shape)}
        table[name] = {**entry, "data_offsets": [at, at + len(arrays[name])]}
        at += len(arrays[name])
    text = strict_json.dumps({"format": FORMAT, "values": values, "facts": facts}, ascii_only=True)
    digest = _digest(text, table, (arrays[name] for name in table))
    header = strict_json.dumps({"__metadata__": {"striate-state": text, "sha256": digest}, **table}).encode()
    header += b" " * (-len(header) % 8)
    pieces: list[bytes | memoryview] = [len(header).to_bytes(8, "little"), header]
    pieces += [arrays[name] for name in table]
    write_atomic(run / CHECKPOINTS / f"{values['step']:012}.safetensors", pieces)
    for old in _files(run)[_KEEP:]:
        old.unlink(missing_ok=True)


def newest(run: Path) -> tuple[Checkpoint, list[str]]:
    """Read the newest intact checkpoint.

    Returns:
        The checkpoint, and a sentence for each newer one that is damaged; those files are removed.

    Raises:
        DataError: there is none.
    """
    damaged = []
    for path in _files(run):
        try:
            checkpoint = read(path)
        except DataError as error:
            damaged.append((path, str(error).rstrip(".")))
            continue
        for broken, _ in damaged:
            broken.unlink(missing_ok=True)
        return checkpoint, [sentence for _, sentence in damaged]
    raise DataError(
        f"cannot resume {str(run)!r}",
        "; ".join(sentence for _, sentence in damaged) or "it has no checkpoint",
        "Start again with `striate train`; its last.safetensors, if there is one, can be given as --weights",
    )


def read(path: Path) -> Checkpoint:
    """Read one checkpoint.

    Raises:
        DataError: it is damaged, not a checkpoint, or of a newer format.
    """
    try:
        content = memoryview(path.read_bytes())
        length = int.from_bytes(content[:8], "little")
        table = json.loads(bytes(content[8 : 8 + length]))
        metadata = table.pop("__metadata__")
        data = content[8 + length :]
        spans = {name: data[slice(*entry["data_offsets"])] for name, entry in table.items()}
        intact = _digest(metadata["striate-state"], table, spans.values()) == metadata["sha256"]
        header = json.loads(metadata["striate-state"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{path} is damaged", " ".join(str(error).split()) or "not a checkpoint") from error
    if not intact:
        raise DataError(f"{path} is damaged", "its checksum does not match")
    if header["format"] > FORMAT:
        raise DataError(
            f"{path} has format {header['format']}", "a newer Striate wrote it", "Upgrade Striate"
        )
    types = {name: dtype for dtype, name in _DTYPES.items()}
    tensors = {}
    for name, entry in table.items():
        tensor = torch.empty(entry["shape"], dtype=types[entry["dtype"]])
        if tensor.numel():
            tensor.view(-1).view(torch.uint8).numpy()[:] = np.frombuffer(spans[name], np.uint8)
        tensors[name] = tensor
    checkpoint = Checkpoint(path, header["values"], header["facts"], tensors)
    return checkpoint if header["format"] == FORMAT else _current(checkpoint, header["format"])


def before(checkpoint: Checkpoint) -> Checkpoint | None:
    """The checkpoint written before this one, if it is still there and intact."""
    for path in _files(checkpoint.path.parents[1]):
        if path < checkpoint.path:
            with contextlib.suppress(DataError):
                return read(path)
    return None


def finished(run: Path) -> dict[str, Any] | None:
    """The values of a finished run, None of any other; reads no tensors."""
    for path in _files(run)[:1]:
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError, AttributeError):
            with path.open("rb") as file:
                header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
            values: dict[str, Any] = json.loads(header["__metadata__"]["striate-state"])["values"]
            return values if values["finished"] else None
    return None


def exists(run: Path) -> bool:
    """Whether a run has a checkpoint."""
    return bool(_files(run))


def remove_all_but_newest(run: Path) -> None:
    """Remove older checkpoints when a run is finished."""
    for old in _files(run)[1:]:
        old.unlink(missing_ok=True)


_VALUES_OF_FORMAT_1 = {
    "rate": "lr", "rate_share": "lr_scale", "parts": "micro_batches", "learning_since": "training_since",
    "tally": "totals", "hits": "correct",
}  # fmt: skip


def _current(found: Checkpoint, format: int) -> Checkpoint:
    """A checkpoint that an earlier version wrote, as this version writes it."""
    if format == 1:
        found = _from_format_1(found)
    configs = ("config", "given")
    facts = {n: current_config(v, format) if n in configs else v for n, v in found.facts.items()}
    return Checkpoint(found.path, found.values, facts, found.tensors)


def _from_format_1(old: Checkpoint) -> Checkpoint:
    values = {_VALUES_OF_FORMAT_1.get(name, name): value for name, value in old.values.items()}
    values["totals"] = {
        _VALUES_OF_FORMAT_1.get(name, name): value for name, value in values["totals"].items()
    }
    config = old.facts["config"]
    facts = {
        "config": config,
        "given": old.facts.get("given", config),
        "setup": {name: old.facts[name] for name in ("head", "data") if name in old.facts},
        "environment": old.facts["circumstances"],
        "description": old.facts["description"],
    }
    tensors = {
        f"ema.{name.removeprefix('average.')}" if name.startswith("average.") else name: tensor
        for name, tensor in old.tensors.items()
    }
    return Checkpoint(old.path, values, facts, tensors)


def _files(run: Path) -> list[Path]:
    """The checkpoints of a run, newest first."""
    return sorted((run / CHECKPOINTS).glob("[0-9]*.safetensors"), reverse=True)


def _bytes(tensor: torch.Tensor) -> memoryview:
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    return flat.view(torch.uint8).numpy().data if flat.numel() else memoryview(b"")


def _digest(text: str, table: Mapping[str, Any], arrays: Iterable[memoryview]) -> str:
    digest = hashlib.sha256(text.encode())
    digest.update(json.dumps(table, sort_keys=True).encode())
    for array in arrays:
        digest.update(array)
    return digest.hexdigest()
