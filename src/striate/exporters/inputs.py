"""The inputs on which an export is compared with the original."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from striate.data import DataSet, DecodedImages
from striate.data.images.samples import Samples
from striate.errors import DataError, StriateError, StriateWarning
from striate.exporters.records import Request
from striate.inference.classifier import Classifier
from striate.inference.evaluation_data import choose_split, find_data
from striate.transforms.decode import Uint8Array
from striate.transforms.preprocess import Preprocess
from striate.weights.installed import file_of

COUNT = 64  # images, if there are so many
# Photographs in packages that Striate needs anyway. scikit-learn's are CC BY 2.0 (README.txt there).
_PHOTOS = (("scikit-learn", "china.jpg"), ("scikit-learn", "flower.jpg"), ("matplotlib", "grace_hopper.jpg"))


@dataclass(frozen=True)
class Inputs:
    """Images at the network's input size.

    Attributes:
        images: uint8 `[n, height, width, channels]`, at least one.
        labels: int64 `[n]`, positions in the classifier's classes; None if they are not known.
        source: what they are, for messages.
    """

    images: Uint8Array
    labels: npt.NDArray[np.int64] | None
    source: str


def images_for(classifier: Classifier, request: Request) -> Inputs:
    """The images that are given, or the run's own held-out images, or else photographs that are installed.

    Raises:
        DecodeError, DataError: the given images cannot be read.
        UsageError: the given data cannot be opened.
    """
    preprocess = classifier.preprocess
    if request.samples:
        images = np.stack([preprocess.read(sample) for sample in request.samples])
        return Inputs(images, None, f"{len(images)} given images")
    found = labelled_splits(classifier, request.data)
    if found is None:
        return photographs(preprocess)
    name, samples = choose_split(found.splits, "auto", found.source)
    return read(found, name, samples, preprocess, COUNT)


def photographs(preprocess: Preprocess) -> Inputs:
    """Parts of photographs that are installed."""
    images = np.stack([preprocess.fit(tile) for tile in _tiles(preprocess.channels)])
    return Inputs(images, None, f"{len(images)} parts of installed photographs")


def labelled_splits(classifier: Classifier, data: Any) -> DataSet | None:
    """Labeled images in the classes of a classifier: the given ones, or those of its run, split as there.

    Returns:
        The dataset; None if no data are given and those of the run are not known or no longer readable.

    Raises:
        DataError, UsageError: the given data cannot be opened.
    """
    try:
        dataset, _ = find_data(classifier, data, None, None)
    except StriateError as error:
        if data is not None:
            raise
        if isinstance(error, DataError):  # not: the bundle is not in a run folder
            note = f"the export is not compared on the images of the run: {error}"
            warnings.warn(note, StriateWarning, stacklevel=2)
        return None
    return dataset.with_classes(classifier.classes)[0]


def read(dataset: DataSet, split: str, samples: Samples, preprocess: Preprocess, most: int) -> Inputs:
    """Read a random part of a split, the same one each time.

    Raises:
        DataError: no image of it can be read.
    """
    order = np.random.default_rng(0).permutation(len(samples))[:most]
    images = DecodedImages(samples.take(np.sort(order)), preprocess, root=dataset.root)
    out = np.empty((len(images), *images.shape), np.uint8)
    with images.reading():
        readable = images.read(np.arange(len(images)), out)
    if not readable.any():
        raise DataError(f"cannot compare on {dataset.source!r}", f"no {split} image can be read")
    name = Path(dataset.source).name or dataset.source
    source = f"{int(readable.sum()):,} of {len(samples):,} {split} images of {name}"
    one_class = images.labels.ndim == 1  # of several classes, only the most probable ones are compared
    return Inputs(out[readable], images.labels[readable] if one_class else None, source)


def _tiles(channels: int) -> Sequence[Uint8Array]:
    """Parts of installed photographs, of many sizes, with this number of channels."""
    tiles = []
    for package, name in _PHOTOS:
        path = file_of(package, name)
        if path is None:
            continue
        with Image.open(path) as photo:
            pixels = np.asarray(photo.convert("L" if channels == 1 else "RGB"))
        pixels = pixels.reshape(*pixels.shape[:2], -1)
        pixels = pixels[:, :, np.arange(channels) % pixels.shape[2]]
        rows, columns = (np.linspace(0, size, 5, dtype=int) for size in pixels.shape[:2])
        tiles += [
            pixels[top:bottom, left : right + 7 * i]
            for i, (top, bottom) in enumerate(itertools.pairwise(rows))
            for left, right in itertools.pairwise(columns)
        ]
    generator = np.random.default_rng(0)
    return tiles or [generator.integers(0, 256, (64, 48, channels), np.uint8) for _ in range(16)]
