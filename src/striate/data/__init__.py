"""Images with labels, wherever they lie: `open_data` finds out what is there."""

from __future__ import annotations

import os
from difflib import get_close_matches
from pathlib import Path

from striate.data import arrays, folders, tables
from striate.data.decoded import Decoded
from striate.data.samples import DataSet, Samples
from striate.data.source import Loaded, Problem, Source
from striate.data.split import SplitPlan, split
from striate.errors import DataError, UsageError

__all__ = [
    "DataSet", "Decoded", "Loaded", "Problem", "Samples", "Source", "SplitPlan", "open_data", "split"
]  # fmt: skip


def open_data(source: str | os.PathLike[str]) -> DataSet:
    """Find images and labels; reads names only, decodes nothing, and never writes to the folder.

    Args:
        source: one of

            * a folder `root/{train,val,test}/<class>/` or `root/<class>/`,
            * a CSV or TSV file with the columns `path,label[,split]`,
            * a folder with idx files as MNIST's, gzipped or not,
            * `digits`, scikit-learn's 1,797 handwritten digits.

    Raises:
        DataError: there is nothing of that kind.
    """
    text = os.fspath(source)
    path = Path(text).expanduser()
    if not path.exists():
        if text == "digits":
            return arrays.digits()
        raise _missing(text, path)
    if path.is_dir():
        try:
            return arrays.idx(path) if arrays.has_idx(path) else folders.read(path)
        except PermissionError as error:
            raise DataError(f"cannot read {text!r}", f"no permission for {error.filename!r}") from error
    if path.suffix.lower() in (".csv", ".tsv"):
        return tables.read(path)
    raise UsageError(
        f"cannot train or measure on {text!r}",
        "it is neither a folder nor a .csv or .tsv file",
        "Give the folder that holds one folder for each class",
    )


def _missing(text: str, path: Path) -> DataError:
    parent = path.parent
    siblings = [p.name for p in parent.iterdir()] if parent.is_dir() else []
    near = get_close_matches(path.name, [*siblings, "digits"], n=1)
    why = f"no such folder or file{f'; near it lies {near[0]!r}' if near else ''}"
    return DataError(f"cannot open {text!r}", why, "Give a folder of class folders, a CSV, or `digits`")
