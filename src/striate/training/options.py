"""Options that are declared once: a dataclass field carries its help, range, choices and flags.

Command-line flags, `--help`, `config.yaml`, checks and the docstring of `striate.train` all come from these
declarations. Nothing here imports torch or NumPy, because `--help` must not.
"""

from __future__ import annotations

import collections.abc
import dataclasses
import functools
import importlib
import math
import re
import shlex
import types
import typing
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, TypeVar

from striate.errors import UsageError, share_meant, unknown_name
from striate.progress import Progress
from striate.training.foreign_names import striate_name

_MAX_SECONDS = 10 * 366 * 86_400

C = TypeVar("C", bound="Options")


@dataclass(frozen=True)
class Option:
    """What a field says about itself, besides its name, type and default.

    Attributes:
        help: one sentence, for `--help` and for docstrings.
        minimum: the smallest valid value; None for no limit.
        maximum: the largest valid value.
        above: valid values are larger than this.
        below: valid values are smaller than this.
        choices: valid names, or `module:NAME` of a collection that is imported when it is needed.
        more: a text that marks further valid names, which are checked elsewhere.
        flags: command-line spellings in place of `--name`; `--name/--no-name` for two-way switches.
        old_names: earlier names, which are still read and whose flags are hidden.
        unset: how `--help` shows a default of None.
        in_cli: whether the option has a flag.
        saved: whether `config.yaml` and checkpoints hold it.
        needs: another option, and its values with which this one has an effect; None if it always has.
    """

    help: str
    minimum: float | None = None
    maximum: float | None = None
    above: float | None = None
    below: float | None = None
    choices: tuple[str, ...] | str = ()
    more: str = ""
    flags: tuple[str, ...] = ()
    old_names: tuple[str, ...] = ()
    unset: str = ""
    in_cli: bool = True
    saved: bool = True
    needs: tuple[str, tuple[Any, ...]] | None = None

    @property
    def known(self) -> tuple[str, ...]:
        """The valid names; empty if any value is valid."""
        if isinstance(self.choices, str):
            module, name = self.choices.split(":")
            return tuple(getattr(importlib.import_module(module), name))
        return self.choices

    @property
    def range(self) -> str:
        """The valid range in words; empty without limits."""
        if self.minimum is not None and self.maximum is not None:
            return f"from {_number(self.minimum)} to {_number(self.maximum)}"
        low = f"at least {_number(self.minimum)}" if self.minimum is not None else ""
        low = f"above {_number(self.above)}" if self.above is not None else low
        high = f"at most {_number(self.maximum)}" if self.maximum is not None else ""
        high = f"below {_number(self.below)}" if self.below is not None else high
        return " and ".join(part for part in (low, high) if part)

    def allows(self, value: float) -> bool:
        """Whether a number is finite and in range."""
        return (
            -math.inf < value < math.inf
            and (self.minimum is None or value >= self.minimum)
            and (self.maximum is None or value <= self.maximum)
            and (self.above is None or value > self.above)
            and (self.below is None or value < self.below)
        )


def _number(value: float) -> str:
    return f"{int(value):,}" if 10_000 <= value < 1e20 else f"{value:g}"


def option(default: Any, help: str, **about: Any) -> Any:
    """A dataclass field with its declaration; `about` are the attributes of `Option`."""
    return dataclasses.field(default=default, metadata={"option": Option(help, **about)})


def override(group: type[Options], name: str, default: Any, **about: Any) -> Any:
    """The same field with another default (or range, choices) for one task; the rest stays as declared."""
    declared: Option = group.__dataclass_fields__[name].metadata["option"]
    return dataclasses.field(default=default, metadata={"option": dataclasses.replace(declared, **about)})


