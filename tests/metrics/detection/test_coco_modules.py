"""Programs that import pycocotools, with Striate in its place: the call patterns of popular training code."""

import subprocess
import sys
from pathlib import Path

import pytest

# What each program does, rewritten to its calls; `gt` and `rows` are a data set and detections.
PROGRAMS = {
    "pycocoEvalDemo": """
        coco_gt = COCO(paths[0])
        coco_dt = coco_gt.loadRes(paths[1])
        img_ids = sorted(coco_gt.getImgIds())[0:100]
        evaluator = COCOeval(coco_gt, coco_dt, kind)
        evaluator.params.imgIds = img_ids
        evaluator.evaluate()
        evaluator.accumulate()
        evaluator.summarize()
        answer = evaluator.stats.tolist()
    """,
    "pycocoDemo": """
        coco = COCO(paths[0])
        cats = coco.loadCats(coco.getCatIds())
        names = [cat["name"] for cat in cats]
        cat_ids = coco.getCatIds(catNms=names[:2])
        img_ids = coco.getImgIds(imgIds=coco.getImgIds()[:3])
        images = coco.loadImgs(img_ids[0])
        ann_ids = coco.getAnnIds(imgIds=images[0]["id"], catIds=cat_ids, iscrowd=None)
        answer = [names, sorted(img_ids), images, [str(a) for a in coco.loadAnns(ann_ids)]]
    """,
    "torchvision and DETR": """
        truth = COCO()
        truth.dataset = gt
        truth.createIndex()
        evaluator = COCOeval(truth, iouType=kind)
        parts, all_ids = [], []
        ids = truth.getImgIds()
        for batch in (ids[:1], ids[1:3], ids[3:], ids[:1]):
            results = [dict(row) for row in rows if row["image_id"] in batch]
            with contextlib.redirect_stdout(io.StringIO()):
                evaluator.cocoDt = COCO.loadRes(truth, results) if results else COCO()
            evaluator.params.imgIds = list(batch)
            p = evaluator.params
            if not batch:
                continue
            with contextlib.redirect_stdout(io.StringIO()):
                if detr:  # has its own copy of `evaluate`
                    p.imgIds, p.maxDets = list(np.unique(p.imgIds)), sorted(p.maxDets)
                    p.catIds = list(np.unique(p.catIds))
                    evaluator.params = p
                    evaluator._prepare()
                    compute = evaluator.computeOks if kind == "keypoints" else evaluator.computeIoU
                    evaluator.ious = {(i, c): compute(i, c) for i in p.imgIds for c in p.catIds}
                    records = [
                        evaluator.evaluateImg(i, c, area, p.maxDets[-1])
                        for c in p.catIds for area in p.areaRng for i in p.imgIds
                    ]
                    evaluator._paramsEval = copy.deepcopy(evaluator.params)
                else:
                    evaluator.evaluate()
                    records = evaluator.evalImgs
            shape = -1, len(p.areaRng), len(p.imgIds)
            parts.append(np.asarray(records).reshape(shape))
            all_ids += p.imgIds
        merged, first = np.unique(np.array(all_ids), return_index=True)
        records = np.concatenate(parts, 2)[..., first]
        evaluator.evalImgs = list(records.flatten())
        evaluator.params.imgIds = list(merged)
        evaluator._paramsEval = copy.deepcopy(evaluator.params)
        evaluator.accumulate()
        evaluator.summarize()
        answer = evaluator.stats.tolist()
    """,
    "detectron2": """
        class MaxDets(COCOeval):
            def summarize(self):
                def mean(recall, t=None):
                    s = self.eval["recall" if recall else "precision"]
                    s = s if t is None else s[np.where(t == self.params.iouThrs)[0]]
                    s = s[..., 0, 2]
                    return -1 if len(s[s > -1]) == 0 else np.mean(s[s > -1])
                if not self.eval:
                    raise Exception("Please run accumulate() first")
                self.stats = np.array([mean(0), mean(0, 0.5), mean(0, 0.75), mean(1)])
            def __str__(self):
                self.summarize()
        class Fast(COCOeval):
            def evaluate(self):
                p = self.params
                if p.useSegm is not None:
                    p.iouType = "segm" if p.useSegm == 1 else "bbox"
                p.imgIds, p.catIds = list(np.unique(p.imgIds)), list(np.unique(p.catIds))
                p.maxDets = sorted(p.maxDets)
                self.params = p
                self._prepare()
                compute = self.computeOks if p.iouType == "keypoints" else self.computeIoU
                self.ious = {(i, c): compute(i, c) for i in p.imgIds for c in p.catIds}
                self.instances = [
                    [
                        (int(a["id"]), a.get("score", 0.0), a["area"], a.get("iscrowd"), a.get("ignore"))
                        for a in side[i, c]
                    ]
                    for side in (self._gts, self._dts) for i in p.imgIds for c in p.catIds
                ]
                self._evalImgs = None
                self._paramsEval = copy.deepcopy(self.params)
        coco = COCO(paths[0])
        assert "annotations" in coco.dataset
        proposals = [[a["bbox"] for a in coco.loadAnns(coco.getAnnIds(imgIds=i))] for i in coco.getImgIds()]
        dt = coco.loadRes(rows)
        evaluator = MaxDets(coco, dt, kind)
        evaluator.params.maxDets = [1, 10, 50]
        evaluator.params.imgIds = coco.getImgIds()
        if kind == "keypoints":
            evaluator.params.kpt_oks_sigmas = np.array([0.05] * 17)
        evaluator.evaluate()
        evaluator.accumulate()
        evaluator.summarize()
        precisions = evaluator.eval["precision"]
        fast = Fast(coco, dt, kind)
        fast.evaluate()
        overlaps = [np.asarray(v).tolist() for v in fast.ious.values()]
        answer = [evaluator.stats.tolist(), precisions[:, :, 0, 0, -1].tolist(), proposals]
        answer += [fast.instances, overlaps]
    """,
    "ultralytics": """
        from pathlib import Path
        anno = COCO(str(Path(paths[0])))
        pred = anno.loadRes(str(Path(paths[1])))
        val = COCOeval(anno, pred, kind)
        val.params.imgIds = [int(i) for i in anno.imgs]
        val.evaluate()
        val.accumulate()
        val.summarize()
        answer = [float(v) for v in val.stats[:2]]
    """,
    "faster-coco-eval and torchmetrics": """
        def coco_of(images, annotations, categories):
            coco = COCO()
            coco.dataset = {"images": images, "annotations": annotations, "categories": categories}
            with contextlib.redirect_stdout(io.StringIO()):
                coco.createIndex()
            return coco
        answer = []
        known = {image["id"] for image in gt["images"]}
        truths = [a for a in gt["annotations"] if a["image_id"] in known]
        target = coco_of(gt["images"], truths, gt["categories"])
        preds = coco_of(gt["images"], [
            {**row, "id": i, "iscrowd": 0, "area": float(i)} for i, row in enumerate(rows, 1)
        ], gt["categories"])
        with contextlib.redirect_stdout(io.StringIO()):
            for micro in (False, True):
                evaluator = COCOeval(target, preds, iouType=kind)
                evaluator.params.iouThrs = np.array([0.5, 0.6], dtype=np.float64)
                evaluator.params.recThrs = np.array([0.0, 0.5, 1.0], dtype=np.float64)
                evaluator.params.maxDets = [1, 10, 100]
                evaluator.params.useCats = 0 if micro else 1
                evaluator.evaluate()
                evaluator.accumulate()
                evaluator.summarize()
                answer.append([evaluator.stats.tolist(), evaluator.eval["scores"].tolist()])
                ious = evaluator.ious
                answer.append({(int(i), int(c)): np.asarray(v).tolist() for (i, c), v in ious.items()})
            evaluator.params.useCats = 1
            for category in target.getCatIds():
                evaluator.params.catIds = [category]
                evaluator.evaluate()
                evaluator.accumulate()
                evaluator.summarize()
                answer.append(evaluator.stats.tolist())
    """,
}
HEAD = """
import contextlib, copy, io, sys
sys.path.insert(0, {tests!r})
import numpy as np
np.seterr(all="ignore")
from coco_oracle import awkward, with_shapes, write
from pathlib import Path
import striate.metrics.detection
if {as_striate}:
    striate.metrics.detection.init_as_pycocotools()
    striate.metrics.detection.init_as_pycocotools()
from pycocotools import mask as maskUtils
import pycocotools.mask as again
assert again is maskUtils
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval, Params
assert ("striate" in COCO.__module__) == {as_striate}
def native(segmentation):  # as a program writes JSON
    counts = segmentation.get("counts") if isinstance(segmentation, dict) else None
    return segmentation | {{"counts": counts.decode()}} if isinstance(counts, bytes) else segmentation
{functions}
for seed in range(2):
    for kind in ("bbox", "segm", "keypoints"):
        gt, rows = with_shapes(seed, kind)
        for row in (*gt["annotations"], *rows):
            if "segmentation" in row:
                row["segmentation"] = native(row["segmentation"])
        paths = [str(p) for p in write(Path({folder!r}), gt, rows)]
        for name, program in programs.items():
            for detr in (False, True):
                print("program", name)
                print(repr(program(kind, copy.deepcopy(gt), copy.deepcopy(rows), paths, detr)))
"""
NOISE = ("loading ", "Loading ", "Done ", "DONE ", "creating ", "index ", "Running ", "Evaluate ", "Accumul")


