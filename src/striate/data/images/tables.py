"""Tables of images: CSV or TSV files with a column of paths, one of labels, and optionally one of splits."""

from __future__ import annotations

import codecs
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from pathlib import Path

from striate.csv_file import Row, parse_csv, read_table, unescaped, write_csv
from striate.data.images.label_sets import are_sets, from_sets, split_label
from striate.data.images.samples import SEPARATOR, SPLIT_NAMES, UNSPLIT, DataSet
from striate.errors import DataError, UsageError
from striate.reading import MAX_TABLE_BYTES, damage_errors, read_bytes
from striate.validation import is_text

SUFFIXES = (".csv", ".tsv")

# Usual names of the columns, in lower case, without spaces and punctuation. The first of each comes first.
_USUAL = {
    "path": (
        "path", "filepath", "imagepath", "imgpath", "filename", "imagename", "imgname", "imagefile",
        "file", "image", "img",
    ),
    "label": ("label", "class", "category", "target", "labelname", "classname", "categoryname"),
}  # fmt: skip
_CLASS = "class "  # before the name of a column of 0 and 1
_SPLIT_FILE = ("path", "label", "split")
_GROUPED_SPLIT_FILE = (*_SPLIT_FILE, "group")

Rows = dict[str, list[tuple[int, dict[str, str]]]]  # by split: line number, values by column


@dataclass(frozen=True)
class TableColumns:
    """The columns of a table that the user names.

    Attributes:
        path: of the image files; None for the one with a usual name.
        label: the same for the class names.
        group: of the groups of images that must stay together; None for no groups.
    """

    path: str | None = None
    label: str | None = None
    group: str | None = None

    @property
    def options(self) -> str:
        """The options that the user gave; empty if there are none."""
        given = {"--path-column": self.path, "--label-column": self.label, "--group-column": self.group}
        return " and ".join(name for name, value in given.items() if value is not None)


def read(table: Path, columns: TableColumns | None = None, multi_label: bool | None = None) -> DataSet:
    """Read a CSV or TSV file. Relative paths start at the folder of the file.

    Without a column of labels, each further column is a class if all of its values are 0 or 1.

    Args:
        table: the file. Its fields are separated by commas, semicolons, tabs or vertical bars.
        columns: which columns to use, if they have no usual names.
        multi_label: whether a label such as `cat;dog` lists several classes; None to decide by the labels
            (`label_sets.are_sets`).

    Raises:
        DataError: columns or values are missing or ambiguous; the message names the line.
        UsageError: there is no such column; the message lists all of them.
    """
    with damage_errors(f"cannot read {str(table)!r}"):
        text = _decode(read_bytes(table, MAX_TABLE_BYTES))
    text, delimiter = _separator_line(text)
    found, used = _open(table, text, delimiter, columns or TableColumns())
    rows = _by_split(found, used, SPLIT_NAMES)
    if not rows:
        raise DataError(f"cannot use {str(table)!r}", "it has a header but no rows")
    named = {
        key: found.names[i]
        for key, i in used.items()
        if not key.startswith(_CLASS) and found.names[i].lower() != key
    }
    notes = [f"columns: {', '.join(f'{key} from {name!r}' for key, name in named.items())}"] if named else []
    data = _dataset(table, rows, notes, multi_label)
    if "group" not in used:
        return data
    if any(len(these) != len(data.splits[split]) for split, these in rows.items()):
        raise DataError(f"cannot use {str(table)!r}", "an image has several rows", "Join them to one")
    splits = {
        split: replace(samples, groups=tuple(_group(row, table, line) for line, row in rows[split]))
        for split, samples in data.splits.items()
    }
    return replace(data, splits=splits)


def _dataset(table: Path, rows: Rows, notes: list[str], multi_label: bool | None) -> DataSet:
    """The dataset of rows by split: with one class for each image, or with several."""
    if any(key.startswith(_CLASS) for key in next(iter(rows.values()))[0][1]):
        sets = {split: [_flagged(row, table, line) for line, row in these] for split, these in rows.items()}
        return from_sets(str(table), str(table.parent), sets, notes, "a column of 0 and 1 for each class")
    if multi_label is None:
        multi_label = are_sets(row["label"] for these in rows.values() for _, row in these)
    pairs = {
        split: [_pair(row, table, line, unlabelled=multi_label) for line, row in these]
        for split, these in rows.items()
    }
    if not multi_label:
        return DataSet.from_pairs(str(table), str(table.parent), pairs, notes)
    listed = {split: [(path, split_label(label)) for path, label in these] for split, these in pairs.items()}
    return from_sets(str(table), str(table.parent), listed, notes, f"labels separated by {SEPARATOR!r}")


