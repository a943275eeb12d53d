r"""CSV files (RFC 4180) that are read as they were written, whatever file names they hold.

Control characters, line breaks too, are written as a shell quotes them: `$'a\nb.png'`. Each row is then one
line, and a name cannot act on a terminal that shows the file.

Python's `csv` loses a carriage return at the end of a field, does not say whether a field was quoted, and
accepts text after a closing quote.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from striate.errors import DataError
from striate.files import write_atomic
from striate.printable import UNSAFE, escape
from striate.reading import MAX_TABLE_BYTES, read_bytes

_BREAK = re.compile(r"\r\n|\r|\n")
_PLAIN = re.compile(r"[A-Za-z0-9_./:+-]+")  # fields that need no quotes
_LONGEST = 1 << 17  # characters of a field, as in Python's csv; more are usually those of a lost quote

_ESCAPE = re.compile(r"\\(?:x[0-9a-f]{2}|u[0-9a-f]{4}|[nrt'\\])")
_SHELL_QUOTED = re.compile(rf"\$'(?:[^'\\]|{_ESCAPE.pattern})*'", re.DOTALL)
_TO_ESCAPE = re.compile(rf"['\\]|{UNSAFE.pattern}")

Row = tuple[int, list[str]]  # line number, fields


def read_table(path: Path, *columns: Sequence[str]) -> list[Row]:
    """Read the rows of a file that `write_csv` wrote with these columns.

    Args:
        path: of the file.
        columns: the names of its columns; several for files of several versions.

    Returns:
        The line number and the fields of each row, without the names of the columns.

    Raises:
        DataError: there is no such file, or it is not such a table; the message names the line.
    """
    text = read_bytes(path, MAX_TABLE_BYTES).decode("utf-8", "surrogateescape")
    rows = parse_csv(text, str(path), strip=False)  # earlier versions did not quote blanks at the ends
    _, header = next(rows, (1, []))
    if tuple(header) not in [tuple(names) for names in columns]:
        why = f"it is not a table of {', '.join(columns[0])}" if text else "it is empty"
        raise DataError(f"{path}:1", why, "Restore the file")
    found = []
    for line, fields in rows:
        if len(fields) != len(header):
            why = f"it has {len(fields)} of {len(header)} values"
            raise DataError(f"{path}:{line}", why, "Restore the file")
        found.append((line, [unescaped(field) for field in fields]))
    return found


def write_csv(path: Path, records: Sequence[Any], columns: Iterable[str] | None = None) -> None:
    """Write dataclass records, or tuples under the given column names."""
    if columns is None:
        columns = [field.name for field in dataclasses.fields(records[0])]
        records = [dataclasses.astuple(record) for record in records]
    write_atomic(path, csv_bytes(columns, records))


def csv_bytes(columns: Iterable[str], rows: Iterable[Iterable[Any]]) -> bytes:
    """Return the content of a CSV file. File names that are not UTF-8 keep their bytes."""
    text = "".join(f"{csv_line(row)}\n" for row in (columns, *rows))
    return text.encode("utf-8", "surrogateescape")


def csv_line(values: Iterable[Any]) -> str:
    """Return one line of a CSV file, without the line break at its end."""
    cells = ["" if value is None else str(value) for value in values]
    if _PLAIN.fullmatch("".join(cells)):  # nearly all, and there may be a million rows
        return ",".join(cells)
    return '""' if cells == [""] else ",".join(map(_quoted, cells))


def parse_csv(text: str, name: str, delimiter: str = ",", *, strip: bool = True) -> Iterator[Row]:
    """Yield the line number and the fields of each row; empty lines are skipped.

    Args:
        text: of the file, with its own line breaks.
        name: of the file, for messages.
        delimiter: between the fields.
        strip: remove blanks around fields. Those inside of quotes always stay.

    Raises:
        DataError: a quote is not closed, text follows a closing quote, a field has more than 131,072
            characters, or there is a zero byte; the message names the line.
    """
    if (at := text.find("\0")) >= 0:
        why = "it contains a zero byte, so it is UTF-16 or not text"
        raise DataError(f"{name}:{_count_breaks(text, at) + 1}", why, "Save the table as UTF-8 text")
    at, number = 0, 1
    while at < len(text):
        found = _BREAK.search(text, at)
        end, after = found.span() if found else (len(text), len(text))
        line, first = text[at:end], number
        if '"' in line:
            fields, after, number = _parse_quoted(text, at, number, name, delimiter, strip)
        else:
            fields = line.split(delimiter)
            if strip:
                fields = [field.strip() for field in fields]
        if after - at > _LONGEST and max(map(len, fields)) > _LONGEST:
            why = f"a field has {max(map(len, fields)):,} characters; the limit is {_LONGEST:,}"
            raise DataError(f"{name}:{first}", why, "Check the quotes")
        at, number = after, number + 1
        if fields != [""] or '"' in line:
            yield first, fields


def _parse_quoted(
    text: str, at: int, number: int, name: str, delimiter: str, strip: bool
) -> tuple[list[str], int, int]:
    """Parse a row with quotes; returns its fields, where the next row starts, and its last line's number."""
    fields = []
    blanks = re.compile(r" *" if delimiter == "\t" else r"[ \t]*")
    separator = re.compile(f"{re.escape(delimiter)}|{_BREAK.pattern}|\\Z")
    while True:
        start = blanks.match(text, at).end()  # type: ignore[union-attr]  # it matches nothing, too
        if text.startswith('"', start):
            field, at = _unquoted(text, start + 1, f"{name}:{number}")
            number += len(_BREAK.findall(text, start, at))
            at = blanks.match(text, at).end()  # type: ignore[union-attr]
            after = separator.match(text, at)
            if after is None:
                rest = _BREAK.split(text[at : at + 40])[0]
                fix = "Double each quote inside a quoted value, or remove the quotes"
                raise DataError(f"{name}:{number}", f"{rest!r} follows the closing quote of {field!r}", fix)
        else:
            after = separator.search(text, at)
            assert after is not None  # it matches the end
            field = text[at : after.start()]
            field = field.strip() if strip else field
        fields.append(field)
        at = after.end()
        if after.group() != delimiter:
            return fields, at, number


