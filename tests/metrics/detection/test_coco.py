"""COCO's numbers against pycocotools 2.0.11, bit for bit, for the native kernel and for NumPy's."""

import json
import pickle
from dataclasses import replace
from unittest import mock

import numpy as np
import pytest
from coco_oracle import awkward, reference, write
from pycocotools import mask
from pycocotools.cocoeval import Params

from striate.errors import DataError, UsageError
from striate.metrics.detection import (
    CocoSettings,
    detections,
    evaluate,
    evaluate_coco,
    ground_truth,
    kernel,
    read_detections,
    read_detections_with,
    read_ground_truth,
    read_ground_truth_with,
)
from striate.metrics.detection.records import take_rows
from striate.metrics.detection.voc import evaluate_voc


@pytest.fixture(params=["native", "numpy"])
def version(request, monkeypatch):
    """Both versions of the kernel, where there are two."""
    if request.param == "native" and kernel._native is None:
        pytest.skip("the native kernel was not built here")
    if request.param == "numpy":
        monkeypatch.setattr(kernel, "_native", None)
    return request.param


def assert_same_bits(ours, theirs):
    for name in ("precision", "recall", "scores"):
        np.testing.assert_array_equal(getattr(ours, name), theirs.eval[name], err_msg=name)
    if len(theirs.stats):
        assert ours.stats.tolist() == list(theirs.stats)
        for k, row in enumerate(ours.per_class()):
            values = {
                "ap": theirs.eval["precision"][:, :, k, 0, -1],
                "ar": theirs.eval["recall"][:, k, 0, -1],
            }
            for name, value in values.items():
                kept = value[value > -1]
                assert row[name] == (float(np.mean(kept)) if kept.size else None)


@pytest.mark.parametrize(
    "block", [*range(5), *(pytest.param(n, marks=pytest.mark.slow) for n in range(5, 12))]
)
def test_awkward_cases(block, version, tmp_path):
    for seed in range(block * 100, block * 100 + (100 if version == "native" else 40)):
        gt, rows = awkward(seed)
        ours = evaluate(*write(tmp_path, gt, rows), threads=1 + seed % 2)
        assert_same_bits(ours, reference(gt, rows))


@pytest.mark.parametrize("seed", range(3000, 3060))
def test_other_parameters(seed, version, tmp_path):
    gt, rows = awkward(seed)
    rng = np.random.default_rng(seed)
    thresholds = np.sort(rng.random(rng.choice([1, 3, 40]))) * 1.2 - 0.1
    recalls = rng.random(5) * 1.2 - 0.1
    limits = sorted(rng.integers(0, 8, 3).tolist())
    areas = {"all": (0.0, 1e10), "some": (3.0, 1024.0)}
    ours = evaluate(
        *write(tmp_path, gt, rows),
        thresholds=tuple(thresholds),
        recalls=tuple(recalls),
        limits=tuple(limits),
        areas=areas,
        use_categories=bool(seed % 3),
    )
    theirs = reference(
        gt,
        rows,
        iouThrs=thresholds,
        recThrs=recalls,
        maxDets=limits,
        areaRng=[list(a) for a in areas.values()],
        useCats=int(bool(seed % 3)),
    )
    assert_same_bits(ours, theirs)


@pytest.mark.parametrize("seed", range(4000, 4040))
def test_who_matched_whom(seed, version, tmp_path):
    gt, rows = awkward(seed)
    paths = write(tmp_path, gt, rows)
    truth = read_ground_truth(paths[0])
    if len(np.unique(truth.id)) < len(truth):
        pytest.skip("rows are rearranged where ids repeat")
    ours = evaluate_coco(truth, read_detections(paths[1], truth), matches=True).matches
    ranges = {tuple(r): a for a, r in enumerate(CocoSettings().areas.values())}
    place = {a["id"]: i for i, a in enumerate(gt["annotations"])}
    for e in reference(gt, rows).evalImgs:
        if e is None:
            continue
        a = ranges[tuple(e["aRng"])]
        found, truths = np.array(e["dtIds"], int) - 1, [place[i] for i in e["gtIds"]]
        ids = np.where(
            ours.truth_of[a][:, found] < 0, 0, truth.id[ours.truth_of[a][:, found]] if len(truth) else 0
        )
        np.testing.assert_array_equal(ids, e["dtMatches"])
        np.testing.assert_array_equal(ours.ignored[a][:, found], e["dtIgnore"])
        np.testing.assert_array_equal(ours.detection_of[a][:, truths] + 1, e["gtMatches"])
        np.testing.assert_array_equal(ours.rank[found], np.arange(found.size))


