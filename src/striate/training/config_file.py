"""config.yaml: reading the configuration of a run; needs no torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import yaml

from striate import strict_yaml
from striate.errors import UsageError
from striate.files import probe
from striate.training.config import RunConfig
from striate.training.options import Option, check, current_names, declarations, kinds_of, takes_functions
from striate.validation import InvalidValueError, require, shown

NAME = "config.yaml"
CHECKPOINTS = "state"  # the folder of a run's checkpoints
DATA_TABLE = f"{CHECKPOINTS}/data.csv"  # the files that a run reads
TUNING = "tune.json"  # in the folder of a search for options
FORMAT = 3  # of config.yaml and of checkpoints; docs/compatibility.md has the policy

_ZERO_IN_FORMAT_1 = ("width", "depth", "heads", "hidden", "encoder_channels", "epochs", "batch", "lr")

_ALWAYS_IN_FORMAT_1 = {"accumulate", "epochs", "batch", "lr", "seed"}

Config = TypeVar("Config", bound=RunConfig)


def read_config(
    folder: Path, kind_of: Callable[[str], type[RunConfig]] | None = None, what: str = ""
) -> dict[str, Any]:
    """The values of a run's config.yaml, with `task`.

    Args:
        folder: of the run.
        kind_of: returns the class of a task's configuration, against which each value is checked; None to
            check only that the values are plain.
        what: what failed, for the message; by default that the run cannot be resumed.

    Raises:
        UsageError: the folder is not a run, or a newer Striate wrote it.
        DataError: config.yaml is damaged; the message names the line.
    """
    path, what = folder / NAME, what or f"cannot resume {str(folder)!r}"
    if probe(path) is None:
        raise UsageError(what, f"it has no {NAME}, so it is not a run", "Give runs/NAME")
    read, found = _read(path, what)
    values = current_config(read.values, 1 if found is None else found)
    task = values.get("task")
    if not isinstance(task, str):
        raise read.error("task", f"task is {shown(task)}, not text")
    if kind_of is not None:
        _require_valid(values, read, kind_of)
    return values


def read_options(path: Path) -> dict[str, Any]:
    """The options in a configuration file, which need not be complete.

    Raises:
        UsageError: there is no such file, or a newer Striate wrote it.
        DataError: it is damaged; the message names the line.
    """
    what = f"cannot read {str(path)!r}"
    if probe(path) is None:
        raise UsageError(what, "there is no such file", f"Give the {NAME} of a run")
    read, found = _read(path, what)
    if found is None:  # of the first format, or written by hand
        found = 1 if read.values.keys() >= _ALWAYS_IN_FORMAT_1 else FORMAT
    return current_config(read.values, found)


def _read(path: Path, what: str) -> tuple[strict_yaml.Options, int | None]:
    """The content of a file without its format, and the format; errors begin with `what`."""
    read = strict_yaml.read(path)
    found = read.values.pop("format", None)
    if found is not None and (type(found) is not int or found < 1):
        raise read.error("format", f"format is {shown(found)}, not a whole number")
    if found is not None and found > FORMAT:
        raise UsageError(what, "a newer Striate wrote it", "Upgrade Striate")
    return read, found


def _require_valid(
    values: Mapping[str, Any], read: strict_yaml.Options, kind_of: Callable[[str], type[RunConfig]]
) -> None:
    """Check each value against its declaration; raises DataError."""
    try:
        kind = kind_of(values["task"])
    except UsageError as error:
        raise read.error("task", str(error).rstrip(".")) from error
    if invalid := invalid_option(kind, values):
        raise read.error(*invalid)


def invalid_option(kind: type[RunConfig], values: Mapping[str, Any]) -> tuple[str, str] | None:
    """The name of the first value that its declaration does not allow, and the reason; None if all are valid.

    Args:
        kind: the class of the configuration.
        values: of its options, maybe under old names; `data` must be text or a list of texts. Callables are
            saved by their names, which are not checked.
    """
    known = {name: (declared, hint) for name, declared, hint in declarations(kind)}
    for name, value in values.items():
        try:
            ((current, value),) = current_names(kind, {name: value})[0].items()
            declared, hint = known.get(current, (Option(""), str | tuple[str, ...]))
            if not declared.saved:
                return name, f"{name} is not an option that a file can hold"
            if isinstance(value, str) and "." in value and takes_functions(kinds_of(hint)):
                continue
            require(value, hint, name)
            check(current, tuple(value) if isinstance(value, list) else value, declared, hint)
        except (UsageError, InvalidValueError) as error:
            return name, " ".join(str(error).split()).rstrip(".")
    return None


def config_text(values: Mapping[str, Any]) -> str:
    """The YAML of a configuration, which is read back unchanged whatever names of files it holds."""
    return yaml.dump(dict(values), Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=1 << 30)


class _Dumper(yaml.SafeDumper):
    """Escapes what cannot be printed: in plain text, YAML reads U+0085 as a line break, for example."""


def _quoted(dumper: _Dumper, value: str) -> yaml.ScalarNode:
    style = None if value.isprintable() else '"'
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style=style)


_Dumper.add_representer(str, _quoted)


def current_config(values: Mapping[str, Any], format: int) -> dict[str, Any]:
    """The values of a configuration that an earlier version wrote, as this version writes them.

    In format 1, from before formats had numbers, `accumulate` was the number of parts that a batch was split
    into, and 0 stood for a default. Up to format 2, the epochs did not count within a budget; in sequence to
    sequence, the error rate chose the best epoch, all further columns of a table were references, and words
    were not dropped.
    """
    values = _from_format_1(values) if format < 2 else dict(values)
    if format < 3:
        if values.get("budget") is not None:
            values["epochs"] = None
        if values.get("task") == "seq2seq":
            values |= {"monitor": "error", "reference_columns": "all", "word_dropout": 0.0}
    return values


def _from_format_1(values: Mapping[str, Any]) -> dict[str, Any]:
    values = {name: None if name in _ZERO_IN_FORMAT_1 and not v else v for name, v in values.items()}
    values.setdefault("task", "seq2seq" if "target_tokens" in values else "classification")
    values["micro_batches"], values["accumulate"] = values.get("accumulate", 1), 1
    return values


def parse_config(kind: type[Config], values: Mapping[str, Any]) -> Config:
    """A configuration from plain values; old names of options are accepted.

    Raises:
        UsageError: an unknown option or an invalid value.
    """
    known, _ = current_names(kind, values)
    values = {name: tuple(value) if isinstance(value, list) else value for name, value in known.items()}
    return kind(**values)
