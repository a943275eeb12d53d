"""JSON as RFC 8259 defines it; everything that Striate prints or writes as JSON passes through `dumps`.

What it reads of its own files passes through `loads`.

Python's `json` writes NaN and infinity as `NaN` and `Infinity`, which no other parser has to accept.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from typing import Any

from striate.printable import BEYOND_C0

_LEFT_UNESCAPED = re.compile(f"[{BEYOND_C0}]")


def dumps(value: Any, *, indent: int | None = None, ascii_only: bool = False) -> str:
    """JSON text of a value; numbers that are not finite become null, because JSON has none for them.

    Args:
        value: plain values: dicts, lists, tuples, strings, numbers, booleans, None.
        indent: spaces per level; None for one line.
        ascii_only: escape all other characters. File names that are not UTF-8 are escaped in any case.
    """
    try:
        text = json.dumps(value, ensure_ascii=ascii_only, indent=indent, allow_nan=False)
    except ValueError:
        value = _finite(value)
        text = json.dumps(value, ensure_ascii=ascii_only, indent=indent, allow_nan=False)
    if not text.isascii() and any("\ud800" <= c <= "\udfff" for c in text):
        return json.dumps(value, indent=indent, allow_nan=False)  # UTF-8 has no lone surrogates
    # Only texts hold those that JSON need not escape, and a terminal would act on them.
    return _LEFT_UNESCAPED.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def loads(text: str | bytes) -> Any:
    """The value of JSON text; numbers that are not finite become None, as `dumps` writes them.

    Raises:
        ValueError: it is not JSON in UTF-8, names a key twice, or is nested too deeply.
    """
    try:
        return json.loads(
            text.decode() if isinstance(text, bytes) else text,
            object_pairs_hook=_object, parse_float=_number, parse_constant=lambda _: None,
        )  # fmt: skip
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of JSON, whose keys must differ."""
    found = dict(pairs)
    if len(found) < len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise ValueError(f"the key {key!r} is there twice")
            seen.add(key)
    return found


def _number(text: str) -> float | None:
    value = float(text)
    return value if math.isfinite(value) else None


def _finite(value: Any) -> Any:
    """The same value with None in place of numbers that are not finite."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {_key(name): _finite(item) for name, item in value.items()}
    return [_finite(item) for item in value] if isinstance(value, (list, tuple)) else value


def _key(name: Any) -> Any:
    """A key of an object; Python's `json` would write a key that is not finite as `NaN`."""
    return str(name) if isinstance(name, float) and not math.isfinite(name) else name
