"""Read masks and key points from COCO's JSON files, and from LVIS's which classes were looked for where.

`coco_json` reads boxes alone, without making dictionaries.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np

from striate.errors import DataError
from striate.metrics.detection.coco_api import COCO
from striate.metrics.detection.coco_json import LAYOUT, image_size
from striate.metrics.detection.columns import detections, find, ground_truth
from striate.metrics.detection.records import Detections, Federated, Floats, GroundTruth
from striate.metrics.detection.run_lengths import to_rle
from striate.metrics.detection.shapes import keypoint_boxes, mask_areas, mask_boxes, objects
from striate.metrics.detection.similarity import check_iou_type

Row = dict[str, Any]


def read_ground_truth_with(path: str | os.PathLike[str], iou_type: str) -> GroundTruth:
    """Read ground truth with masks ("segm"), key points ("keypoints"), or boxes alone ("bbox").

    Raises:
        DataError: the file cannot be read, or is not COCO's or LVIS's.
    """
    check_iou_type(iou_type)
    with _named(path):
        data = COCO(path).dataset
        images, rows, classes = list(data["images"]), list(data["annotations"]), list(data["categories"])
        sizes = {image["id"]: image_size(image) for image in images}
        shapes = _shapes(rows, iou_type, sizes)
        areas, notes = _areas(rows, shapes)
        difficult: Any = [bool(row.get("ignore", 0)) for row in rows] if _is_federated(images) else None
        if iou_type == "keypoints":
            points: Floats = shapes["keypoints"]
            labelled = np.array([row.get("num_keypoints", -1) for row in rows])
            visible = (points[:, :, 2] > 0).any(axis=1)
            difficult = np.where(labelled == -1, ~visible, labelled == 0)
        truth = ground_truth(
            [row["image_id"] for row in rows], [row["category_id"] for row in rows], area=areas,
            crowd=[bool(row.get("iscrowd", 0)) for row in rows], difficult=difficult,
            id=[row["id"] for row in rows], image_ids=list(sizes), image_sizes=list(sizes.values()),
            categories={c["id"]: str(c.get("name", c["id"])) for c in classes}, source=str(path), notes=notes,
            **shapes,
        )  # fmt: skip
        return replace(truth, federated=_federated(truth, images, classes) if _is_federated(images) else None)


def read_detections_with(path: str | os.PathLike[str], truth: GroundTruth, iou_type: str) -> Detections:
    """Read detections with masks, key points, or boxes alone, as pycocotools' `loadRes` completes them.

    Raises:
        DataError: as for ground truth; or an image that `truth` does not have.
    """
    check_iou_type(iou_type)
    sizes = dict(zip(truth.image_ids.tolist(), _known_sizes(truth), strict=True))
    blank = COCO()
    blank.dataset = {"images": [{"id": i} for i in sizes], "annotations": [], "categories": []}
    blank.createIndex()
    with _named(path):
        rows = list(blank.loadRes(os.fspath(path)).dataset["annotations"])
        return detections(
            [row["image_id"] for row in rows], [row["category_id"] for row in rows],
            score=[row["score"] for row in rows], area=[row["area"] for row in rows], truth=truth,
            source=str(path), **_shapes(rows, iou_type, sizes),
        )  # fmt: skip


@contextmanager
def _named(path: str | os.PathLike[str]) -> Iterator[None]:
    """Turn what goes wrong with the content of a file into one line that names the file."""
    try:
        yield
    except DataError as error:
        if str(path) in error.what:
            raise
        raise DataError(f"{path}: {error.what}", error.why, error.fix) from None
    except KeyError as error:
        raise DataError(f"{path}", f"a row of it has no {error.args[0]!r}", LAYOUT) from None
    except (AttributeError, IndexError, TypeError, ValueError) as error:
        why = " ".join(str(error).split())[:200]
        raise DataError(f"{path}", f"it has another layout ({why})", LAYOUT) from None


def _known_sizes(truth: GroundTruth) -> list[Any]:
    if truth.image_size is None:
        return [(float("nan"),) * 2] * truth.image_ids.size
    return [tuple(size) for size in truth.image_size.tolist()]


def _shapes(rows: list[Row], iou_type: str, sizes: dict[Any, tuple[float, float]]) -> dict[str, Any]:
    """The columns of shapes that `ground_truth` and `detections` accept."""
    if iou_type == "bbox":
        return {"box": [row["bbox"] for row in rows]}
    if iou_type == "segm":
        masks = objects([_mask(row, sizes) for row in rows])
        if all("bbox" in row for row in rows):
            return {"box": [row["bbox"] for row in rows], "masks": masks}
        return {"box": mask_boxes(masks), "masks": masks}
    points = np.array([row["keypoints"] for row in rows], np.float64)
    points = points.reshape(len(rows), -1, 3) if points.size else points.reshape(len(rows), 0, 3)
    boxes = [row.get("bbox", box) for row, box in zip(rows, keypoint_boxes(points), strict=True)]
    return {"box": boxes, "keypoints": points}


def _mask(row: Row, sizes: dict[Any, tuple[float, float]]) -> Any:
    segmentation, name = row["segmentation"], f"annotation {row.get('id')!r}"
    if isinstance(segmentation, dict) and not isinstance(segmentation.get("counts"), list):
        return to_rle(segmentation, 0, 0, name)
    if row["image_id"] not in sizes:  # left out of the evaluation
        return {"size": [0, 0], "counts": b""}
    width, height = sizes[row["image_id"]]
    if not (width >= 0 and height >= 0):
        why = "it has no height and width, which polygons need"
        raise DataError(f"image {row['image_id']!r} of the ground truth", why, "Add them")
    return to_rle(segmentation, int(height), int(width), name)


def _areas(rows: list[Row], shapes: dict[str, Any]) -> tuple[list[float] | None, tuple[str, ...]]:
    missing = sum("area" not in row for row in rows)
    if not missing:
        return [row["area"] for row in rows], ()
    if "masks" in shapes:
        areas, of = mask_areas(shapes["masks"]), "the mask's pixels are"
    else:
        areas, of = (
            np.prod(np.array(shapes["box"], np.float64).reshape(-1, 4)[:, 2:], axis=1),
            "width times height is",
        )
    note = f"{missing} annotations have no area: {of} used"
    return [row.get("area", area) for row, area in zip(rows, areas.tolist(), strict=True)], (note,)


def _is_federated(images: list[Row]) -> bool:
    return any("neg_category_ids" in image or "not_exhaustive_category_ids" in image for image in images)


def _federated(truth: GroundTruth, images: list[Row], classes: list[Row]) -> Federated:
    def pairs(key: str) -> Any:
        listed = [(image["id"], c) for image in images for c in image.get(key, ())]
        columns = ([i for i, _ in listed], truth.image_ids), ([c for _, c in listed], truth.category_ids)
        places = np.stack([find(np.array(ids, known.dtype), known) for ids, known in columns], axis=1)
        return places[(places >= 0).all(axis=1)]

    letters = {c["id"]: c.get("frequency", "") for c in classes}
    frequency = tuple(str(letters[i]) for i in truth.category_ids.tolist())
    return Federated(
        pairs("neg_category_ids"), pairs("not_exhaustive_category_ids"), frequency if all(frequency) else ()
    )
