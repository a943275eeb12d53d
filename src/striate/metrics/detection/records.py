"""Ground truth and detections as columns, with images and classes by place in sorted id tables."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from striate.errors import DataError, LayoutError
from striate.metrics.detection.kernel import functions

Floats = NDArray[np.float64]
Places = NDArray[np.int32]
Bools = NDArray[np.bool_]
Ids = NDArray[Any]  # int64, or text


@dataclass(frozen=True, eq=False)
class GroundTruth:
    """What is really in the images.

    Args:
        image_ids: ascending ids of I images, integers or text.
        category_ids: ascending ids of K classes, integers or text.
        category_names: K names.
        image: int32 [G], places in `image_ids`; -1 leaves a row out.
        category: int32 [G], places in `category_ids`; -1 leaves a row out.
        box: float64 [G, 4]: x and y of the top left corner, width, height, in pixels.
        area: float64 [G] in square pixels, for the size ranges.
        crowd: bool [G], a region with many objects: any number of detections may match it, none counts.
        id: int64 [G].
        difficult: bool [G], Pascal VOC's objects that count neither for nor against.
        source: the file or folder that it came from.
        notes: what a user should know about how it was read.
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

    def __len__(self) -> int:
        return self.image.size


@dataclass(frozen=True, eq=False)
class Detections:
    """What a detector says is in the images of a `GroundTruth`.

    Args:
        image: int32 [D], places in the ground truth's `image_ids`.
        category: int32 [D], places in its `category_ids`; -1 for classes that it does not have.
        box: float64 [D, 4]: x and y of the top left corner, width, height, in pixels.
        score: float64 [D], higher is surer.
        area: float64 [D] for the size ranges, or None for width times height.
        id: int64 [D], or None for 1, 2, 3, ...
        source: the file or folder that it came from.
        notes: what a user should know about how it was read.
    """

    image: Places
    category: Places
    box: Floats
    score: Floats
    area: Floats | None = None
    id: NDArray[np.int64] | None = None
    source: str = ""
    notes: tuple[str, ...] = field(default=())

    def __len__(self) -> int:
        return self.image.size


def ground_truth(
    image: ArrayLike,
    category: ArrayLike,
    box: ArrayLike,
    *,
    area: ArrayLike | None = None,
    crowd: ArrayLike | None = None,
    difficult: ArrayLike | None = None,
    id: ArrayLike | None = None,
    image_ids: ArrayLike | None = None,
    categories: dict[Any, str] | None = None,
    source: str = "",
    notes: tuple[str, ...] = (),
) -> GroundTruth:
    """Ground truth from raw columns.

    Args:
        image: [G] ids, integers or text.
        category: [G] ids, integers or text.
        box: [G, 4] x, y, width, height.
        area: [G], width times height where it is None.
        crowd: [G] truth values, none where it is None.
        difficult: [G] truth values, none where it is None.
        id: [G] integers, 1, 2, 3, ... where it is None.
        image_ids: ids of all images, those in `image` where it is None.
        categories: id -> name of all classes, those in `category` where it is None.
        source: where it came from.
        notes: what a user should know about it.

    Raises:
        LayoutError: columns of different lengths, or boxes that are not [G, 4].
    """
    boxes = _boxes(box)
    n = len(boxes)
    images, classes = _ids(image, n, "image"), _ids(category, n, "category")
    known_images = np.unique(images if image_ids is None else _ids(image_ids, None, "image_ids"))
    if categories is None:
        categories = {c: str(c) for c in classes.tolist()}
    known = np.unique(_ids(list(categories), None, "categories"))
    with np.errstate(all="ignore"):
        own_area = boxes[:, 2] * boxes[:, 3]
    return GroundTruth(
        known_images,
        known,
        tuple(str(categories[c]) for c in known.tolist()),
        find(images, known_images),
        find(classes, known),
        boxes,
        own_area if area is None else _column(area, n, np.float64, "area"),
        _column(np.zeros(n) if crowd is None else crowd, n, np.bool_, "crowd"),
        _column(np.arange(1, n + 1) if id is None else id, n, np.int64, "id"),
        _column(np.zeros(n) if difficult is None else difficult, n, np.bool_, "difficult"),
        source,
        notes,
    )


