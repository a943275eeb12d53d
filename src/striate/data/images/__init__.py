"""Labeled images from folders, archives, tables, arrays and Datasets: `open_data` reads them all."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from striate.data.images import archives, arrays, folders, in_memory, label_sets, shards, tables
from striate.data.images.samples import DataSet
from striate.errors import DataError, UsageError, access_error
from striate.files import expanded, probe, why_missing


class Format(NamedTuple):
    """A kind of dataset that has a path or a name.

    Attributes:
        example: what users write, for the documentation (Markdown).
        summary: what the data must look like, for the documentation (Markdown).
        detect: whether a path, as written and expanded, is of this kind.
        read: open it; reads names and labels, decodes nothing.
    """

    example: str
    summary: str
    detect: Callable[[str, Path], bool]
    read: Callable[[str, Path], DataSet]


# The first format that detects its own reads the data. To add one, write its module and add a row.
FORMATS = (
    Format("`mnist/`", "idx files such as MNIST, optionally gzipped",
        lambda text, path: path.is_dir() and arrays.has_idx(path), lambda text, path: arrays.idx(path)),
    Format("`shards/`", "a folder of WebDataset shards (`.tar`)",
        lambda text, path: path.is_dir() and bool(shards.find_shards(path)),
        lambda text, path: shards.read_folder(path, text)),
    Format("`flowers/`", "class folders: `root/<class>/`, or `root/{train,val,test}/<class>/`",
        lambda text, path: path.is_dir(), lambda text, path: folders.read(path)),
    Format("`flowers.zip`, `.tar`, `.tar.gz`, `.tgz`",
        "class folders in an archive, with or without an outer folder; or one WebDataset shard",
        lambda text, path: path.is_file() and archives.is_archive(path.name),
        lambda text, path: shards.read_archive(path)),
    Format("`shards/train-{000..009}.tar`", "several WebDataset shards; quote the pattern in a shell",
        lambda text, path: not path.exists() and shards.is_pattern(text),
        lambda text, path: shards.read(shards.expand_braces(str(path)), text)),
    Format("`flowers.csv`, `.tsv`", "a table with the columns `path,label[,split]`, or other names of these",
        lambda text, path: is_table(path), lambda text, path: tables.read(path)),
    Format("`images.npz`",
        "`images` and `labels`, or `x_train`, `y_train`, `x_test`, ...; optionally `classes`",
        lambda text, path: path.is_file() and path.suffix.lower() == ".npz",
        lambda text, path: in_memory.npz(path)),
    Format("`digits`", "scikit-learn's 1,797 handwritten digits",
        lambda text, path: text == "digits" and not path.exists(), lambda text, path: arrays.digits()),
)  # fmt: skip


def open_data(
    source: Any,
    path_column: str | None = None,
    label_column: str | None = None,
    group_column: str | None = None,
    multi_label: bool | None = None,
) -> DataSet:
    """Open a dataset of labeled images. Reads names and labels only, decodes nothing, never writes.

    Args:
        source: a path or name in one of `FORMATS` (docs/data.md); in Python also a pair of arrays or tensors,
            a torch `Dataset`, or a mapping of splits to those (`striate.data.images.in_memory.read`). A
            `DataSet` is returned unchanged.
        path_column: name of the column with the paths of the images, if the data are a table.
        label_column: name of the column with the class names.
        group_column: name of the column with the groups of images that must stay together.
        multi_label: whether images have several classes (`striate.data.images.label_sets`); None to decide by
            the data.

    Raises:
        DataError: the path does not exist, or its content does not have the expected layout.
        UsageError: the format is not supported, or a column does not exist.
    """
    columns = tables.TableColumns(path_column, label_column, group_column)
    if columns.options:
        return label_sets.resolve(_open_table(source, columns, multi_label), multi_label)
    if isinstance(source, DataSet):
        return label_sets.resolve(source, multi_label)
    if not isinstance(source, (str, os.PathLike)):
        return label_sets.resolve(in_memory.read(source), multi_label)
    text = os.fspath(source)
    path = expanded(text)
    if multi_label is not None and is_table(path):
        return tables.read(path, columns, multi_label)
    return label_sets.resolve(_open_path(text, path), multi_label)


def _open_path(text: str, path: Path) -> DataSet:
    """Open a dataset that has a path or a name."""
    exists = probe(path) is not None
    try:
        for kind in FORMATS:
            if kind.detect(text, path):
                return kind.read(text, path)
    except OSError as error:
        raise access_error(error) from error
    if not exists:
        raise _missing(text, path)
    why = "it is neither a folder nor a .csv, .tsv, .npz, .zip, .tar or .tar.gz file"
    fix = "Give the folder that contains one folder per class"
    raise UsageError(f"cannot read a dataset from {text!r}", why, fix)


def is_table(path: Path) -> bool:
    """Return whether a path is that of a table."""
    return path.suffix.lower() in tables.SUFFIXES and path.is_file()


def _open_table(source: Any, columns: tables.TableColumns, multi_label: bool | None) -> DataSet:
    """Open a table whose columns the user names."""
    name = source.source if isinstance(source, DataSet) else str(source)
    path = expanded(name)
    if probe(path) is None and isinstance(source, (str, os.PathLike)):
        raise _missing(name, path)
    if isinstance(source, DataSet) or not is_table(path):
        why, fix = "only .csv and .tsv files have columns", "Leave it out"
        raise UsageError(f"{columns.options} with {name!r}", why, fix)
    return tables.read(path, columns, multi_label)


def absolute_source(source: str) -> str:
    """Make a data source independent of the working directory: paths become absolute, names stay."""
    path = expanded(source)
    return os.path.abspath(path) if probe(path) is not None or shards.is_pattern(source) else source  # noqa: PTH100


def _missing(text: str, path: Path) -> DataError:
    if text.endswith(in_memory.IN_MEMORY_SUFFIX):
        fix = "Pass the same object again, as data="
        return DataError(f"cannot open {text!r}", "it was a Python object", fix)
    fix = "Give a folder of class folders, an archive, a CSV, or `digits`"
    return DataError(f"cannot open {text!r}", *why_missing(text, fix, ["digits"]))
