"""`COCO`, a replacement for pycocotools' class with the same names, arguments and results; prints nothing."""

from __future__ import annotations

import copy
import json
import os
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from striate.errors import DataError
from striate.metrics.detection.overlaps import mask_module, to_rle

Annotation = dict[str, Any]


class COCO:
    """A COCO data set in memory, with pycocotools' index.

    Args:
        annotation_file: a JSON file; None for an empty data set: then fill `dataset` and call `createIndex`.
    """

    def __init__(self, annotation_file: str | os.PathLike[str] | None = None) -> None:
        self.dataset: dict[str, Any] = {}
        if annotation_file is not None:
            self.dataset = _load(annotation_file)
            if not isinstance(self.dataset, dict):
                raise DataError(
                    f"{annotation_file}", "it is not an object with images, annotations and categories"
                )
        self.createIndex()

    def createIndex(self) -> None:
        """Index `dataset` by the ids of annotations, images and classes."""
        self.anns: dict[Any, Annotation] = {}
        self.imgToAnns: dict[Any, list[Annotation]] = defaultdict(list)
        self.catToImgs: dict[Any, list[Any]] = defaultdict(list)
        for ann in self.dataset.get("annotations", []):
            self.imgToAnns[ann["image_id"]].append(ann)
            self.anns[ann["id"]] = ann
            if "categories" in self.dataset:
                self.catToImgs[ann["category_id"]].append(ann["image_id"])
        self.imgs = {image["id"]: image for image in self.dataset.get("images", [])}
        self.cats = {category["id"]: category for category in self.dataset.get("categories", [])}

    def getAnnIds(
        self, imgIds: Any = (), catIds: Any = (), areaRng: Any = (), iscrowd: bool | None = None
    ) -> list[Any]:
        """Ids of the annotations that pass all filters; an empty filter passes everything."""
        images, classes = _as_list(imgIds), set(_as_list(catIds))
        rows = self.dataset["annotations"]
        if images:
            rows = [ann for image in images if image in self.imgToAnns for ann in self.imgToAnns[image]]
        return [
            ann["id"]
            for ann in rows
            if (not classes or ann["category_id"] in classes)
            and (not len(areaRng) or areaRng[0] < ann["area"] < areaRng[1])
            and (iscrowd is None or ann["iscrowd"] == iscrowd)
        ]

    def getCatIds(self, catNms: Any = (), supNms: Any = (), catIds: Any = ()) -> list[Any]:
        """Ids of the classes that pass all filters."""
        filters = {"name": _as_list(catNms), "supercategory": _as_list(supNms), "id": _as_list(catIds)}
        return [
            category["id"]
            for category in self.dataset["categories"]
            if all(not values or category[key] in values for key, values in filters.items())
        ]

    def getImgIds(self, imgIds: Any = (), catIds: Any = ()) -> list[Any]:
        """Ids of the images that are among `imgIds` and have all of `catIds`."""
        images, classes = _as_list(imgIds), _as_list(catIds)
        if not images and not classes:
            return list(self.imgs)
        sets = [set(images)] if images else []
        return list(set.intersection(*sets, *(set(self.catToImgs[category]) for category in classes)))

    def loadAnns(self, ids: Any = ()) -> list[Annotation]:
        """The annotations of these ids."""
        return [self.anns[i] for i in _as_list(ids)]

    def loadCats(self, ids: Any = ()) -> list[dict[str, Any]]:
        """The classes of these ids."""
        return [self.cats[i] for i in _as_list(ids)]

    def loadImgs(self, ids: Any = ()) -> list[dict[str, Any]]:
        """The images of these ids."""
        return [self.imgs[i] for i in _as_list(ids)]

    def loadRes(self, resFile: Any) -> COCO:
        """The detections of a results file, or of a list of results, as a data set of the same images.

        Raises:
            DataError: the results are not a list, or are of images that this data set does not have.
        """
        rows = _load(resFile) if isinstance(resFile, (str, os.PathLike)) else resFile
        if isinstance(rows, np.ndarray):
            rows = _rows_of_array(rows)
        if not isinstance(rows, list):
            raise DataError("the results", "they are not an array of objects")
        strangers = {row["image_id"] for row in rows} - set(self.imgs)
        if strangers:
            first = sorted(strangers, key=str)[0]
            raise DataError(f"image {first!r} of the results", "the data set has no image with that id")
        found = COCO()
        found.dataset = {
            "info": copy.deepcopy(self.dataset.get("info", {})),
            "images": list(self.dataset["images"]),
            "categories": copy.deepcopy(self.dataset["categories"]),
            "annotations": _completed(rows),
        }
        found.createIndex()
        return found

    def annToRLE(self, ann: Annotation) -> Any:
        """The run lengths of an annotation's mask."""
        image = self.imgs[ann["image_id"]]
        return to_rle(ann["segmentation"], image["height"], image["width"])

    def annToMask(self, ann: Annotation) -> Any:
        """An annotation's mask, uint8 [height, width]."""
        return mask_module().decode(self.annToRLE(ann))


def _completed(rows: list[Annotation]) -> list[Annotation]:
    """Add ids from 1 and areas; as in pycocotools, the first result as it was given decides their type."""
    first = rows[0] if rows else {}
    has_boxes = len(first.get("bbox", ())) > 0
    kind = "bbox" if has_boxes else next((key for key in ("segmentation", "keypoints") if key in first), None)
    for i, row in enumerate(rows, 1):
        row["id"] = i
        if kind == "bbox":
            x, y, w, h = row["bbox"]
            row.setdefault("segmentation", [[x, y, x, y + h, x + w, y + h, x + w, y]])
            row["area"], row["iscrowd"] = w * h, 0
        elif kind == "segmentation":
            row["area"], row["iscrowd"] = mask_module().area(row["segmentation"]), 0
            row.setdefault("bbox", mask_module().toBbox(row["segmentation"]))
        elif kind == "keypoints":
            x, y = row["keypoints"][0::3], row["keypoints"][1::3]
            left, right, top, bottom = np.min(x), np.max(x), np.min(y), np.max(y)
            row["area"] = (right - left) * (bottom - top)
            row["bbox"] = [left, top, right - left, bottom - top]
    return rows


def _rows_of_array(values: np.ndarray[Any, Any]) -> list[Annotation]:
    """Rows of image id, x, y, width, height, score, class id."""
    return [
        {"image_id": int(r[0]), "bbox": r[1:5].tolist(), "score": float(r[5]), "category_id": int(r[6])}
        for r in values
    ]


def _load(path: str | os.PathLike[str]) -> Any:
    try:
        return json.loads(Path(path).read_text("utf-8-sig"))
    except (OSError, UnicodeDecodeError, RecursionError, ValueError) as error:
        raise DataError(f"cannot read {path}", " ".join(str(error).split())) from None


def _as_list(values: Any) -> list[Any]:
    is_list = isinstance(values, (Sequence, np.ndarray, set)) and not isinstance(values, str)
    return list(values) if is_list else [values]
