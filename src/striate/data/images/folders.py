"""Class folders: `root/<class>/` or `root/{train,val,test}/<class>/`."""

from __future__ import annotations

import glob
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from striate.data.images.samples import UNSPLIT, DataSet, Samples, is_text
from striate.errors import DataError
from striate.transforms.decode import is_image_name

SPLIT_NAMES = {
    "train": "train", "training": "train",
    "val": "val", "valid": "val", "validation": "val",
    "test": "test", "testing": "test",
}  # fmt: skip

_LAYOUT = "Put the images into one folder for each class: root/<class>/ or root/{train,val,test}/<class>/"


class Tree(Protocol):
    """A folder, on a disk or within an archive."""

    @property
    def name(self) -> str:
        """Its own name."""

    @property
    def path(self) -> str:
        """Where it is."""

    def folders(self) -> Sequence[Tree]:
        """The folders right below it, by name; hidden ones are none."""

    def images(self) -> list[str]:
        """The paths of all images below it, in a fixed order."""

    def count_loose(self) -> int:
        """How many images lie right in it."""


@dataclass(frozen=True)
class _Folder:
    """A folder on a disk."""

    place: Path

    @property
    def name(self) -> str:
        return self.place.name

    @property
    def path(self) -> str:
        return str(self.place)

    def folders(self) -> list[_Folder]:
        hidden = (".", "__")  # .ipynb_checkpoints, .git, __MACOSX, __pycache__
        found = sorted(p for p in self.place.iterdir() if p.is_dir() and not p.name.startswith(hidden))
        return [_Folder(path) for path in found]

    def images(self) -> list[str]:
        return _images(self.place)

    def count_loose(self) -> int:
        return sum(is_image_name(p.name) for p in self.place.iterdir())


def read(root: Path) -> DataSet:
    """Read a tree of class folders; hidden folders are no classes, and folders below a class belong to it.

    Raises:
        DataError: there are no class folders with images.
    """
    return read_tree(_Folder(root), str(root))


def read_tree(root: Tree, source: str) -> DataSet:
    """The data set that a tree of class folders is; samples are named by their paths.

    Args:
        root: the tree.
        source: what the user called it.

    Raises:
        DataError: as `read`.
    """
    folders = root.folders()
    # A class may be called "train"; only a folder that itself holds folders divides the data.
    divided = {
        SPLIT_NAMES[f.name.lower()]: f for f in folders if f.name.lower() in SPLIT_NAMES and f.folders()
    }
    notes = []
    if divided:
        others = [f.name for f in folders if f not in divided.values()]
        if others:
            notes.append(
                f"beside {', '.join(f.name for f in divided.values())} these are passed over: {_list(others)}"
            )
        found = {split: _classes(folder, notes) for split, folder in divided.items()}
    else:
        found = {UNSPLIT: _classes(root, notes)}
    classes = tuple(sorted({name for by_class in found.values() for name in by_class}))
    if not classes:
        loose = root.count_loose()
        why = (
            f"it holds {loose} images but no class folders"
            if loose
            else "it holds no class folders with images"
        )
        raise DataError(f"cannot use {source!r}", why, _LAYOUT)
    for name in classes:
        if not is_text(name):
            raise DataError(
                f"cannot use {source!r}", f"the class name {name!r} is no UTF-8", "Rename the folder"
            )
    position = {name: i for i, name in enumerate(classes)}
    splits = {}
    for split, by_class in found.items():
        pairs = [(path, position[name]) for name, paths in sorted(by_class.items()) for path in paths]
        labels = np.array([label for _, label in pairs], np.int64)
        splits[split] = Samples(tuple(path for path, _ in pairs), labels)
    return DataSet(source, root.path, classes, splits, tuple(notes))


def find_images(source: str) -> list[str]:
    """The image files that a path, folder or glob stands for.

    Args:
        source: a file (taken whatever its name is), a folder (all images below it) or a glob.

    Raises:
        DataError: a folder or glob without any image.
    """
    path = Path(source).expanduser()
    if path.is_dir():
        found = _images(path)
    elif path.exists() or not glob.has_magic(source):
        return [str(path)]  # a file that is not there gets its line like any other unreadable one
    else:
        found = sorted(p for p in glob.iglob(str(path), recursive=True) if is_image_name(Path(p).name))
    if not found:
        raise DataError(f"no images at {source!r}", "no file there has the suffix of an image")
    return found


def _classes(folder: Tree, notes: list[str]) -> dict[str, list[str]]:
    """Class name -> its images, for the classes that have any."""
    classes, empty = {}, []
    for child in folder.folders():
        images = child.images()
        if images:
            classes[child.name] = images
        else:
            empty.append(child.name)
    if empty:
        notes.append(f"class folders without images in {folder.name!r} are passed over: {_list(empty)}")
    loose = folder.count_loose()
    if loose and classes:
        notes.append(f"{loose} images lie in {folder.name!r} outside of any class folder and are passed over")
    return classes


def _images(folder: Path) -> list[str]:
    """All image files below a folder, in a fixed order; links to folders are followed, once each."""
    images = []
    seen = {str(above) for above in folder.resolve().parents}  # a link up would bring in the other classes
    for place, below, names in os.walk(folder, onerror=_refuse, followlinks=True):
        real = os.path.realpath(place)
        below[:] = sorted(name for name in below if not name.startswith("."))
        if real in seen:  # a link that leads back up
            below.clear()
            continue
        seen.add(real)
        images += [str(Path(place) / name) for name in sorted(names) if is_image_name(name)]
    return images


def _refuse(error: OSError) -> None:
    """A folder that cannot be read is an error: its images would be missing without a word."""
    raise error


def _list(names: list[str], most: int = 5) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(repr(name) for name in names[:most]) + more
