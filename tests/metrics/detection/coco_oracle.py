"""pycocotools as the oracle, and seeded small cases that are as awkward as data gets."""

import contextlib
import copy
import io
import json

import numpy as np
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
