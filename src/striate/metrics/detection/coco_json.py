"""Read COCO's two JSON layouts: a data set with ground truth, and a list of detections.

The native reader parses the bytes in one pass. Python's `json` replaces it if it was not built, or if ids are
not 64-bit integers.
"""

from __future__ import annotations

import json
import mmap
import os
from collections.abc import Callable
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np

from striate.errors import DataError
from striate.metrics.detection import kernel
from striate.metrics.detection.columns import Found, detections, ground_truth
from striate.metrics.detection.records import Detections, GroundTruth, Ids
from striate.reading import MAX_TABLE_BYTES, open_file, reason

Columns = dict[str, Any]
DTYPES: dict[str, Any] = {
    "id": np.int64, "image": np.int64, "category": np.int64, "image_place": np.int32,
    "category_place": np.int32, "images": np.int64, "box": np.float64, "score": np.float64,
    "area": np.float64, "crowd": np.bool_, "sizes": np.float64,
}  # fmt: skip
LAYOUT = "https://cocodataset.org/#format-data describes the layout"


def read_ground_truth(path: str | os.PathLike[str], threads: int | None = None) -> GroundTruth:
    """Read the ground truth in a COCO JSON file.

    Args:
        path: an object with `images`, `annotations` and `categories`.
        threads: number of threads; None for all cores, at most 8.

    Raises:
        DataError: the file cannot be read, is malformed (with line and column), or lacks a key.
    """
    columns = _columns(Path(path), False, threads)
    notes: tuple[str, ...] = ()
    if columns["areas_missing"]:
        notes = (f"{columns['areas_missing']} annotations have no area: width times height is used",)
    images, categories = columns["images"], columns["categories"]
    _check_ids(path, images)
    _check_ids(path, np.array(list(categories), object))
    return ground_truth(
        columns["image"], columns["category"], columns["box"], area=columns["area"], crowd=columns["crowd"],
        id=columns["id"], image_ids=images, image_sizes=columns["sizes"], categories=categories,
        source=str(path), notes=notes,
    )  # fmt: skip


def read_detections(
    path: str | os.PathLike[str], truth: GroundTruth, threads: int | None = None
) -> Detections:
    """Read the detections in a COCO results file, or in an object with the key `annotations`.

    Args:
        path: a list of objects with `image_id`, `category_id`, `bbox` and `score`.
        truth: the ground truth of the same images.
        threads: number of threads; None for all cores, at most 8.

    Raises:
        DataError: as `read_ground_truth`, or an image that `truth` does not have.
    """
    known = truth.image_ids, truth.category_ids
    are_integers = all(ids.dtype == np.int64 for ids in known)
    columns = _columns(Path(path), True, threads, known if are_integers else None)
    image, category = columns["image"], columns["category"]
    if columns["placed"]:
        image = Found(columns["image_place"], image)
        category = Found(columns["category_place"], category)
    return detections(image, category, columns["box"], columns["score"], truth=truth, source=str(path))


def _check_ids(path: str | os.PathLike[str], ids: Any) -> None:
    kinds = {type(i) for i in ids.tolist()} if ids.dtype == object else set()
    if len(kinds) > 1 or kinds - {int, str}:
        raise DataError(f"{path}", "its ids should all be integers, or all be text", LAYOUT)


@contextmanager
def _bytes_of(path: Path) -> Any:
    try:
        with open_file(path) as file:
            if os.fstat(file.fileno()).st_size == 0:
                yield b""
                return
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as view:
                yield view
    except (OSError, ValueError) as error:
        raise DataError(f"cannot read {path}", f"{getattr(error, 'strerror', None) or error}") from None


def _columns(path: Path, results: bool, threads: int | None, known: tuple[Ids, Ids] | None = None) -> Columns:
    """The columns of a file; "placed": whether the native reader has looked the ids up among the `known`."""
    native = kernel.native()
    with _bytes_of(path) as text:
        native_error = None
        if native is not None:
            read = native.read_json(text, results, kernel.thread_count(threads), *([known] if known else []))
            if isinstance(read, dict):
                return _native_columns(path, text, read, results) | {"placed": known is not None}
            offset, why, general = read
            native_error = None if general else _native_error(path, text, offset, why)
        if len(text) > MAX_TABLE_BYTES:  # of which Python's reader would need many times the memory
            why = f"it has {len(text):,} bytes; without the native reader, the limit is {MAX_TABLE_BYTES:,}"
            raise native_error or DataError(f"cannot read {path}", why)
        try:  # Python's reader also accepts a wrong value if its key occurs again later
            return _general_columns(path, bytes(text), results)
        except DataError as error:
            raise native_error or error from None


def _native_error(path: Path, text: Any, offset: int, why: str) -> DataError:
    before = bytes(text[:offset])
    line, column = before.count(b"\n") + 1, offset - (before.rfind(b"\n") + 1) + 1
    return DataError(f"{path}, line {line}, column {column} (byte {offset})", why, LAYOUT)