def write_split(path: Path, data: DataSet) -> None:
    """Write path, label, split and, if there are groups, the group of each image: a table that `read` reads.

    Paths are absolute.
    """
    rows = [
        (
            data.absolute_name(name),
            label,
            split,
            *((samples.groups[i],) if samples.groups else ()),
        )
        for split, samples in data.splits.items()
        for i, (name, label) in enumerate(zip(samples.names, data.label_texts(samples), strict=True))
    ]
    write_csv(path, rows, _GROUPED_SPLIT_FILE if data.is_grouped else _SPLIT_FILE)


def read_split(path: Path) -> dict[str, list[tuple[str, str]]]:
    """Read what `write_split` wrote: (path, class name) pairs by split.

    Raises:
        DataError: there is no such file, or it is not such a table; the message names the line.
    """
    found: dict[str, list[tuple[str, str]]] = {}
    for line, (name, label, split, *_) in read_table(path, _SPLIT_FILE, _GROUPED_SPLIT_FILE):
        if split not in SPLIT_NAMES:
            raise DataError(f"{path}:{line}", f"unknown split {split!r}", "Restore the file")
        found.setdefault(split, []).append((name, label))
    return found


def read_rows(
    table: Path,
    text: str,
    columns: Sequence[set[str]],
    example: str,
    delimiter: str = ",",
    split_names: Mapping[str, str] = SPLIT_NAMES,
) -> tuple[Rows, set[str]]:
    """Parse CSV text with an optional column `split`.

    Args:
        table: path of the file, for messages.
        text: its content.
        columns: alternative sets of required columns.
        example: a header with these columns, for messages.
        delimiter: between the columns.
        split_names: name in the table -> name of the split.

    Returns:
        (line number, row) pairs by split, without blanks around unquoted values; and all names of columns.

    Raises:
        DataError: columns are missing or ambiguous, a row has too many fields, or a split is unknown or
            missing.
    """
    found = _parse(table, text, delimiter)
    names = [name.lower() for name in found.names]
    if not any(these <= set(names) for these in columns):
        raise _no_columns(table, text, example)
    needed = set().union(*columns)
    for name in names:
        if name in needed and names.count(name) > 1:
            raise _ambiguous(table, name, [n for n in found.names if n.lower() == name])
    indices = {name: i for i, name in enumerate(names)}
    return _by_split(found, indices, split_names), set(names)


def read_columns(table: Path, needed: Sequence[str], others: Sequence[str] = ()) -> list[dict[str, str]]:
    """Read some columns of a table that is no dataset.

    Args:
        table: the file, in any dialect that `read` accepts.
        needed: names of its columns, in lower case.
        others: names of further columns, for which a row may have no value.

    Returns:
        The values of each row by column.

    Raises:
        DataError: a column is missing or ambiguous, or a row is damaged.
    """
    with damage_errors(f"cannot read {str(table)!r}"):
        text = _decode(read_bytes(table, MAX_TABLE_BYTES))
    text, delimiter = _separator_line(text)
    for candidate in [delimiter] if delimiter else [",", ";", "\t", "|"]:
        _, header = next(parse_csv(text, str(table), candidate), (0, []))
        names = [name.lower() for name in header]
        if set(needed) <= set(names):
            break
    else:
        why = f"its first line is {text.lstrip().partition(chr(10))[0][:80]!r}"
        raise DataError(f"cannot use {str(table)!r}", why, f"The first line must name {' and '.join(needed)}")
    for name in (*needed, *others):
        if names.count(name) > 1:
            raise _ambiguous(table, name, [n for n in header if n.lower() == name])
    used = {name: names.index(name) for name in (*needed, *others) if name in names}
    return [
        {name: unescaped(fields[i]) if i < len(fields) else "" for name, i in used.items()}
        for _, fields in _parse(table, text, candidate).rows
    ]


