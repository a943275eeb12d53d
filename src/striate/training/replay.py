"""Repeating a run: the options of a config.yaml, for `striate train --config`."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from striate.errors import UsageError
from striate.files import expanded
from striate.training.config import RunConfig
from striate.training.config_file import NAME, read_options
from striate.training.options import current_names, declarations, kinds_of

_PATHS = ("data", "weights", "encoder_from", "exclude")  # options that may be paths


def options_of(
    config: str | os.PathLike[str], task: str | None, kind_of: Callable[[str], type[RunConfig]]
) -> dict[str, Any]:
    """The options in a config.yaml, under their current names, with `task` and `data`.

    A relative path that does not exist in the working folder is one in the folder of the file. Callables,
    such as an augmentation, are saved by their names and must be given again.

    Args:
        config: a config.yaml, which may have only some options and may be of an earlier format, or the
            folder of a run.
        task: that is wanted; None for that of the file.
        kind_of: returns the class of a task's configuration.

    Raises:
        UsageError: not a configuration, of another task, or it has an unknown key.
        DataError: it cannot be read.
    """
    path = expanded(config)
    path = path / NAME if path.is_dir() else path
    values = read_options(path)
    found = values.setdefault("task", task or "classification")
    if task is not None and found != task:
        train = "striate seq2seq train" if found == "seq2seq" else "striate train"
        raise UsageError(f"{str(path)!r} is for {found}, not for {task}", "", f"Use {train} --config")
    kind = kind_of(found)
    try:
        values, _ = current_names(kind, values)
    except UsageError as error:
        raise UsageError(f"{error.what} in {str(path)!r}", error.why, error.fix) from error
    unsaved = {name for name, declared, _ in declarations(kind) if not declared.saved}
    if found_unsaved := sorted(unsaved & values.keys()):  # `trust`, for one, is the caller's to give
        what, why = f"{found_unsaved[0]} in {str(path)!r}", "it is not an option that a file can hold"
        raise UsageError(what, why, "Remove the line")
    hints = {name: kinds_of(hint) for name, _, hint in declarations(kind)}
    return {
        name: _relative_to(path.parent, value) if name in _PATHS else _parsed(value, hints.get(name, ()))
        for name, value in values.items()
    }


def _parsed(value: Any, kinds: tuple[type, ...]) -> Any:
    """A value of the type of its option: lists become tuples; YAML reads 1e-3 as text."""
    if isinstance(value, list):
        return tuple(value)
    if isinstance(value, str) and float in kinds and str not in kinds:
        try:
            return float(value)
        except ValueError:
            return value  # its check has a better message
    return value


def _relative_to(folder: Path, value: Any) -> Any:
    """A path, or several, with those that exist only in this folder made absolute."""
    if isinstance(value, (list, tuple)):
        return tuple(_relative_to(folder, item) for item in value)
    if not isinstance(value, str) or os.path.lexists(expanded(value)):
        return value
    inside = folder / value
    return str(inside.absolute()) if os.path.lexists(inside) else value
