"""pycocotools as the oracle, and seeded small cases that are as awkward as data gets."""

import contextlib
import copy
import io
import json

import numpy as np
from pycocotools import mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval


def reference(gt, rows, kind="bbox", **params):
    """pycocotools' evaluator after its three steps, on a data set and a list of detections."""
    with contextlib.redirect_stdout(io.StringIO()), np.errstate(all="ignore"):
        truth = COCO()
        truth.dataset = copy.deepcopy(gt)
        truth.createIndex()
        judge = COCOeval(truth, truth.loadRes(copy.deepcopy(rows)), kind)
        for name, value in params.items():
            setattr(judge.params, name, value)
        judge.evaluate()
        judge.accumulate()
        if "areaRng" not in params:
            judge.summarize()
    return judge


def write(folder, gt, rows):
    """The case as two files."""
    paths = folder / "gt.json", folder / "dt.json"
    for path, content in zip(paths, (gt, rows), strict=True):
        path.write_text(json.dumps(content))
    return paths


def awkward(seed):
    """A small data set and detections: ties, crowds, id 0, NaN, empty classes, zero area, repeated ids."""
    rng = np.random.default_rng(seed)
    images = rng.choice(40, rng.integers(1, 6), replace=False).tolist()
    classes = rng.choice(30, rng.integers(1, 5), replace=False).tolist()
    side = rng.choice([4, 12, 60, 300])
    n_gt, n_dt = rng.integers(0, 14), rng.integers(1, 40)
    grid = rng.random() < 0.5  # whole numbers on a coarse grid: many overlaps are equal

    def box():
        xywh = rng.random(4) * side
        if grid:
            xywh = np.round(xywh / side * 4) * side / 4
        elif rng.random() < 0.7:
            xywh[2:] += side / 2
        return [float(v) for v in (np.round(xywh, 2) if rng.random() < 0.5 else xywh)]

    ids = np.arange(rng.integers(0, 2), n_gt + 2)
    if rng.random() < 0.1:
        ids = rng.integers(0, 6, n_gt + 2)
    elif rng.random() < 0.2:
        ids = ids - 3
    annotations = []
    for i in range(n_gt):
        b = box()
        annotations.append(
            {
                "id": int(ids[i]),
                "image_id": int(rng.choice([*images, 77], p=[0.97 / len(images)] * len(images) + [0.03])),
                "category_id": int(
                    rng.choice([*classes, 99], p=[0.97 / len(classes)] * len(classes) + [0.03])
                ),
                "bbox": b,
                "area": float(rng.choice([b[2] * b[3], b[2] * b[3] / 2, 0, 1024, 9216])),
                "iscrowd": int(rng.random() < 0.15),
            }
        )
    scores = rng.choice([0.0, 0.1, 0.5, 0.5, 0.9, 1.0, 1e-300, -0.0, 2], n_dt)
    if rng.random() < 0.4:
        scores = rng.random(n_dt)
    if rng.random() < 0.15:
        scores[rng.random(n_dt) < 0.3] = np.nan
    rows = []
    for i in range(n_dt):
        b = box()
        if annotations and rng.random() < 0.6:
            b = list(annotations[rng.integers(len(annotations))]["bbox"])
            if rng.random() < 0.5:
                b[rng.integers(4)] += float(rng.choice([0, 0.25, 1, side / 8]))
        if rng.random() < 0.03:
            b[rng.integers(4)] = float(rng.choice([np.nan, np.inf, 0, -1, 1e308, 1e-200]))
        rows.append(
            {
                "image_id": int(rng.choice(images)),
                "category_id": int(
                    rng.choice([*classes, 98], p=[0.97 / len(classes)] * len(classes) + [0.03])
                ),
                "bbox": b,
                "score": float(scores[i]),
            }
        )
    gt = {
        "images": [{"id": int(i)} for i in images],
        "annotations": annotations,
        "categories": [{"id": int(c), "name": f"class {c}"} for c in classes],
    }
    return gt, rows


