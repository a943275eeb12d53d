"""Class folders: `root/<class>/` or `root/{train,val,test}/<class>/`."""

from __future__ import annotations

import glob
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from striate.data.images.samples import SPLIT_NAMES, UNSPLIT, DataSet, is_text
from striate.errors import DataError
from striate.transforms.decode import is_image_name

HIDDEN = (".", "__")  # start the names of skipped folders: .ipynb_checkpoints, .git, __MACOSX, __pycache__
_LAYOUT = "Put the images into one folder per class: root/<class>/ or root/{train,val,test}/<class>/"


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

    def images(self) -> list[str]:
        """Return the paths of all images below it, in a fixed order."""

    def count_loose(self) -> int:
        """Return the number of images directly in it."""


class _Folder:
    """A folder on disk."""

    def __init__(self, place: Path) -> None:
        self.place, self.name, self.path = place, place.name, str(place)

    def folders(self) -> list[_Folder]:
        found = sorted(p for p in self.place.iterdir() if p.is_dir() and not p.name.startswith(HIDDEN))
        return [_Folder(path) for path in found]

    def images(self) -> list[str]:
        return _images(self.place)

    def count_loose(self) -> int:
        return sum(is_image_name(p.name) for p in self.place.iterdir())


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
    folders = root.folders()
    # A class may be called "train": a split is a folder with subfolders.
    named = [(f.name.lower(), f) for f in folders]
    split_folders = {SPLIT_NAMES[name]: f for name, f in named if name in SPLIT_NAMES and f.folders()}
    notes = []
    if split_folders and (others := [f.name for f in folders if f not in split_folders.values()]):
        used = ", ".join(f.name for f in split_folders.values())
        notes.append(f"only {used} are used; skipped: {_list(others)}")
    found = {split: _pairs(f, notes) for split, f in (split_folders or {UNSPLIT: root}).items()}
    data = DataSet.from_pairs(source, root.path, found, notes)
    if not data.classes:
        loose = root.count_loose()
        images = f"{loose} images but no class folders" if loose else "no class folders with images"
        raise DataError(f"cannot use {source!r}", f"it contains {images}", _LAYOUT)
    for name in data.classes:
        if not is_text(name):
            why = f"the class name {name!r} is not valid UTF-8"
            raise DataError(f"cannot use {source!r}", why, "Rename the folder")
    return data


def find_images(source: str) -> list[str]:
    """List the image files of a path, folder or glob pattern.

    Args:
        source: a file (with any name), a folder (all images below it) or a glob pattern.

    Raises:
        DataError: a folder or pattern without images.
    """
    path = Path(source).expanduser()
    if path.is_dir():
        found = _images(path)
    elif path.exists() or not glob.has_magic(source):
        return [str(path)]  # a missing file is reported like any other unreadable one
    else:
        found = sorted(p for p in glob.iglob(str(path), recursive=True) if is_image_name(Path(p).name))
    if not found:
        raise DataError(f"no images at {source!r}", "no file there has an image suffix such as .jpg or .png")
    return found


def _pairs(folder: Tree, notes: list[str]) -> list[tuple[str, str]]:
    """Return (path, class name) of all images in class folders."""
    pairs, empty = [], []
    for child in sorted(folder.folders(), key=lambda child: child.name):
        images = child.images()
        pairs += [(path, child.name) for path in images]
        if not images:
            empty.append(child.name)
    if empty:
        notes.append(f"skipped class folders without images in {folder.name!r}: {_list(empty)}")
    if pairs and (loose := folder.count_loose()):
        notes.append(f"skipped {loose} images directly in {folder.name!r}, outside of any class folder")
    return pairs


def _images(folder: Path) -> list[str]:
    """List all image files below a folder, in a fixed order. Follows each link to a folder once."""
    images = []
    # Following a link to a parent would include other classes.
    seen = {str(above) for above in folder.resolve().parents}
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
    """Raise the error of an unreadable folder, or its images would be missing silently."""
    raise error


def _list(names: list[str], most: int = 5) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(repr(name) for name in names[:most]) + more
