"""Accuracy on parts of the images: by a column of a table, or by size, brightness and sharpness."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from striate.data.images.tables import read_columns
from striate.errors import UsageError
from striate.files import probe
from striate.metrics.classification import wilson_interval
from striate.metrics.comparison import holm, log_choose
from striate.sections import Remark

PROPERTIES = ("size", "brightness", "sharpness")
_PARTS = 4  # of images by falling values
_MOST_VALUES = 100  # of a column
_AT_ONCE = 256  # images


@dataclass(frozen=True)
class Slice:
    """Images with a property.

    Attributes:
        by: the property, or the column.
        value: of it; of a number, its range.
        n: images.
        top1: accuracy.
        top1_ci: its 95 % Wilson interval.
        p: of Fisher's exact test against all other images, after Holm's correction for all slices.
    """

    by: str
    value: str
    n: int
    top1: float
    top1_ci: tuple[float, float]
    p: float

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return dataclasses.asdict(self)


def chosen_properties(by: str | Sequence[str], source: str) -> tuple[str, ...]:
    """The properties to slice by, checked before images are read.

    Args:
        by: `size` (pixels of the file), `brightness`, `sharpness`, or columns of the table; one text may hold
            several, separated by commas.
        source: of the data.

    Raises:
        UsageError: a column, and the data are no table.
    """
    names = tuple(name.strip() for name in by.split(",")) if isinstance(by, str) else tuple(by)
    for name in names:
        if name not in PROPERTIES and not source.lower().endswith((".csv", ".tsv")):
            fix = f"Give a CSV file with this column as the data, or use {', '.join(PROPERTIES)}"
            raise UsageError(f"cannot slice by {name!r}", "it is a column, and the data are no table", fix)
    return names


def slices(
    names: Sequence[str],
    right: npt.NDArray[np.bool_],
    images: Any,
    by: str | Sequence[str],
    source: str = "",
) -> tuple[tuple[Slice, ...], tuple[Remark, ...]]:
    """The slices of some properties, those with the lowest accuracy first, and properties that give none.

    Args:
        names: path of each image.
        right: `[n]`, whether its prediction is right.
        images: `[n]`, uint8 `[height, width, channels]`, at the network's input size.
        by: as for `chosen_properties`.
        source: of the data; a CSV or TSV file has the columns `path` and these.

    Raises:
        UsageError: as `chosen_properties`; or a column that names no image or has too many values.
        DataError: the table cannot be read, or has no such column.
    """
    found: list[tuple[str, str, npt.NDArray[np.bool_]]] = []
    remarks = []
    for name in chosen_properties(by, source):
        if name in PROPERTIES:
            show = "{:,.0f}" if name == "size" else "{:.4g}"
            parts = _ranges(_measured(name, names, images), show, " px" if name == "size" else "")
        else:
            parts = _column(name, names, source)
        if len(parts) == 1 and parts[0][1].all():
            remarks.append(Remark(f"no slices by {name}: all images have the same value, {parts[0][0]}"))
            continue
        if not parts:
            remarks.append(Remark(f"no slices by {name}: it is not known of these images"))
        found += [(name, value, rows) for value, rows in parts]
    p = [fisher(int(right[rows].sum()), int(rows.sum()), int(right.sum()), len(right)) for *_, rows in found]
    records = [
        Slice(by, value, int(rows.sum()), float(right[rows].mean()),
              wilson_interval(float(right[rows].mean()), int(rows.sum())), float(adjusted))
        for (by, value, rows), adjusted in zip(found, holm(np.array(p)), strict=True)
    ]  # fmt: skip
    return tuple(sorted(records, key=lambda s: s.top1)), tuple(remarks)


def fisher(right: int, n: int, all_right: int, everything: int) -> float:
    """The two-sided p-value of Fisher's exact test: do n images have another accuracy than the rest?

    Args:
        right: of the n images.
        n: images of the slice.
        all_right: right ones of all images.
        everything: all images.
    """
    lowest, highest = max(0, n + all_right - everything), min(n, all_right)
    whole = log_choose(everything, n)
    logs = np.array([
        log_choose(all_right, k) + log_choose(everything - all_right, n - k) - whole
        for k in range(lowest, highest + 1)
    ])  # fmt: skip
    chances = np.exp(logs)
    return float(min(1.0, chances[logs <= logs[right - lowest] + 1e-7].sum()))


def _measured(name: str, names: Sequence[str], images: Any) -> npt.NDArray[np.float64]:
    """A number for each image; NaN where it is not known."""
    if name == "size":
        return np.array([_pixels(path) for path in names])
    measure = _brightness if name == "brightness" else _sharpness
    parts = range(0, len(names), _AT_ONCE)
    return np.concatenate([measure(_gray(np.asarray(images[at : at + _AT_ONCE]))) for at in parts])


def _pixels(path: str) -> float:
    """Width times height of a file; NaN of what is not a file that Pillow opens."""
    if probe(Path(path)) is None:
        return math.nan
    try:
        with Image.open(path) as image:
            return float(image.width * image.height)
    except (OSError, ValueError):
        return math.nan


def _gray(images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float64]:
    return np.asarray(images.astype(np.float64).mean(axis=3))


def _brightness(gray: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return np.asarray(gray.mean(axis=(1, 2)) / 255)


def _sharpness(gray: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """The variance of the Laplacian, relative to that of the image: independent of its contrast."""
    centre = gray[:, 1:-1, 1:-1]
    around = gray[:, :-2, 1:-1] + gray[:, 2:, 1:-1] + gray[:, 1:-1, :-2] + gray[:, 1:-1, 2:]
    return np.asarray((around - 4 * centre).var(axis=(1, 2)) / np.maximum(gray.var(axis=(1, 2)), 1e-9))


def _ranges(values: npt.NDArray[np.float64], show: str, unit: str) -> list[tuple[str, npt.NDArray[np.bool_]]]:
    """Quarters of the images by their values; equal values stay together."""
    known = np.isfinite(values)
    if not known.any():
        return []
    edges = np.unique(np.quantile(values[known], np.linspace(0, 1, _PARTS + 1)))
    # Where most values are equal, there may be two edges; then the highest value is a part.
    last = len(edges) - 2 if len(edges) > 2 else len(edges) - 1
    part = np.clip(np.searchsorted(edges, values, side="right") - 1, 0, last)
    found = []
    for rows in (known & (part == i) for i in range(last + 1)):
        if rows.any():
            ends = dict.fromkeys(show.format(end(values[rows])) for end in (np.min, np.max))
            found.append((" to ".join(ends) + unit, rows))
    return found


def _column(name: str, names: Sequence[str], source: str) -> list[tuple[str, npt.NDArray[np.bool_]]]:
    what = f"cannot slice by {name!r}"
    table, column = Path(source), name.lower()
    value_of = {
        _key(path): row[column]
        for row in read_columns(table, ("path", column))
        for path in (row["path"], table.parent / row["path"])
    }
    values = np.array([value_of.get(_key(path), "") for path in names])
    different = sorted(set(values.tolist()) - {""})
    if not different:
        raise UsageError(what, f"{str(table)!r} names none of the images", "Compare its column path")
    if len(different) > _MOST_VALUES:
        why = f"it has {len(different):,} values, more than {_MOST_VALUES}"
        raise UsageError(what, why, "Use a column with fewer values")
    return [(value, np.asarray(values == value)) for value in different]


def _key(path: Any) -> str:
    return str(Path(path).absolute())
