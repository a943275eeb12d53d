"""`COCO`, a replacement for pycocotools' class with the same names, arguments and results.

A file of boxes is read into columns. The dictionaries (`dataset`, `anns`, `imgs`, ...) are built when someone
asks for them, and from then on they are the data: what a program changes in them counts.
"""

from __future__ import annotations

import copy
import json
import os
import sys
from collections import defaultdict
from typing import Any

import numpy as np

from striate.errors import DataError
from striate.metrics.detection.coco_file import (
    Annotation,
    CocoFile,
    complete,
    many_objects,
    open_dataset,
    open_results,
    parse,
    read_text,
)
from striate.metrics.detection.coco_json import LAYOUT
from striate.metrics.detection.columns import find
from striate.metrics.detection.overlaps import mask_module
from striate.metrics.detection.run_lengths import to_rle
from striate.reading import damage_errors

INDEX = ("anns", "imgToAnns", "catToImgs", "imgs", "cats")


class COCO:
    """A COCO data set in memory, with pycocotools' index.

    Args:
        annotation_file: a JSON file, or its content as a dictionary; None for an empty data set: then fill
            `dataset` and call `createIndex`.
    """

    dataset: dict[str, Any]
    anns: dict[Any, Annotation]
    imgToAnns: dict[Any, list[Annotation]]
    catToImgs: dict[Any, list[Any]]
    imgs: dict[Any, dict[str, Any]]
    cats: dict[Any, dict[str, Any]]

    def __init__(self, annotation_file: str | os.PathLike[str] | dict[str, Any] | None = None) -> None:
        self._file: CocoFile | None = None  # until someone asks for `dataset`
        self._head: CocoFile | dict[str, Any] | None = None  # of results: their data set, but no annotations
        if annotation_file is None or isinstance(annotation_file, dict):
            self.dataset = {} if annotation_file is None else annotation_file
            self._set(_index_of({}))
            if annotation_file is not None:
                self.createIndex()
            return
        text = read_text(annotation_file)
        if type(self).createIndex is COCO.createIndex:  # a subclass may index more
            self._file = open_dataset(text)
        if self._file is None:
            self.dataset = parse(annotation_file, text)
            if not isinstance(self.dataset, dict):
                raise DataError(
                    f"{annotation_file}", "it is not an object with images, annotations and categories"
                )
            with damage_errors(f"cannot read {annotation_file}", LAYOUT):
                self.createIndex()

    def __getattr__(self, name: str) -> Any:
        """Build the dictionaries that have not been asked for before."""
        lazy = self.__dict__.keys() & {"_file", "dataset"} and name in ("dataset", *INDEX)
        if not lazy or (name == "dataset" and self._file is None):
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        if name == "dataset":
            with many_objects():
                self.dataset, self._file, self._head = self._document(), None, None
        elif name in ("imgs", "cats") and self._file is not None and self._head is None:
            rows = self._file.section("images" if name == "imgs" else "categories")
            self._set({name: {row["id"]: row for row in rows}})
        else:
            index = _index_of(self.dataset)
            self._set({key: index[key] for key in INDEX if key not in self.__dict__})
        return self.__dict__[name]

    def _set(self, index: dict[str, Any]) -> None:
        for key, value in index.items():
            setattr(self, key, value)

    def _document(self) -> dict[str, Any]:
        assert self._file is not None
        if self._head is None:
            return self._file.document()
        head = self._head if isinstance(self._head, dict) else self._head.head()
        return head | {"annotations": complete(json.loads(self._file.text))}

    @property
    def columns(self) -> dict[str, Any] | None:
        """The annotations as columns (`CocoFile`), until the dictionaries are asked for."""
        replaced = self.__dict__.keys() & {"dataset", "anns", "imgToAnns", "catToImgs"}
        return None if self._file is None or replaced else self._file.columns

    def createIndex(self) -> None:
        """Index `dataset` by the ids of annotations, images and classes."""
        self._set(_index_of(self.dataset))

    def info(self) -> None:
        """Print what the file says about itself."""
        sys.stdout.writelines(f"{key}: {value}\n" for key, value in self.dataset["info"].items())

    def getAnnIds(
        self, imgIds: Any = (), catIds: Any = (), areaRng: Any = (), iscrowd: bool | None = None
    ) -> list[Any]:
        """Ids of the annotations that pass all filters; an empty filter passes everything."""
        images, classes = _as_list(imgIds), _members(_as_list(catIds))
        if images:
            rows = [ann for image in images if image in self.imgToAnns for ann in self.imgToAnns[image]]
        else:
            rows = self.dataset["annotations"]
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
        file = self._file if self._head is None and "dataset" not in self.__dict__ else None
        return [
            category["id"]
            for category in (file.section("categories") if file else self.dataset["categories"])
            if all(not values or category[key] in values for key, values in filters.items())
        ]

    def getImgIds(self, imgIds: Any = (), catIds: Any = ()) -> list[Any]:
        """Ids of the images that are among `imgIds` and have all of `catIds`."""
        images, classes = _as_list(imgIds), _as_list(catIds)
        if not images and not classes:
            if self._file is None or self._head is not None or "imgs" in self.__dict__:
                return list(self.imgs)
            return list(dict.fromkeys(self._file.columns["images"].tolist()))
        ids = set(images)
        for i, category in enumerate(classes):
            found = set(self.catToImgs[category])
            ids = found if i == 0 and not ids else ids & found
        return list(ids)

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
        """Load detections or captions as a data set of the same images.

        Args:
            resFile: a results file, a list of results, or an array for `loadNumpyAnnotations`. As in
                pycocotools, the dictionaries of a list get `id`, `area` and what else they lack.

        Raises:
            DataError: the results are not a list, or are of images that this data set does not have.
        """
        results = COCO()
        if isinstance(resFile, (str, os.PathLike)):
            text = read_text(resFile)
            file = open_results(text)
            if file is not None:
                self._require_images(file.columns["image"])
                results._file, results._head = file, self._results_head()
                for name in ("dataset", *INDEX):
                    delattr(results, name)
                return results
            rows = parse(resFile, text)
        else:
            rows = self.loadNumpyAnnotations(resFile) if isinstance(resFile, np.ndarray) else resFile
        if not isinstance(rows, list):
            raise DataError("the results", "they are not an array of objects")
        with damage_errors("the results", LAYOUT):
            self._require_images([row["image_id"] for row in rows])
            head = self._results_head()
            head = head if isinstance(head, dict) else head.head()
            if rows and "caption" in rows[0]:
                del head["categories"]
                captioned = {row["image_id"] for row in rows}
                head["images"] = [image for image in head["images"] if image["id"] in captioned]
            results.dataset = head | {"annotations": complete(rows)}
            results.createIndex()
        return results

    def _require_images(self, ids: Any) -> None:
        known: Any = self.getImgIds()
        if isinstance(ids, np.ndarray) and all(type(i) is int for i in known):
            strangers = set(ids[find(ids, np.array(sorted(known), np.int64)) < 0].tolist())
        else:
            strangers = set(ids.tolist() if isinstance(ids, np.ndarray) else ids) - set(known)
        if strangers:
            first = sorted(strangers, key=str)[0]
            raise DataError(f"image {first!r} of the results", "the data set has no image with that id")

    def _results_head(self) -> CocoFile | dict[str, Any]:
        """What results have in common with this data set, as it is now."""
        if self._file is not None and self._head is None and "dataset" not in self.__dict__:
            return self._file
        return {
            "info": copy.deepcopy(self.dataset.get("info", {})),
            "images": list(self.dataset["images"]),
            "categories": copy.deepcopy(self.dataset.get("categories", [])),
        }

    def loadNumpyAnnotations(self, data: np.ndarray[Any, Any]) -> list[Annotation]:
        """Rows of image id, x, y, width, height, score, class id ([N, 7]) as a list of results.

        Raises:
            DataError: another shape.
        """
        if data.ndim != 2 or data.shape[1] != 7:
            raise DataError(
                f"results of shape {data.shape}", "they should be [N, 7]: image, x, y, w, h, score, class"
            )
        return [
            {"image_id": int(image), "bbox": [x, y, w, h], "score": score, "category_id": int(category)}
            for image, x, y, w, h, score, category in data.tolist()
        ]

    def annToRLE(self, ann: Annotation) -> Any:
        """The run lengths of an annotation's mask."""
        image = self.imgs[ann["image_id"]]
        name = f"annotation {ann.get('id')!r}"
        return to_rle(ann["segmentation"], image["height"], image["width"], name)

    def annToMask(self, ann: Annotation) -> Any:
        """An annotation's mask, uint8 [height, width]."""
        return mask_module().decode(self.annToRLE(ann))

    def showAnns(self, anns: list[Annotation], draw_bbox: bool = False) -> None:
        """Draw masks, key points and optionally boxes on the current axes of matplotlib; print captions."""
        from striate.metrics.detection.coco_drawing import show

        show(self, anns, draw_bbox)

    def download(self, tarDir: str | None = None, imgIds: Any = ()) -> None:
        """Download images from their `coco_url` into a folder; those that are there already are skipped."""
        from striate.metrics.detection.coco_drawing import download

        download(self.loadImgs(imgIds) if len(imgIds) else list(self.imgs.values()), tarDir)


def _index_of(dataset: dict[str, Any]) -> dict[str, Any]:
    by_image: dict[Any, list[Annotation]] = defaultdict(list)
    by_class: dict[Any, list[Any]] = defaultdict(list)
    anns = {}
    has_classes = "categories" in dataset
    for ann in dataset.get("annotations", []):
        by_image[ann["image_id"]].append(ann)
        anns[ann["id"]] = ann
        if has_classes:
            by_class[ann["category_id"]].append(ann["image_id"])
    return {
        "anns": anns,
        "imgToAnns": by_image,
        "catToImgs": by_class,
        "imgs": {image["id"]: image for image in dataset.get("images", [])},
        "cats": {category["id"]: category for category in dataset.get("categories", [])},
    }


def _as_list(values: Any) -> list[Any]:
    is_list = (
        hasattr(values, "__iter__") and hasattr(values, "__len__") and not isinstance(values, (str, bytes))
    )
    return list(values) if is_list else [values]


def _members(values: list[Any]) -> Any:
    """The values as a set, if they can be in one."""
    try:
        return set(values)
    except TypeError:
        return values
