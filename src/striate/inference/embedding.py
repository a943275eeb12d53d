"""The features of a dataset, with the path, the label and the split of each image: `.npz` or Parquet."""

from __future__ import annotations

import importlib
import io
import os
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from striate.data import DecodedImages, Problem, Samples, open_data
from striate.data.images.contents import IMAGE, kind_of_file, read_head
from striate.data.images.folders import find_images
from striate.data.images.samples import UNSPLIT, DataSet
from striate.device import cpu_count
from striate.errors import DataError, UsageError
from striate.files import expanded, is_folder, write_atomic
from striate.inference.classifier import Classifier
from striate.progress import AUTO, Progress

FORMATS = (".npz", ".parquet")


@dataclass(frozen=True)
class Embeddings:
    """The features of images.

    Attributes:
        features: float32 `[n, features]`, the input of the network's last layer.
        paths: `[n]`.
        labels: `[n]`, class names; empty texts of images without classes.
        splits: `[n]`, `train`, `val`, `test`, or `all` of data without splits.
        problems: unreadable images, which are left out.
    """

    features: npt.NDArray[np.float32] = field(repr=False)
    paths: tuple[str, ...] = field(repr=False)
    labels: tuple[str, ...] = field(repr=False)
    splits: tuple[str, ...] = field(repr=False)
    problems: tuple[Problem, ...] = ()

    def write(self, path: str | os.PathLike[str]) -> None:
        """Write a file, in the format of its suffix: arrays of an `.npz`, or columns of a `.parquet`.

        Raises:
            UsageError: another suffix, or Parquet without the package pyarrow.
            WriteError: it cannot be written.
        """
        path = Path(path)
        require_format(path)
        content = io.BytesIO()
        if path.suffix.lower() == ".npz":
            texts = {"paths": self.paths, "labels": self.labels, "splits": self.splits}
            arrays: dict[str, Any] = {name: np.array(values, np.str_) for name, values in texts.items()}
            np.savez(content, **arrays, features=self.features)
        else:
            self._write_parquet(content)
        write_atomic(path, content.getvalue())

    def _write_parquet(self, content: io.BytesIO) -> None:
        arrow, parquet = importlib.import_module("pyarrow"), importlib.import_module("pyarrow.parquet")
        width = self.features.shape[1]
        lists = arrow.FixedSizeListArray.from_arrays(arrow.array(self.features.reshape(-1)), width)
        valid = [path.encode("utf-8", "replace").decode() for path in self.paths]  # Parquet holds valid text
        columns = [arrow.array(values, arrow.string()) for values in (valid, self.labels, self.splits)]
        names = ["path", "label", "split", "features"]
        parquet.write_table(arrow.Table.from_arrays([*columns, lists], names=names), content)


def require_format(path: Path) -> None:
    """Check that embeddings can be written to a file of this name, before they are computed."""
    if path.suffix.lower() not in FORMATS:
        what = f"cannot write features to {str(path)!r}"
        raise UsageError(what, "the name must end in .npz or .parquet", "Use --out features.npz")
    if path.suffix.lower() == ".parquet":
        try:
            importlib.import_module("pyarrow.parquet")
        except ImportError as error:
            what = f"cannot write {str(path)!r}"
            raise UsageError(what, "Parquet needs pyarrow", "pip install pyarrow, or use .npz") from error


def embed(
    classifier: Classifier,
    data: Any,
    *,
    batch: int = 64,
    workers: int | None = None,
    cache: bool = True,
    path_column: str | None = None,
    label_column: str | None = None,
    progress: Progress = AUTO,
) -> Embeddings:
    """The features of all images of a dataset, split by split.

    Args:
        classifier: its network computes them.
        data: as for `striate.data.open_data`; or a folder of images without classes, or an image file.
        batch: batch size.
        workers: threads that decode images; None for one per CPU core.
        cache: keep the decoded images on disk for the next time.
        path_column: column of the image paths, if the data are a table.
        label_column: column of the class names, if the data are a table.
        progress: receives updates.

    Raises:
        DataError: there is nothing to embed.
        UsageError: the network's last layer is not known.
    """
    dataset = _open(data, path_column, label_column)
    progress.begin("embedding", sum(map(len, dataset.splits.values())))
    features: list[npt.NDArray[np.float32]] = []
    paths: list[str] = []
    labels: list[str] = []
    splits: list[str] = []
    problems: list[Problem] = []
    for name, samples in dataset.splits.items():
        images = DecodedImages(
            samples, classifier.preprocess, cache=cache, root=dataset.root, progress=progress
        )  # fmt: skip
        values, which = classifier.features(
            images, batch=batch, workers=workers or cpu_count(), progress=progress
        )
        features += [values] if len(values) else []
        paths += [samples.names[i] for i in which]
        texts = dataset.label_texts(samples) if dataset.classes else [""] * len(samples)
        labels += [texts[i] for i in which]
        splits += [name] * len(which)
        problems += images.problems
    progress.end()
    if not features:
        why = f"none of its images can be read, the first since {problems[0].reason}" if problems else ""
        raise DataError(f"cannot embed {dataset.source!r}", why or "it has no images")
    return Embeddings(np.concatenate(features), tuple(paths), tuple(labels), tuple(splits), tuple(problems))


def _open(data: Any, path_column: str | None, label_column: str | None) -> DataSet:
    """The dataset; an image file, and images in a folder without classes, have the label -1."""
    try:
        return open_data(data, path_column, label_column)
    except (DataError, UsageError):
        if not isinstance(data, (str, os.PathLike)) or path_column or label_column:
            raise
        path = expanded(data)
        is_image = kind_of_file(path.name, partial(read_head, str(path))) == IMAGE and path.is_file()
        if not (is_folder(path) or is_image):
            raise
        try:
            paths = tuple(find_images(os.fspath(data)))
        except DataError:
            paths = ()
        if not paths:
            raise
    samples = Samples(paths, np.full(len(paths), -1, np.int64))
    return DataSet(os.fspath(data), str(path.absolute()), (), {UNSPLIT: samples})
