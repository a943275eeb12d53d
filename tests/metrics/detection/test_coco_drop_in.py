"""The surface of pycocotools, against pycocotools: each way into the evaluation, each step and record."""

import contextlib
import copy
import io
import json
import pickle

import numpy as np
import pytest
from coco_oracle import adversarial, assert_same_evaluation, awkward, reference, with_shapes, write
from pycocotools import coco as their_coco
from pycocotools import cocoeval as their_cocoeval

from striate.errors import DataError
from striate.metrics.detection import COCO, COCOeval, kernel
from striate.metrics.detection.coco_eval import Params

needs_native = pytest.mark.skipif(kernel._native is None, reason="the native kernel was not built here")


def theirs():
    return contextlib.redirect_stdout(io.StringIO())


class Ours:
    COCO, COCOeval = COCO, COCOeval


def from_dictionaries(gt, rows, module=None):
    truth = module.COCO() if module else COCO()
    truth.dataset = copy.deepcopy(gt)
    truth.createIndex()
    return truth, truth.loadRes(copy.deepcopy(rows))


def finished(judge, params=None, summarize=True):
    for name, value in (params or {}).items():
        setattr(judge.params, name, value)
    judge.evaluate()
    judge.accumulate()
    if summarize:
        judge.summarize()
    return judge


class InSteps(COCOeval):
    """Takes part in the evaluation, so that it goes step by step."""

    def computeIoU(self, imgId, catId):
        return super().computeIoU(imgId, catId)


def assert_all_ways(seed, folder):
    """From dictionaries, step by step, and boxes also from files: each equal to pycocotools."""
    gt, rows, kind, params = adversarial(seed)
    with np.errstate(all="ignore"):
        other = reference(gt, rows, kind, **params)
        ways = [COCOeval(*from_dictionaries(gt, rows), kind), InSteps(*from_dictionaries(gt, rows), kind)]
        if kind == "bbox":
            paths = write(folder, gt, rows)
            truth = COCO(paths[0])
            ways.append(COCOeval(truth, truth.loadRes(paths[1]), kind))
        for judge in ways:
            finished(judge, params, summarize="areaRng" not in params)
            assert_same_evaluation(judge, other)
            assert list(judge.stats) == list(other.stats)


@pytest.mark.parametrize("block", range(4))
def test_adversarial_cases(block, tmp_path):
    for seed in range(12 * block, 12 * block + 12):
        assert_all_ways(seed, tmp_path)


def test_after_an_overlap_that_is_no_number_any_other_passes(tmp_path):
    assert_all_ways(2934, tmp_path)
    assert_all_ways(3195, tmp_path)


@pytest.mark.parametrize("step", [0, 1, 2**20, 2**31])
def test_scores_that_differ_in_their_last_bits(step):
    """Many detections of one class, whose scores are ordered half a number at a time."""
    rng = np.random.default_rng(step % 97)
    images, side = range(60), [10.0, 10.0]
    corners = rng.integers(0, 30, (len(images), 2))
    box = [[*corner.tolist(), *side] for corner in corners]
    gt = {
        "images": [{"id": i} for i in images],
        "categories": [{"id": 1}],
        "annotations": [
            {"id": i + 1, "image_id": i, "category_id": 1, "bbox": box[i], "area": 100.0, "iscrowd": 0}
            for i in images
        ],
    }
    bits = np.float64(0.5).view(np.int64) + step * rng.integers(0, 50, 900)
    rows = [
        {
            "image_id": i,
            "category_id": 1,
            "bbox": [box[i][0] + shift, box[i][1], *side],
            "score": score,
        }
        for i, shift, score in zip(
            rng.integers(0, len(images), 900).tolist(),
            rng.integers(0, 8, 900).tolist(),
            bits.view(np.float64).tolist(),
            strict=True,
        )
    ]
    judge = COCOeval(*from_dictionaries(gt, rows), "bbox")
    finished(judge, {}, summarize=True)
    assert_same_evaluation(judge, reference(gt, rows, "bbox"))


@pytest.mark.slow
@pytest.mark.parametrize("block", range(100))
def test_ten_thousand_adversarial_cases(block, tmp_path):
    for seed in range(1000 + 100 * block, 1100 + 100 * block):
        assert_all_ways(seed, tmp_path)


