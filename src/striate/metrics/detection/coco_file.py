"""A COCO JSON file whose numbers are read at once; its dictionaries are built when someone asks for them."""

from __future__ import annotations

import gc
import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from striate.metrics.detection import kernel
from striate.metrics.detection.coco_json import DTYPES
from striate.metrics.detection.overlaps import mask_module
from striate.metrics.detection.run_lengths import check_run_lengths
from striate.reading import MAX_JSON_BYTES, damage_errors, read_bytes

Annotation = dict[str, Any]
FIRST_ROWS = 64  # objects inside the first result after which its key `caption` is not looked for any more


@contextmanager
def many_objects() -> Iterator[None]:
    """Pause the garbage collector while many objects are made; it would examine all of them repeatedly."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


@dataclass(frozen=True, eq=False)
class CocoFile:
    """The text of a data set or of results, with its annotations as columns.

    Args:
        text: the whole file.
        columns: `image`, `category` and `box` [N, 4]; of a data set also `id`, `area`, `crowd` and `images`;
            of results also `score`.
        places: begin and end of the values of `info`, `images` and `categories` in the text; 0 where a key
            is missing.
    """

    text: bytes
    columns: dict[str, Any]
    places: dict[str, tuple[int, int]]
    sections: dict[str, Any] = field(default_factory=dict, repr=False)

    def section(self, key: str) -> Any:
        """The rows of `images` or `categories`, parsed once: all who ask get the same dictionaries."""
        if key not in self.sections:
            self.sections[key] = self.parse(key)
        return self.sections[key]

    def parse(self, key: str) -> Any:
        """Parse the value of `info`, `images` or `categories`; None if the file does not have the key."""
        begin, end = self.places[key]
        return json.loads(self.text[begin:end]) if end else None

    def document(self) -> dict[str, Any]:
        """Parse the whole data set, with the dictionaries that `section` has handed out."""
        document: dict[str, Any] = json.loads(self.text)
        return document | {key: list(rows) for key, rows in self.sections.items()}

    def head(self) -> dict[str, Any]:
        """All of the data set that its results have as well: `info`, `images` and `categories`."""
        images = list(self.section("images"))
        return {"info": self.parse("info") or {}, "images": images, "categories": self.parse("categories")}


def read_text(path: str | os.PathLike[str]) -> bytes:
    """The bytes of a file; raises DataError."""
    return read_bytes(path, MAX_JSON_BYTES)


def parse(path: str | os.PathLike[str], text: bytes) -> Any:
    """Parse a whole file; raises DataError."""
    with damage_errors(f"cannot read {path}"), many_objects():
        return json.loads(text)


def open_dataset(text: bytes) -> CocoFile | None:
    """Read the columns of a data set with boxes; None if only the dictionaries can tell what it says.

    That is so without the native reader, without boxes, with ids that are text, or with repeated ids, of
    which pycocotools keeps the last.
    """
    file = _open(text, results=False)
    if file is None or file.columns["areas_missing"]:
        return None
    if not (file.places["images"][1] and file.places["categories"][1]):
        return None
    ids = file.columns["id"]
    unique = (np.diff(ids) > 0).all() or np.unique(ids).size == ids.size
    return file if unique else None


def open_results(text: bytes) -> CocoFile | None:
    """Read the columns of a list of detected boxes; None if only the dictionaries can tell what it says."""
    if not re.match(rb"(\xef\xbb\xbf)?\s*\[", text):
        return None
    first = _first_object(text)
    if first is None or "caption" in first:
        return None
    return _open(text, results=True)


def _first_object(text: bytes) -> Annotation | None:
    begin = end = text.find(b"{")
    for _ in range(FIRST_ROWS):
        end = text.find(b"}", end) + 1
        if not end:
            return None
        try:
            return dict(json.loads(text[begin:end]))
        except ValueError:
            continue
    return None


def _open(text: bytes, results: bool) -> CocoFile | None:
    native = kernel.native()
    if native is None:
        return None
    read = native.read_json(text, results, kernel.thread_count(None))
    if not isinstance(read, dict) or not read["has_annotations"]:
        return None
    names = ("image", "category", "box", *(("score",) if results else ("id", "area", "crowd", "images")))
    columns: dict[str, Any] = {name: np.frombuffer(read[name], DTYPES[name]) for name in names}
    columns["box"] = columns["box"].reshape(-1, 4)
    columns["areas_missing"] = read["areas_missing"]
    return CocoFile(text, columns, {key: read[f"{key}_at"] for key in ("info", "images", "categories")})


def complete(rows: list[Annotation]) -> list[Annotation]:
    """Add ids from 1 and areas; as in pycocotools, the first result as it was given decides their type."""
    first = rows[0] if rows else {}
    kind = _kind(first)
    for i, row in enumerate(rows, 1):  # the keys in pycocotools' order
        if kind == "bbox":
            x, y, w, h = row["bbox"]
            right, bottom = x + w, y + h
            row.setdefault("segmentation", [[x, y, x, bottom, right, bottom, right, y]])
            row["area"] = w * h
        elif kind == "segmentation":
            check_run_lengths(row["segmentation"], f"result {i}")
            row["area"] = mask_module().area(row["segmentation"])
            if "bbox" not in row:
                row["bbox"] = mask_module().toBbox(row["segmentation"])
        elif kind == "keypoints":
            x, y = row["keypoints"][0::3], row["keypoints"][1::3]
            left, right, top, bottom = np.min(x), np.max(x), np.min(y), np.max(y)
            row["area"] = (right - left) * (bottom - top)
        row["id"] = i
        if kind in ("bbox", "segmentation"):
            row["iscrowd"] = 0
        elif kind == "keypoints":
            row["bbox"] = [left, top, right - left, bottom - top]
    return rows


def _kind(first: Annotation) -> str | None:
    if "caption" in first:
        return "caption"
    if len(first.get("bbox", ())) > 0:
        return "bbox"
    return next((key for key in ("segmentation", "keypoints") if key in first), None)