def _unquoted(text: str, at: int, where: str) -> tuple[str, int]:
    """Return the content of a quoted field that starts at `at`, and the position after its closing quote."""
    parts = []
    while True:
        end = text.find('"', at)
        if end < 0:
            raise DataError(where, "the quote is not closed", 'Add the closing "')
        parts.append(text[at:end])
        if not text.startswith('"', end + 1):
            return '"'.join(parts), end + 1
        at = end + 2


def _count_breaks(text: str, end: int) -> int:
    return sum(1 for _ in _BREAK.finditer(text, 0, end))


def unescaped(cell: str) -> str:
    r"""Return the name in a cell that `csv_line` wrote: `$'a\nb'` is a name with a line break."""
    if not _SHELL_QUOTED.fullmatch(cell):
        return cell
    return _ESCAPE.sub(lambda found: _character(found[0]), cell[2:-1])


def _character(sequence: str) -> str:
    if sequence[1] in "xu":
        return chr(int(sequence[2:], 16))
    return {"n": "\n", "r": "\r", "t": "\t"}.get(sequence[1], sequence[1])


def _escaped(cell: str) -> str:
    """Escape a field with control characters, or one that would be read back as such a field."""
    if not UNSAFE.search(cell) and not _SHELL_QUOTED.fullmatch(cell):
        return cell
    return f"$'{_TO_ESCAPE.sub(lambda found: _escape(found[0]), cell)}'"


def _escape(char: str) -> str:
    return f"\\{char}" if char in "\\'" else escape(char)


def _quoted(cell: str) -> str:
    """Quote a field that would be read back as another one otherwise."""
    cell = _escaped(cell)
    plain = cell.strip() == cell and not cell.startswith("\ufeff") and not any(c in cell for c in ',"')
    return cell if plain else '"' + cell.replace('"', '""') + '"'
