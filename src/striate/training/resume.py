"""Opening a run that was stopped, and refusing to resume if anything that decides the weights has changed."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from striate.errors import UsageError
from striate.training import checkpoint, extension
from striate.training.checkpoint import Checkpoint
from striate.training.config import EXTENDING, RunConfig
from striate.training.config_file import parse_config, read_config
from striate.training.distributed import Distributed
from striate.training.facts import require_valid
from striate.training.run_folder import require_unchanged
from striate.version import __version__


@dataclass(frozen=True)
class Resumed:
    """A run that is being resumed.

    Attributes:
        folder: of the run.
        config: its configuration, with the options that the user changed.
        checkpoint: its newest intact checkpoint.
        notes: warnings about resuming it here.
    """

    folder: Path
    config: Any
    checkpoint: Checkpoint
    notes: tuple[str, ...]

    @property
    def has_begun(self) -> bool:
        """Whether it has made a checkpoint after its first step."""
        return self.checkpoint.facts["description"] is not None


def open_run(
    folder: Path, kind: type[RunConfig], changed: Mapping[str, Any], distributed: Distributed
) -> Resumed:
    """Open a stopped run in the main process, and share it with the others.

    Args:
        folder: `runs/<name>`.
        kind: the class of its configuration.
        changed: options that the user gives anew; those that decide the weights must be unchanged, except
            those of `EXTENDING`, which give the run a new length.
        distributed: the processes that train.

    Raises:
        UsageError: not a run, its configuration has changed, or the new end lies before what is done.
        DataError: no intact checkpoint.
    """
    changed = {name: value for name, value in changed.items() if value is not None}
    parts, tensors = None, None
    if distributed.is_main:
        config, saved, notes = _open(folder, kind, changed, distributed)
        plain = dataclasses.replace(saved, path=str(saved.path), tensors={})  # type: ignore[arg-type]
        parts, tensors = [config.to_json(), notes, dataclasses.asdict(plain)], saved.tensors
    values, notes, fields = distributed.broadcast_object(parts)
    path, tensors = Path(fields["path"]), distributed.broadcast_tensors(tensors)
    saved = Checkpoint(**{**fields, "path": path, "tensors": tensors})
    return Resumed(saved.path.parents[1], parse_config(kind, {**values, **changed}), saved, tuple(notes))


def given_config(resumed: Resumed) -> Any:
    """The configuration as the user gave it at first, before defaults were filled in."""
    config = resumed.config
    return parse_config(type(config), {**resumed.checkpoint.facts["given"], **config.unsaved})


def environment(device: torch.device, distributed: Distributed) -> dict[str, Any]:
    """What else decides how sums are rounded."""
    return {
        "Striate": __version__,
        "PyTorch": torch.__version__,
        "threads": torch.get_num_threads(),
        "device": device.type,
        "processes": distributed.size,
    }


def _open(
    folder: Path, kind: type[RunConfig], changed: Mapping[str, Any], distributed: Distributed
) -> tuple[RunConfig, Checkpoint, list[str]]:
    """The configuration with what the user changed, the newest intact checkpoint, and warnings."""
    values = read_config(folder, lambda _: kind)
    saved, damaged = checkpoint.newest(folder, partial(require_valid, kind=kind))
    values, saved = extension.completed(values, saved)
    if end := {name: value for name, value in changed.items() if name in EXTENDING}:
        values, saved = extension.extend(folder, values, saved, end)
    wanted = parse_config(kind, {**values, **changed})
    if differences := config_changes(saved.facts["config"], wanted):
        raise UsageError(
            f"cannot resume {str(folder)!r} with another configuration",
            "; ".join(differences),
            "Leave these options unchanged, or start a new run",
        )
    notes = [f"{sentence}; resuming from the checkpoint before it" for sentence in damaged]
    notes += require_unchanged(folder, saved.facts.get("files") or {})
    notes += saved.facts.get("extension", {}).get("notes", ())
    now = environment(distributed.device(wanted.device), distributed)
    notes += [
        f"{name} was {was} and is {now[name]}: the weights may differ in the last bits"
        for name, was in saved.facts["environment"].items()
        if now.get(name, was) != was
    ]
    return wanted, saved, notes


def config_changes(old: Mapping[str, Any], config: RunConfig) -> list[str]:
    """Sentences that name the options with another value, except those that do not decide the weights.

    Args:
        old: the saved configuration; options that are newer than it have their defaults.
        config: the present one.
    """
    callables = {n: getattr(config, n) for n in config.to_json() if callable(getattr(config, n))}
    before = {**parse_config(type(config), {**old, **callables}).to_json(), **{n: old[n] for n in callables}}
    new = config.to_json()
    return [
        f"{name} was {before[name]!r} and is {new[name]!r}"
        for name in sorted(new)
        if name not in config.FREE and before[name] != new[name]
    ]
