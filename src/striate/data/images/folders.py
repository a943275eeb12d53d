"""Class folders: `root/<class>/` or `root/{train,val,test}/<class>/`."""

from __future__ import annotations

import contextlib
import glob
import os
from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np

from striate.data.images.contents import (
    HIDDEN,
    IMAGE,
    OTHER,
    PAGE_START,
    Skipped,
    is_hidden_folder,
    is_litter_folder,
    is_output,
    kind_of_file,
    listed,
    read_head,
)
from striate.data.images.samples import SPLIT_NAMES, UNSPLIT, DataSet
from striate.errors import DataError, UsageError
from striate.files import expanded, is_folder, probe
from striate.reading import open_file
from striate.transforms.decode import is_image_name
from striate.validation import is_text

_LAYOUT = "Put the images into one folder per class: root/<class>/ or root/{train,val,test}/<class>/"
_DATA_FILES = (".csv", ".tsv", ".npz", ".zip", ".tar", ".tar.gz", ".tgz")
_MOST_BESIDE = 20  # folders next to one without class folders that are looked into


class Tree(Protocol):
    """A folder on disk or inside an archive.

    Attributes:
        name: without parents.
        path: full path.
    """

    name: str
    path: str

    def folders(self) -> Sequence[Tree]:
        """Return its direct subfolders, sorted by name, without hidden ones."""

    def hidden(self) -> list[str]:
        """Return the paths of its direct subfolders that are hidden and hold images."""

    def images(self, skipped: Skipped) -> list[str]:
        """Return the paths of all images below it, in a fixed order; adds what it skips to `skipped`."""

    def count_loose(self) -> int:
        """Return the number of images directly in it."""


class _Folder:
    """A folder on disk."""

    def __init__(self, place: Path) -> None:
        self.place, self.name, self.path = place, place.name, str(place)

    def folders(self) -> list[_Folder]:
        found = sorted(p for p in self.place.iterdir() if p.is_dir() and not is_hidden_folder(p.name))
        return [_Folder(path) for path in found]

    def hidden(self) -> list[str]:
        found = sorted(str(p) for p in self.place.iterdir() if is_hidden_folder(p.name) and p.is_dir())
        return [path for path in found if _holds_images(path)]

    def images(self, skipped: Skipped) -> list[str]:
        return walk_images(self.place, skipped, inside=True)

    def count_loose(self) -> int:
        files = (path for path in self.place.iterdir() if path.is_file())
        return sum(kind_of_file(path.name, partial(read_head, str(path))) == IMAGE for path in files)


def read(root: Path) -> DataSet:
    """Read a folder of class folders. Hidden folders are skipped; subfolders of a class belong to the class.

    Raises:
        DataError: there are no class folders with images.
    """
    return read_tree(_Folder(root), str(root))


def read_tree(root: Tree, source: str) -> DataSet:
    """Build a dataset from class folders on disk or in an archive.

    Args:
        root: folder of class folders, or of `train`, `val`, `test` folders with class folders.
        source: how the user named it, for messages.

    Raises:
        DataError: there are no class folders with images.
    """
    skipped = Skipped()
    folders = root.folders()
    # A class may be called "train": a split is a folder with subfolders.
    named = [(f.name.lower(), f) for f in folders]
    split_folders = {SPLIT_NAMES[name]: f for name, f in named if name in SPLIT_NAMES and f.folders()}
    notes: list[str] = []
    if split_folders and (others := [f.name for f in folders if f not in split_folders.values()]):
        used = ", ".join(f.name for f in split_folders.values())
        notes.append(f"only {used} are used; skipped: {listed(others)}")
    for folder in (root, *split_folders.values()):
        skipped.hidden += folder.hidden()
    found = {split: _classes(f, notes, skipped) for split, f in (split_folders or {UNSPLIT: root}).items()}
    data = DataSet.from_folders(source, root.path, found, (*notes, *skipped.notes()))
    if not data.classes:
        raise _no_classes(root, source)
    for name in data.classes:
        if not is_text(name):
            why = f"the class name {name!r} is not valid UTF-8"
            raise DataError(f"cannot use {source!r}", why, "Rename the folder")
    return _with_checked_depth(data)


