"""Make ground truth and detections from columns of raw values: ids of any kind, boxes, masks, key points."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from striate.errors import DataError, LayoutError
from striate.metrics.detection.kernel import functions
from striate.metrics.detection.records import Detections, GroundTruth, Ids
from striate.metrics.detection.reference import Bools, Floats, Places
from striate.metrics.detection.shapes import (
    Masks,
    as_keypoints,
    as_masks,
    keypoint_boxes,
    mask_areas,
    mask_boxes,
)

_LARGEST = 2**63 - 1
_LONGEST = 256  # characters of an id in an array of text


def ground_truth(
    image: ArrayLike,
    category: ArrayLike,
    box: ArrayLike | None = None,
    *,
    masks: Any = None,
    keypoints: ArrayLike | None = None,
    area: ArrayLike | None = None,
    crowd: ArrayLike | None = None,
    difficult: ArrayLike | None = None,
    id: ArrayLike | None = None,
    image_ids: ArrayLike | None = None,
    image_sizes: ArrayLike | None = None,
    categories: dict[Any, str] | None = None,
    source: str = "",
    notes: tuple[str, ...] = (),
) -> GroundTruth:
    """Make ground truth from raw columns.

    Args:
        image: [G] ids, integers or text.
        category: [G] ids, integers or text.
        box: [G, 4] x, y, width, height; default: the boxes around the masks or the key points.
        masks: [G] masks, as `shapes.as_masks` accepts them.
        keypoints: [G, P, 3] x, y, visibility.
        area: [G]; default: pixels of the masks, or width times height.
        crowd: [G] booleans; default: none.
        difficult: [G] booleans; default: objects with key points, but without a labeled one.
        id: [G] integers; default: 1, 2, 3, ...
        image_ids: ids of all images; default: those in `image`.
        image_sizes: [I, 2] width and height of the images in `image_ids`; NaN if unknown.
        categories: id -> name of all classes; default: those in `category`.
        source: its file or folder.
        notes: warnings, for the user.

    Raises:
        LayoutError: the lengths of the columns differ, or the boxes are not [G, 4].
    """
    shapes = _shapes(box, masks, keypoints)
    n = len(shapes.box)
    images, classes = _ids(image, n, "image"), _ids(category, n, "category")
    listed = images if image_ids is None else _ids(image_ids, None, "image_ids")
    known_images, first = np.unique(listed, return_index=True)
    categories = {c: str(c) for c in classes.tolist()} if categories is None else categories
    known = np.unique(_ids(list(categories), None, "categories"))
    at, kind = find(images, known_images), find(classes, known)
    number, wide = _row_ids(np.arange(1, n + 1) if id is None else id, n)
    names = tuple(str(categories[c]) for c in known.tolist())
    return GroundTruth(
        known_images, known, names, at, kind, shapes.box,
        shapes.areas() if area is None else _column(area, n, np.float64, "area"),
        _column(np.zeros(n) if crowd is None else crowd, n, np.bool_, "crowd"), number,
        _column(shapes.unlabelled() if difficult is None else difficult, n, np.bool_, "difficult"), source,
        (*notes, *_truth_notes(images[at < 0], classes[kind < 0], wide, n)),
        _sizes(image_sizes, first, listed.size), shapes.masks, shapes.keypoints,
    )  # fmt: skip


def _truth_notes(images: Ids, classes: Ids, wide: int, n: int) -> tuple[str, ...]:
    """Notes about ground truths of unknown images and classes, and about ids beyond int64."""
    notes = []
    for ids, what in ((images, "images"), (classes, "classes")):
        if ids.size:
            names = ", ".join(map(repr, sorted(set(ids.tolist()), key=str)[:5]))
            of = f"of {what} that it does not list ({names})"
            notes.append(f"{ids.size:,} of {n:,} objects in the ground truth are {of} and were skipped")
    if wide:
        notes.append(f"{wide:,} of {n:,} annotations have an id beyond 64 bits; they count like the others")
    return tuple(notes)


class Found(NamedTuple):
    """Ids that have been looked up: their places, -1 for unknown ones, and the unknown ids."""

    places: Places
    unknown: Ids


def detections(
    image: ArrayLike | Found,
    category: ArrayLike | Found,
    box: ArrayLike | None,
    score: ArrayLike,
    *,
    truth: GroundTruth,
    masks: Any = None,
    keypoints: ArrayLike | None = None,
    area: ArrayLike | None = None,
    id: ArrayLike | None = None,
    source: str = "",
    notes: tuple[str, ...] = (),
) -> Detections:
    """Make detections from raw columns; those of classes that `truth` does not have are dropped.

    Args:
        image: [D] ids of images of `truth`, or these looked up.
        category: [D] ids, or these looked up.
        box: [D, 4] x, y, width, height; None for the boxes around the masks or the key points.
        score: [D].
        truth: the ground truth of the same images.
        masks: [D] masks, as `shapes.as_masks` accepts them.
        keypoints: [D, P, 3] x, y and anything.
        area: [D]; default: pixels of the masks, or width times height.
        id: [D] integers; default: 1, 2, 3, ...
        source: their file or folder.
        notes: warnings, for the user.

    Raises:
        DataError: `truth` lacks an image.
        LayoutError: the lengths of the columns differ, or the boxes are not [D, 4].
    """
    shapes = _shapes(box, masks, keypoints)
    n = len(shapes.box)
    at, unknown = _look_up(image, n, "image", truth.image_ids)
    kind, unknown_classes = _look_up(category, n, "category", truth.category_ids)
    if unknown.size:
        raise DataError(
            f"image {unknown.tolist()[0]!r} of {source or 'the detections'}",
            f"{truth.source or 'the ground truth'} has no image of that id",
            "Use the ground truth of the same images",
        )
    if unknown_classes.size:
        names = ", ".join(map(repr, sorted(set(unknown_classes.tolist()), key=str)[:5]))
        note = f"detections of classes that the ground truth does not have ({names}) were dropped"
        notes = (*notes, f"{unknown_classes.size} {note}")
    scores = _column(score, n, np.float64, "score")
    if nonfinite := int((~np.isfinite(scores)).sum()):
        notes = (*notes, f"{nonfinite:,} of {n:,} detections have a score that is NaN or infinite")
    areas = None if masks is None else shapes.areas()
    if area is not None:
        areas = _column(area, n, np.float64, "area")
    numbers = None if id is None else _row_ids(id, n)[0]
    return Detections(
        at, kind, shapes.box, scores, areas, numbers, source, notes, shapes.masks, shapes.keypoints
    )


class _Shapes(NamedTuple):
    """Columns of N shapes."""

    box: Floats
    masks: Masks | None
    keypoints: Floats | None

    def areas(self) -> Floats:
        """Pixels of the masks, or width times height."""
        if self.masks is not None:
            return mask_areas(self.masks)
        with np.errstate(all="ignore"):
            return np.asarray(self.box[:, 2] * self.box[:, 3])

    def unlabelled(self) -> Bools:
        """Objects without a labeled key point."""
        if self.keypoints is None:
            return np.zeros(len(self.box), np.bool_)
        return np.asarray((self.keypoints[:, :, 2] <= 0).all(axis=1))


def _shapes(box: ArrayLike | None, masks: Any, keypoints: ArrayLike | None) -> _Shapes:
    columns = None if masks is None else as_masks(masks)
    points = None if keypoints is None else as_keypoints(keypoints)
    if box is not None:
        boxes = as_boxes(box)
    elif columns is not None:
        boxes = mask_boxes(columns)
    elif points is not None:
        boxes = keypoint_boxes(points)
    else:
        raise LayoutError("no boxes, masks or key points", "one of them is needed")
    for values, name in ((columns, "masks"), (points, "key points")):
        if values is not None and len(values) != len(boxes):
            raise LayoutError(f"{len(values)} {name}", f"there are {len(boxes)} boxes", "Give one for each")
    return _Shapes(boxes, columns, points)


def _look_up(ids: ArrayLike | Found, n: int, name: str, known: Ids) -> Found:
    if isinstance(ids, Found):
        return ids
    column = _ids(ids, n, name)
    places = find(column, known)
    return Found(places, column[places < 0])


def find(ids: Ids, known: Ids) -> Places:
    """Index of each id in the ascending `known`, or -1. Text never equals a number."""
    out = np.empty(ids.size, np.int32)
    if ids.dtype == np.int64 and known.dtype == np.int64:
        functions().places(np.ascontiguousarray(ids), np.ascontiguousarray(known), out)
    else:
        place = {value: i for i, value in enumerate(known.tolist())}
        out[:] = [place.get(value, -1) for value in ids.tolist()]
    return out


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
    ids = _array_of_ids(values, name)
    if ids.size == 0:
        ids = ids.astype(np.int64)
    if ids.dtype.kind in "fbu":
        with np.errstate(invalid="ignore"):
            whole = ids.astype(np.int64)
        # NumPy makes other types of a list with integers beyond int64.
        ids = whole if np.array_equal(ids, whole) else np.asarray(values, object)
        if not all(isinstance(i, (int, np.unsignedinteger)) for i in ids.ravel().tolist()):
            raise LayoutError(f"{name} of type {np.asarray(values).dtype}", "ids are integers or text")
    if ids.dtype.kind not in "iUO":
        raise LayoutError(f"{name} of type {ids.dtype}", "ids are integers or text")
    if ids.dtype.kind == "i":
        ids = ids.astype(np.int64, copy=False)
    return ids if n is None and ids.ndim == 1 else _column(ids, n, ids.dtype, name)


def _array_of_ids(values: Any, name: str) -> Ids:
    """An array of ids; raises DataError for a zero byte in a text, which NumPy drops at its end."""
    is_objects = isinstance(values, np.ndarray) and values.dtype.kind == "O"
    if not (is_objects or isinstance(values, (list, tuple))):
        return np.asarray(values)
    texts = [value for value in values if isinstance(value, str)]
    if odd := next((text for text in texts if "\0" in text), None):
        raise DataError(f"{name} {odd!r}", "it contains a zero byte", "Remove it")
    # NumPy's text takes as much memory for each id as for the longest one.
    if max(map(len, texts), default=0) > _LONGEST:
        return np.array(values, object)
    return np.array(values, np.str_) if texts and len(texts) == len(values) else np.asarray(values)


def _row_ids(values: ArrayLike, n: int) -> tuple[NDArray[np.int64], int]:
    """Ids of rows as int64, and how many do not fit: these get free numbers, equal ones the same."""
    given = np.asarray(values)
    if given.dtype.kind in "iu" and (given.dtype != np.uint64 or not (given > _LARGEST).any()):
        return _column(given, n, np.int64, "id"), 0
    exact = [int(v) for v in np.asarray(values, object).ravel().tolist()]
    wide = [v for v in exact if not -_LARGEST - 1 <= v <= _LARGEST]
    if not wide:
        return _column(exact, n, np.int64, "id"), 0
    taken = set(exact)
    free = (v for v in range(_LARGEST, 0, -1) if v not in taken)
    # A negative id stays one: pycocotools lets such a detection leave its match free.
    number = {v: next(free) if v > 0 else -next(free) for v in sorted(set(wide))}
    return _column([number.get(v, v) for v in exact], n, np.int64, "id"), len(wide)


def _sizes(values: ArrayLike | None, rows: NDArray[np.intp], images: int) -> Floats | None:
    if values is None:
        return None
    sizes = np.ascontiguousarray(values, np.float64).reshape(-1, 2)
    if len(sizes) != images:
        raise LayoutError(f"{len(sizes)} image sizes", f"there are {images} images")
    return sizes[rows]


def _column(values: ArrayLike, n: int | None, dtype: Any, name: str) -> NDArray[Any]:
    column = np.ascontiguousarray(values, dtype)
    if column.shape != (n,):
        raise LayoutError(
            f"{name} of shape {column.shape}", f"there are {n} boxes", "Give one value for each box"
        )
    return column
