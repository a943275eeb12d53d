"""WebDataset shards: tar archives of samples; the files of a sample share a key: `key.jpg`, `key.cls`.

Opening reads the headers of all archives once. Then every sample has random access by offset, so shards are
shuffled like any other dataset, over all samples rather than within a buffer.
"""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

from striate.data.images import archive_folders
from striate.data.images.archives import Archive, attach_archives, is_archive, open_archive
from striate.data.images.contents import listed
from striate.data.images.samples import SPLIT_NAMES, UNSPLIT, DataSet
from striate.errors import DataError
from striate.reading import MAX_LIST_BYTES, damage_errors, read_bytes, reason
from striate.transforms.decode import SUFFIXES, is_image_name
from striate.validation import is_text

_LABELS = ("cls", "json", "txt")
# Of the class in a .json file, by priority.
_NAME_KEYS = ("class_name", "label_name", "classname", "class", "label", "cls")
_CLASS_FILES = ("classes.json", "classes.txt", "classnames.txt", "class_names.txt")
_GROUP = re.compile(r"\{([^{}]*)\}")
_RANGE = re.compile(r"([0-9]{1,18})\.\.([0-9]{1,18})")
_MOST = 100_000  # shards in one pattern
_MOST_LETTERS = 100_000_000  # in all their paths
_MAX_LABEL_BYTES = 1 << 20  # of a label file
_MAX_CLASS = 1 << 31  # of a class number


def expand_braces(pattern: str) -> list[str]:
    """Expand braces as a shell does: `shard-{000..009}.tar`, `{train,val}-{0..3}.tar`.

    Raises:
        DataError: the pattern has more than 100,000 paths, or too long ones.
    """
    parts = _GROUP.split(pattern)
    choices = [_choices(part) if i % 2 else [part] for i, part in enumerate(parts)]
    count = math.prod(map(len, choices))
    if count > _MOST:
        why = f"it expands to {count:,} files; the maximum is {_MOST:,}"
        raise DataError(f"cannot open {pattern!r}", why)
    if count * len(pattern) > _MOST_LETTERS:
        raise DataError(f"cannot open {pattern[:80]!r}...", f"it expands to {count:,} very long paths")
    return ["".join(chosen) for chosen in product(*choices)]


def is_pattern(text: str) -> bool:
    """Return whether a path contains a brace pattern."""
    return any("," in group or _RANGE.fullmatch(group) for group in _GROUP.findall(text))


def is_shard(archive: Archive) -> bool:
    """Return whether an archive is a shard: it has `.cls` files, or images and labels outside of folders."""
    names = set(archive.names)
    if any(name.endswith(".cls") for name in names):
        return True
    flat = [name for name in names if "/" not in name]
    return len(flat) == len(names) and any(
        f"{key}.{kind}" in names for name in flat for key, end in [_parts(name)] if f".{end}" in SUFFIXES
        for kind in _LABELS
    )  # fmt: skip


def find_shards(folder: Path) -> list[Path]:
    """List the shards in a folder; empty if it has subfolders, which may be class folders."""
    found = [path for path in folder.iterdir() if not path.name.startswith(".")]
    if any(path.is_dir() for path in found):
        return []
    return sorted(path for path in found if path.suffix.lower() == ".tar")


def read(paths: Sequence[str | os.PathLike[str]], source: str) -> DataSet:
    """Read the samples of several shards. `train`, `val` or `test` in a shard's name sets its split.

    Args:
        paths: of the shards.
        source: how the user named them, for messages.

    Raises:
        DataError: a shard is missing or damaged, or a label has no class name.
    """
    missing = [str(path) for path in paths if not os.path.isfile(path)]  # noqa: PTH113
    if missing:
        why = f"{len(missing)} of {len(paths)} shards are missing, the first is {missing[0]!r}"
        raise DataError(f"cannot open {source!r}", why)
    return _read([open_archive(Path(path)) for path in paths], source)