def printed(as_striate, folder):
    """What each program prints: the tables and all values."""
    functions = ["programs = {}"]
    for name, text in PROGRAMS.items():
        body = text.replace("\n    ", "\n").rstrip()
        functions.append(
            f"def program(kind, gt, rows, paths, detr):{body}\n    return answer\n"
            f"programs[{name!r}] = program"
        )
    text = HEAD.format(
        tests=str(Path(__file__).parent),
        as_striate=as_striate,
        functions="\n".join(functions),
        folder=str(folder),
    )
    done = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    out = {name: [] for name in PROGRAMS}
    for line in done.stdout.splitlines():
        if line.startswith("program "):
            current = out[line.removeprefix("program ")]
        elif not line.startswith(NOISE):
            current.append(line)
    return out


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    folder = tmp_path_factory.mktemp("programs")
    return printed(True, folder), printed(False, folder)


@pytest.mark.parametrize("name", PROGRAMS)
def test_programs_print_the_same_with_striate(name, both):
    ours, theirs = both
    assert len(ours[name]) > 10
    assert ours[name] == theirs[name]


def test_without_pycocotools_boxes_work_and_masks_say_what_to_install():
    program = """
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "pycocotools":
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Absent())
import striate.metrics.detection
striate.metrics.detection.init_as_pycocotools()
import pycocotools.mask
from pycocotools import mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
box = {"image_id": 1, "category_id": 1, "bbox": [0, 0, 9, 9]}
ann = {**box, "id": 1, "area": 81, "iscrowd": 0, "segmentation": []}
images = [{"id": 1, "height": 9, "width": 9}]
truth = COCO({"images": images, "categories": [{"id": 1, "name": "a"}], "annotations": [ann]})
evaluator = COCOeval(truth, truth.loadRes([{**box, "score": 1}]), "bbox")
evaluator.evaluate()
evaluator.accumulate()
evaluator.summarize()
try:
    mask.iou([], [], [])
except Exception as error:
    print(type(error).__name__, error)
try:
    truth.annToMask(truth.anns[1])
except Exception as error:
    print(type(error).__name__, error)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == " Average Precision  (AP) @[ IoU=0.50:0.95 | area=   all | maxDets=100 ] = 1.000"
    assert (
        lines[12:] == ["UsageError masks: pycocotools is not installed. Run pip install 'striate[masks]'"] * 2
    )