def test_a_perfect_detector_scores_one(version):
    box = [[0, 0, 50, 50], [100, 100, 40, 40]]
    truth = ground_truth([1, 2], [1, 2], box)
    result = evaluate_coco(truth, detections([1, 2], [1, 2], box, [0.9, 0.8], truth=truth))
    assert result.stats[[0, 1, 2, 4, 8]] == pytest.approx(1, abs=1e-12)
    assert result.stats[[3, 5]].tolist() == [-1, -1]  # no small and no large objects


def test_corrected_mode_matches_ground_truth_of_id_0(version):
    truth = ground_truth([1], [1], [[0, 0, 50, 50]], id=[0])
    found = detections([1], [1], [[0, 0, 50, 50]], [0.9], truth=truth)
    strict = evaluate_coco(truth, found)
    assert strict.stats[0] == 0
    assert "1 ground truths have id 0" in strict.notes[-1]
    assert evaluate_coco(truth, found, CocoSettings(mode="corrected")).stats[0] == pytest.approx(1)


def test_corrected_mode_keeps_annotations_that_share_an_id(version):
    box = [[0, 0, 50, 50], [100, 100, 40, 40]]
    truth = ground_truth([1, 1], [1, 1], box, id=[5, 5])
    found = detections([1, 1], [1, 1], box, [0.9, 0.8], truth=truth)
    assert evaluate_coco(truth, found).stats[8] == 0.5
    assert evaluate_coco(truth, found, CocoSettings(mode="corrected")).stats[8] == 1


def test_scores_that_are_no_numbers_are_refused_or_reported():
    """The strict mode ranks NaN last, as pycocotools does."""
    truth = ground_truth([1], [1], [[0, 0, 5, 5]])
    found = detections([1, 1], [1, 1], [[0, 0, 5, 5]] * 2, [np.nan, np.inf], truth=truth)
    with pytest.raises(DataError, match="detection 0: its score is not a number"):
        evaluate_coco(truth, found, CocoSettings(mode="corrected"))
    with pytest.raises(DataError, match="detection 0: its score is not a number"):
        evaluate_voc(truth, found)
    assert "2 of 2 detections have a score that is NaN or infinite" in evaluate_coco(truth, found).notes


def test_no_detections_at_all():
    truth = ground_truth([1], [1], [[0, 0, 50, 50]])
    result = evaluate_coco(truth, detections([], [], [], [], truth=truth))
    assert result.stats[[0, 8]].tolist() == [0, 0]


def test_unknown_image_is_refused_and_unknown_class_said():
    truth = ground_truth([1], [1], [[0, 0, 5, 5]])
    with pytest.raises(DataError, match=r"image 2 of .*no image of that id"):
        detections([2], [1], [[0, 0, 5, 5]], [0.5], truth=truth)
    found = detections([1, 1], [1, 7], [[0, 0, 5, 5]] * 2, [0.5, 0.4], truth=truth)
    assert found.notes == ("1 detections of classes that the ground truth does not have (7) were dropped",)


def test_settings_are_checked():
    with pytest.raises(UsageError, match="limits"):
        CocoSettings(limits=(10, 1))
    with pytest.raises(UsageError, match="mode 'loose'"):
        CocoSettings(mode="loose")


PAIRS = [
    ("fce_small/gt_dataset.json", "fce_small/dt_dataset.json"),
    ("hotcoco_fixtures/gt.json", "hotcoco_fixtures/dt.json"),
    ("hotcoco_fixtures/edge_gt.json", "hotcoco_fixtures/edge_dt.json"),
    ("hotcoco_fixtures/zero_gt.json", "hotcoco_fixtures/zero_dt.json"),
    ("hotcoco_fixtures/healthcheck_bad.json", "hotcoco_fixtures/dt.json"),
    ("keypoints/fce_gt.json", "keypoints/fce_dt.json"),
    ("padilla_toy/gts_coco_format/toy_example_coco.JSON", "padilla_toy/dets_coco_format/coco_dets.json"),
    (
        "padilla_formats/coco_format_v1/instances_default.json",
        "padilla_formats/dets/coco_format/coco_dets.json",
    ),
    (
        "voc_100/data/database/gts/coco_format_v1/instances_default.json",
        "voc_100/data/database/dets/coco_format/coco_dets.json",
    ),
]