def read_folder(folder: Path, source: str) -> DataSet:
    """Read the shards in a folder as `read` does; notes the images and other archives next to them."""
    data = read(find_shards(folder), source)
    others = [p.name for p in sorted(folder.iterdir()) if is_image_name(p.name) or is_archive(p.name)]
    if others := [name for name in others if not name.lower().endswith(".tar")]:
        data = replace(data, notes=(*data.notes, f"only the .tar files are read; skipped: {listed(others)}"))
    return data


def read_archive(path: Path) -> DataSet:
    """Read an archive of class folders, or one shard; raises DataError."""
    archive = open_archive(path)
    return _read([archive], str(path)) if is_shard(archive) else archive_folders.read(archive, str(path))


def _read(shards: Sequence[Archive], source: str) -> DataSet:
    root = os.path.commonpath([os.path.dirname(archive.path) for archive in shards])  # noqa: PTH120
    classes = _class_names(Path(root))
    found: dict[str, list[tuple[str, str]]] = {}
    skipped = [note for archive in shards for note in archive.skipped]
    unlabelled = 0
    for archive in shards:
        words = re.split(r"[^a-z]+", os.path.basename(archive.path).lower())  # noqa: PTH119
        split = next((SPLIT_NAMES[word] for word in words if word in SPLIT_NAMES), UNSPLIT)
        for name, label in _samples(archive, classes):
            if label is None:
                unlabelled += 1
            else:
                found.setdefault(split, []).append((f"{archive.path}/{name}", label))
        skipped += _dropped(archive)
    if unlabelled:
        skipped.append(f"skipped {unlabelled:,} images without a label")
    if not found:
        why = f"its {len(shards)} shards contain no labeled image"
        fix = "A sample consists of key.jpg and key.cls, key.json or key.txt"
        raise DataError(f"cannot use {source!r}", why, fix)
    if UNSPLIT in found and len(found) > 1:
        why = "some shards have train, val or test in their names and others do not"
        fix = "Rename them, or select some with a pattern: shards/train-{000..009}.tar"
        raise DataError(f"cannot use {source!r}", why, fix)
    return attach_archives(DataSet.from_pairs(source, root, found, skipped), shards)


def _choices(group: str) -> list[str]:
    if span := _RANGE.fullmatch(group):
        first, last = span.groups()
        width = len(first) if first.startswith("0") else 0
        if abs(int(last) - int(first)) >= _MOST:
            raise DataError(f"cannot open '{{{group}}}'", f"the maximum is {_MOST:,} shards")
        step = 1 if int(last) >= int(first) else -1
        return [f"{i:0{width}}" for i in range(int(first), int(last) + step, step)]
    return group.split(",") if "," in group else [f"{{{group}}}"]


def _parts(name: str) -> tuple[str, str]:
    """Split a member name at the first dot of the file name into key and extension."""
    folder, slash, base = name.rpartition("/")
    key, _, kind = base.partition(".")
    return f"{folder}{slash}{key}", kind.lower()


def _samples(archive: Archive, classes: dict[int, str]) -> Iterator[tuple[str, str | None]]:
    """Yield the images of a shard with their class names, in the order of the shard."""
    images: dict[str, str] = {}
    labels: dict[str, dict[str, int]] = {}
    for i, name in enumerate(archive.names):
        key, kind = _parts(name)
        if f".{kind.rpartition('.')[2]}" in SUFFIXES:
            images.setdefault(key, name)
        elif kind in _LABELS:
            labels.setdefault(key, {})[kind] = i
    for key, name in images.items():
        yield name, _label(archive, labels.get(key, {}), classes, key)


