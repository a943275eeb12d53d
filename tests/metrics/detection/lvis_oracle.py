"""The package `lvis` as the oracle, and seeded small cases in its layout.

`python lvis_oracle.py SHARED` writes the numbers of `lvis` 0.5.3 for these cases to lvis_0.5.3.json. The
package is not among the development dependencies: it was written for NumPy 1, and needs OpenCV to draw.
"""

import copy
import hashlib
import json
import sys
import types
from pathlib import Path

import numpy as np
from coco_oracle import awkward

NUMBERS = Path(__file__).with_name("lvis_0.5.3.json")
SEEDS = (6008, 6023, 6027, 6225, 6259, 6306)  # ids that repeat, and many numbers that are not 0 or -1

REAL = (("bbox", 300), ("segm", 300), ("bbox", 10))


def federated_case(seed, kind):
    """Ground truth and detections with negative and not exhaustively annotated classes; masks for "segm"."""
    gt, rows = awkward(seed)
    rng = np.random.default_rng(seed)
    side = 320
    classes = [c["id"] for c in gt["categories"]]
    for category in gt["categories"]:
        category["frequency"] = str(rng.choice(["r", "c", "f"]))
    for image in gt["images"]:
        image.update(height=side, width=side)
        for key in ("neg_category_ids", "not_exhaustive_category_ids"):
            image[key] = [c for c in classes if rng.random() < 0.35]
    known = {image["id"] for image in gt["images"]}
    gt["annotations"] = [a for a in gt["annotations"] if a["image_id"] in known]
    for i, annotation in enumerate(gt["annotations"]):
        annotation["id"] = i + int(rng.random() < 0.9)  # sometimes 0, sometimes twice
        if rng.random() < 0.1:
            annotation["ignore"] = 1
    rows = [
        row for row in rows if np.isfinite([*row["bbox"], row["score"]]).all() and np.max(row["bbox"]) < 1e6
    ]
    if kind == "segm":
        for row in (*gt["annotations"], *rows):
            x, y, w, h = row["bbox"]
            row["segmentation"] = [[x, y, x + w, y, x + w, y + h, x + w / 2, y + h / 2, x, y + h]]
    return gt, rows or [
        {"image_id": gt["images"][0]["id"], "category_id": -1, "bbox": [0, 0, 1, 1], "score": 0.5}
    ]


def real_case(shared):
    """The 100 images of LVIS's validation set in shared/, and detections made from its objects."""
    path = shared / "data/detection/fce_small/lvis_val_100.json"
    gt = json.loads(path.read_text())
    rng = np.random.default_rng(0)
    classes = [c["id"] for c in gt["categories"]]
    rows = []
    for annotation in gt["annotations"]:
        for _ in range(rng.integers(0, 4)):
            box = np.array(annotation["bbox"]) + rng.normal(0, 4, 4)
            box[2:] = np.abs(box[2:]) + 1
            label = annotation["category_id"] if rng.random() < 0.8 else int(rng.choice(classes))
            row = {"image_id": annotation["image_id"], "category_id": label, "bbox": box.tolist()}
            rows.append(row | {"score": round(rng.random(), 2), "segmentation": annotation["segmentation"]})
    for image in gt["images"]:
        for label in image["neg_category_ids"] + image["not_exhaustive_category_ids"]:
            row = {"image_id": image["id"], "category_id": label, "bbox": [1.0, 1.0, 50.0, 50.0]}
            rows.append(row | {"score": rng.random(), "segmentation": [[1, 1, 51, 1, 51, 51]]})
    return path, rows


def digest(values):
    """SHA-256 of an array's bytes, where -0 is 0."""
    return hashlib.sha256(np.ascontiguousarray(values + 0.0).tobytes()).hexdigest()


def lvis_numbers(gt_path, rows, kind, max_dets=300):
    """The thirteen metrics of `lvis`, and digests of its arrays.

    Raises:
        ImportError: the package is not installed.
    """
    np.float = float  # the package uses the name that NumPy 1 had
    sys.modules.setdefault("cv2", types.ModuleType("cv2"))
    from lvis import LVIS, LVISEval, LVISResults

    truth = LVIS(str(gt_path))
    results = LVISResults(truth, copy.deepcopy(rows), max_dets=max_dets)
    judge = LVISEval(truth, results, kind)
    judge.params.max_dets = max_dets
    with np.errstate(all="ignore"):
        judge.run()
    return {
        "stats": [float(value) for value in judge.results.values()],
        "precision": digest(judge.eval["precision"]),
        "recall": digest(judge.eval["recall"]),
    }


def all_numbers(folder, shared):
    """The numbers of all cases; `folder` is for their files."""
    path, rows = real_case(shared)
    out = {f"real {kind} {limit}": lvis_numbers(path, rows, kind, limit) for kind, limit in REAL}
    for seed in SEEDS:
        for kind in ("bbox", "segm"):
            gt, rows = federated_case(seed, kind)
            path = folder / "gt.json"
            path.write_text(json.dumps(gt))
            limit = 300 if seed % 3 else 5
            out[f"{seed} {kind} {limit}"] = lvis_numbers(path, rows, kind, limit)
    return out


if __name__ == "__main__":
    import tempfile

    with tempfile.TemporaryDirectory() as made:
        numbers = all_numbers(Path(made), Path(sys.argv[1]))
        NUMBERS.write_text(
            "{\n" + ",\n".join(f" {json.dumps(k)}: {json.dumps(v)}" for k, v in numbers.items()) + "\n}\n"
        )
