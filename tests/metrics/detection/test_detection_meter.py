"""The image-by-image interface against the one for whole data sets."""

import pickle

import numpy as np
import pytest
import torch
from coco_oracle import reference
from pycocotools import mask

from striate.errors import DataError, LayoutError, UsageError
from striate.metrics.detection import (
    CocoSettings,
    MeanAveragePrecision,
    detections,
    evaluate_coco,
    ground_truth,
)


def batches(seed, images=12):
    rng = np.random.default_rng(seed)
    found, truth = [], []
    for _ in range(images):
        g, d = rng.integers(0, 5), rng.integers(0, 9)
        boxes = rng.random((g, 4)) * 50 + [0, 0, 60, 60]
        near = (
            boxes[rng.integers(0, g, d)] + rng.normal(0, 4, (d, 4))
            if g
            else rng.random((d, 4)) + np.array([0, 0, 9, 9])
        )
        truth.append({"boxes": boxes, "labels": rng.integers(1, 4, g), "iscrowd": rng.random(g) < 0.1})
        found.append({"boxes": near, "labels": rng.integers(1, 4, d), "scores": rng.random(d)})
    return found, truth


def whole(found, truth):
    def column(side, key):
        return np.concatenate([image[key] for image in side])

    def boxes(side):
        corners = column(side, "boxes")
        return np.c_[corners[:, :2], corners[:, 2:] - corners[:, :2]]

    def image(side):
        return np.repeat(np.arange(len(side)), [len(i["boxes"]) for i in side])

    gt = ground_truth(
        image(truth),
        column(truth, "labels"),
        boxes(truth),
        crowd=column(truth, "iscrowd"),
        image_ids=range(len(truth)),
        categories={i: str(i) for i in (1, 2, 3)},
    )
    dt = detections(image(found), column(found, "labels"), boxes(found), column(found, "scores"), truth=gt)
    return evaluate_coco(gt, dt).stats


@pytest.mark.parametrize("seed", range(5))
def test_in_batches_and_merged(seed):
    found, truth = batches(seed)
    parts = [MeanAveragePrecision() for _ in range(3)]
    for part, start in zip(parts, (0, 5, 9), strict=True):
        for i in range(start, {0: 5, 5: 9, 9: 12}[start]):
            part.update(found[i : i + 1], truth[i : i + 1])
    parts[0].merge(pickle.loads(pickle.dumps(parts[1])))
    parts[0].merge(parts[2])
    assert parts[0].compute().stats.tolist() == whole(found, truth).tolist()


def test_tensors_and_formats():
    found, truth = batches(3)
    meter = MeanAveragePrecision("cxcywh")

    def tensors(image):
        b = image["boxes"]
        centred = np.c_[(b[:, :2] + b[:, 2:]) / 2, b[:, 2:] - b[:, :2]]
        return {k: torch.from_numpy(np.asarray(v)) for k, v in (image | {"boxes": centred}).items()}

    meter.update([tensors(f) for f in found], [tensors(t) for t in truth])
    np.testing.assert_allclose(meter.compute().stats, whole(found, truth), atol=1e-9)


def test_mistakes():
    meter = MeanAveragePrecision()
    with pytest.raises(DataError, match="Call update first"):
        meter.compute()
    with pytest.raises(LayoutError, match="it has no scores"):
        meter.update([{"boxes": [], "labels": []}], [{"boxes": [], "labels": []}])
    with pytest.raises(LayoutError, match="2 scores"):
        meter.update(
            [{"boxes": [[0, 0, 1, 1]], "labels": [1], "scores": [1, 2]}], [{"boxes": [], "labels": []}]
        )
    with pytest.raises(LayoutError, match="1 images with detections"):
        meter.update([{}], [])
    with pytest.raises(UsageError, match="box format"):
        MeanAveragePrecision("yxyx")


def shapes_of_images(seed, kind):
    """Predictions and targets of four images with masks or key points, one of them empty, as tensors."""
    rng = np.random.default_rng(seed)
    found, truth = [], []
    for count in (3, 0, 2, 4):
        if kind == "segm":
            shapes = np.zeros((count, 60, 80), bool)
            for mask in shapes:
                x, y = rng.integers(0, 40, 2)
                mask[y : y + 18, x : x + rng.integers(9, 40)] = True
            moved = np.roll(shapes, 2, axis=2)
        else:
            shapes = rng.random((count, 17, 3)) * [80, 60, 0] + [0, 0, 2]
            moved = shapes + rng.normal(0, 1, shapes.shape)
        key, labels = ("masks" if kind == "segm" else "keypoints"), torch.ones(count, dtype=torch.int64)
        truth.append({key: torch.as_tensor(shapes), "labels": labels})
        found.append({key: torch.as_tensor(moved), "labels": labels, "scores": torch.rand(count)})
    return found, truth


@pytest.mark.parametrize("kind", ["segm", "keypoints"])
def test_masks_and_key_points_image_by_image(kind):
    """As one call of pycocotools; boxes, areas and what is labeled come from the shapes."""
    torch.manual_seed(0)
    found, truth = shapes_of_images(1, kind)
    meter = MeanAveragePrecision(settings=CocoSettings(iou_type=kind))
    for i in range(4):
        meter.update(found[i : i + 1], truth[i : i + 1])
    rows = {"annotations": [], "results": []}
    for name, side in (("annotations", truth), ("results", found)):
        for i, image in enumerate(side):
            for j in range(len(image["labels"])):
                row = {"image_id": i, "category_id": 1, "iscrowd": 0, "id": len(rows[name]) + 1}
                if kind == "segm":
                    row["segmentation"] = mask.encode(np.asfortranarray(image["masks"][j].numpy(), np.uint8))
                    row["area"] = float(image["masks"][j].sum())
                else:
                    points = image["keypoints"][j].numpy()
                    low, high = points[:, :2].min(axis=0), points[:, :2].max(axis=0)
                    row |= {"keypoints": points.ravel().tolist(), "num_keypoints": 17}
                    row |= {"bbox": [*low, *(high - low)], "area": float(np.prod(high - low))}
                if name == "results":
                    row = {k: row[k] for k in row if k not in ("bbox", "area", "id")}
                    row["score"] = float(image["scores"][j])
                rows[name].append(row)
    gt = {"images": [{"id": i, "height": 60, "width": 80} for i in range(4)], "categories": [{"id": 1}]}
    theirs = reference(gt | {"annotations": rows["annotations"]}, rows["results"], kind)
    assert meter.compute().stats.tolist() == list(theirs.stats)
    assert meter.compute().stats[0] > 0.3


def test_a_missing_shape_is_named():
    meter = MeanAveragePrecision(settings=CocoSettings(iou_type="segm"))
    with pytest.raises(LayoutError, match="it has no masks"):
        meter.update([{"boxes": [], "labels": [], "scores": []}], [{"masks": [], "labels": []}])
    with pytest.raises(LayoutError, match="2 labels: there are 0 masks"):
        meter.update([{"masks": [], "labels": [], "scores": []}], [{"masks": [], "labels": [1, 2]}])