@dataclass(frozen=True)
class _Table:
    """A parsed table: its path, the names of its columns, and its rows."""

    path: Path
    names: list[str]
    rows: list[Row] = field(repr=False)


def _decode(raw: bytes) -> str:
    """Decode UTF-8, or the UTF-16 that spreadsheets call Unicode text."""
    if raw.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return raw.decode("utf-16")
    return raw.decode("utf-8-sig", "surrogateescape")


def _separator_line(text: str) -> tuple[str, str]:
    """Blank the line `sep=;` that spreadsheets understand; returns the text and the delimiter, or ""."""
    first, end, rest = text.partition("\n")
    name = first.rstrip("\r")
    if len(name) == 5 and name.lower().startswith("sep="):
        return end + rest, name[4]
    return text, ""


def _open(table: Path, text: str, delimiter: str, columns: TableColumns) -> tuple[_Table, dict[str, int]]:
    """Parse a table with the delimiter under which it has the columns; returns their positions too."""
    first = delimiter or ("\t" if table.suffix.lower() == ".tsv" else ",")
    candidates = [first] if delimiter else [first, *(d for d in (",", ";", "\t", "|") if d != first)]
    errors: dict[int, DataError | UsageError] = {}  # by number of columns: most likely the right delimiter
    for candidate in candidates:
        _, header = next(parse_csv(text, str(table), candidate), (0, []))
        try:
            used = _choose_columns(table, text, header, columns)
        except (DataError, UsageError) as error:
            errors.setdefault(len(header), error)
            if columns.label is None and (flagged := _class_columns(table, text, candidate, columns)):
                return flagged
        else:
            return _parse(table, text, candidate), used
    raise errors[max(errors)]


def _parse(table: Path, text: str, delimiter: str) -> _Table:
    """Parse all rows but empty ones; raises DataError for a row with too many fields."""
    rows = parse_csv(text, str(table), delimiter)
    _, names = next(rows, (0, []))
    kept = []
    for line, fields in rows:
        if not any(map(str.strip, fields)):
            continue
        if len(fields) > len(names):
            why = f"the row has {len(fields)} fields, but the header has {len(names)}"
            fix = f'Put quotes around a value that contains {delimiter!r}: "a{delimiter}b.png"'
            raise DataError(f"{table}:{line}", why, fix)
        kept.append((line, fields))
    return _Table(table, names, kept)


def _choose_columns(table: Path, text: str, names: list[str], columns: TableColumns) -> dict[str, int]:
    """Return the positions of path, label and, if there is one, split."""
    used = {}
    for key, wanted in (("path", columns.path), ("label", columns.label)):
        if wanted is not None:
            used[key] = _named(table, names, wanted)
            continue
        same = [i for i, name in enumerate(names) if name.lower() == key]
        found = same or [i for i, name in enumerate(names) if _plain(name) in _USUAL[key]]
        if not found:
            raise _no_columns(table, text, "path,label", names)
        if len(found) > 1:
            raise _ambiguous(table, key, [names[i] for i in found])
        used[key] = found[0]
    split = [i for i, name in enumerate(names) if name.lower() == "split"]
    if len(split) > 1:
        raise _ambiguous(table, "split", [names[i] for i in split])
    group = {} if columns.group is None else {"group": _named(table, names, columns.group)}
    return used | ({"split": split[0]} if split else {}) | group


def _class_columns(
    table: Path, text: str, delimiter: str, columns: TableColumns
) -> tuple[_Table, dict[str, int]] | None:
    """A table with a column of 0 and 1 for each class, and the positions of its columns; None for others."""
    header = list(next(parse_csv(text, str(table), delimiter), (0, []))[1])
    try:  # as if the first other column had the labels
        used = _choose_columns(table, text, [*header, "label"], columns)
    except (DataError, UsageError):
        return None
    del used["label"]
    others = [i for i in range(len(header)) if i not in used.values()]
    if len(others) < 2 or len({header[i] for i in others}) < len(others):
        return None
    found = _parse(table, text, delimiter)
    values = {fields[i].strip() if i < len(fields) else "" for _, fields in found.rows for i in others}
    if not values <= {"0", "1"}:
        return None
    return found, used | {f"{_CLASS}{header[i].strip()}": i for i in others}