FIXTURES = [
    ("bbox", "fce_small/gt_dataset.json", "fce_small/dt_dataset.json"),
    ("segm", "fce_small/gt_dataset.json", "fce_small/dt_dataset.json"),
    ("bbox", "fce_small/gt_ignore_test.json", "fce_small/dt_ignore_test.json"),
    ("keypoints", "fce_small/example_crowdpose_val.json", "fce_small/example_crowdpose_preds.json"),
    ("bbox", "hotcoco_fixtures/gt.json", "hotcoco_fixtures/dt.json"),
    ("bbox", "hotcoco_fixtures/edge_gt.json", "hotcoco_fixtures/edge_dt.json"),
    ("bbox", "hotcoco_fixtures/zero_gt.json", "hotcoco_fixtures/zero_dt.json"),
    ("bbox", "hotcoco_fixtures/healthcheck_bad.json", None),
    ("bbox", "hotcoco_fixtures/healthcheck_quality.json", None),
    ("bbox", "keypoints/fce_gt.json", "keypoints/fce_dt.json"),
    ("keypoints", "keypoints/fce_gt.json", "keypoints/fce_dt.json"),
    ("keypoints", None, "keypoints/person_keypoints_val2014_fakekeypoints100_results.json"),
    (
        "bbox",
        "padilla_toy/gts_coco_format/toy_example_coco.JSON",
        "padilla_toy/dets_coco_format/coco_dets.json",
    ),
    *(
        ("bbox", f"{folder}/{truth}", f"{folder}/dets/coco_format/coco_dets.json")
        for folder, truth in (
            ("padilla_formats", "coco_format_v1/instances_default.json"),
            ("padilla_formats", "coco_format_v2/instances_v2.json"),
            ("voc_100/data/database", "gts/coco_format_v1/instances_default.json"),
        )
    ),
]


def paired(truth, found):
    """A pair of fixtures; what a fixture does not have is made from the other one."""
    if found is None:  # the ground truth, moved a little
        known = {image["id"] for image in truth["images"]}
        found = [
            {
                "image_id": a["image_id"],
                "category_id": a["category_id"],
                "bbox": [v + i for v in a["bbox"]],
                "score": i,
            }
            for i, a in enumerate(truth["annotations"])
            if a["image_id"] in known
        ]
    if truth is None:  # every third detection, moved a little
        anns = []
        for i, row in enumerate(found[::3], 1):
            points = [v + (j % 3 < 2) * (i % 5) for j, v in enumerate(row["keypoints"])]
            box = [min(points[0::3]), min(points[1::3]), 90, 120]
            ann = {"id": i, "keypoints": points, "num_keypoints": 17, "bbox": box, "area": 9000, "iscrowd": 0}
            anns.append({"image_id": row["image_id"], "category_id": 1} | ann)
        images = [{"id": i} for i in sorted({row["image_id"] for row in found})]
        truth = {"images": images, "annotations": anns, "categories": [{"id": 1, "name": "person"}]}
    if isinstance(truth["images"][0]["id"], str):  # and the results have the number
        found = [row | {"image_id": str(row["image_id"])} for row in found]
    for ann in truth["annotations"]:
        ann.setdefault("area", ann["bbox"][2] * ann["bbox"][3])  # CrowdPose has none
    return truth, found


@pytest.mark.parametrize(("kind", "truth", "found"), FIXTURES)
def test_fixtures_of_other_projects(kind, truth, found, shared, tmp_path):
    folder = shared / "data/detection"
    gt, rows = paired(*(name and json.loads((folder / name).read_text()) for name in (truth, found)))
    paths = write(tmp_path, gt, rows)
    params = {"kpt_oks_sigmas": np.full(14, 0.07)} if "crowdpose" in str(truth) else {}
    judges = []
    for module, evaluators in ((their_coco, (their_cocoeval.COCOeval,)), (Ours, (COCOeval, InSteps))):
        for evaluator in evaluators:
            with theirs():
                data = module.COCO(str(paths[0]))
                # Padilla's detections are a whole data set, with ids and areas of their own.
                results = (
                    data.loadRes(str(paths[1])) if isinstance(rows, list) else module.COCO(str(paths[1]))
                )
                judges.append(finished(evaluator(data, results, kind), params))
    for judge in judges[1:]:
        assert_same_evaluation(judge, judges[0])
        assert list(judge.stats) == list(judges[0].stats)


# ---- files, and the dictionaries that are built later


@needs_native
def test_an_evaluation_of_files_builds_no_dictionaries(tmp_path):
    gt, rows = awkward(3)
    paths = write(tmp_path, gt, rows)
    truth = COCO(annotation_file=paths[0])
    found = truth.loadRes(resFile=str(paths[1]))
    finished(COCOeval(cocoGt=truth, cocoDt=found, iouType="bbox"))
    for data in (truth, found):
        assert data.columns is not None
        assert not data.__dict__.keys() & {"dataset", "anns", "imgToAnns", "catToImgs", "imgs"}


