"""The image-by-image interface against the one for whole data sets."""

import pickle

import numpy as np
import pytest
import torch

from striate.errors import DataError, LayoutError, UsageError
from striate.metrics.detection import MeanAveragePrecision, detections, evaluate_coco, ground_truth


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