def detections(
    image: ArrayLike,
    category: ArrayLike,
    box: ArrayLike,
    score: ArrayLike,
    *,
    truth: GroundTruth,
    area: ArrayLike | None = None,
    id: ArrayLike | None = None,
    source: str = "",
    notes: tuple[str, ...] = (),
) -> Detections:
    """Detections from raw columns, by the ids of `truth`; those of classes it does not have are dropped.

    Args:
        image: [D] ids, all of them images of `truth`.
        category: [D] ids.
        box: [D, 4] x, y, width, height.
        score: [D].
        truth: the ground truth that they are about.
        area: [D], width times height where it is None.
        id: [D] integers, 1, 2, 3, ... where it is None.
        source: where they came from.
        notes: what a user should know about them.

    Raises:
        DataError: an image that `truth` does not have.
        LayoutError: columns of different lengths, or boxes that are not [D, 4].
    """
    boxes = _boxes(box)
    n = len(boxes)
    images, classes = _ids(image, n, "image"), _ids(category, n, "category")
    at, kind = find(images, truth.image_ids), find(classes, truth.category_ids)
    if (at < 0).any():
        raise DataError(
            f"image {images[at < 0][:1].tolist()[0]!r} of {source or 'the detections'}",
            f"{truth.source or 'the ground truth'} has no image of that id",
            "Give the ground truth that the detections were made for",
        )
    dropped = kind < 0
    if dropped.any():
        names = ", ".join(repr(c) for c in sorted(set(classes[dropped].tolist()), key=str)[:5])
        note = f"detections of classes that the ground truth does not have ({names}) were dropped"
        notes = (*notes, f"{int(dropped.sum())} {note}")
    return Detections(
        at,
        kind,
        boxes,
        _column(score, n, np.float64, "score"),
        None if area is None else _column(area, n, np.float64, "area"),
        None if id is None else _column(id, n, np.int64, "id"),
        source,
        notes,
    )


def find(ids: Ids, known: Ids) -> Places:
    """For each id its place in the ascending `known`, or -1. Text never equals a number."""
    out = np.full(ids.size, -1, np.int32)
    if ids.dtype == object:
        place = {value: i for i, value in enumerate(known.tolist())}
        out[:] = [place.get(value, -1) for value in ids.tolist()]
    elif ids.dtype == np.int64 and known.dtype == np.int64:
        functions().places(np.ascontiguousarray(ids), np.ascontiguousarray(known), out)
    elif known.size and ids.size and ids.dtype.kind == known.dtype.kind:
        at = np.minimum(np.searchsorted(known, ids), known.size - 1)
        out[:] = np.where(known[at] == ids, at, -1)
    return out


def without_repeated_ids(truth: GroundTruth) -> GroundTruth:
    """The ground truth as pycocotools sees it: of annotations with one id, the last stands for all."""
    if len(truth) == 0 or (np.diff(truth.id) > 0).all():
        return truth
    unique, inverse = np.unique(truth.id, return_inverse=True)
    if unique.size == len(truth):
        return truth
    last = np.zeros(unique.size, np.int64)
    np.maximum.at(last, inverse, np.arange(len(truth)))
    seen = np.flatnonzero((truth.image >= 0) & (truth.category >= 0))
    rows = last[inverse[seen[np.argsort(truth.image[seen], kind="stable")]]]
    columns = ("image", "category", "box", "area", "crowd", "id", "difficult")
    note = f"{len(truth) - unique.size} annotations share an id with a later one, which stands in for them"
    return replace(truth, **{c: getattr(truth, c)[rows] for c in columns}, notes=(*truth.notes, note))


def _boxes(box: ArrayLike) -> Floats:
    boxes = np.ascontiguousarray(box, np.float64)
    if boxes.size == 0:
        boxes = boxes.reshape(0, 4)
    if boxes.ndim != 2 or boxes.shape[1] != 4:
        raise LayoutError(f"boxes of shape {boxes.shape}", "they should be [N, 4]: x, y, width, height")
    return boxes


def _ids(values: ArrayLike, n: int | None, name: str) -> Ids:
    ids = np.asarray(values)
    if ids.size == 0:
        ids = ids.astype(np.int64)
    if ids.dtype.kind in "fbu" and np.array_equal(ids, ids.astype(np.int64)):
        ids = ids.astype(np.int64)
    if ids.dtype.kind not in "iUO":
        raise LayoutError(f"{name} of type {ids.dtype}", "ids are integers or text")
    if ids.ndim != 1 or (n is not None and ids.size != n):
        raise LayoutError(
            f"{name} of shape {ids.shape}", f"there are {n} boxes", "Give one value for each box"
        )
    return ids if ids.dtype.kind in "UO" else ids.astype(np.int64, copy=False)


def _column(values: ArrayLike, n: int, dtype: Any, name: str) -> NDArray[Any]:
    column = np.ascontiguousarray(values, dtype)
    if column.shape != (n,):
        raise LayoutError(
            f"{name} of shape {column.shape}", f"there are {n} boxes", "Give one value for each box"
        )
    return column