@pytest.mark.parametrize("first", ["dataset", "anns", "imgs", "cats", "imgToAnns", "catToImgs"])
def test_the_dictionaries_are_those_of_pycocotools(first, tmp_path):
    gt, rows = awkward(11)
    paths = write(tmp_path, gt | {"info": {"year": 2017}}, rows)
    with theirs():
        other = their_coco.COCO(str(paths[0]))
        other_found = other.loadRes(str(paths[1]))
    mine = COCO(paths[0])
    found = mine.loadRes(paths[1])
    for path in paths:
        path.unlink()  # what was read stays readable
    for a, b in ((found, other_found), (mine, other)):
        for name in (first, "dataset", "anns", "imgs", "cats", "imgToAnns", "catToImgs"):
            assert repr(getattr(a, name)) == repr(getattr(b, name)), name  # NaN equals itself
        image = next(iter(a.imgs))
        assert a.imgs[image] is next(row for row in a.dataset["images"] if row["id"] == image)


def test_changes_of_the_dictionaries_count(tmp_path):
    gt, rows = awkward(20)
    paths = write(tmp_path, gt, rows)
    with theirs():
        other = their_coco.COCO(str(paths[0]))
        other_found = other.loadRes(str(paths[1]))
    mine = COCO(paths[0])
    found = mine.loadRes(paths[1])
    for data, results in ((mine, found), (other, other_found)):
        for ann in data.anns.values():
            ann["iscrowd"] = 1 - ann["iscrowd"]
        for ann in results.dataset["annotations"][::2]:
            ann["score"] = 0.3
    with theirs():
        assert_same_evaluation(
            finished(COCOeval(mine, found, "bbox")),
            finished(their_cocoeval.COCOeval(other, other_found, "bbox")),
        )


def test_results_keep_the_data_set_as_it_was(tmp_path):
    gt, rows = awkward(20)
    paths = write(tmp_path, gt, rows)
    mine = COCO(paths[0])
    found = mine.loadRes(paths[1])
    mine.dataset["images"].clear()
    mine.dataset["categories"][0]["name"] = "changed"
    assert found.dataset["images"] == gt["images"]
    assert found.dataset["categories"] == gt["categories"]


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda data: pickle.loads(pickle.dumps(data))])
def test_copies_and_pickles(duplicate, tmp_path):
    gt, rows = awkward(21)
    paths = write(tmp_path, gt, rows)
    mine = COCO(paths[0])
    judge = finished(COCOeval(mine, mine.loadRes(paths[1]), "bbox"))
    again = duplicate(judge)
    assert_same_evaluation(again, judge)
    assert again.cocoGt.dataset == mine.dataset


def test_a_subclass_may_index_more(tmp_path):
    class Named(COCO):
        def createIndex(self):
            super().createIndex()
            self.by_name = {row["name"]: row for row in self.dataset["categories"]}

    gt, rows = awkward(2)
    paths = write(tmp_path, gt, rows)
    assert Named(paths[0]).by_name.keys() == {row["name"] for row in gt["categories"]}


# ---- the index


def test_empty_data_sets_have_an_empty_index():
    mine, other = COCO(), their_coco.COCO()
    for name in ("dataset", "anns", "imgs", "cats", "imgToAnns", "catToImgs"):
        assert getattr(mine, name) == getattr(other, name)
    assert mine.imgToAnns[5] == []
    assert mine.getImgIds() == []
    assert not hasattr(mine, "nothing")


def test_captions_are_indexed_and_shown(tmp_path, capsys):
    gt = {
        "info": {"year": 2014},
        "images": [{"id": i} for i in (1, 2, 3)],
        "annotations": [{"id": i, "image_id": i % 3 + 1, "caption": f"caption {i}"} for i in range(4)],
    }
    rows = [{"image_id": 3, "caption": "a found one"}, {"image_id": 1, "caption": "another", "bbox": []}]
    paths = write(tmp_path, gt, rows)
    mine, other = COCO(paths[0]), their_coco.COCO(str(paths[0]))
    found, other_found = mine.loadRes(paths[1]), other.loadRes(str(paths[1]))
    assert found.dataset == other_found.dataset
    assert mine.imgToAnns == other.imgToAnns
    capsys.readouterr()
    outputs = []
    for data, results in ((mine, found), (other, other_found)):
        data.info()
        data.showAnns(data.loadAnns(data.getAnnIds(1)))
        results.showAnns(results.loadAnns(results.getAnnIds()))
        outputs.append(capsys.readouterr().out)
    assert outputs[0] == outputs[1] != ""


