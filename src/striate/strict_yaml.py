"""YAML files of options: one mapping of plain values, each with its line, without aliases.

YAML's aliases let a kilobyte stand for terabytes, and Python's parser reads dates, binary data and numbers of
any length.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from striate.errors import DataError
from striate.reading import read_bytes
from striate.validation import InvalidValueError, require, shown

_MAX_BYTES = 1 << 20  # far more than all options take
_DEPTH = 20  # of nested lists
_FIX = "Restore the file"


@dataclass(frozen=True)
class Options:
    """The content of a file.

    Attributes:
        path: of the file.
        values: plain values by name.
        lines: the line of each name, from 1.
    """

    path: Path
    values: dict[str, Any]
    lines: dict[str, int] = field(repr=False, default_factory=dict)

    def error(self, name: str, why: str) -> DataError:
        """The error for a value, which names the file and the line."""
        return DataError(f"{self.path}:{self.lines.get(name, 1)}", why, _FIX)


def read(path: Path) -> Options:
    """Read a file.

    Raises:
        DataError: there is no such file, or it is damaged; the message names the line.
    """
    raw = read_bytes(path, _MAX_BYTES)
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise _damaged(path, 1 + raw.count(b"\n", 0, error.start), "it is not UTF-8 text") from error
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        why = " ".join((error.problem or str(error)).split())
        raise _damaged(path, 1 if mark is None else mark.line + 1, why) from error
    except yaml.reader.ReaderError as error:
        line = 1 + text.count("\n", 0, int(error.position))
        raise _damaged(path, line, f"the character {error.character!r} is not allowed") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise _damaged(path, 1, " ".join(str(error).split())[:200]) from error
    if not isinstance(node, yaml.MappingNode):
        why = "it is empty" if node is None else "it is not a mapping of options (`name: value`)"
        raise _damaged(path, 1, why)
    return _values(path, loader, node)


class _Loader(yaml.SafeLoader):
    """Refuses aliases and deep nesting before anything is built from them."""

    _depth = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        """Build the next node."""
        event: yaml.Event = self.peek_event()  # type: ignore[no-untyped-call]
        mark: Any = event.start_mark
        if isinstance(event, yaml.AliasEvent):
            raise yaml.composer.ComposerError(None, None, "it has an alias", mark)
        if self._depth > _DEPTH:
            raise yaml.composer.ComposerError(None, None, "it is nested too deeply", mark)
        self._depth += 1
        node = super().compose_node(parent, index)
        self._depth -= 1
        return node


def _values(path: Path, loader: _Loader, mapping: yaml.MappingNode) -> Options:
    """The plain values of a mapping."""
    found = Options(path, {})
    for key, value in mapping.value:
        line, name = key.start_mark.line + 1, key.value
        if not isinstance(name, str) or key.tag != "tag:yaml.org,2002:str":
            raise _damaged(path, line, f"the key {shown(name)} is not a name")
        if name in found.values:
            raise _damaged(path, line, f"{name!r} is there twice")
        try:
            found.values[name] = loader.construct_object(value, deep=True)
            require(found.values[name], Any, name)
        except InvalidValueError as error:
            raise _damaged(path, line, str(error)) from error
        except (yaml.YAMLError, ValueError, TypeError, LookupError, ArithmeticError) as error:
            raise _damaged(path, line, f"the value of {name!r} cannot be read") from error
        found.lines[name] = line
    return found


def _damaged(path: Path, line: int, why: str) -> DataError:
    return DataError(f"{path}:{line}", f"the file is damaged: {why}", _FIX)
