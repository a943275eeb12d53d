"""Collect boxes one by one, and convert them to columns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from striate.errors import DataError
from striate.metrics.detection import Detections, GroundTruth, detections, ground_truth

Box = tuple[float, float, float, float]
COORDINATES = ("xywh", "xyxy", "cxcywh")
UNKNOWN = (float("nan"), float("nan"))  # the size of an image


@dataclass
class Rows:
    """Boxes in pixels (x, y, width, height), with the names of their images and classes."""

    image: list[str] = field(default_factory=list)
    label: list[str] = field(default_factory=list)
    box: list[Box] = field(default_factory=list)
    score: list[float] = field(default_factory=list)
    difficult: list[bool] = field(default_factory=list)
    images: set[str] = field(default_factory=set)
    labels: tuple[str, ...] = ()  # all classes, if known in advance
    sizes: dict[str, tuple[float, float]] = field(default_factory=dict)  # width and height, where known
    notes: tuple[str, ...] = ()

    def add(self, image: str, label: str, box: Box) -> None:
        """Add one box."""
        self.image.append(image)
        self.label.append(label)
        self.box.append(box)

    def ground_truth(self, source: Path) -> GroundTruth:
        """Convert the rows to ground truth."""
        labels = self.labels or tuple(sorted(set(self.label)))
        return ground_truth(
            self.image, self.label, self.box, difficult=self.difficult or None, source=str(source),
            image_ids=(images := sorted(self.images)), categories={name: name for name in labels},
            image_sizes=[self.sizes.get(image, UNKNOWN) for image in images], notes=self.notes,
        )  # fmt: skip

    def detections(self, source: Path, truth: GroundTruth) -> Detections:
        """Convert the rows to detections in the images of `truth`."""
        columns = self.image, self.label, self.box, self.score
        return detections(*columns, truth=truth, source=str(source), notes=self.notes)


def to_pixels(values: Sequence[float], coordinates: str, size: tuple[int, int] | None, where: str) -> Box:
    """Convert four coordinates to x, y, width and height in pixels.

    Args:
        values: the four numbers.
        coordinates: "xywh", "xyxy" or "cxcywh" (center).
        size: width and height of the image if the numbers are fractions of them, otherwise None.
        where: file and line, for the error message.

    Raises:
        DataError: the width or height is negative.
    """
    a, b, c, d = values
    if size is not None:
        a, b, c, d = a * size[0], b * size[1], c * size[0], d * size[1]
    if coordinates == "xyxy":
        c, d = c - a, d - b
    elif coordinates == "cxcywh":
        a, b = a - c / 2, b - d / 2
    if c < 0 or d < 0:
        raise DataError(where, f"the box is {c:g} wide and {d:g} high", f"Are the numbers {coordinates}?")
    return a, b, c, d


def number(text: str, where: str) -> float:
    """Parse a number; the `DataError` for anything else names the file and line."""
    try:
        return float(text)
    except ValueError:
        raise DataError(where, f"{text!r} is not a number") from None
