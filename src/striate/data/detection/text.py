"""Read text files with one box per line, as YOLO and popular evaluators write them."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np

from striate.data.detection.layout import AUTO, infer_coordinates
from striate.data.detection.rows import COORDINATES, UNKNOWN, Rows, number, to_pixels
from striate.data.detection.voc import image_size
from striate.errors import DataError, UsageError
from striate.reading import MAX_LIST_BYTES, MAX_TABLE_BYTES, damage_errors, open_file, read_bytes
from striate.transforms.decode import open_bytes


@dataclass(frozen=True)
class TextLayout:
    """Format of the lines of text files, and of the columns of CSV files.

    A line is `class [score] a b c d`; YOLO's predictions are `class a b c d [score]`. In ground truth, a
    sixth field says whether the object is difficult: 1 or 0.

    Args:
        coordinates: what a, b, c and d are: "xywh" (top left corner and size), "xyxy" (two corners),
            "cxcywh" (center and size), or "auto": text files show it themselves (`infer_coordinates`).
        relative: whether they are fractions of the image's width and height.
        score_last: whether the score follows the box.
        images: folder of the images, for the sizes that relative coordinates need.
        annotations: folder of VOC XML files, which contain the sizes, if `images` is None.
        names: file with a class name on each line, for classes given by number.
    """

    coordinates: str = AUTO
    relative: bool = False
    score_last: bool = False
    images: str | os.PathLike[str] | None = None
    names: str | os.PathLike[str] | None = None
    annotations: str | os.PathLike[str] | None = None

    def __post_init__(self) -> None:
        if self.coordinates not in (AUTO, *COORDINATES):
            known = ", ".join((AUTO, *COORDINATES))
            raise UsageError(f"coordinates {self.coordinates!r}", f"they are {known}")
        if self.relative and self.images is None and self.annotations is None:
            raise UsageError(
                "relative coordinates", "the image sizes are unknown", "Give the folder of images"
            )

    @cached_property
    def labels(self) -> tuple[str, ...]:
        """Names of the classes, in the order of their numbers."""
        if self.names is None:
            return ()
        with damage_errors(f"cannot read {self.names}"):
            text = read_bytes(self.names, MAX_LIST_BYTES).decode("utf-8")
        return tuple(line for line in text.splitlines() if line.strip())

    def label(self, text: str, where: str) -> str:
        """The name of a class given by name, or by number if there is a file of names."""
        if not self.labels or text in self.labels:
            return text
        if text.isdecimal() and len(text) < 10 and int(text) < len(self.labels):
            return self.labels[int(text)]
        raise DataError(where, f"class {text!r} is not among the {len(self.labels)} of {self.names}")

    @cached_property
    def _files(self) -> dict[str, Path]:
        return {p.stem: p for p in sorted(Path(self.images or ".").iterdir()) if p.suffix.lower() != ".txt"}

    def size(self, image: str, where: str) -> tuple[int, int] | None:
        """Width and height of an image if coordinates are relative, otherwise None."""
        if not self.relative:
            return None
        if self.images is None and self.annotations is not None:
            return image_size(self.annotations, image, where)
        if image not in self._files:
            raise DataError(where, f"there is no image {image} in {self.images}")
        return self._opened_size(image, where)

    def known_size(self, image: str) -> tuple[int, int] | None:
        """Width and height of an image in the folder of images; None if it is not there."""
        if self.images is None or image not in self._files:
            return None
        return self._opened_size(image, f"image {image}")

    def _opened_size(self, image: str, where: str) -> tuple[int, int]:
        try:
            with open_file(self._files[image]) as file, open_bytes(file, str(self._files[image])) as picture:
                return picture.size
        except DataError as error:
            raise DataError(where, f"its image cannot be read ({error.why})") from None


class Line(NamedTuple):
    """One line of a text file, as written."""

    image: str
    label: str
    numbers: list[float]
    where: str
    relative_to: tuple[int, int] | None  # the image's size, if the numbers are fractions of it


def read_text(
    folder: str | os.PathLike[str],
    layout: TextLayout,
    *,
    scored: bool,
    sizes: Mapping[str, tuple[float, float]] | None = None,
) -> Rows:
    """Read all boxes in a folder with one text file per image and the same name.

    Args:
        folder: has the .txt files; an empty file means an image without boxes.
        layout: format of the lines.
        scored: whether lines have a score; otherwise they may have a sixth field, `difficult`.
        sizes: width and height of the images that are known, to tell the coordinates from.

    Raises:
        DataError: a line is malformed; the message names the file and line. Or the boxes fit no layout.
    """
    rows, lines = Rows(labels=layout.labels), []
    for path in sorted(Path(folder).glob("*.txt")):
        rows.images.add(path.stem)
        size = None
        for line, fields in _lines(path):
            where = f"{path}, line {line}"
            numbers = [number(text, where) for text in _numbers(fields, where, scored)]
            if scored:
                rows.score.append(numbers.pop(-1 if layout.score_last else 0))
            else:
                rows.difficult.append(len(fields) == 6 and fields[5] == "1")
            size = size or layout.size(path.stem, where)
            lines.append(Line(path.stem, layout.label(fields[0], where), numbers, where, size))
    rows.sizes = _sizes(rows.images, lines, layout, dict(sizes or {}))
    coordinates = layout.coordinates
    if coordinates == AUTO:
        coordinates, note = _inferred(lines, rows.sizes, str(folder))
        rows.notes += note
    for one in lines:
        rows.add(one.image, one.label, to_pixels(one.numbers, coordinates, one.relative_to, one.where))
    return rows


def _numbers(fields: list[str], where: str, scored: bool) -> list[str]:
    """The fields that are numbers, after the class and without `difficult`."""
    if scored and len(fields) != 6:
        raise DataError(where, f"it has {len(fields)} fields, not 6: class, score and four numbers")
    if not 5 <= len(fields) <= 6:
        why = f"it has {len(fields)} fields, not 5: class and four numbers (a sixth is `difficult`)"
        raise DataError(where, why)
    if not scored and len(fields) == 6 and fields[5] not in ("0", "1"):
        raise DataError(
            where, f"the sixth field is {fields[5]!r}, not 0 or 1", "It says whether it is difficult"
        )
    return fields[1:] if scored else fields[1:5]


def _sizes(
    images: set[str], lines: list[Line], layout: TextLayout, known: dict[str, tuple[float, float]]
) -> dict[str, tuple[float, float]]:
    """The sizes of the images, as far as they are known without reading anything twice."""
    known |= {line.image: line.relative_to for line in lines if line.relative_to is not None}
    for image in images - known.keys():
        if (size := layout.known_size(image)) is not None:
            known[image] = size
    return known


def _inferred(
    lines: list[Line], sizes: dict[str, tuple[float, float]], source: str
) -> tuple[str, tuple[str, ...]]:
    """The coordinates that the boxes allow, and a note about them."""
    if not lines:
        return COORDINATES[0], ()
    known = [(1.0, 1.0) if one.relative_to else sizes.get(one.image, UNKNOWN) for one in lines]
    boxes, where = np.array([one.numbers for one in lines]), [one.where for one in lines]
    chosen, note = infer_coordinates(boxes, np.array(known, np.float64), source, where)
    return chosen, (note,)


def _lines(path: Path) -> Iterator[tuple[int, list[str]]]:
    with damage_errors(f"cannot read {path}"):
        text = read_bytes(path, MAX_TABLE_BYTES).decode("utf-8-sig")
    for i, line in enumerate(text.splitlines(), 1):
        if "\0" in line:
            raise DataError(f"{path}, line {i}", "it contains a zero byte", "Save it as UTF-8 text")
        fields = line.replace(",", " ").split()
        if fields:
            yield i, fields
