"""WebDataset shards: tar archives of samples, each some members of one key: `key.jpg`, `key.cls` ...

The headers of the archives are read once, when the data are opened; from then on any sample can be read by
where it lies, so the order of an epoch is the same function of seed and epoch as for any other data, and no
image has to be on the disk outside its shard.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Sequence
from itertools import product
from pathlib import Path
from typing import Any

from striate.data.images.archives import Archive, ArchiveStore, attach_store, open_archive
from striate.data.images.folders import SPLIT_NAMES
from striate.data.images.samples import UNSPLIT, DataSet, is_text
from striate.data.images.tables import from_rows
from striate.errors import DataError
from striate.transforms.decode import SUFFIXES

_LABELS = ("cls", "json", "txt")
_NAME_KEYS = ("class_name", "label_name", "classname", "class", "label", "cls")  # of a .json, best first
_CLASS_FILES = ("classes.json", "classes.txt", "classnames.txt", "class_names.txt")
_GROUP = re.compile(r"\{([^{}]*)\}")
_RANGE = re.compile(r"(\d+)\.\.(\d+)")
_MOST = 100_000  # shards that a pattern may stand for


def expand_braces(pattern: str) -> list[str]:
    """The paths that `shard-{000..009}.tar` or `{train,val}-{0..3}.tar` stands for, as a shell expands it.

    Raises:
        DataError: they are too many to be meant.
    """
    parts = _GROUP.split(pattern)
    choices = [_choices(part) if i % 2 else [part] for i, part in enumerate(parts)]
    count = 1
    for choice in choices:
        count *= len(choice)
    if count > _MOST:
        raise DataError(
            f"cannot open {pattern!r}", f"it stands for {count:,} files, and {_MOST:,} are the most"
        )
    return ["".join(chosen) for chosen in product(*choices)]


def is_pattern(text: str) -> bool:
    """Whether a path has braces that stand for several."""
    return any("," in group or _RANGE.fullmatch(group) for group in _GROUP.findall(text))


def is_shard(archive: Archive) -> bool:
    """Whether an archive is a shard: it has `.cls` files, or labels beside images that lie in no folder."""
    names = set(archive.names)
    if any(name.endswith(".cls") for name in names):
        return True
    flat = [name for name in names if "/" not in name]
    return len(flat) == len(names) and any(
        f"{key}.{kind}" in names for name in flat for key, end in [_parts(name)] if f".{end}" in SUFFIXES
        for kind in _LABELS
    )  # fmt: skip


def find_shards(folder: Path) -> list[Path]:
    """The shards right in a folder, by name; none where it has folders too, which may be classes."""
    found = [path for path in folder.iterdir() if not path.name.startswith(".")]
    if any(path.is_dir() for path in found):
        return []
    return sorted(path for path in found if path.suffix.lower() == ".tar")


def read(paths: Sequence[str | os.PathLike[str]], source: str, opened: Sequence[Archive] = ()) -> DataSet:
    """The samples of some shards.

    Shards with `train`, `val` or `test` as a word of their names divide the data.

    Args:
        paths: of the shards.
        source: what the user called them.
        opened: the same, where they are open already.

    Raises:
        DataError: one is missing or damaged, a sample has no label, or a label no class.
    """
    missing = [str(path) for path in paths if not os.path.isfile(path)]  # noqa: PTH113
    if missing:
        raise DataError(
            f"cannot open {source!r}",
            f"{len(missing)} of {len(paths)} shards are missing, first {missing[0]!r}",
        )
    archives = list(opened) or [open_archive(Path(path)) for path in paths]
    root = os.path.commonpath([os.path.dirname(archive.path) for archive in archives])  # noqa: PTH120
    classes = _class_names(Path(root))
    found: dict[str, list[tuple[str, str]]] = {}
    skipped = [note for archive in archives for note in archive.skipped]
    unlabelled = 0
    for archive in archives:
        pairs = found.setdefault(_split(archive), [])
        for name, label in _samples(archive, classes):
            if label is None:
                unlabelled += 1
            else:
                pairs.append((f"{archive.path}/{name}", label))
    if unlabelled:
        skipped.append(f"{unlabelled:,} images of the shards have no label and are passed over")
    found = {split: pairs for split, pairs in found.items() if pairs}
    if not found:
        raise DataError(
            f"cannot use {source!r}",
            f"its {len(archives)} shards hold no image with a label" if archives else "it holds no shard",
            "A sample is key.jpg with key.cls, key.json or key.txt beside it",
        )
    if UNSPLIT in found and len(found) > 1:
        raise DataError(
            f"cannot use {source!r}",
            "some shards have train, val or test in their names and some have not",
            "Name them all so, or give them as a pattern: shards/train-{000..009}.tar",
        )
    data = attach_store(from_rows(source, root, found), ArchiveStore(archives))
    return DataSet(source, root, data.classes, data.splits, tuple(skipped))


def _choices(group: str) -> list[str]:
    if span := _RANGE.fullmatch(group):
        first, last = span.groups()
        width = len(first) if first.startswith("0") else 0
        if abs(int(last) - int(first)) >= _MOST:
            raise DataError(f"cannot open '{{{group}}}'", f"{_MOST:,} shards are the most")
        step = 1 if int(last) >= int(first) else -1
        return [f"{i:0{width}}" for i in range(int(first), int(last) + step, step)]
    return group.split(",") if "," in group else [f"{{{group}}}"]


def _parts(name: str) -> tuple[str, str]:
    """Key and kind of a member: its folder and its name up to the first dot, and what follows."""
    folder, slash, base = name.rpartition("/")
    key, _, kind = base.partition(".")
    return f"{folder}{slash}{key}", kind.lower()


def _split(archive: Archive) -> str:
    words = re.split(r"[^a-z]+", os.path.basename(archive.path).lower())  # noqa: PTH119
    return next((SPLIT_NAMES[word] for word in words if word in SPLIT_NAMES), UNSPLIT)


def _samples(archive: Archive, classes: dict[int, str]) -> Iterator[tuple[str, str | None]]:
    """The images of a shard, each with its class; in the order of the shard."""
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


def _label(archive: Archive, members: dict[str, int], classes: dict[int, str], key: str) -> str | None:
    """The name of a sample's class: what is text names it, a number is looked up."""
    values = [value for kind in _LABELS if kind in members for value in _values(archive, members[kind], kind)]
    if not values:
        return None
    number = next((value for value in values if isinstance(value, int)), None)
    name = next((value for value in values if isinstance(value, str)), None)
    if name is None and classes:
        if number not in classes:
            raise DataError(
                f"{archive.path}: sample {key!r}", f"its class is {number}, and the file of class names has "
                f"{len(classes)}", "Mend the file of class names",
            )  # fmt: skip
        name = classes[number]
    return str(number) if name is None else name


