"""Ground truth and detections as columns, with images and classes as indices into sorted tables of ids."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from striate.errors import DataError, LayoutError
from striate.metrics.detection.kernel import functions
from striate.metrics.detection.reference import Bools as Bools
from striate.metrics.detection.reference import Floats as Floats
from striate.metrics.detection.reference import Places as Places

Ids = NDArray[Any]  # int64, or text


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
        difficult: bool [G], objects that Pascal VOC ignores.
        source: its file or folder.
        notes: warnings of the reader, for the user.
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


def require_scores(detections: Detections) -> None:
    """Refuse scores that are NaN, which have no rank; raises DataError."""
    if np.isnan(detections.score).any():
        first = int(np.argmax(np.isnan(detections.score)))
        raise DataError(f"detection {first}", "its score is not a number")


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
    """Make ground truth from raw columns.

    Args:
        image: [G] ids, integers or text.
        category: [G] ids, integers or text.
        box: [G, 4] x, y, width, height.
        area: [G]; default: width times height.
        crowd: [G] booleans; default: none.
        difficult: [G] booleans; default: none.
        id: [G] integers; default: 1, 2, 3, ...
        image_ids: ids of all images; default: those in `image`.
        categories: id -> name of all classes; default: those in `category`.
        source: its file or folder.
        notes: warnings, for the user.

    Raises:
        LayoutError: the lengths of the columns differ, or the boxes are not [G, 4].
    """
    boxes = as_boxes(box)
    n = len(boxes)
    images, classes = _ids(image, n, "image"), _ids(category, n, "category")
    known_images = np.unique(images if image_ids is None else _ids(image_ids, None, "image_ids"))
    if categories is None:
        categories = {c: str(c) for c in classes.tolist()}
    known = np.unique(_ids(list(categories), None, "categories"))
    if area is None:
        with np.errstate(all="ignore"):
            area = boxes[:, 2] * boxes[:, 3]
    return GroundTruth(
        image_ids=known_images,
        category_ids=known,
        category_names=tuple(str(categories[c]) for c in known.tolist()),
        image=find(images, known_images),
        category=find(classes, known),
        box=boxes,
        area=_column(area, n, np.float64, "area"),
        crowd=_column(np.zeros(n, np.bool_) if crowd is None else crowd, n, np.bool_, "crowd"),
        id=_column(np.arange(1, n + 1) if id is None else id, n, np.int64, "id"),
        difficult=_column(
            np.zeros(n, np.bool_) if difficult is None else difficult, n, np.bool_, "difficult"
        ),
        source=source,
        notes=notes,
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
    """Make detections from raw columns; those of classes that `truth` does not have are dropped.

    Args:
        image: [D] ids of images of `truth`.
        category: [D] ids.
        box: [D, 4] x, y, width, height.
        score: [D].
        truth: the ground truth of the same images.
        area: [D]; default: width times height.
        id: [D] integers; default: 1, 2, 3, ...
        source: their file or folder.
        notes: warnings, for the user.

    Raises:
        DataError: `truth` lacks an image.
        LayoutError: the lengths of the columns differ, or the boxes are not [D, 4].
    """
    boxes = as_boxes(box)
    n = len(boxes)
    images, classes = _ids(image, n, "image"), _ids(category, n, "category")
    at, kind = find(images, truth.image_ids), find(classes, truth.category_ids)
    if (at < 0).any():
        raise DataError(
            f"image {images[at < 0].tolist()[0]!r} of {source or 'the detections'}",
            f"{truth.source or 'the ground truth'} has no image of that id",
            "Use the ground truth of the same images",
        )
    if unknown := classes[kind < 0].tolist():
        names = ", ".join(map(repr, sorted(set(unknown), key=str)[:5]))
        note = f"detections of classes that the ground truth does not have ({names}) were dropped"
        notes = (*notes, f"{len(unknown)} {note}")
    scores = _column(score, n, np.float64, "score")
    if nonfinite := int((~np.isfinite(scores)).sum()):
        notes = (*notes, f"{nonfinite:,} of {n:,} detections have a score that is NaN or infinite")
    areas = None if area is None else _column(area, n, np.float64, "area")
    numbers = None if id is None else _column(id, n, np.int64, "id")
    return Detections(at, kind, boxes, scores, areas, numbers, source, notes)


def find(ids: Ids, known: Ids) -> Places:
    """Index of each id in the ascending `known`, or -1. Text never equals a number."""
    out = np.full(ids.size, -1, np.int32)
    if ids.dtype == np.int64 and known.dtype == np.int64:
        functions().places(np.ascontiguousarray(ids), np.ascontiguousarray(known), out)
    else:
        place = {value: i for i, value in enumerate(known.tolist())}
        out[:] = [place.get(value, -1) for value in ids.tolist()]
    return out


def without_repeated_ids(truth: GroundTruth) -> GroundTruth:
    """The ground truth as pycocotools reads it: the last of several annotations with one id replaces all."""
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
    note = f"{len(truth) - unique.size} annotations share an id with a later one, which replaces them"
    return replace(truth, **{c: getattr(truth, c)[rows] for c in columns}, notes=(*truth.notes, note))


def as_boxes(box: ArrayLike, columns: str = "x, y, width, height") -> Floats:
    """Boxes as float64 [N, 4]; no values become [0, 4].

    Raises:
        LayoutError: another shape; the message names the `columns`.
    """
    boxes = np.ascontiguousarray(box, np.float64)
    if boxes.size == 0:
        boxes = boxes.reshape(0, 4)
    if boxes.ndim != 2 or boxes.shape[1] != 4:
        raise LayoutError(f"boxes of shape {boxes.shape}", f"they should be [N, 4]: {columns}")
    return boxes


def _ids(values: ArrayLike, n: int | None, name: str) -> Ids:
    ids = np.asarray(values)
    if ids.size == 0:
        ids = ids.astype(np.int64)
    if ids.dtype.kind in "fbu" and np.array_equal(ids, ids.astype(np.int64)):
        ids = ids.astype(np.int64)
    if ids.dtype.kind not in "iUO":
        raise LayoutError(f"{name} of type {ids.dtype}", "ids are integers or text")
    if ids.dtype.kind == "i":
        ids = ids.astype(np.int64, copy=False)
    return ids if n is None and ids.ndim == 1 else _column(ids, n, ids.dtype, name)


def _column(values: ArrayLike, n: int | None, dtype: Any, name: str) -> NDArray[Any]:
    column = np.ascontiguousarray(values, dtype)
    if column.shape != (n,):
        raise LayoutError(
            f"{name} of shape {column.shape}", f"there are {n} boxes", "Give one value for each box"
        )
    return column