def _dropped(archive: Archive) -> list[str]:
    """Return notes about labels without an image, and about further images of a sample."""
    parts = [(name, *_parts(name)) for name in archive.names]
    images = [(name, key) for name, key, kind in parts if f".{kind.rpartition('.')[2]}" in SUFFIXES]
    keys: set[str] = set()
    further = []
    for name, key in images:
        if key in keys:
            further.append(name)
        keys.add(key)
    lone = [name for name, key, kind in parts if kind == "cls" and key not in keys]
    where = os.path.basename(archive.path)  # noqa: PTH119
    notes = (
        (lone, "samples that have a label but no image"),
        (further, "images that are not the first of their sample"),
    )
    return [
        f"skipped {len(names):,} {what}, in {where}: {listed(names, 3)}" for names, what in notes if names
    ]


def _label(archive: Archive, members: dict[str, int], classes: dict[int, str], key: str) -> str | None:
    """Return the class name of a sample: text is the name, a number is looked up in `classes`."""
    values = [value for kind in _LABELS if kind in members for value in _values(archive, members[kind], kind)]
    if not values:
        return None
    name = next((value for value in values if isinstance(value, str)), None)
    if name is not None:
        return name
    number = next(value for value in values if isinstance(value, int))
    if classes and number not in classes:
        why = f"its class is {number}, but the file of class names has {len(classes)} names"
        raise DataError(f"{archive.path}: sample {key!r}", why, "Add the name to the file")
    return classes[number] if classes else str(number)


def _values(archive: Archive, i: int, kind: str) -> list[int | str]:
    """Parse a label file: class numbers and class names."""
    where = f"{archive.path}/{archive.names[i]}"
    if archive.sizes[i] > _MAX_LABEL_BYTES:
        raise DataError(where, f"the label file has {archive.sizes[i]:,} bytes; the maximum is 1 MiB")
    with damage_errors(f"cannot read {where!r}"):
        text = archive.read(i).decode("utf-8", "replace").strip()
    if kind != "json":
        if not text or not is_text(text):
            raise DataError(where, "the label is empty")
        return [_class_number(text, where) if kind == "cls" and re.fullmatch(r"[0-9]+", text) else text]
    try:
        value: Any = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError(where, f"it is not valid JSON ({reason(error)})") from error
    found = [value[name] for name in _NAME_KEYS if name in value] if isinstance(value, dict) else [value]
    labels = [v for v in found if type(v) is int or (isinstance(v, str) and v)]
    if odd := [v for v in labels if isinstance(v, str) and not is_text(v)]:
        raise DataError(where, f"the label {odd[0]!r} is not valid text")
    for number in labels:
        if isinstance(number, int) and abs(number) >= _MAX_CLASS:
            raise DataError(where, f"the class number is not below {_MAX_CLASS:,}")
    return labels


def _class_number(text: str, where: str) -> int:
    """Parse digits; raises DataError if they are too many for the number of a class."""
    digits = text.lstrip("0") or "0"
    if len(digits) > len(str(_MAX_CLASS)) or int(digits) >= _MAX_CLASS:
        raise DataError(where, f"the class number {text[:40]} is not below {_MAX_CLASS:,}")
    return int(digits)


def _class_names(folder: Path) -> dict[int, str]:
    """Read the names of numbered classes from a file next to the shards; empty without such a file."""
    path = next((folder / name for name in _CLASS_FILES if (folder / name).is_file()), None)
    if path is None:
        return {}
    with damage_errors(
        f"cannot read {str(path)!r}", "Provide a list of names, or an object that maps numbers to names"
    ):
        text = read_bytes(path, MAX_LIST_BYTES).decode("utf-8-sig")
        if path.suffix == ".txt":
            return dict(enumerate(line.strip() for line in text.splitlines() if line.strip()))
        value: Any = json.loads(text)
        names = dict(enumerate(value)) if isinstance(value, list) else value
        if not isinstance(names, dict):
            raise TypeError("it is neither a list nor an object")
        if all(isinstance(number, int) for number in names.values()):  # name -> number
            names = {number: name for name, number in names.items()}
        return {int(number): str(name) for number, name in names.items()}