def test_arrays_of_results():
    gt, _ = awkward(11)
    ids = [image["id"] for image in gt["images"]]
    values = np.random.default_rng(0).random((9, 7)) * 30
    values[:, 0] = np.resize(ids, 9)
    mine = from_dictionaries(gt, values)[1]
    with theirs():
        other = from_dictionaries(gt, values, their_coco)[1]
        assert mine.loadNumpyAnnotations(values) == other.loadNumpyAnnotations(values)
    assert mine.dataset == other.dataset
    with pytest.raises(DataError, match=r"results of shape \(9, 6\)"):
        mine.loadNumpyAnnotations(values[:, :6])


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # in pycocotools' decode
@pytest.mark.parametrize("kind", ["segm", "keypoints"])
@pytest.mark.parametrize("draw_bbox", [False, True])
def test_what_is_drawn(kind, draw_bbox):
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    gt, _ = with_shapes(7, kind)
    for category in gt["categories"]:
        category["skeleton"] = [[1, 2], [2, 3], [16, 17]]
    drawn = []
    for module in (None, their_coco):
        with theirs():
            data = module.COCO() if module else COCO()
            data.dataset = copy.deepcopy(gt)
            data.createIndex()
        plt.figure()
        data.showAnns(list(data.anns.values()), draw_bbox=draw_bbox)
        axes = plt.gca()
        paths = [[p.vertices.tolist() for p in c.get_paths()] for c in axes.collections]
        lines = [line.get_xydata().tolist() for line in axes.lines]
        masks = [np.asarray(image.get_array())[..., -1].tolist() for image in axes.images]
        drawn.append((paths, lines, masks))
        plt.close()
    assert drawn[0] == drawn[1]
    assert any(drawn[0])


# ---- the evaluator


@pytest.mark.parametrize("kind", ["bbox", "segm", "keypoints"])
def test_params(kind):
    mine, other = Params(kind), their_cocoeval.Params(kind)
    assert mine.__dict__.keys() == other.__dict__.keys()
    for name, value in other.__dict__.items():
        np.testing.assert_array_equal(getattr(mine, name), value)
    if kind != "keypoints":
        mine.setKpParams()
        mine.setDetParams()
        assert mine.maxDets == other.maxDets
        mine.useSegm = int(kind == "segm")
        gt, rows = with_shapes(5, "segm")
        judge = COCOeval(*from_dictionaries(gt, rows), "bbox")
        judge.params.useSegm = mine.useSegm
        judge.evaluate()
        assert judge.params.iouType == kind


@pytest.mark.parametrize("kind", ["bbox", "segm", "keypoints"])
@pytest.mark.parametrize("seed", range(8))
def test_accumulate_for_other_parameters(kind, seed):
    """pycocotools finds classes by their position among those asked for, not by their id: so do we."""
    gt, rows = with_shapes(seed, kind)
    rng = np.random.default_rng(seed)
    mine = COCOeval(*from_dictionaries(gt, rows), kind)
    with theirs():
        other = their_cocoeval.COCOeval(*from_dictionaries(gt, rows, their_coco), kind)
        for judge in (mine, other):
            judge.evaluate()
        p = copy.deepcopy(other.params)
        p.catIds = [*p.catIds[: rng.integers(1, 4)], 97]
        p.imgIds = p.imgIds[: rng.integers(0, 4)]
        p.areaRng = p.areaRng[: rng.integers(1, 4)]
        p.maxDets = [*p.maxDets[:2], 7]
        p.recThrs = np.array([0.0, 0.4, 0.9])
        for judge in (mine, other):
            judge.accumulate(p)
    assert mine.eval["params"] is p
    for name in ("precision", "recall", "scores"):
        np.testing.assert_array_equal(mine.eval[name], other.eval[name])


@pytest.mark.parametrize("kind", ["bbox", "segm", "keypoints"])
def test_records_that_a_program_sets_or_changes_are_accumulated(kind):
    gt, rows = with_shapes(31, kind)
    mine = COCOeval(*from_dictionaries(gt, rows), kind)
    with theirs():
        other = their_cocoeval.COCOeval(*from_dictionaries(gt, rows, their_coco), kind)
        for judge in (mine, other):
            judge.evaluate()
            judge.evalImgs = [None if i % 3 == 0 else record for i, record in enumerate(judge.evalImgs)]
            judge.accumulate()
            judge.summarize()
        assert_same_evaluation(mine, other)
        for judge in (mine, other):
            judge.evaluate()
            for record in judge.evalImgs:
                if record:
                    record["dtMatches"][:] = 1
            judge.accumulate()
        assert_same_evaluation(mine, other)


