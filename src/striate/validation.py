"""Checks plain values from files against the types of dataclass fields and of arguments.

The one validator of metadata: the headers of bundles, checkpoints and configurations pass through it before
anything uses them. Ranges are declared where the values are defined: in `__post_init__`, in options, or in
`striate.models.RANGES`.
"""

from __future__ import annotations

import collections.abc
import dataclasses
import functools
import math
import numbers
import types
import typing
from collections.abc import Iterable, Mapping
from typing import Any, Literal

from striate.errors import DataError

_DEPTH = 16  # of nested lists and objects
_LARGEST = 2**63  # torch and NumPy have no larger whole numbers
_SHOWN = 60  # characters of a value in a message
_LISTS = (list, tuple, collections.abc.Sequence, collections.abc.Iterable)
_OBJECTS = (dict, collections.abc.Mapping)
_WORDS = {
    int: "a whole number", float: "a finite number", bool: "true or false", str: "text", type(None): "null"
}  # fmt: skip


class InvalidValueError(DataError, ValueError):
    """A value of the wrong type, an unknown field, or a missing one; the message names the field.

    Args:
        name: of the field, such as `preprocess.mean[0]`.
        value: what it is.
        wanted: what it must be.
        why: the reason, if it is another one.
    """

    def __init__(self, name: str, value: Any = None, wanted: str = "", why: str = "") -> None:
        self.name, self.wanted = name, wanted
        super().__init__(f"{name} {why or f'is {shown(value)}, not {wanted}'}")


def shown(value: Any) -> str:
    """A value in a message, in one line."""
    try:
        text = "null" if value is None else ascii(value) if isinstance(value, (dict, list)) else repr(value)
    except ValueError:  # a number of thousands of digits
        text = "a very large number"
    except RecursionError:
        text = "a deeply nested value"
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


def is_text(name: str) -> bool:
    """Whether a file name is valid text. File names may be any bytes, but class names go into JSON."""
    return not any("\ud800" <= c <= "\udfff" for c in name)


def require(value: Any, hint: Any, name: str) -> None:
    """Check a value against a type annotation.

    Args:
        value: plain: numbers, strings, booleans, None, lists or tuples, and objects with string keys.
        hint: `int`, `float`, `bool`, `str`, `None`, `Literal`, dataclasses for objects, and unions, lists,
            tuples and dicts of them; `Any` for any plain value of finite numbers. No plain value is of
            another class.
        name: of the field, for the message.

    Raises:
        InvalidValueError: it does not fit.
    """
    kind, parts = typing.get_origin(hint) or hint, typing.get_args(hint)
    if hint is Any:
        _require_plain(value, name, _DEPTH)
    elif kind in (typing.Union, types.UnionType):
        _require_any(value, parts, name)
    elif kind is Literal:
        if not any(type(value) is type(choice) and value == choice for choice in parts):
            raise InvalidValueError(name, value, " or ".join(map(repr, parts)))
    elif kind in _LISTS:
        _require_list(value, kind, parts, name)
    elif kind in _OBJECTS:
        if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
            raise InvalidValueError(name, value, "an object")
        for key, item in value.items():
            require(item, parts[1] if parts else Any, f"{name}.{key}")
    elif dataclasses.is_dataclass(kind):
        require_fields(value, kind, name)
    elif not _is_scalar(value, kind):
        raise InvalidValueError(name, value, _WORDS.get(kind, "another kind of value"))


def require_fields(values: Any, kind: Any, name: str, optional: Iterable[str] = ()) -> None:
    """Check an object against the fields of a dataclass: no unknown key, none missing, all of their types.

    Args:
        values: what a file holds.
        kind: the dataclass.
        name: of the object, for the message; may be empty.
        optional: fields that may be missing although they have no default.

    Raises:
        InvalidValueError: it does not fit.
    """
    hints = field_types(kind)
    needed = {
        f.name
        for f in dataclasses.fields(kind)
        if f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
    }
    if not isinstance(values, Mapping):
        raise InvalidValueError(name or "it", values, "an object")
    prefix = f"{name}." if name else ""
    for key in values:
        if key not in hints:
            raise InvalidValueError(f"{prefix}{shown(key)[1:-1]}", why="is unknown")
    for key in sorted(needed - set(optional) - values.keys()):
        raise InvalidValueError(f"{prefix}{key}", why="is missing")
    for key, value in values.items():
        require(value, hints[key], f"{prefix}{key}")


def field_types(kind: Any) -> dict[str, Any]:
    """The type annotation of each field of a dataclass."""
    return _field_types(kind)


@functools.cache
def _field_types(kind: type) -> dict[str, Any]:
    hints = typing.get_type_hints(kind)
    return {field.name: hints[field.name] for field in dataclasses.fields(kind)}


def _require_any(value: Any, hints: tuple[Any, ...], name: str) -> None:
    """Check a value against several types; the error is that of the type that it comes closest to."""
    errors = []
    for hint in hints:
        try:
            return require(value, hint, name)
        except InvalidValueError as error:
            errors.append(error)
    deepest = max(errors, key=lambda error: len(error.name))
    if deepest.name != name:
        raise deepest
    raise InvalidValueError(name, value, " or ".join(dict.fromkeys(error.wanted for error in errors)))


def _require_list(value: Any, kind: Any, parts: tuple[Any, ...], name: str) -> None:
    if not isinstance(value, (list, tuple)):
        raise InvalidValueError(name, value, "a list")
    fixed = kind is tuple and parts and parts[-1] is not Ellipsis
    if fixed and len(value) != len(parts):
        raise InvalidValueError(name, value, f"a list of {len(parts)}")
    for i, item in enumerate(value):
        require(item, parts[i] if fixed else parts[0] if parts else Any, f"{name}[{i}]")


def _require_plain(value: Any, name: str, depth: int) -> None:
    if isinstance(value, (list, tuple, Mapping)) and not depth:
        raise InvalidValueError(name, value, "nested less deeply")
    if isinstance(value, Mapping):
        for key, item in value.items():
            _require_plain(key, f"a key of {name}", 0)
            _require_plain(item, f"{name}.{key}", depth - 1)
    elif isinstance(value, (list, tuple)):
        for i, item in enumerate(value):
            _require_plain(item, f"{name}[{i}]", depth - 1)
    elif not any(_is_scalar(value, kind) for kind in _WORDS):
        raise InvalidValueError(name, value, "a finite number, text or a list of them")


def _is_scalar(value: Any, kind: Any) -> bool:
    if kind is None or kind is type(None):
        return value is None
    if kind is bool or isinstance(value, bool):
        return kind is bool and isinstance(value, bool)
    if kind in (int, float) and isinstance(value, numbers.Integral):
        return abs(int(value)) < _LARGEST
    if kind in (int, float):
        return kind is float and isinstance(value, numbers.Real) and math.isfinite(value)
    if kind is str:
        return isinstance(value, str)
    return False  # a class of Python objects, which no file holds
