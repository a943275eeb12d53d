"""Read text files with one box per line, as YOLO and popular evaluators write them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from PIL import Image

from striate.data.detection.rows import COORDINATES, Rows, number, to_pixels
from striate.data.detection.voc import image_size
from striate.errors import DataError, UsageError


@dataclass(frozen=True)
class TextLayout:
    """Format of the lines of text files, and of the columns of CSV files.

    A line is `class [score] a b c d`; YOLO's predictions are `class a b c d [score]`.

    Args:
        coordinates: what a, b, c and d are: "xywh" (top left corner and size), "xyxy" (two corners) or
            "cxcywh" (centre and size).
        relative: whether they are fractions of the image's width and height.
        score_last: whether the score follows the box.
        images: folder of the images, for the sizes that relative coordinates need.
        annotations: folder of VOC XML files, which contain the sizes, if `images` is None.
        names: file with a class name on each line, for classes given by number.
    """

    coordinates: str = "xywh"
    relative: bool = False
    score_last: bool = False
    images: str | os.PathLike[str] | None = None
    names: str | os.PathLike[str] | None = None
    annotations: str | os.PathLike[str] | None = None

    def __post_init__(self) -> None:
        if self.coordinates not in COORDINATES:
            raise UsageError(f"coordinates {self.coordinates!r}", f"they are {', '.join(COORDINATES)}")
        if self.relative and self.images is None and self.annotations is None:
            raise UsageError(
                "relative coordinates", "the image sizes are unknown", "Give the folder of images"
            )

    @cached_property
    def labels(self) -> tuple[str, ...]:
        """Names of the classes, in the order of their numbers."""
        if self.names is None:
            return ()
        try:
            return tuple(line for line in Path(self.names).read_text("utf-8").splitlines() if line.strip())
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(f"cannot read {self.names}", str(error)) from None

    def label(self, text: str, where: str) -> str:
        """The name of a class given by name, or by number if there is a file of names."""
        if not self.labels or text in self.labels:
            return text
        if text.isdigit() and int(text) < len(self.labels):
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
        try:
            with Image.open(self._files[image]) as picture:
                return picture.size
        except OSError as error:
            raise DataError(where, f"its image cannot be read ({error})") from None


def read_text(folder: str | os.PathLike[str], layout: TextLayout, *, scored: bool) -> Rows:
    """Read all boxes in a folder with one text file per image and the same name.

    Args:
        folder: has the .txt files; an empty file means an image without boxes.
        layout: format of the lines.
        scored: whether lines have a score.

    Raises:
        DataError: a line is malformed; the message names the file and line.
    """
    rows = Rows(labels=layout.labels)
    for path in sorted(Path(folder).glob("*.txt")):
        rows.images.add(path.stem)
        size = None
        for line, fields in _lines(path):
            where = f"{path}, line {line}"
            if len(fields) != 5 + scored:
                wanted = "class, score and four numbers" if scored else "class and four numbers"
                raise DataError(where, f"it has {len(fields)} fields, not {5 + scored}: {wanted}")
            values = [number(text, where) for text in fields[1:]]
            if scored:
                rows.score.append(values.pop(-1 if layout.score_last else 0))
            size = size or layout.size(path.stem, where)
            box = to_pixels(values, layout.coordinates, size, where)
            rows.add(path.stem, layout.label(fields[0], where), box)
    return rows


def _lines(path: Path) -> Iterator[tuple[int, list[str]]]:
    try:
        text = path.read_text("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot read {path}", str(error)) from None
    for i, line in enumerate(text.splitlines(), 1):
        fields = line.replace(",", " ").split()
        if fields:
            yield i, fields