def find_images(source: str) -> list[str]:
    """List the image files of a path, folder or glob pattern.

    Args:
        source: a file (with any name), a folder (all images below it) or a glob pattern.

    Raises:
        DataError: a folder or pattern without images.
    """
    path = expanded(source)
    if is_folder(path):
        found = walk_images(path, Skipped())
    elif probe(path) is not None or not glob.has_magic(source):
        return [str(path)]  # a missing file is reported like any other unreadable one
    else:
        matches = sorted(p for p in glob.iglob(str(path), recursive=True))
        found = [p for p in matches if kind_of_file(Path(p).name, partial(read_head, p)) == IMAGE]
    if not found:
        raise DataError(f"no images at {source!r}", "no file there is an image such as .jpg or .png")
    return found


def walk_images(folder: Path, skipped: Skipped, *, inside: bool = False) -> list[str]:
    """List all image files below a folder, in a fixed order. Follows each link to a folder once.

    Args:
        folder: where to start.
        skipped: receives what is skipped.
        inside: whether the folder itself is skipped if Striate wrote it.
    """
    images = []
    # Following a link to a parent would include other classes.
    seen = {str(above) for above in folder.resolve().parents}
    for place, below, names in os.walk(folder, onerror=_refuse, followlinks=True):
        real = os.path.realpath(place)
        if real in seen:  # a link that leads back up
            below.clear()
            continue
        seen.add(real)
        if (inside or place != str(folder)) and is_output_folder(place, {*below, *names}):
            skipped.outputs.append(place)
            below.clear()
            continue
        hidden = (os.path.join(place, name) for name in below if is_hidden_folder(name))  # noqa: PTH118
        skipped.hidden += sorted(path for path in hidden if _holds_images(path))
        below[:] = sorted(name for name in below if not is_hidden_folder(name))
        start = str(Path(place) / "_")[:-1]
        for name in sorted(names):
            path = start + name
            kind = kind_of_file(name, partial(read_head, path))
            if kind == IMAGE:
                images.append(path)
            elif kind in (HIDDEN, OTHER):
                (skipped.hidden if kind == HIDDEN else skipped.others).append(path)
    return images


def is_output_folder(folder: str, names: Collection[str]) -> bool:
    """Return whether Striate wrote a folder; `names` are those of the files and folders in it."""

    def page() -> bytes:
        with contextlib.suppress(OSError, DataError), open_file(Path(folder, "report.html")) as file:
            return file.read(PAGE_START)
        return b""

    return is_output(names, page)


class InnerFolder(NamedTuple):
    """Class folders below the only "class": what is wrong with the folder that was given, and what to do."""

    why: str
    fix: str


def inner_class_folder(data: DataSet) -> InnerFolder | None:
    """Find class folders one or more levels below the only "class" of a dataset of folders."""
    if len(data.classes) != 1 or not data.root:
        return None
    split, *others = data.splits
    below = [path for one in data.splits for path in _folders_below(data, one)]
    name, level = data.classes[0], 0 if split == UNSPLIT else 1
    if not all(path[level:][:1] == [name] for path in below):  # a table, whose paths do not name classes
        return None
    level += 1
    while len(inner := {path[level] if level < len(path) else "" for path in below}) == 1 and "" not in inner:
        level += 1
    if "" in inner:
        return None
    above = "/".join(below[0][:level])
    why = f"its only class folder {name!r} contains the folders {listed(sorted(inner))}"
    if split != UNSPLIT or others:
        return InnerFolder(why, f"If these are the classes, move them up: {split}/{min(inner)}/")
    return InnerFolder(why, f"If these are the classes, give {os.path.join(data.root, above)!r}")  # noqa: PTH118


