"""Datasets that fit in memory: idx files such as MNIST, and scikit-learn's handwritten digits."""

from __future__ import annotations

import io
import math
import os
from importlib import metadata
from pathlib import Path

import numpy as np
import numpy.typing as npt

from striate.data.images.contents import is_hidden_folder, listed
from striate.data.images.samples import UNSPLIT, DataSet, Samples
from striate.errors import DataError
from striate.reading import DEFLATE_RATIO, GZIP, Inflated, damage_errors, open_file

_SPLITS = {"train": "train", "t10k": "test", "test": "test", "val": "val"}


def digits() -> DataSet:
    """Load scikit-learn's 1,797 handwritten digits, 8x8 pixels, 17 gray levels (Alpaydin, Kaynak 1998)."""
    # Read the file directly: importing scikit-learn takes longer than importing torch.
    table = metadata.distribution("scikit-learn").locate_file("sklearn/datasets/data/digits.csv.gz")
    values = np.loadtxt(str(table), np.uint8, delimiter=",")
    pixels = np.rint(values[:, :-1].reshape(-1, 8, 8) * (255 / 16)).astype(np.uint8)
    names = tuple(f"digits/{i}" for i in range(len(pixels)))
    samples = Samples(names, values[:, -1].astype(np.int64), pixels)
    return DataSet("digits", "", tuple("0123456789"), {UNSPLIT: samples})


def has_idx(folder: Path) -> bool:
    """Return whether a folder contains idx files of images and labels."""
    return bool(_pairs(folder))


def idx(folder: Path) -> DataSet:
    """Read `{train,t10k}-images-idx3-ubyte[.gz]` and their labels (format: LeCun's MNIST page).

    Raises:
        DataError: a file is damaged, or the numbers of images and labels differ.
    """
    read = {}
    for prefix, (images, labels) in _pairs(folder).items():
        pixels, numbers = _array(images), _array(labels)
        if 0 in pixels.shape[1:]:
            raise DataError(f"cannot use {str(images)!r}", f"its images have no pixels: {list(pixels.shape)}")
        if pixels.ndim not in (3, 4) or numbers.ndim != 1 or len(pixels) != len(numbers):
            why = f"its shape is {pixels.shape}, but the shape of {labels.name!r} is {numbers.shape}"
            raise DataError(f"cannot use {str(images)!r}", why, "Provide one label per image")
        read[prefix] = (images.name.split(".")[0], pixels, numbers)
    values = sorted({int(v) for _, _, numbers in read.values() for v in np.unique(numbers)})
    splits = {}
    for prefix, (stem, pixels, numbers) in read.items():
        names = tuple(f"{stem}/{i}" for i in range(len(pixels)))
        # A single pair of files is unsplit, even if it is called test.
        split = _SPLITS[prefix] if len(read) > 1 else UNSPLIT
        splits[split] = Samples(names, np.searchsorted(values, numbers).astype(np.int64), pixels)
    return DataSet(str(folder), "", tuple(str(v) for v in values), splits, tuple(_notes(folder)))


def _pairs(folder: Path) -> dict[str, tuple[Path, Path]]:
    """Return prefix -> (images file, labels file) for prefixes with both."""
    found: dict[str, dict[str, Path]] = {prefix: {} for prefix in _SPLITS}
    for path in sorted(folder.iterdir()):
        prefix, _, rest = path.name.partition("-")
        kind = rest.removesuffix(".gz").replace(".", "-")  # train-images.idx3-ubyte is also common
        if prefix in _SPLITS and kind in ("images-idx3-ubyte", "images-idx4-ubyte", "labels-idx1-ubyte"):
            found[prefix][kind[:6]] = path
    return {prefix: (two["images"], two["labels"]) for prefix, two in found.items() if len(two) == 2}


def _notes(folder: Path) -> list[str]:
    """Return what is skipped: images without labels, and folders, which may be class folders."""
    used = {path for pair in _pairs(folder).values() for path in pair}
    lone = sorted(p.name for p in folder.iterdir() if "-ubyte" in p.name and p not in used and p.is_file())
    folders = sorted(
        path.name for path in folder.iterdir() if path.is_dir() and not is_hidden_folder(path.name)
    )
    notes = []
    if lone:
        notes.append(f"skipped {listed(lone)}: images and labels of one name are read, train- or t10k-")
    if folders:
        notes.append(f"only the idx files are read; skipped folders: {listed(folders)}")
    return notes


def _array(path: Path) -> npt.NDArray[np.uint8]:
    """Read one idx file: two zero bytes, type, number of axes, sizes (big-endian), values."""
    what, again = f"cannot read {str(path)!r}", "Download the file again"
    with damage_errors(what, again), open_file(path) as raw:
        size = os.fstat(raw.fileno()).st_size
        packed = raw.read(len(GZIP)) == GZIP
        raw.seek(0)
        file = io.BufferedReader(Inflated(raw)) if packed else raw
        start = file.read(4)
        axes = start[3] if len(start) == 4 else 0
        sizes = file.read(4 * axes)
        if start[:3] != b"\0\0\x08" or axes not in (1, 3, 4) or len(sizes) < 4 * axes:
            raise DataError(what, "it does not start like an idx file of unsigned bytes")
        shape = tuple(int.from_bytes(sizes[4 * i : 4 * i + 4], "big") for i in range(axes))
        count, most = math.prod(shape), DEFLATE_RATIO * size if packed else size - len(start) - len(sizes)
        if count > most or (not packed and count < most):
            has = f"{'at most ' if packed else ''}{most:,} values"
            raise DataError(what, f"it has {has}, but its header says {count:,}", again)
        body = file.read(count)
        if len(body) < count or file.read(1):
            has = f"{len(body):,} values" if len(body) < count else "more values"
            raise DataError(what, f"it has {has}, but its header says {count:,}", again)
    return np.frombuffer(body, np.uint8).reshape(shape)