@dataclass(frozen=True, kw_only=True)
class Options:
    """A group of options. `PANEL` is its heading in `--help`."""

    PANEL: ClassVar[str] = ""

    def __post_init__(self) -> None:
        """Check every value against its declaration, then the values against each other.

        Raises:
            UsageError: a value of the wrong type, out of range, or not among the choices.
        """
        for name, declared, hint in declarations(type(self)):
            check(name, getattr(self, name), declared, hint)
        self.check_together()

    def check_together(self) -> None:
        """Check options that depend on each other; subclasses override this. Raises UsageError."""

    def changed(self, names: Iterable[str]) -> list[str]:
        """Those of the options that differ from their defaults, as flags with their values."""
        fields = type(self).__dataclass_fields__
        values = {name: getattr(self, name) for name in names}
        return [f"{flag(n)} {value}" for n, value in values.items() if value != fields[n].default]

    def require_effects(self, given: Container[str]) -> None:
        """Refuse options that the user gave if other options take away their effect.

        Args:
            given: their names; a value that is the default is as good as not given.

        Raises:
            UsageError: with the option that it needs.
        """
        for name, declared, _ in declarations(type(self)):
            if declared.needs is None or name not in given or not (shown := self.changed([name])):
                continue
            other, values = declared.needs
            value = getattr(self, other)
            if value not in values:
                what = flag(other) if value is None else f"{flag(other)} {value}"
                named = [str(v) for v in values if v is not None]
                fix = f"use {flag(other)} {' or '.join(named)}" if named else f"leave out {flag(other)}"
                raise UsageError(shown[0], f"it has no effect with {what}", f"Leave it out, or {fix}")

    def to_json(self) -> dict[str, Any]:
        """All saved options as plain values; a callable is saved by its name."""
        names = [name for name, declared, _ in declarations(type(self)) if declared.saved]
        return {name: _plain(getattr(self, name)) for name in names}


def declarations(config: type[Options]) -> tuple[tuple[str, Option, Any], ...]:
    """Name, declaration and type of each option of a configuration, in the order of its groups."""
    return _declarations(config)  # type: ignore[arg-type]  # mypy takes a dataclass's __hash__ for its class's


@functools.cache
def _declarations(config: type[Options]) -> tuple[tuple[str, Option, Any], ...]:
    hints = typing.get_type_hints(config, localns={"Progress": Any, "DataSet": Any, "Recipe": Any})
    return tuple(
        (field.name, field.metadata["option"], hints[field.name])
        for field in dataclasses.fields(config)
        if "option" in field.metadata
    )


def panel(config: type[Options], name: str) -> str:
    """The heading under which `--help` lists an option: that of the group that declares it first."""
    groups = [group for group in config.__mro__ if name in vars(group).get("__annotations__", {})]
    return str(getattr(groups[-1], "PANEL", ""))


def check(name: str, value: Any, declared: Option, hint: Any) -> None:
    """Refuse a value that its declaration does not allow; raises UsageError."""
    kinds = kinds_of(hint)
    if value is None and type(None) in kinds:
        return
    if declared.known and not (callable(value) and takes_functions(kinds)):
        if not isinstance(value, str) and str in kinds:
            why, fix = "it must be a name", f"Give one of {', '.join(declared.known[:3])}, ..."
            raise UsageError(f"{name}=<{type(value).__name__}>", why, fix)
        if value not in declared.known and not (declared.more and declared.more in value):
            raise unknown_name(f"value for {flag(name)}", str(value), declared.known)
        return
    if not {int, float} & set(kinds) or isinstance(value, bool):
        return
    if not isinstance(value, (int, float)):
        needed, value = "a number", repr(value)
    elif float not in kinds and not isinstance(value, int):
        needed = "a whole number"
    elif (values := _literals(hint)) and value not in values:
        needed = " or ".join(map(str, values))
    elif not declared.allows(value):
        needed = declared.range
        if not -math.inf < value < math.inf:
            needed = f"{needed} and finite".removeprefix(" and ")
    else:
        return
    shown = "of hundreds of digits" if isinstance(value, int) and abs(value) >= 10**99 else str(value)[:99]
    meant = share_meant(value) if float in kinds and isinstance(value, (int, float)) else ""
    fix = meant if meant and declared.allows(value / 100) else "Leave it out for the default"
    raise UsageError(f"{flag(name)} {shown}", f"it must be {needed}", fix)


def takes_functions(kinds: Container[Any]) -> bool:
    """Whether an option of these types may be a callable."""
    return collections.abc.Callable in kinds


def kinds_of(hint: Any) -> tuple[type, ...]:
    """The types of an annotation; of a Literal, those of its values."""
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return tuple(kind for part in typing.get_args(hint) for kind in kinds_of(part))
    if typing.get_origin(hint) is Literal:
        return tuple({type(value) for value in typing.get_args(hint)})
    return (typing.get_origin(hint) or hint,)


