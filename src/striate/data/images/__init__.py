"""Images with labels, wherever they lie: `open_data` finds out what is there."""

from __future__ import annotations

import os
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from striate.data.images import archives, arrays, folders, shards, tables
from striate.data.images import in_memory as given
from striate.data.images.base import Images, InMemoryImages, Problem
from striate.data.images.decoded import DecodedImages
from striate.data.images.samples import DataSet, Samples
from striate.data.images.split import SplitPlan, split
from striate.errors import DataError, UsageError

__all__ = [
    "DataSet", "DecodedImages", "Images", "InMemoryImages", "Problem", "Samples", "SplitPlan",
    "absolute_source", "open_data", "split",
]  # fmt: skip


def open_data(source: Any) -> DataSet:
    """Find images and labels; reads names only, decodes nothing, and never writes to the folder.

    Args:
        source: one of

            * a folder `root/{train,val,test}/<class>/` or `root/<class>/`,
            * a zip or tar archive (`.zip`, `.tar`, `.tar.gz`) of the same, read where it lies,
            * WebDataset shards: a folder of `.tar` files, one of them, or a pattern such as
              `shards/train-{000..009}.tar`,
            * a CSV or TSV file with the columns `path,label[,split]`,
            * a folder with idx files as MNIST's, gzipped or not,
            * a `.npz` file with `images` and `labels`, or `x_train`, `y_train` and so on,
            * `digits`, scikit-learn's 1,797 handwritten digits,
            * in Python also a pair of arrays or tensors, a torch `Dataset`, or a mapping of splits to such
              (`striate.data.images.in_memory.read`); a `DataSet` is taken as it is.

    Raises:
        DataError: there is nothing of that kind.
        UsageError: it is of no kind that can be read.
    """
    if isinstance(source, DataSet):
        return source
    if not isinstance(source, (str, os.PathLike)):
        return given.read(source)
    text = os.fspath(source)
    path = Path(text).expanduser()
    if not path.exists():
        if text == "digits":
            return arrays.digits()
        if shards.is_pattern(text):
            return shards.read(shards.expand_braces(str(path)), text)
        raise _missing(text, path)
    if path.is_dir():
        return _folder(path, text)
    if archives.is_archive(path.name):
        archive = archives.open_archive(path)
        one = shards.is_shard(archive)
        return shards.read([path], str(path), [archive]) if one else archives.read(archive, str(path))
    if path.suffix.lower() in (".csv", ".tsv"):
        return tables.read(path)
    if path.suffix.lower() == ".npz":
        return given.npz(path)
    raise UsageError(
        f"cannot train or measure on {text!r}",
        "it is neither a folder nor a .csv, .tsv, .npz, .zip, .tar or .tar.gz file",
        "Give the folder that holds one folder for each class",
    )


def absolute_source(source: str) -> str:
    """What `open_data` takes, so that it holds from any folder: a path made absolute, a name as it is."""
    path = Path(source).expanduser()
    return os.path.abspath(path) if path.exists() or shards.is_pattern(source) else source  # noqa: PTH100


def _folder(path: Path, text: str) -> DataSet:
    try:
        if arrays.has_idx(path):
            return arrays.idx(path)
        if found := shards.find_shards(path):
            return shards.read(found, text)
        return folders.read(path)
    except PermissionError as error:
        raise DataError(f"cannot read {text!r}", f"no permission for {error.filename!r}") from error


def _missing(text: str, path: Path) -> DataError:
    if text.endswith(given.IN_MEMORY_SUFFIX):
        return DataError(
            f"cannot open {text!r}", "it was given to Python as an object", "Give the same again, as data="
        )
    parent = path.parent
    siblings = [p.name for p in parent.iterdir()] if parent.is_dir() else []
    near = get_close_matches(path.name, [*siblings, "digits"], n=1)
    why = f"no such folder or file{f'; near it lies {near[0]!r}' if near else ''}"
    return DataError(
        f"cannot open {text!r}", why, "Give a folder of class folders, an archive, a CSV, or `digits`"
    )