@pytest.mark.parametrize("pair", PAIRS, ids=lambda p: p[0])
def test_real_pairs(pair, shared, version, tmp_path):
    gt, found = (json.loads((shared / "data/detection" / name).read_text()) for name in pair)
    rows = found if isinstance(found, list) else found["annotations"]
    known = {image["id"] for image in gt["images"]}
    rows = [row for row in rows if row["image_id"] in known]  # pycocotools refuses the others, and so do we
    assert_same_bits(evaluate(*write(tmp_path, gt, rows)), reference(gt, rows))


def test_a_pair_whose_ids_are_text_on_one_side(shared, version, tmp_path):
    gt, rows = (
        json.loads((shared / "data/detection/fce_small" / name).read_text())
        for name in ("gt_ignore_test.json", "dt_ignore_test.json")
    )
    with pytest.raises(DataError, match=r"image 2299 of .*no image of that id"):  # as pycocotools does
        evaluate(*write(tmp_path, gt, rows))
    for row in (*gt["images"], *gt["annotations"]):
        row["id"] = int(row["id"])
        row["image_id"] = int(row.get("image_id", 0))
    assert_same_bits(evaluate(*write(tmp_path, gt, rows)), reference(gt, rows))


@pytest.mark.parametrize("text_on", ["images", "classes"])
def test_text_ids(text_on, version, tmp_path):
    gt, rows = awkward(7)
    key, table = ("image_id", "images") if text_on == "images" else ("category_id", "categories")
    for row in gt[table]:
        row["id"] = f"{row['id']:04d}"
    for row in (*gt["annotations"], *rows):
        row[key] = f"{row[key]:04d}"
    assert_same_bits(evaluate(*write(tmp_path, gt, rows)), reference(gt, rows))


@pytest.mark.skipif(kernel._native is None, reason="the native kernel was not built here")
def test_every_recall_level_at_every_number_of_objects(monkeypatch):
    """Whether i of n objects reach a level depends on the last bit of i / n."""
    levels = (
        CocoSettings().recalls + tuple(i * 0.1 for i in range(11)) + tuple(1 - i * 0.01 for i in range(101))
    )
    settings = CocoSettings(recalls=tuple(sorted(levels)), thresholds=(0.5,))
    for n in range(1, 400):
        box = np.c_[np.arange(n) * 20.0, np.zeros(n), np.full((n, 2), 9.0)]
        truth = ground_truth([1] * n, [1] * n, box)
        # Scores tell which hit reached the level.
        found = detections([1] * n, [1] * n, box, 1 / np.arange(1, n + 1), truth=truth)
        settings = replace(settings, limits=(n, n, n))
        native = evaluate_coco(truth, found, settings, threads=1).scores[0, :, 0, 0, 0]
        reached = np.searchsorted(np.arange(1, n + 1) / n, settings.recalls, side="left")
        np.testing.assert_array_equal(native, np.append(found.score, 0)[reached], err_msg=str(n))


@pytest.mark.parametrize(
    ("limits", "curves"),
    [((1, 10, 100), 1), ((1, 10, 50), 1), ((1, 100, 500), 2), ((1, 100, 100), 2), ((0, 1), 1), ((3,), 1)],
)
def test_deferred_curves_are_those_of_pycocotools(limits, curves, version, tmp_path):
    """What `stats` does not use is computed when somebody asks, also for a copy and after pickling."""
    for seed in range(6):
        gt, rows = awkward(seed)
        paths = write(tmp_path, gt, rows)
        truth = read_ground_truth(paths[0])
        found = read_detections(paths[1], truth)
        now = evaluate_coco(truth, found, CocoSettings(limits=limits))
        later = evaluate_coco(truth, found, CocoSettings(limits=limits), defer=True)
        theirs = reference(gt, rows, maxDets=[*limits, *limits[-1:] * 2][: max(3, len(limits))])
        assert later.curves.scores is None
        assert later.curves.precision.shape[-1] == curves
        for result in (later, pickle.loads(pickle.dumps(later))):
            assert result.stats.tolist() == now.stats.tolist()
            assert result.per_class() == now.per_class()
            assert result.by_area() == now.by_area()
            assert result.lines() == now.lines()
            for name in ("precision", "recall", "scores"):
                np.testing.assert_array_equal(getattr(result, name), theirs.eval[name][..., : len(limits)])
            for limit in {*limits, 7}:
                assert result.mean_precision(0.5, "all", limit) == now.mean_precision(0.5, "all", limit)


