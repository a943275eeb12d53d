"""Mean average precision from arrays, one batch of images at a time, with the interface of TorchMetrics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from striate.errors import DataError, LayoutError, UsageError
from striate.metrics.detection.coco import CocoResult, CocoSettings, evaluate_coco
from striate.metrics.detection.columns import as_boxes, detections, ground_truth
from striate.metrics.detection.records import Floats

FORMATS = ("xyxy", "xywh", "cxcywh")


class MeanAveragePrecision:
    """COCO's numbers for detections that are added image by image.

        meter = MeanAveragePrecision()
        for images, targets in loader:
            meter.update(model(images), targets)
        meter.compute().stats

    It stores plain arrays, so it can be pickled; `merge` adds the images of another process.

    Args:
        box_format: "xyxy" (two corners), "xywh" or "cxcywh" (centre), in pixels.
        settings: what to measure; COCO's defaults if None.
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
            predictions: for each image `boxes` [D, 4], `scores` [D] and `labels` [D]; arrays or tensors.
            targets: for each image `boxes` [G, 4] and `labels` [G], and if known `iscrowd` [G] and
                `area` [G] (0 for width times height).

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
        area = np.where(t["area"] > 0, t["area"], t["boxes"][:, 2] * t["boxes"][:, 3])
        labels = np.unique(np.concatenate([t["labels"], f["labels"]])).tolist()
        truth = ground_truth(
            t["image"], t["labels"], t["boxes"], area=area, crowd=t["iscrowd"] != 0,
            image_ids=np.arange(len(self._truth)), categories={label: str(label) for label in labels},
        )  # fmt: skip
        found = detections(f["image"], f["labels"], f["boxes"], f["scores"], truth=truth)
        return evaluate_coco(truth, found, self.settings, threads=threads)

    def _columns(
        self, image: Mapping[str, Any], needed: tuple[str, ...], known: tuple[str, ...]
    ) -> dict[str, Any]:
        missing = [key for key in ("boxes", *needed) if key not in image]
        if missing:
            raise LayoutError(f"an image with {', '.join(image) or 'nothing'}", f"it has no {missing[0]}")
        boxes = as_boxes(as_array(image["boxes"]), self.box_format)
        columns = {"boxes": _to_xywh(boxes, self.box_format)}
        for key in (*needed, *known):
            values = as_array(image[key]).reshape(-1) if key in image else np.zeros(len(boxes))
            if values.size != len(boxes):
                raise LayoutError(f"{values.size} {key}", f"there are {len(boxes)} boxes")
            columns[key] = values.astype(np.int64) if key == "labels" else values
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
    columns = {key: np.concatenate([image[key] for image in images]) for key in images[0]}
    columns["image"] = np.repeat(np.arange(len(images)), [len(image["boxes"]) for image in images])
    return columns
