"""The seeded benchmark sets: every array equal to pycocotools', from files, from arrays and from batches."""

import json
import runpy

import numpy as np
import pytest
from coco_oracle import reference

from striate.metrics.detection import MeanAveragePrecision, evaluate


def written(name, shared, folder):
    maker = runpy.run_path(str(shared / "bench/detection/gen.py"))
    maker["write"](maker["build"](seed=20240, **maker["PRESETS"][name]), str(folder))
    return folder / "gt.json", folder / "dt.json"


def assert_as_pycocotools(paths):
    ours = evaluate(*paths)
    theirs = reference(*(json.loads(path.read_text()) for path in paths))
    for name in ("precision", "recall", "scores"):
        np.testing.assert_array_equal(getattr(ours, name), theirs.eval[name])
    assert ours.stats.tolist() == theirs.stats.tolist()


def test_tiny(shared, tmp_path):
    assert_as_pycocotools(written("tiny", shared, tmp_path))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["a", "b"])
def test_large(name, shared, tmp_path):
    assert_as_pycocotools(written(name, shared, tmp_path))


def test_tiny_image_by_image(shared, tmp_path):
    paths = written("tiny", shared, tmp_path)
    gt, rows = (json.loads(path.read_text()) for path in paths)
    meter = MeanAveragePrecision("xywh")
    for image in gt["images"]:
        truth = [a for a in gt["annotations"] if a["image_id"] == image["id"]]
        found = [d for d in rows if d["image_id"] == image["id"]]
        meter.update(
            [
                {
                    "boxes": [d["bbox"] for d in found],
                    "labels": [d["category_id"] for d in found],
                    "scores": [d["score"] for d in found],
                }
            ],
            [
                {
                    "boxes": [a["bbox"] for a in truth],
                    "labels": [a["category_id"] for a in truth],
                    "iscrowd": [a["iscrowd"] for a in truth],
                    "area": [a["area"] for a in truth],
                }
            ],
        )
    assert meter.compute().stats.tolist() == evaluate(*paths).stats.tolist()