@pytest.mark.parametrize("limits", [(1, 10, 50), (2, 100, 100), (100, 100, 100)])
def test_the_twelve_numbers_at_other_limits(limits, tmp_path):
    for seed in range(20):
        gt, rows = awkward(seed)
        ours = evaluate(*write(tmp_path, gt, rows), limits=limits)
        theirs = reference(gt, rows, maxDets=list(limits))
        expected = list(theirs.stats)
        if 100 not in limits:  # pycocotools leaves AP at -1
            at_last = theirs.eval["precision"][:, :, :, 0, 2]
            expected[0] = np.mean(at_last[at_last > -1]) if (at_last > -1).any() else -1
        assert ours.stats.tolist() == expected


@pytest.mark.parametrize(
    ("limits", "names"),
    [
        ((300,), ("AR1", "AR10", "AR300")),
        ((1, 50), ("AR1", "AR10", "AR50")),
        ((5, 50), ("AR1", "AR5", "AR50")),
        ((100,), ("AR1", "AR10", "AR100")),
        ((1, 10, 100, 1000), ("AR1", "AR10", "AR100")),
    ],
)
def test_every_number_that_the_limits_can_fill(limits, names, tmp_path):
    gt, rows = awkward(11)
    ours = evaluate(*write(tmp_path, gt, rows), limits=limits)
    assert tuple(ours.stat_names[6:9]) == names
    for i, (name, limit) in enumerate(zip(names, (1, 10, None), strict=True)):
        at = int(name[2:])
        if at in limits:  # pycocotools at these limits alone
            theirs = reference(gt, rows, maxDets=[0, 0, at])
            assert ours.stats[6 + i] == theirs.stats[8]
            if limit is None:
                assert ours.stats[[1, 2, 3, 4, 5, 9, 10, 11]].tolist() == list(
                    theirs.stats[[1, 2, 3, 4, 5, 9, 10, 11]]
                )
        else:
            assert ours.stats[6 + i] == -1
    assert ours.stats[0] > 0


def test_a_threshold_that_misses_0_5_by_a_rounding_is_still_ap50(tmp_path):
    gt, rows = awkward(11)
    thresholds = (0.3, np.nextafter(0.5, 1), 0.7)
    ours = evaluate(*write(tmp_path, gt, rows), thresholds=thresholds)
    assert ours.stats[1] == pytest.approx(reference(gt, rows).stats[1])
    assert ours.stats[2] == -1
    assert any(row["ap50"] is not None for row in ours.per_class())


def test_other_area_ranges_are_shown_after_the_twelve(tmp_path):
    gt, rows = awkward(11)
    areas = {"all": (0, 1e10), "tiny": (0, 2000), "small": (0, 1024)}
    ours = evaluate(*write(tmp_path, gt, rows), areas=areas)
    theirs = reference(gt, rows, areaRng=[list(r) for r in areas.values()], areaRngLbl=list(areas))
    tiny = theirs.eval["precision"][:, :, :, 1, 2]
    assert [row["area"] for row in ours.by_area()] == ["all", "tiny", "small"]
    assert ours.by_area()[1]["ap"] == np.mean(tiny[tiny > -1])
    assert len(ours.lines()) == 14
    assert "area=  tiny" in ours.lines()[12]
    assert ours.stats[3] == ours.by_area()[2]["ap"]
    assert ours.stats[4] == -1


def test_corrected_mode_without_classes(version):
    """Where ids are in order and scores are numbers, the modes agree; rows of unknown classes fall out."""
    truth = ground_truth([1, 1, 1], [1, 2, 9], [[0, 0, 50, 50]] * 3, categories={1: "a", 2: "b"})
    found = detections([1, 1], [2, 9], [[0, 0, 50, 50]] * 2, [0.9, 0.8], truth=truth)
    for mode in ("strict", "corrected"):
        result = evaluate_coco(truth, found, CocoSettings(mode=mode, use_categories=False))
        assert result.stats[8] == 0.5