def _named(table: Path, names: list[str], wanted: str) -> int:
    """Return the position of the column that the user names; case matters only if it must."""
    exact = [i for i, name in enumerate(names) if name == wanted.strip()]
    found = exact or [i for i, name in enumerate(names) if name.lower() == wanted.strip().lower()]
    if len(found) > 1:
        raise _ambiguous(table, wanted, [names[i] for i in found])
    if not found:
        near = get_close_matches(wanted.lower(), [name.lower() for name in names], n=3, cutoff=0.5)
        close = " or ".join(repr(name) for name in names if name.lower() in near)
        listed = ", ".join(map(repr, names))
        fix = f"Its columns are {listed}"
        raise UsageError(
            f"no column {wanted!r} in {str(table)!r}", f"did you mean {close}?" if close else "", fix
        )
    return found[0]


def _plain(name: str) -> str:
    return "".join(c for c in name.lower() if c.isalnum())


def _no_columns(table: Path, text: str, example: str, names: Sequence[str] = ()) -> DataError:
    lines = [line for line in text.splitlines() if line.strip()]
    why = f"its first line is {(lines or [''])[0][:80]!r}"
    fix = f"The first line must name the columns: {example}, and optionally split"
    if len(names) > 1:
        fix += "; or name them with --path-column and --label-column"
    return DataError(f"cannot use {str(table)!r}", why, fix)


def _ambiguous(table: Path, key: str, names: Sequence[str]) -> DataError:
    """Create the error for several columns that may be the wanted one."""
    if len(set(names)) < len(names):
        why, fix = f"{len(names)} columns are called {names[0]!r}", "Rename or delete one"
    else:
        why = f"its columns {' and '.join(map(repr, names))} may both be the {key}"
        fix = f"Choose one with --{key}-column" if key in _USUAL else "Rename one"
    return DataError(f"cannot use {str(table)!r}", why, fix)


def _by_split(table: _Table, columns: Mapping[str, int], split_names: Mapping[str, str]) -> Rows:
    """Group rows by split; missing fields at the end of a row are empty."""
    found: Rows = {}
    for line, fields in table.rows:
        row = {name: fields[i] if i < len(fields) else "" for name, i in columns.items()}
        split = row.get("split", "").strip().lower()
        if split and split not in split_names:
            raise DataError(f"{table.path}:{line}", f"unknown split {split!r}", "Use train, val or test")
        found.setdefault(split_names[split] if split else UNSPLIT, []).append((line, row))
    if UNSPLIT in found and len(found) > 1:
        why = "some rows have a split and others do not"
        fix = "Fill in the split column for all rows, or remove it"
        raise DataError(f"cannot use {str(table.path)!r}", why, fix)
    return found


def _group(row: dict[str, str], table: Path, line: int) -> str:
    if not row["group"]:
        why, fix = "the row has no group", "Fill it in; an image of its own needs a name that no other has"
        raise DataError(f"{table}:{line}", why, fix)
    return unescaped(row["group"])


def _flagged(row: dict[str, str], table: Path, line: int) -> tuple[str, tuple[str, ...]]:
    """Path and class names of a row with a column of 0 and 1 for each class."""
    if not row["path"]:
        raise DataError(f"{table}:{line}", "the row has no path", "Fill it in or delete the row")
    names = (
        key.removeprefix(_CLASS) for key, value in row.items() if key.startswith(_CLASS) and value == "1"
    )
    return str(table.parent / unescaped(row["path"])), tuple(map(unescaped, names))


def _pair(row: dict[str, str], table: Path, line: int, *, unlabelled: bool = False) -> tuple[str, str]:
    """Path and label of a row, which may have no label if `unlabelled`."""
    for name in ("path",) if unlabelled else ("path", "label"):
        if not row[name]:
            raise DataError(f"{table}:{line}", f"the row has no {name}", "Fill it in or delete the row")
    if not is_text(row["label"]):
        why = f"the label {row['label']!r} is not valid UTF-8"
        raise DataError(f"{table}:{line}", why, "Save the table as UTF-8 text")
    return str(table.parent / unescaped(row["path"])), unescaped(row["label"])
