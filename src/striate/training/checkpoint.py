"""Checkpoint files: `runs/<name>/state/` holds the two newest, each complete or absent.

A checkpoint is a safetensors file named after its step. The tensors are those of `TrainState`; the header has
its other values, the facts of the run, and a SHA-256 over everything. Reading one executes no code. Earlier
formats are converted when they are read; docs/compatibility.md has the policy.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from striate import strict_json, tensor_file
from striate.errors import DataError, UsageError, access_error
from striate.files import write_atomic
from striate.tensor_file import Header
from striate.training.config_file import CHECKPOINTS, FORMAT, current_config
from striate.validation import InvalidValueError, require

_KEEP = 2
_STATE, _DIGEST = "striate-state", "sha256"  # names in the metadata


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
    table, arrays = tensor_file.layout(tensors)
    text = strict_json.dumps({"format": FORMAT, "values": values, "facts": facts}, ascii_only=True)
    header = tensor_file.header_bytes(table, {_STATE: text, _DIGEST: _digest(text, table, arrays.values())})
    pieces: list[bytes | memoryview] = [header, *arrays.values()]
    write_atomic(path_of(run, values["step"]), pieces)
    for old in _files(run)[_KEEP:]:
        old.unlink(missing_ok=True)


def path_of(run: Path, step: int) -> Path:
    """The checkpoint of a run folder after so many steps."""
    return run / CHECKPOINTS / f"{step:012}.safetensors"


def newest(
    run: Path, require_valid: Callable[[Checkpoint], None] = lambda _: None
) -> tuple[Checkpoint, list[str]]:
    """Read the newest intact checkpoint.

    Args:
        run: the run folder.
        require_valid: raises DataError for a checkpoint whose values cannot be used.

    Returns:
        The checkpoint, and a sentence for each newer one that is damaged; those files are removed.

    Raises:
        DataError: there is none, or no permission to read the newest.
        UsageError: a newer Striate wrote the newest: it is not damaged, and stays.
    """
    damaged = []
    for path in _files(run):
        try:
            checkpoint = read(path)
            require_valid(checkpoint)
        except DataError as error:
            if isinstance(error.__cause__, PermissionError):
                raise
            damaged.append((path, str(error).rstrip(".")))
            continue
        for broken, _ in damaged:
            with contextlib.suppress(OSError):  # it may be a folder, or read-only
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
        DataError: it is damaged or not a checkpoint.
        UsageError: it has a newer format.
    """
    try:
        header, values = _read_header(path)
        tensors = tensor_file.read_tensors(path, header)
    except DataError as error:
        if isinstance(error.__cause__, PermissionError):
            raise
        raise DataError(f"{path} is damaged", error.why) from error
    _, arrays = tensor_file.layout(tensors)
    in_order = (arrays[name] for name in header.tensors)
    if _digest(header.metadata[_STATE], header.table, in_order) != header.metadata.get(_DIGEST):
        raise DataError(f"{path} is damaged", "its checksum does not match")
    if values["format"] > FORMAT:
        raise UsageError(
            f"{path} has format {values['format']}", "a newer Striate wrote it", "Upgrade Striate"
        )
    checkpoint = Checkpoint(path, values["values"], values["facts"], tensors)
    return checkpoint if values["format"] == FORMAT else _current(checkpoint, values["format"])


def before(checkpoint: Checkpoint) -> Checkpoint | None:
    """The checkpoint written before this one, if it is still there and intact."""
    for path in _files(checkpoint.path.parents[1]):
        if path < checkpoint.path:
            with contextlib.suppress(DataError):
                return read(path)
    return None


def finished(run: Path) -> dict[str, Any] | None:
    """The values of a finished run, None of any other; reads the tensors of a finished one only."""
    for path in _files(run)[:1]:
        with contextlib.suppress(DataError):
            _, values = _read_header(path)
            if values["values"].get("finished") is True:
                return read(path).values
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
    try:
        return sorted((run / CHECKPOINTS).glob("[0-9]*.safetensors"), reverse=True)
    except OSError as error:
        raise access_error(error, f"cannot read {str(run / CHECKPOINTS)!r}") from error


def _read_header(path: Path) -> tuple[Header, dict[str, Any]]:
    """The header of a checkpoint, and what it holds besides tensors; raises DataError."""
    header = tensor_file.read_header(path, "")
    try:
        values = strict_json.loads(header.metadata[_STATE])
        require(values, dict[str, Any], "it")
        for name, hint in (("format", int), ("values", dict), ("facts", dict)):
            require(values.get(name), hint, name)
    except KeyError as error:
        raise DataError(f"{path} is damaged", "not a checkpoint") from error
    except (InvalidValueError, ValueError) as error:
        raise DataError(f"{path} is damaged", str(error)) from error
    return header, values


def _digest(text: str, table: Mapping[str, Any], arrays: Iterable[memoryview]) -> str:
    digest = hashlib.sha256(text.encode())
    digest.update(json.dumps(table, sort_keys=True).encode())
    for array in arrays:
        digest.update(array)
    return digest.hexdigest()
