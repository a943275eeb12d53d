"""Mean average precision from arrays, one batch of images at a time, with the interface of TorchMetrics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from striate.errors import DataError, LayoutError, UsageError
from striate.metrics.detection.coco import CocoResult, CocoSettings, evaluate_coco
from striate.metrics.detection.columns import as_boxes, detections, ground_truth
from striate.metrics.detection.records import Floats
from striate.metrics.detection.shapes import (
    as_keypoints,
    as_masks,
    keypoint_boxes,
    mask_areas,
    mask_boxes,
)

FORMATS = ("xyxy", "xywh", "cxcywh")
SHAPES = {"bbox": "boxes", "segm": "masks", "keypoints": "keypoints"}


class MeanAveragePrecision:
    """COCO's numbers for detections that are added image by image.

        meter = MeanAveragePrecision()
        for images, targets in loader:
            meter.update(model(images), targets)
        meter.compute().stats

    It stores plain arrays, so it can be pickled; `merge` adds the images of another process.

    Args:
        box_format: "xyxy" (two corners), "xywh" or "cxcywh" (center), in pixels.
        settings: what to measure; COCO's defaults if None. Their `iou_type` is "segm" for masks and
            "keypoints" for key points.
    """

    def __init__(self, box_format: str = "xyxy", settings: CocoSettings | None = None) -> None:
        if box_format not in FORMATS:
            raise UsageError(f"box format {box_format!r}", f"it is {', '.join(FORMATS)}")
        self.box_format = box_format
        self.settings = settings or CocoSettings()
        self._detections: list[dict[str, Any]] = []
        self._truth: list[dict[str, Any]] = []

    def update(self, predictions: Sequence[Mapping[str, Any]], targets: Sequence[Mapping[str, Any]]) -> None:
        """Add the detections and the ground truth of some images.

        Args:
            predictions: for each image `boxes` [D, 4], `scores` [D] and `labels` [D]; arrays or tensors. For
                masks, `masks` instead of or besides `boxes`: [D, height, width], or D run lengths. For key
                points, `keypoints` [D, P, 3].
            targets: for each image `boxes` [G, 4], `masks` or `keypoints`, and `labels` [G]; and if known
                `iscrowd` [G] and `area` [G] (0 for width times height, or the pixels of the mask).

        Raises:
            LayoutError: sequences or columns of different lengths, or a missing key.
        """
        if len(predictions) != len(targets):
            raise LayoutError(
                f"{len(predictions)} images with detections", f"there are {len(targets)} with ground truth"
            )
        predicted = [self._columns(p, ("scores", "labels"), ()) for p in predictions]
        self._truth += [self._columns(t, ("labels",), ("iscrowd", "area")) for t in targets]
        self._detections += predicted

    def merge(self, other: MeanAveragePrecision) -> None:
        """Add all images of `other` after those of this meter."""
        self._detections += other._detections
        self._truth += other._truth

    def reset(self) -> None:
        """Remove all images."""
        self._detections, self._truth = [], []

    def compute(self, *, threads: int | None = None) -> CocoResult:
        """The numbers of all images so far.

        Raises:
            DataError: there were none.
        """
        if not self._truth:
            raise DataError("nothing to measure", "no images were added", "Call update first")
        t, f = _joined(self._truth), _joined(self._detections)
        masks = self.settings.iou_type == "segm"
        area = mask_areas(t["masks"]) if masks else t["boxes"][:, 2] * t["boxes"][:, 3]
        area = np.where(t["area"] > 0, t["area"], area)
        labels = np.unique(np.concatenate([t["labels"], f["labels"]])).tolist()
        truth = ground_truth(
            t["image"], t["labels"], t["boxes"], area=area, crowd=t["iscrowd"] != 0,
            image_ids=np.arange(len(self._truth)), categories={label: str(label) for label in labels},
            masks=t.get("masks"), keypoints=t.get("keypoints"),
        )  # fmt: skip
        found = detections(
            f["image"], f["labels"], f["boxes"], f["scores"], truth=truth, masks=f.get("masks"),
            keypoints=f.get("keypoints"),
        )  # fmt: skip
        return evaluate_coco(truth, found, self.settings, threads=threads)

    def _columns(
        self, image: Mapping[str, Any], needed: tuple[str, ...], known: tuple[str, ...]
    ) -> dict[str, Any]:
        missing = [key for key in (SHAPES[self.settings.iou_type], *needed) if key not in image]
        if missing:
            raise LayoutError(f"an image with {', '.join(image) or 'nothing'}", f"it has no {missing[0]}")
        columns = self._shapes(image)
        n = len(columns["boxes"])
        for key in (*needed, *known):
            values = as_array(image[key]).reshape(-1) if key in image else np.zeros(n)
            if values.size != n:
                raise LayoutError(f"{values.size} {key}", f"there are {n} {SHAPES[self.settings.iou_type]}")
            columns[key] = values.astype(np.int64) if key == "labels" else values
        return columns

    def _shapes(self, image: Mapping[str, Any]) -> dict[str, Any]:
        """The boxes, and the masks or key points if they are compared."""
        columns: dict[str, Any] = {}
        if self.settings.iou_type == "segm":
            columns["masks"] = as_masks(image["masks"])
            columns["boxes"] = mask_boxes(columns["masks"])
        elif self.settings.iou_type == "keypoints":
            columns["keypoints"] = as_keypoints(as_array(image["keypoints"]))
            columns["boxes"] = keypoint_boxes(columns["keypoints"])
        if "boxes" in image:
            boxes = as_boxes(as_array(image["boxes"]), self.box_format)
            if "boxes" in columns and len(boxes) != len(columns["boxes"]):
                shapes = SHAPES[self.settings.iou_type]
                raise LayoutError(f"{len(boxes)} boxes", f"there are {len(columns['boxes'])} {shapes}")
            columns["boxes"] = _to_xywh(boxes, self.box_format)
        return columns


def as_array(values: Any) -> Floats:
    """A float64 array of an array, a list, or a torch tensor on any device."""
    if hasattr(values, "detach"):
        values = values.detach().cpu().double().numpy()
    return np.array(values, np.float64)


def _to_xywh(boxes: Floats, box_format: str) -> Floats:
    """Convert boxes in place."""
    if box_format == "xyxy":
        boxes[:, 2:] -= boxes[:, :2]
    elif box_format == "cxcywh":
        boxes[:, :2] -= boxes[:, 2:] / 2
    return boxes


def _joined(images: list[dict[str, Any]]) -> dict[str, Any]:
    columns = {}
    for key in images[0]:
        parts = [image[key] for image in images]
        # Without an object, the number of key points is unknown.
        columns[key] = np.concatenate([part for part in parts if part.size] or parts[:1])
    columns["image"] = np.repeat(np.arange(len(images)), [len(image["boxes"]) for image in images])
    return columns