def _literals(hint: Any) -> tuple[Any, ...]:
    """The values of a Literal in an annotation; empty if there is none."""
    if typing.get_origin(hint) is Literal:
        return typing.get_args(hint)
    return tuple(value for part in typing.get_args(hint) for value in _literals(part))


def flag(name: str) -> str:
    """The flag of an option: `--label-smoothing` for `label_smoothing`."""
    return f"--{name.replace('_', '-')}"


def as_flags(config: type[Options], values: Mapping[str, Any]) -> str:
    """Options as flags that a shell reads back as the same values; those without a value are left out."""
    words: list[str] = []
    for name, declared, _ in declarations(config):
        value = values.get(name)
        if value is None:
            continue
        spelling = declared.flags[0] if declared.flags else flag(name)
        on, _, off = spelling.partition("/")
        if isinstance(value, bool):
            words += [on] if value else [off] if off else []  # without a negative form it is off by default
        else:
            words += [on, str(value)]
    return shlex.join(words)


def current_names(config: type[Options], values: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Options under their current names, and a note for each that was given under an old one.

    Raises:
        UsageError: no option has this name; the message lists near matches.
    """
    table = declarations(config)
    old = {name: new for new, declared, _ in table for name in declared.old_names}
    names = [name for name, _, _ in table] + ["data"]
    found, notes = {}, []
    for name, value in values.items():
        if name in old:
            new = flag(old[name])
            renamed = f"{flag(name)} is now called {new}"
            notes.append(f"{renamed}; the old name will be removed in the next release")
        elif name not in names:
            raise _unknown_option(name, names)
        found[old.get(name, name)] = value
    return found, notes


def _unknown_option(name: str, names: Sequence[str]) -> UsageError:
    """The error for a keyword argument, with Striate's name for it or similar names."""
    meant, why = striate_name(name, [known.replace("_", "-") for known in names])
    if meant:
        option, _, value = meant.partition(" ")
        keyword = option.replace("-", "_") + (f"={value!r}" if value else "")
        return UsageError(f"unknown option {name!r}", f"in Striate it is {keyword}")
    return UsageError(f"unknown option {name!r}", why) if why else unknown_name("option", name, names)


def docstring(config: type[Options], indent: str = "        ") -> str:
    """The `Args:` entries of a function that takes these options as keyword arguments."""
    lines = []
    for name, declared, _ in declarations(config):
        named = declared.choices if isinstance(declared.choices, tuple) else ()  # others would be imported
        allowed = ", ".join(named) or declared.range
        lines.append(f"{indent}{name}: {declared.help}{f' ({allowed})' if allowed else ''}.")
    return "\n".join(lines)


def seconds_of(duration: str) -> float:
    """A duration such as 90s, 10m or 1h30m in seconds; raises UsageError if it is not one."""
    parts = re.findall(r"(\d+(?:\.\d+)?)([hms]?)", duration)
    if "".join(number + unit for number, unit in parts) != duration or not parts:
        why, fix = "that is not a duration", "Use a value like 90s, 10m or 1h30m"
        raise UsageError(f"--budget {duration[:80]!r}", why, fix)
    seconds = sum(float(number) * {"h": 3600, "m": 60, "s": 1, "": 1}[unit] for number, unit in parts)
    if seconds > _MAX_SECONDS:
        raise UsageError(f"--budget {duration[:80]}", "it is more than ten years", "Use a value like 10m")
    return seconds


def with_unit(duration: str) -> str:
    """A duration for messages: without a unit it is in seconds."""
    return f"{duration}s" if duration[-1:].isdigit() else duration


def announce_unit(duration: str | None, progress: Progress) -> None:
    """Say that a budget without a unit is in seconds, which may not be what was meant."""
    if duration and duration[-1].isdigit():
        minutes = "" if set(duration) & {"h", "m", "s"} else f", and {duration}m would be minutes"
        seconds = f"{seconds_of(duration):g} seconds"
        progress.info(f"--budget {duration} ends without a unit: it is {seconds}{minutes}")


def _plain(value: Any) -> Any:
    """A value that JSON and YAML hold: tuples as lists, callables by their qualified name."""
    if isinstance(value, tuple):
        return list(value)
    if callable(value):
        kind = value if hasattr(value, "__qualname__") else type(value)
        return f"{kind.__module__}.{kind.__qualname__}"
    return value