def _native_columns(path: Path, text: Any, read: Columns, results: bool) -> Columns:
    columns: Columns = {name: np.frombuffer(read[name], dtype) for name, dtype in DTYPES.items()}
    columns["box"] = columns["box"].reshape(-1, 4)
    columns["areas_missing"] = read["areas_missing"]
    _require(path, "annotations", read["has_annotations"])
    if not results:
        _require(path, "images", read["images_at"][1])
        _require(path, "categories", read["categories_at"][1])
        columns["sizes"] = columns["sizes"].reshape(-1, 2)
        begin, end = read["categories_at"]
        columns["categories"] = _category_names(path, json.loads(bytes(text[begin:end])))
    return columns


def _require(path: Path, key: str, there: Any) -> None:
    if not there:
        raise DataError(f"{path}", f"it has no {key!r}", LAYOUT)


def _category_names(path: Path, categories: Any) -> dict[Any, str]:
    if not isinstance(categories, list) or not all(
        isinstance(c, dict) and isinstance(c.get("id"), (int, float, str)) for c in categories
    ):
        raise DataError(f"{path}", "categories should be an array of objects with an id", LAYOUT)
    return {c["id"]: str(c.get("name", c["id"])) for c in categories}


def _general_columns(path: Path, text: bytes, results: bool) -> Columns:
    try:
        data = json.loads(text.decode("utf-8-sig"))
    except json.JSONDecodeError as error:
        raise DataError(f"{path}, line {error.lineno}, column {error.colno}", error.msg, LAYOUT) from None
    except (RecursionError, ValueError, MemoryError) as error:
        raise DataError(f"{path}", reason(error), LAYOUT) from None
    rows = data
    if isinstance(data, dict):
        _require(path, "annotations", "annotations" in data)
        rows = data["annotations"]
    if not isinstance(rows, list) or (not results and rows is data):
        raise DataError(f"{path}", "annotations should be an array", LAYOUT)
    columns: Columns = {"areas_missing": 0, "placed": False}
    take = _taker(path, rows)
    columns["image"], columns["category"] = take("image_id", _id), take("category_id", _id)
    columns["box"] = np.array(take("bbox", _box).tolist(), np.float64).reshape(-1, 4)
    if results:
        columns["score"] = take("score", _number).astype(np.float64)
        return columns
    columns["id"] = take("id", _integer)
    columns["areas_missing"] = sum("area" not in row for row in rows)
    for row in rows:
        row.setdefault("iscrowd", 0)
        row.setdefault("area", float(row["bbox"][2]) * float(row["bbox"][3]))
    columns["crowd"] = take("iscrowd", float) != 0
    columns["area"] = take("area", _number).astype(np.float64)
    for key in ("images", "categories"):
        _require(path, key, key in data)
    columns["categories"] = _category_names(path, data["categories"])
    images = data["images"]
    if not isinstance(images, list):
        raise DataError(f"{path}", "images should be an array", LAYOUT)
    columns["images"] = _taker(path, images, "image")("id", _id)
    columns["sizes"] = [image_size(image) for image in images]
    return columns


def image_size(image: dict[str, Any]) -> tuple[float, float]:
    """Width and height that the row of an image states; NaN if it does not."""
    sides: list[Any] = [image.get(side) for side in ("width", "height")]
    if all(isinstance(side, (int, float)) and not isinstance(side, bool) and side == side for side in sides):
        with suppress(OverflowError):  # an integer beyond any float
            return float(sides[0]), float(sides[1])
    return np.nan, np.nan


def _taker(path: Path, rows: list[Any], kind: str = "annotation") -> Callable[..., Any]:
    def take(key: str, check: Callable[[Any], Any]) -> Any:
        out = []
        for i, row in enumerate(rows):
            if not isinstance(row, dict) or key not in row:
                raise DataError(f"{path}, {kind} {i}", f"it is not an object with {key}", LAYOUT)
            try:
                out.append(check(row[key]))
            except (TypeError, ValueError, OverflowError):
                raise DataError(f"{path}, {kind} {i}", f"its {key} is {str(row[key])[:60]}", LAYOUT) from None
        if check is _box:
            return np.array(out, np.float64)
        if check in (_id, _integer) and not _fits(out):
            return np.array(out, object)  # text never equals a number
        return np.array(out) if out else np.zeros(0, np.int64)

    return take


def _id(value: Any) -> int | str:
    return value if isinstance(value, str) else _integer(value)


def _integer(value: Any) -> int:
    if isinstance(value, (int, float)) and int(value) == value:
        return int(value)
    raise ValueError


def _fits(ids: list[Any]) -> bool:
    """Whether NumPy keeps ids as they are: integers of 64 bits. Text loses a zero byte at its end."""
    return all(isinstance(i, int) and -(2**63) <= i < 2**63 for i in ids)


def _number(value: Any) -> float:
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return float(value)
    raise ValueError


def _box(value: Any) -> list[float]:
    if isinstance(value, list) and len(value) == 4:
        return [_number(v) for v in value]
    raise ValueError