def _values(archive: Archive, i: int, kind: str) -> list[int | str]:
    """What one label file says: numbers and names of classes."""
    where = f"{archive.path}/{archive.names[i]}"
    if archive.size(i) > 1 << 20:
        raise DataError(where, f"a label of {archive.size(i):,} bytes is none")
    text = archive.read(i).decode("utf-8", "replace").strip()
    if kind != "json":
        if not text or not is_text(text):
            raise DataError(where, "the label is empty")
        return [int(text) if kind == "cls" and re.fullmatch(r"\d+", text) else text]
    try:
        value: Any = json.loads(text)
    except ValueError as error:
        raise DataError(where, f"it is no JSON ({error})") from error
    found = [value[name] for name in _NAME_KEYS if name in value] if isinstance(value, dict) else [value]
    return [
        v for v in found if (isinstance(v, int) and not isinstance(v, bool)) or (isinstance(v, str) and v)
    ]


def _class_names(folder: Path) -> dict[int, str]:
    """The names of numbered classes, from a file beside the shards; none where there is no such file."""
    path = next((folder / name for name in _CLASS_FILES if (folder / name).is_file()), None)
    if path is None:
        return {}
    try:
        text = path.read_text("utf-8-sig")
        if path.suffix == ".txt":
            return dict(enumerate(line.strip() for line in text.splitlines() if line.strip()))
        value: Any = json.loads(text)
        names = dict(enumerate(value)) if isinstance(value, list) else value
        if all(isinstance(number, int) for number in names.values()):  # name -> number
            names = {number: name for name, number in names.items()}
        return {int(number): str(name) for number, name in names.items()}
    except (OSError, ValueError, AttributeError, TypeError) as error:
        raise DataError(
            f"cannot read {str(path)!r}", str(error), "A list of names, or an object of numbers and names"
        ) from error
