"""Ground truth and detections as columns, with images and classes as indices into sorted tables of ids."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from striate.errors import DataError
from striate.metrics.detection.reference import Bools as Bools
from striate.metrics.detection.reference import Floats as Floats
from striate.metrics.detection.reference import Places as Places
from striate.metrics.detection.shapes import Masks

Ids = NDArray[Any]  # int64, or text


@dataclass(frozen=True, eq=False)
class Federated:
    """Which classes were looked for in which images, where not every class was (LVIS).

    Args:
        negative: int32 [N, 2], image and class: the class is known to be absent.
        not_exhaustive: int32 [N, 2], image and class: some objects of the class are not annotated.
        frequency: K letters, how many training images have the class: "r" (rare, below 10), "c" (common,
            below 100) or "f" (frequent); empty if unknown.
    """

    negative: Places
    not_exhaustive: Places
    frequency: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class GroundTruth:
    """The annotated objects of all images.

    Args:
        image_ids: ascending ids of I images, integers or text.
        category_ids: ascending ids of K classes, integers or text.
        category_names: K names.
        image: int32 [G], indices into `image_ids`; rows with -1 are skipped.
        category: int32 [G], indices into `category_ids`; rows with -1 are skipped.
        box: float64 [G, 4]: x and y of the top left corner, width, height, in pixels.
        area: float64 [G] in square pixels, for the size ranges.
        crowd: bool [G], regions with many objects: any number of detections may match one, and none counts.
        id: int64 [G].
        difficult: bool [G], objects that count neither for nor against: Pascal VOC's difficult ones, and
            those without a labeled key point.
        source: its file or folder.
        notes: warnings of the reader, for the user.
        image_size: float64 [I, 2], width and height of the images in pixels, NaN where unknown; or None.
        masks: [G] run lengths (`shapes.as_masks`), or None.
        keypoints: float64 [G, P, 3]: x, y, visibility; or None.
        federated: which classes were looked for; None for all of them in all images.
    """

    image_ids: Ids
    category_ids: Ids
    category_names: tuple[str, ...]
    image: Places
    category: Places
    box: Floats
    area: Floats
    crowd: Bools
    id: NDArray[np.int64]
    difficult: Bools
    source: str = ""
    notes: tuple[str, ...] = ()
    image_size: Floats | None = None
    masks: Masks | None = None
    keypoints: Floats | None = None
    federated: Federated | None = None

    def __len__(self) -> int:
        return self.image.size


@dataclass(frozen=True, eq=False)
class Detections:
    """The detections of one detector in the images of a `GroundTruth`.

    Args:
        image: int32 [D], indices into the ground truth's `image_ids`.
        category: int32 [D], indices into its `category_ids`; -1 for classes that it does not have.
        box: float64 [D, 4]: x and y of the top left corner, width, height, in pixels.
        score: float64 [D], the confidence.
        area: float64 [D] for the size ranges, or None for width times height.
        id: int64 [D], or None for 1, 2, 3, ...
        source: their file or folder.
        notes: warnings of the reader, for the user.
        masks: [D] run lengths (`shapes.as_masks`), or None.
        keypoints: float64 [D, P, 3]: x, y and anything; or None.
        excused: bool [D], detections that do not count if they match nothing; or None.
    """

    image: Places
    category: Places
    box: Floats
    score: Floats
    area: Floats | None = None
    id: NDArray[np.int64] | None = None
    source: str = ""
    notes: tuple[str, ...] = field(default=())
    masks: Masks | None = None
    keypoints: Floats | None = None
    excused: Bools | None = None

    def __len__(self) -> int:
        return self.image.size


Side = TypeVar("Side", GroundTruth, Detections)
_AT_ONCE = 1 << 13  # boxes, so that what is computed of them stays in the processor's cache
_TRUTH_COLUMNS = ("image", "category", "box", "area", "crowd", "id", "difficult", "masks", "keypoints")
_DETECTION_COLUMNS = ("image", "category", "box", "score", "area", "id", "masks", "keypoints", "excused")


def take_rows(side: Side, rows: NDArray[Any], **changes: Any) -> Side:
    """Some rows of the ground truth or of detections, with other `changes`."""
    names = _TRUTH_COLUMNS if isinstance(side, GroundTruth) else _DETECTION_COLUMNS
    columns = {name: getattr(side, name) for name in names}
    return replace(side, **{k: v[rows] for k, v in columns.items() if v is not None} | changes)


def require_scores(detections: Detections) -> None:
    """Refuse scores that are NaN, which have no rank; raises DataError."""
    if np.isnan(detections.score).any():
        first = int(np.argmax(np.isnan(detections.score)))
        raise DataError(f"detection {first}", "its score is not a number")


def outside_notes(truth: GroundTruth, detections: Detections) -> tuple[str, ...]:
    """Notes about boxes that leave their image by more than a pixel, where its size is known."""
    notes: tuple[str, ...] = ()
    if truth.image_size is None:
        return notes
    for side, name in ((truth, "ground truth"), (detections, "detections")):
        if count := _outside(side.box, side.image, truth.image_size):
            notes += (f"{count:,} of {len(side):,} boxes in the {name} leave their image",)
    return notes


def _outside(box: Floats, image: Places, sizes: Floats) -> int:
    if not len(box) or not len(sizes):
        return 0
    width, height = sizes.min(axis=0)
    parts = (box[start : start + _AT_ONCE] for start in range(0, len(box), _AT_ONCE))
    if all(_within(part, width, height) for part in parts):
        return 0  # most data; without a look at the size of each box's image
    width, height = sizes[image].T
    left, top, right, bottom = _edges(box)
    out = (left < -1) | (top < -1) | (right > width + 1) | (bottom > height + 1)
    return int((out & (image >= 0)).sum())


def _within(box: Floats, width: float, height: float) -> bool:
    left, top, right, bottom = _edges(box)
    return bool(
        left.min() >= -1 and top.min() >= -1 and right.max() <= width + 1 and bottom.max() <= height + 1
    )


def _edges(box: Floats) -> tuple[Floats, Floats, Floats, Floats]:
    with np.errstate(all="ignore"):
        return box[:, 0], box[:, 1], box[:, 0] + box[:, 2], box[:, 1] + box[:, 3]


def without_repeated_ids(truth: GroundTruth, counts: Bools | None = None) -> GroundTruth:
    """The ground truth as pycocotools reads it: the last of several annotations with one id replaces all.

    Args:
        truth: the ground truth.
        counts: [G], rows that are read; None for all.
    """
    if len(truth) == 0 or (np.diff(truth.id) > 0).all():
        return truth
    unique, inverse = np.unique(truth.id, return_inverse=True)
    if unique.size == len(truth):
        return truth
    last = np.zeros(unique.size, np.int64)
    np.maximum.at(last, inverse, np.arange(len(truth)))
    known = (truth.image >= 0) & (truth.category >= 0)
    seen = np.flatnonzero(known if counts is None else known & counts)
    rows = last[inverse[seen[np.argsort(truth.image[seen], kind="stable")]]]
    note = f"{len(truth) - unique.size} annotations share an id with a later one, which replaces them"
    return take_rows(truth, rows, notes=(*truth.notes, note))