def with_masks(gt, rows, seed):
    """The awkward case with polygons, and for some seeds compressed run lengths without boxes."""
    for image in gt["images"]:
        image.update(height=320, width=320)
    rows = [row for row in rows if np.isfinite(row["bbox"]).all() and max(row["bbox"]) < 1e5]
    for row in (*gt["annotations"], *rows):
        x, y, w, h = row["bbox"]
        row["segmentation"] = [[x, y, x + w, y, x + w, y + h, x + w / 2, y + h / 2, x, y + h]]
    if seed % 2:
        for row in rows:
            row["segmentation"] = mask.merge(mask.frPyObjects(row["segmentation"], 320, 320))
            row["segmentation"]["counts"] = row["segmentation"]["counts"].decode()
            del row["bbox"]
    return gt, rows


@pytest.mark.parametrize("seed", [s for s in range(40) if s != 13])  # pycocotools fails on 13
def test_masks(seed, version, tmp_path):
    gt, rows = with_masks(*awkward(seed), seed)
    if rows:
        assert_same_bits(evaluate(*write(tmp_path, gt, rows), iou_type="segm"), reference(gt, rows, "segm"))


@pytest.mark.filterwarnings("ignore:__array__")  # of pycocotools
def test_masks_as_arrays_are_those_of_the_files(tmp_path):
    gt, rows = with_masks(*awkward(11), 1)
    truth = read_ground_truth_with(write(tmp_path, gt, rows)[0], "segm")
    found = read_detections_with(tmp_path / "dt.json", truth, "segm")
    truth = take_rows(truth, np.flatnonzero(truth.image >= 0))  # the others have no size
    expected = evaluate(truth, found, iou_type="segm")
    pixels = [mask.decode(side.masks.tolist()).transpose(2, 0, 1) for side in (truth, found)]
    again = ground_truth(
        truth.image, truth.category, masks=pixels[0], area=truth.area, crowd=truth.crowd, id=truth.id,
        image_ids=range(truth.image_ids.size), categories=dict(enumerate(truth.category_names)),
    )  # fmt: skip
    arrays = detections(found.image, found.category, None, found.score, masks=pixels[1] > 0, truth=again)
    np.testing.assert_array_equal(arrays.area, found.area)
    np.testing.assert_array_equal(arrays.box, found.box)
    result = evaluate_coco(again, arrays, CocoSettings(iou_type="segm"))
    np.testing.assert_array_equal(result.precision, expected.precision)


def awkward_keypoints(seed, points=17):
    rng = np.random.default_rng(seed)

    def row(image):
        keypoints = np.round(rng.random((points, 3)) * [200, 200, 2.99])
        keypoints[:, 2] *= rng.random() < 0.8
        return {"image_id": int(image), "category_id": 1, "keypoints": keypoints.ravel().tolist()}

    truths = [row(i) for i in rng.integers(0, 3, rng.integers(1, 9))]
    for i, truth in enumerate(truths):
        seen = int((np.array(truth["keypoints"][2::3]) > 0).sum())
        box = [*(rng.random(2) * 50), *(rng.random(2) * 150 + 9)]
        truth.update(id=i + 1, bbox=box, num_keypoints=seen, iscrowd=int(rng.random() < 0.1))
        truth["area"] = float(rng.choice([box[2] * box[3], 1024, 9216]))
    rows = []
    for truth in truths * 8:
        moved = np.array(truth["keypoints"]) + rng.normal(0, rng.choice([0, 1, 8, 30]), 3 * points)
        rows.append(row(truth["image_id"]) | {"keypoints": moved.tolist(), "score": round(rng.random(), 1)})
    categories = [{"id": 1, "name": "person"}]
    return {"images": [{"id": i} for i in range(4)], "annotations": truths, "categories": categories}, rows


@pytest.mark.parametrize("seed", range(25))
def test_key_points(seed, version, tmp_path):
    gt, rows = awkward_keypoints(seed)
    ours = evaluate(*write(tmp_path, gt, rows), iou_type="keypoints")
    theirs = reference(gt, rows, "keypoints")
    assert_same_bits(ours, theirs)
    assert ours.stat_names == ["AP", "AP50", "AP75", "APm", "APl", "AR", "AR50", "AR75", "ARm", "ARl"]


