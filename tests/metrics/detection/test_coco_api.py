"""The drop-in pair against pycocotools, for boxes, masks and key points."""

import copy
import json

import numpy as np
import pytest
from coco_oracle import assert_same_evaluation, awkward, reference, with_shapes
from pycocotools import coco as theirs

from striate.errors import DataError, UsageError
from striate.metrics.detection import COCO, COCOeval, kernel


@pytest.fixture(params=["native", "numpy"])
def version(request, monkeypatch):
    if request.param == "native" and kernel._native is None:
        pytest.skip("the native kernel was not built here")
    if request.param == "numpy":
        monkeypatch.setattr(kernel, "_native", None)


def ours(gt, rows, kind, **params):
    truth = COCO()
    truth.dataset = copy.deepcopy(gt)
    truth.createIndex()
    judge = COCOeval(truth, truth.loadRes(copy.deepcopy(rows)), kind)
    for name, value in params.items():
        setattr(judge.params, name, value)
    judge.evaluate()
    judge.accumulate()
    judge.summarize()
    return judge


def assert_same(gt, rows, kind, **params):
    mine, other = ours(gt, rows, kind, **params), reference(gt, rows, kind, **params)
    assert_same_evaluation(mine, other)
    assert mine.stats.tolist() == list(other.stats)
    assert len(str(mine).splitlines()) == len(mine.stats)


@pytest.mark.parametrize("seed", range(5000, 5040))
def test_boxes(seed, version):
    gt, rows = awkward(seed)
    assert_same(gt, rows, "bbox", useCats=seed % 4 // 3, maxDets=[1, 3, 100])


@pytest.mark.parametrize("seed", range(40))
def test_masks(seed, version):
    rng = np.random.default_rng(seed)
    gt, rows = awkward(seed)
    for image in gt["images"]:
        image.update(height=40, width=40)
    known = {image["id"] for image in gt["images"]}
    gt["annotations"] = [a for a in gt["annotations"] if a["image_id"] in known]
    for row in (*gt["annotations"], *rows):
        x, y = rng.integers(0, 25, 2)
        w, h = rng.integers(2, 15, 2)
        row["segmentation"] = [[int(v) for v in (x, y, x + w, y, x + w, y + h, x, y + h)]]
        row["bbox"] = [int(v) for v in (x, y, w, h)]
        if rng.random() < 0.3:
            n = int(rng.integers(0, 800))
            row["segmentation"] = {"counts": [n, 400, 1600 - 400 - n], "size": [40, 40]}
    assert_same(gt, rows, "segm")


@pytest.mark.parametrize("seed", range(40))
def test_key_points(seed, version):
    rng = np.random.default_rng(seed)
    gt, rows = awkward(seed)
    for row in (*gt["annotations"], *rows):
        row["bbox"] = [float(v) for v in rng.random(4) * 60]
        points = np.c_[rng.random((17, 2)) * 60, rng.integers(0, 3, 17) * (rng.random() < 0.8)]
        row["keypoints"] = points.ravel().tolist()
        row["num_keypoints"] = int((points[:, 2] > 0).sum())
    for row in rows:
        if gt["annotations"] and rng.random() < 0.7:
            near = np.array(gt["annotations"][rng.integers(len(gt["annotations"]))]["keypoints"])
            row["keypoints"] = (near + rng.normal(0, 2, 51)).tolist()
    assert_same(gt, rows, "keypoints")


@pytest.mark.parametrize(
    ("kind", "pair"),
    [
        ("segm", ("fce_small/gt_dataset.json", "fce_small/dt_dataset.json")),
        ("keypoints", ("keypoints/fce_gt.json", "keypoints/fce_dt.json")),
    ],
)
def test_real_pairs(kind, pair, shared, version):
    gt, rows = (json.loads((shared / "data/detection" / name).read_text()) for name in pair)
    assert_same(gt, rows, kind)


def test_the_index_answers_as_pycocotools_does(tmp_path, capsys):
    gt, _ = awkward(11)
    path = tmp_path / "gt.json"
    path.write_text(json.dumps(gt))
    mine, other = COCO(path), theirs.COCO(str(path))
    capsys.readouterr()
    images, classes = sorted(other.imgs), sorted(other.cats)
    for chosen in ([], images[:1], images):
        for kinds in ([], classes[:1], classes):
            assert mine.getAnnIds(chosen, kinds) == other.getAnnIds(chosen, kinds)
            assert sorted(mine.getImgIds(chosen, kinds)) == sorted(other.getImgIds(chosen, kinds))
    assert mine.getAnnIds(areaRng=[1, 2000], iscrowd=False) == other.getAnnIds(
        areaRng=[1, 2000], iscrowd=False
    )
    assert mine.getCatIds(catNms=["class 3"]) == other.getCatIds(catNms=["class 3"])
    assert mine.loadAnns(other.getAnnIds()) == other.loadAnns(other.getAnnIds())
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("kind", ["segm", "keypoints"])
@pytest.mark.parametrize("seed", range(8))
def test_results_without_boxes_as_the_servers_take_them(kind, seed):
    """Official results of masks and key points have no bbox; the area and the box come from their shape."""
    gt, rows = with_shapes(seed, kind)
    for row in rows:
        row.pop("bbox")
    truth = COCO()
    truth.dataset = copy.deepcopy(gt)
    truth.createIndex()
    ours, other = truth.loadRes(copy.deepcopy(rows)), reference(gt, rows, kind).cocoDt
    for a, b in zip(ours.dataset["annotations"], other.dataset["annotations"], strict=True):
        assert a.keys() - {"ignore"} == b.keys() - {"ignore"}
        assert a["area"] == b["area"]
        np.testing.assert_array_equal(a["bbox"], b["bbox"])
    assert_same(gt, rows, kind)


def test_mistakes():
    truth = COCO()
    truth.dataset = {"images": [{"id": 1}], "annotations": [], "categories": []}
    truth.createIndex()
    with pytest.raises(DataError, match="image 2 of the results"):
        truth.loadRes([{"image_id": 2}])
    with pytest.raises(UsageError, match="Call evaluate first"):
        COCOeval(truth, truth, "bbox").accumulate()
    with pytest.raises(UsageError, match="IoU type 'box'"):
        COCOeval(truth, truth, "box")
