"""LVIS's numbers against the package `lvis` 0.5.3, bit for bit; its numbers are in lvis_0.5.3.json."""

import importlib.util
import json

import pytest
from lvis_oracle import NUMBERS, digest, federated_case, lvis_numbers, real_case

from striate.errors import DataError, UsageError
from striate.metrics.detection import detections, evaluate, evaluate_lvis, ground_truth, kernel

CASES = json.loads(NUMBERS.read_text())


@pytest.fixture(params=["native", "numpy"])
def version(request, monkeypatch):
    """Both versions of the kernel, where there are two."""
    if request.param == "native" and kernel._native is None:
        pytest.skip("the native kernel was not built here")
    if request.param == "numpy":
        monkeypatch.setattr(kernel, "_native", None)


def ours(folder, gt, rows, kind, limit):
    paths = folder / "gt.json", folder / "dt.json"
    for path, content in zip(paths, (gt, rows), strict=True):
        path.write_text(json.dumps(content))
    return evaluate(*paths, "lvis", iou_type=kind, limits=(limit,))


def assert_as_lvis(result, numbers):
    assert result.stats.tolist() == numbers["stats"]
    assert digest(result.precision[..., 0]) == numbers["precision"]
    assert digest(result.recall[..., 0]) == numbers["recall"]


@pytest.mark.parametrize("case", [case for case in CASES if not case.startswith("real")])
def test_the_numbers_of_lvis(case, version, tmp_path):
    seed, kind, limit = case.split()
    gt, rows = federated_case(int(seed), kind)
    assert_as_lvis(ours(tmp_path, gt, rows, kind, int(limit)), CASES[case])


@pytest.mark.parametrize("case", [case for case in CASES if case.startswith("real")])
def test_the_numbers_of_lvis_on_its_validation_set(case, shared, tmp_path):
    _, kind, limit = case.split()
    path, rows = real_case(shared)
    (tmp_path / "dt.json").write_text(json.dumps(rows))
    result = evaluate(path, tmp_path / "dt.json", "lvis", iou_type=kind, limits=(int(limit),))
    assert_as_lvis(result, CASES[case])


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("lvis") is None, reason="needs the package lvis")
@pytest.mark.filterwarnings("ignore:The 'warn' method")
@pytest.mark.parametrize("kind", ["bbox", "segm"])
def test_many_cases_against_lvis_itself(kind, tmp_path):
    for seed in range(6000, 6500):
        gt, rows = federated_case(seed, kind)
        for limit in (300, 5):
            result = ours(tmp_path, gt, rows, kind, limit)
            assert_as_lvis(result, lvis_numbers(tmp_path / "gt.json", rows, kind, limit))


def test_a_class_counts_only_where_it_was_looked_for(tmp_path):
    """By hand: a false positive of a class counts where the class is known to be absent, and nowhere else."""
    box = [10, 10, 40, 40]
    gt = {
        "images": [
            {"id": 1, "neg_category_ids": [], "not_exhaustive_category_ids": []},
            {"id": 2, "neg_category_ids": [7], "not_exhaustive_category_ids": []},
            {"id": 3, "neg_category_ids": [], "not_exhaustive_category_ids": [7]},
            {"id": 4, "neg_category_ids": [], "not_exhaustive_category_ids": []},
        ],
        "annotations": [
            {"id": i, "image_id": i, "category_id": 7, "bbox": box, "area": 1600} for i in (1, 3)
        ],
        "categories": [{"id": 7, "name": "cup", "frequency": "r"}],
    }
    found = [{"image_id": i, "category_id": 7, "bbox": box, "score": 0.5} for i in (1, 3)]

    def ap(image):
        false = {"image_id": image, "category_id": 7, "bbox": [200, 200, 9, 9], "score": 0.9}
        return ours(tmp_path, gt, [*found, false], "bbox", 300)

    everything = ours(tmp_path, gt, found, "bbox", 300)
    assert everything.stats[[0, 6, 9]] == pytest.approx(1)
    assert everything.stats[[7, 8]].tolist() == [-1, -1]  # there is no common and no frequent class
    assert ap(1).stats[0] == ap(2).stats[0] == pytest.approx(2 / 3)
    assert ap(3).stats[0] == ap(4).stats[0] == pytest.approx(1)
    assert ap(1).stat_names[6:10] == ["APr", "APc", "APf", "AR"]
    assert "classes=    rare ] = 1.000" in everything.lines()[6]


def test_rows_that_do_not_count_are_noted(tmp_path):
    box = [10, 10, 40, 40]
    gt = {
        "images": [{"id": 1, "neg_category_ids": [], "not_exhaustive_category_ids": []}],
        "annotations": [{"id": 4, "image_id": 1, "category_id": 7, "bbox": box, "area": 1600}] * 2,
        "categories": [{"id": 7, "name": "cup", "frequency": "r"}],
    }
    found = [{"image_id": 1, "category_id": 7, "bbox": box, "score": score} for score in (0.5, 0.6, 0.7)]
    notes = " ".join(ours(tmp_path, gt, found, "bbox", 2).notes)
    assert (
        "1 of 3 detections do not count: they are beyond the 2 with the highest scores of their image"
        in notes
    )
    assert "1 annotations share an id" in notes
    areas = {"all": (0, 1e10), "tiny": (0, 2000)}
    result = evaluate(tmp_path / "gt.json", tmp_path / "dt.json", "lvis", areas=areas)
    assert "area=  tiny" in result.lines()[-1]


def test_ground_truth_that_is_not_lvis(tmp_path):
    truth = ground_truth([1], [1], [[0, 0, 5, 5]])
    found = detections([1], [1], [[0, 0, 5, 5]], [0.5], truth=truth)
    with pytest.raises(DataError, match="no neg_category_ids"):
        evaluate_lvis(truth, found)
    with pytest.raises(UsageError, match="key points with style lvis"):
        evaluate(truth, found, "lvis", iou_type="keypoints")