def test_sigmas_of_another_skeleton(tmp_path):
    gt, rows = awkward_keypoints(3, points=5)
    sigmas = (0.02, 0.03, 0.05, 0.1, 0.2)
    ours = evaluate(*write(tmp_path, gt, rows), iou_type="keypoints", sigmas=sigmas, limits=(30,))

    def factory(**settings):
        params = Params(**settings)
        params.kpt_oks_sigmas = np.array(sigmas)
        return params

    with mock.patch("pycocotools.cocoeval.Params", factory):
        assert_same_bits(
            ours, reference(gt, rows, "keypoints", maxDets=[30], areaRng=Params("keypoints").areaRng)
        )
    with pytest.raises(DataError, match="5 key points in a detection"):
        evaluate(tmp_path / "gt.json", tmp_path / "dt.json", iou_type="keypoints")
    with pytest.raises(UsageError, match="sigmas"):
        CocoSettings(sigmas=(0.1, 0.0))


def test_real_key_points(shared, version):
    folder = shared / "data/detection/keypoints"
    ours = evaluate(folder / "fce_gt.json", folder / "fce_dt.json", iou_type="keypoints")
    gt, rows = (json.loads((folder / f"fce_{side}.json").read_text()) for side in ("gt", "dt"))
    assert_same_bits(ours, reference(gt, rows, "keypoints"))


def test_shapes_that_are_missing_are_named(tmp_path):
    truth = ground_truth([1], [1], [[0, 0, 5, 5]])
    found = detections([1], [1], [[0, 0, 5, 5]], [0.5], truth=truth)
    with pytest.raises(DataError, match="there are no masks in the detections"):
        evaluate_coco(truth, found, CocoSettings(iou_type="segm"))
    with pytest.raises(UsageError, match="IoU type 'mask'"):
        CocoSettings(iou_type="mask")
    gt, rows = awkward(11)
    with pytest.raises(DataError, match=r"gt\.json: a row of it has no 'segmentation'"):
        evaluate(*write(tmp_path, gt, rows), iou_type="segm")
    with pytest.raises(UsageError, match="Pascal VOC compares boxes"):
        evaluate(truth, found, "voc12", iou_type="segm")


def test_rows_that_do_not_count_are_reported(version):
    box = [[0, 0, 20, 20]] * 4
    truth = ground_truth(
        [1, 1, 7, 1], [1, 9, 1, 1], [*box[:3], [90, 0, 20, 20]], id=[1, 2, 3, 2**70],
        image_ids=[1], image_sizes=[(100, 50)], categories={1: "cat"},
    )  # fmt: skip
    found = detections([1] * 4, [1] * 4, [*box[:3], [0, 40, 20, 20]], [0.9, 0.8, 0.7, 0.6], truth=truth)
    assert evaluate_coco(truth, found, CocoSettings(limits=(1, 2, 3))).notes == (
        "1 of 4 objects in the ground truth are of images that it does not list (7) and were skipped",
        "1 of 4 objects in the ground truth are of classes that it does not list (9) and were skipped",
        "1 of 4 annotations have an id beyond 64 bits; they count like the others",
        "1 of 4 boxes in the ground truth leave their image",
        "1 of 4 boxes in the detections leave their image",
        "1 of 4 detections do not count: they are beyond the 3 with the highest scores of their class "
        "and image",
    )


@pytest.mark.parametrize("large", [2**63, 2**70, -(2**70)])
def test_ids_beyond_64_bits(large, version, tmp_path):
    gt, rows = awkward(11)
    gt["annotations"][0]["id"] = gt["annotations"][3]["id"] = large  # the later one replaces the first
    gt["images"][0]["id"] += large
    gt["categories"][0]["id"] += large
    for row in (*gt["annotations"], *rows):
        for key, table in (("image_id", "images"), ("category_id", "categories")):
            row[key] += large if row[key] + large == gt[table][0]["id"] else 0
    ours = evaluate(*write(tmp_path, gt, rows))
    assert_same_bits(ours, reference(gt, rows))
    assert any("id beyond 64 bits" in note for note in ours.notes)
    json.dumps(ours.per_class())