def overriding(module):
    """A subclass that changes each step a little."""

    class Judge(module.COCOeval):
        def computeIoU(self, imgId, catId):
            overlaps = super().computeIoU(imgId, catId)
            return overlaps * 0.9 if len(overlaps) else overlaps

        def computeOks(self, imgId, catId):
            overlaps = super().computeOks(imgId, catId)
            return overlaps * 0.9 if len(overlaps) else overlaps

        def evaluateImg(self, imgId, catId, aRng, maxDet):
            record = super().evaluateImg(imgId, catId, aRng, maxDet)
            if record and catId % 2:
                record["dtIgnore"][:, :1] = True
            return record

    return Judge


@pytest.mark.parametrize("kind", ["bbox", "segm", "keypoints"])
@pytest.mark.parametrize("use_cats", [1, 0])
def test_subclasses_that_override_the_steps(kind, use_cats):
    for seed in range(4):
        gt, rows = with_shapes(seed, kind)
        with theirs():
            mine, other = (
                finished(overriding(m)(*from_dictionaries(gt, rows, c), kind), {"useCats": use_cats})
                for m, c in ((Ours, Ours), (their_cocoeval, their_coco))
            )
        assert_same_evaluation(mine, other)


@pytest.mark.parametrize("kind", ["bbox", "segm", "keypoints"])
def test_groups_and_single_steps_after_an_evaluation(kind):
    gt, rows = with_shapes(8, kind)
    mine = COCOeval(*from_dictionaries(gt, rows), kind)
    with theirs():
        other = their_cocoeval.COCOeval(*from_dictionaries(gt, rows, their_coco), kind)
        for judge in (mine, other):
            judge.evaluate()
    p = other.params
    for name in ("_gts", "_dts"):
        a, b = getattr(mine, name), getattr(other, name)
        assert {k: [r["id"] for r in v] for k, v in a.items()} == {
            k: [r["id"] for r in v] for k, v in b.items() if v
        }
    for image in p.imgIds:
        for category in p.catIds:
            compute = "computeOks" if kind == "keypoints" else "computeIoU"
            np.testing.assert_array_equal(*(getattr(j, compute)(image, category) for j in (mine, other)))
            a, b = (j.evaluateImg(image, category, p.areaRng[0], p.maxDets[0]) for j in (mine, other))
            assert (a is None) == (b is None)
            for key in b or ():
                np.testing.assert_array_equal(a[key], b[key])
    assert mine._paramsEval.maxDets == other._paramsEval.maxDets


@needs_native
def test_no_record_of_five_thousand_images_takes_long(tmp_path):
    """evalImgs was quadratic: linear time is 20 times as much for 20 times as many images, not 400 times."""
    from time import process_time

    seconds = []
    for images in (250, 5000):
        rng = np.random.default_rng(0)
        boxes = (
            np.c_[rng.random((images * 2, 2)) * 500, rng.random((images * 2, 2)) * 99 + 1].round(1).tolist()
        )
        rows = [
            {"image_id": i // 2, "category_id": i % 5, "bbox": box, "score": round(i % 97 / 97, 3)}
            for i, box in enumerate(boxes)
        ]
        gt = {
            "images": [{"id": i} for i in range(images)],
            "categories": [{"id": i, "name": str(i)} for i in range(5)],
            "annotations": [
                {**r, "id": i, "area": r["bbox"][2] * r["bbox"][3], "iscrowd": 0}
                for i, r in enumerate(rows, 1)
            ],
        }
        paths = write(tmp_path, gt, rows)
        truth = COCO(paths[0])
        judge = finished(COCOeval(truth, truth.loadRes(paths[1]), "bbox"))
        start = process_time()
        assert len(judge.evalImgs) == images * 5 * 4
        seconds.append(process_time() - start)
    assert seconds[1] < 60 * seconds[0] + 0.2


def test_json_of_results_is_checked_before_the_images(tmp_path):
    gt, rows = awkward(2)
    paths = write(tmp_path, gt, [*rows, {**rows[0], "image_id": 1234}])
    with pytest.raises(DataError, match="image 1234 of the results"):
        COCO(paths[0]).loadRes(paths[1])
    paths[1].write_text(json.dumps({"annotations": rows}))
    with pytest.raises(DataError, match="not an array"):
        COCO(paths[0]).loadRes(paths[1])
    paths[1].write_text("[")
    with pytest.raises(DataError, match=r"cannot read .*dt\.json"):
        COCO(paths[0]).loadRes(paths[1])
