"""Images that are in memory: idx files as MNIST's, and scikit-learn's handwritten digits."""

from __future__ import annotations

import gzip
import math
import zlib
from importlib import metadata
from pathlib import Path

import numpy as np
import numpy.typing as npt

from striate.data.images.samples import UNSPLIT, DataSet, Samples
from striate.errors import DataError

_SPLITS = {"train": "train", "t10k": "test", "test": "test", "val": "val"}


def digits() -> DataSet:
    """scikit-learn's 1,797 handwritten digits of 8x8 pixels, 17 levels of gray (Alpaydin, Kaynak 1998)."""
    # Its file is read without its code, which takes longer to load than torch.
    table = metadata.distribution("scikit-learn").locate_file("sklearn/datasets/data/digits.csv.gz")
    with gzip.open(Path(str(table)), "rt") as lines:
        values = np.array([line.split(",") for line in lines], np.uint8)
    images, labels = values[:, :-1], values[:, -1]
    pixels = np.rint(images.reshape(-1, 8, 8) * (255 / 16)).astype(np.uint8)
    names = tuple(f"digits/{i}" for i in range(len(pixels)))
    samples = Samples(names, labels.astype(np.int64), pixels)
    return DataSet("digits", "", tuple("0123456789"), {UNSPLIT: samples})


def has_idx(folder: Path) -> bool:
    """Whether a folder holds a pair of idx files."""
    return bool(_pairs(folder))


def idx(folder: Path) -> DataSet:
    """Read `{train,t10k}-images-idx3-ubyte[.gz]` and their labels (LeCun's MNIST page has the format).

    Raises:
        DataError: a file is damaged, or images and labels are not of one number.
    """
    read = {}
    for prefix, (images, labels) in _pairs(folder).items():
        pixels, numbers = _array(images), _array(labels)
        if pixels.ndim not in (3, 4) or numbers.ndim != 1 or len(pixels) != len(numbers):
            raise DataError(
                f"cannot use {str(images)!r}",
                f"its shape is {pixels.shape} and that of {labels.name!r} is {numbers.shape}",
                "There must be one label for each image",
            )
        read[prefix] = (images.name.split(".")[0], pixels, numbers)
    values = sorted({int(v) for _, _, numbers in read.values() for v in np.unique(numbers)})
    splits = {}
    for prefix, (stem, pixels, numbers) in read.items():
        names = tuple(f"{stem}/{i}" for i in range(len(pixels)))
        # A lone test file is data like any other: nothing says what to train on.
        split = _SPLITS[prefix] if len(read) > 1 else UNSPLIT
        splits[split] = Samples(names, np.searchsorted(values, numbers).astype(np.int64), pixels)
    return DataSet(str(folder), "", tuple(str(v) for v in values), splits)


def _pairs(folder: Path) -> dict[str, tuple[Path, Path]]:
    """Prefix -> the files of images and labels, for the prefixes that have both."""
    found: dict[tuple[str, str], Path] = {}
    for path in sorted(folder.iterdir()):
        prefix, _, rest = path.name.partition("-")
        kind = rest.removesuffix(".gz").replace(".", "-")  # train-images.idx3-ubyte is about as common
        if prefix in _SPLITS and kind in ("images-idx3-ubyte", "images-idx4-ubyte", "labels-idx1-ubyte"):
            found[prefix, kind[:6]] = path
    return {
        prefix: (found[prefix, "images"], found[prefix, "labels"])
        for prefix in _SPLITS
        if (prefix, "images") in found and (prefix, "labels") in found
    }


def _array(path: Path) -> npt.NDArray[np.uint8]:
    """One idx file: two zero bytes, the type, the number of axes, the sizes (big-endian), the values."""
    try:
        data = path.read_bytes()
        if data[:2] == b"\x1f\x8b":
            data = gzip.decompress(data)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"cannot read {str(path)!r}", str(error), "Fetch the file again") from error
    axes = data[3] if len(data) >= 4 else 0
    if data[:3] != b"\0\0\x08" or len(data) < 4 + 4 * axes:
        raise DataError(f"cannot read {str(path)!r}", "it does not begin like an idx file of unsigned bytes")
    shape = tuple(int.from_bytes(data[4 + 4 * i : 8 + 4 * i], "big") for i in range(axes))
    body = data[4 + 4 * axes :]
    if len(body) != math.prod(shape):
        raise DataError(
            f"cannot read {str(path)!r}",
            f"it has {len(body):,} values where its header says {math.prod(shape):,}",
            "Fetch the file again",
        )
    return np.frombuffer(body, np.uint8).reshape(shape)