def refuse_output_inside(data: DataSet, out: str) -> None:
    """Refuse to write into a class folder, whose images would then include the figures of the run.

    Raises:
        UsageError: `out` is inside a class folder.
    """
    if not (data.root and is_folder(expanded(data.source))):
        return
    place, root = expanded(out).resolve(), Path(data.root).resolve()
    for split, samples in data.splits.items():
        named = [path for path in root.iterdir() if SPLIT_NAMES.get(path.name.lower()) == split]
        tops = [root] if split == UNSPLIT else [path.resolve() for path in named]
        for name in (data.classes[label] for label in np.flatnonzero(data.class_counts(samples))):
            for folder in (top / name for top in tops):
                linked = folder.is_symlink() and place.is_relative_to(folder.resolve())
                if linked or place.is_relative_to(folder):
                    why = f"it is inside of {str(folder)!r}, whose images are the class {name!r}"
                    raise UsageError(f"--out {out!r}", why, "Choose a folder outside of the data")


def _folders_below(data: DataSet, split: str) -> Iterator[list[str]]:
    """Yield the names of the folders between the root and each image."""
    for name in data.splits[split].names:
        yield name.removeprefix(data.root).replace(os.sep, "/").strip("/").split("/")[:-1]


def _with_checked_depth(data: DataSet) -> DataSet:
    """Refuse splits inside of class folders; note class folders that all have the same subfolders."""
    if UNSPLIT not in data.splits or len(data.classes) < 2:
        return data
    inner: dict[int, set[str]] = {}
    for label, path in zip(data.splits[UNSPLIT].labels.tolist(), _folders_below(data, UNSPLIT), strict=True):
        if len(path) < 2:
            return data
        inner.setdefault(label, set()).add(path[1])
    every, common = set().union(*inner.values()), set.intersection(*inner.values())
    if len(every) < 2:
        return data
    if "train" in {SPLIT_NAMES.get(name.lower()) for name in every} and all(
        name.lower() in SPLIT_NAMES for name in every
    ):
        why = f"its class folders contain {' and '.join(sorted(every))}"
        fix = f"Splits come first: root/{sorted(every)[0]}/{data.classes[0]}/"
        raise DataError(f"cannot use {data.source!r}", why, fix)
    if len(common) > 1:
        note = f"all {len(data.classes)} class folders contain the same folders, {listed(sorted(common))}"
        note += ": if these are the classes, the folder is one level too high"
        return replace(data, notes=(*data.notes, note))
    return data


def _no_classes(root: Tree, source: str) -> DataError:
    """Create the error for a folder without class folders, with the folder or file that may be meant."""
    why, hint, place = "it contains no class folders with images", "", Path(root.path)
    loose = root.count_loose()
    if loose:
        why = f"it contains {loose} images but no class folders"
    with contextlib.suppress(OSError):  # of an archive, or without permission for the folder above
        beside = (path for path in place.parent.iterdir() if path.is_dir() and path != place)
        if loose and any(_Folder(path).count_loose() for path in islice(beside, _MOST_BESIDE)):
            hint = f"If {root.name!r} is a class, give the folder above it. "
        files = sorted(path for path in place.iterdir() if path.name.lower().endswith(_DATA_FILES))
        if files:
            hint = f"If {files[0].name!r} holds the data, give {str(files[0])!r}. "
    return DataError(f"cannot use {source!r}", why, hint + _LAYOUT)


def _classes(folder: Tree, notes: list[str], skipped: Skipped) -> list[tuple[str, list[str]]]:
    """Return (class name, paths of its images) of all class folders; Striate's own output is none."""
    found: list[tuple[str, list[str]]] = []
    for child in sorted(folder.folders(), key=lambda child: child.name):
        outputs = len(skipped.outputs)
        images = child.images(skipped)
        if images or len(skipped.outputs) == outputs:
            found.append((child.name, images))
    if empty := [name for name, images in found if not images]:
        notes.append(f"skipped class folders without images in {folder.name!r}: {listed(empty)}")
    if len(found) > len(empty) and (loose := folder.count_loose()):
        notes.append(f"skipped {loose} images directly in {folder.name!r}, outside of any class folder")
    return found


def _holds_images(folder: str) -> bool:
    """Return whether a hidden folder holds images; known tools keep only copies and thumbnails there."""
    if is_litter_folder(os.path.basename(folder)):  # noqa: PTH119
        return False
    return any(is_image_name(name) for _, _, names in os.walk(folder) for name in names)


def _refuse(error: OSError) -> None:
    """Raise the error of an unreadable folder, or its images would be missing silently."""
    raise error
