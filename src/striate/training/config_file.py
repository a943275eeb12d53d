"""config.yaml: reading the configuration of a run; needs no torch."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import yaml

from striate.errors import UsageError, access_error
from striate.training.config import RunConfig
from striate.training.options import current_names

NAME = "config.yaml"
CHECKPOINTS = "state"  # the folder of a run's checkpoints
FORMAT = 3  # of config.yaml and of checkpoints; docs/compatibility.md has the policy

_ZERO_IN_FORMAT_1 = ("width", "depth", "heads", "hidden", "encoder_channels", "epochs", "batch", "lr")

_ALWAYS_IN_FORMAT_1 = {"accumulate", "epochs", "batch", "lr", "seed"}

Config = TypeVar("Config", bound=RunConfig)


def read_config(folder: Path) -> dict[str, Any]:
    """The values of a run's config.yaml, with `task`.

    Raises:
        UsageError: the folder is not a run, config.yaml is damaged, or a newer Striate wrote it.
    """
    path, what = folder / NAME, f"cannot resume {str(folder)!r}"
    try:
        values, found = _read(path, what)
    except FileNotFoundError as error:
        raise UsageError(what, f"it has no {NAME}, so it is not a run", "Give runs/NAME") from error
    return current_config(values, 1 if found is None else found)


def read_options(path: Path) -> dict[str, Any]:
    """The options in a configuration file, which need not be complete.

    Raises:
        UsageError: there is no such file, it is damaged, or a newer Striate wrote it.
    """
    what = f"cannot read {str(path)!r}"
    try:
        values, found = _read(path, what)
    except FileNotFoundError as error:
        raise UsageError(what, "there is no such file", f"Give the {NAME} of a run") from error
    if found is None:  # of the first format, or written by hand
        found = 1 if values.keys() >= _ALWAYS_IN_FORMAT_1 else FORMAT
    return current_config(values, found)


def _read(path: Path, what: str) -> tuple[dict[str, Any], int | None]:
    """The values of a file and its format; errors begin with `what`."""
    try:
        values = dict(yaml.safe_load(path.read_text("utf-8")))
        found = values.pop("format", None)
        newer = found is not None and found > FORMAT
        if not all(isinstance(name, str) for name in values):
            raise ValueError("a key is not a name")
    except NotADirectoryError as error:
        raise FileNotFoundError(path) from error
    except FileNotFoundError:
        raise
    except OSError as error:
        raise access_error(error, f"cannot open {str(path)!r}") from error
    except (TypeError, AttributeError, ValueError, yaml.YAMLError) as error:
        why = " ".join(str(error).split())
        raise UsageError(what, f"{path} is damaged: {why}") from error
    if newer:
        raise UsageError(what, "a newer Striate wrote it", "Upgrade Striate")
    return values, found


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