def with_shapes(seed, kind):
    """An awkward case with a mask (a polygon or run lengths) or key points for each row, or boxes alone."""
    rng = np.random.default_rng(seed)
    gt, rows = awkward(seed)
    if kind == "bbox":
        return gt, rows
    known = {image["id"] for image in gt["images"]}
    for image in gt["images"]:
        image.update(height=40, width=40)
    gt["annotations"] = [a for a in gt["annotations"] if a["image_id"] in known]
    for row in (*gt["annotations"], *rows):
        if kind == "segm":
            x, y, w, h = (int(v) for v in (*rng.integers(0, 25, 2), *rng.integers(0, 15, 2)))
            row["bbox"] = [x, y, w, h]
            polygon = [[x, y, x + w, y, x + w, y + h, x, y + h]]
            row["segmentation"] = mask.merge(mask.frPyObjects(polygon, 40, 40))
            if rng.random() < 0.2:
                row["segmentation"]["counts"] = row["segmentation"]["counts"].decode()
            if "score" not in row and rng.random() < 0.5:
                n = int(rng.integers(0, 800))
                row["segmentation"] = {"counts": [n, 400, 1200 - n], "size": [40, 40]}
                if rng.random() < 0.5:
                    row["segmentation"] = polygon * 2
        else:
            points = np.c_[rng.random((17, 2)) * 60, rng.integers(0, 3, 17) * (rng.random() < 0.8)]
            row["keypoints"] = points.ravel().tolist()
            row["num_keypoints"] = int((points[:, 2] > 0).sum())
            row["bbox"] = [float(v) for v in rng.random(4) * 60]
    for row in rows:
        same = [a for a in gt["annotations"] if a["image_id"] == row["image_id"]]
        if same and rng.random() < 0.6:
            near = same[rng.integers(len(same))]
            if kind == "keypoints":
                row["keypoints"] = (np.array(near["keypoints"]) + rng.normal(0, 2, 51)).tolist()
            elif not isinstance(near["segmentation"], list):
                rle = near["segmentation"]
                row["segmentation"] = (
                    mask.frPyObjects(rle, 40, 40) if isinstance(rle["counts"], list) else dict(rle)
                )
    return gt, rows


def adversarial(seed):
    """A data set, detections, the kind of their evaluation, and some unusual parameters."""
    rng = np.random.default_rng(seed + 10**6)
    kind = ("bbox", "segm", "keypoints")[seed % 3]
    gt, rows = with_shapes(seed, kind)
    if kind != "bbox" and rng.random() < 0.3:
        for row in rows:  # as the servers take them
            row.pop("bbox")
    params = {}
    if rng.random() < 0.3:
        params["useCats"] = 0
    if rng.random() < 0.3:
        params["maxDets"] = sorted(rng.integers(0, 8, 3).tolist())
    if rng.random() < 0.2:
        params["iouThrs"] = np.sort(rng.random(rng.choice([1, 3, 40]))) * 1.2 - 0.1
    if rng.random() < 0.2:
        params["recThrs"] = rng.random(5) * 1.2 - 0.1
    if rng.random() < 0.2:
        params["areaRng"] = [[0.0, 1e10], [3.0, 1024.0]]
    for name, rows_ in (("imgIds", gt["images"]), ("catIds", gt["categories"])):
        if rng.random() < 0.15:
            ids = [row["id"] for row in rows_]
            params[name] = rng.permutation([*ids, 98])[: rng.integers(1, len(ids) + 2)].tolist()
    if kind == "keypoints" and rng.random() < 0.3:
        params["kpt_oks_sigmas"] = rng.random(17) / 10 + 1e-3
    return gt, rows, kind, params


def assert_same_evaluation(mine, other):
    """Every array of `eval`, every record of `evalImgs` and every entry of `ious`."""
    for name in ("precision", "recall", "scores"):
        np.testing.assert_array_equal(mine.eval[name], other.eval[name], err_msg=name)
    assert mine.eval["counts"] == other.eval["counts"]
    assert list(mine.ious) == list(other.ious)
    for key, overlaps in other.ious.items():
        np.testing.assert_array_equal(mine.ious[key], overlaps, err_msg=str(key))
    assert len(mine.evalImgs) == len(other.evalImgs)
    for a, b in zip(mine.evalImgs, other.evalImgs, strict=True):
        assert (a is None) == (b is None)
        assert (a or {}).keys() == (b or {}).keys()
        for key in b or ():
            np.testing.assert_array_equal(a[key], b[key], err_msg=key)
