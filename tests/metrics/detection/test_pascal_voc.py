"""Pascal VOC's AP: the worked example, the devkit's steps written out, and what its evaluators differ in."""

import numpy as np
import pytest

from striate.data.detection import load_detections, load_ground_truth
from striate.errors import DataError, UsageError
from striate.metrics.detection import VocSettings, detections, evaluate, evaluate_voc, ground_truth


@pytest.mark.parametrize(
    ("iou", "ap11", "ap"),
    # R. Padilla's "Object Detection Metrics", sample 2, to ten digits.
    [
        (0.1, 0.3333333333, 0.3371980676),
        (0.3, 0.2683982684, 0.2456866805),
        (0.5, 0.0303030303, 0.0222222222),
        (0.75, 0, 0),
    ],
)
def test_worked_example(iou, ap11, ap, shared):
    case = shared / "data/detection/padilla_voc_case/test_case_1"
    truth = load_ground_truth(case / "gts")
    found = load_detections(case / "dets", truth)
    for style, expected in (("voc07", ap11), ("padilla-11", ap11), ("voc12", ap), ("padilla", ap)):
        assert evaluate(truth, found, style, iou=iou).map == pytest.approx(expected, abs=5e-11)


def devkit(truth, found, k, points, iou):
    """VOCevaldet.m, step by step."""
    rows = sorted(np.flatnonzero(found.category == k), key=lambda d: -found.score[d])
    used, tp, fp = set(), [], []
    for d in rows:
        x1, y1, w, h = found.box[d]
        best, at = -np.inf, None
        for g in np.flatnonzero((truth.image == found.image[d]) & (truth.category == k)):
            a, b, c, e = truth.box[g]
            iw = min(x1 + w, a + c) - max(x1, a) + 1
            ih = min(y1 + h, b + e) - max(y1, b) + 1
            if iw > 0 and ih > 0:
                overlap = iw * ih / ((w + 1) * (h + 1) + (c + 1) * (e + 1) - iw * ih)
                if overlap > best:
                    best, at = overlap, g
        right = best >= iou and not truth.difficult[at] and at not in used
        wrong = best < iou or (not truth.difficult[at] and at in used)
        if right:
            used.add(at)
        tp.append(right)
        fp.append(wrong)
    positives = int(((truth.category == k) & ~truth.difficult).sum())
    if not positives:
        return None
    tp, fp = np.cumsum(tp), np.cumsum(fp)
    rec, prec = tp / positives, tp / np.maximum(tp + fp, np.finfo(float).tiny)
    if points == "11":
        return sum(max(prec[rec >= i * 0.1], default=0) for i in range(11)) / 11
    mrec, mpre = np.r_[0, rec, 1], np.r_[0, prec, 0]
    for i in range(len(mpre) - 2, -1, -1):
        mpre[i] = max(mpre[i], mpre[i + 1])
    at = np.flatnonzero(mrec[1:] != mrec[:-1]) + 1
    return float(((mrec[at] - mrec[at - 1]) * mpre[at]).sum())


@pytest.mark.parametrize("seed", range(60))
def test_as_the_devkit(seed):
    rng = np.random.default_rng(seed)
    n, m = rng.integers(1, 15), rng.integers(0, 40)
    boxes = rng.integers(0, 12, (n, 4)).astype(float)
    truth = ground_truth(
        rng.integers(0, 3, n),
        rng.integers(0, 3, n),
        boxes,
        difficult=rng.random(n) < 0.2,
        image_ids=[0, 1, 2],
        categories={0: "a", 1: "b", 2: "c"},
    )
    near = boxes[rng.integers(0, n, m)] + rng.integers(0, 3, (m, 4))
    score = rng.choice([0.1, 0.5, 0.9], m) if seed % 2 else rng.random(m)
    found = detections(rng.integers(0, 3, m), rng.integers(0, 3, m), near, score, truth=truth)
    for points in ("11", "all"):
        settings = VocSettings(points=points, iou=float(rng.choice([0.3, 0.5])))
        result = evaluate_voc(truth, found, settings)
        for k, each in enumerate(result.classes):
            assert each.ap == pytest.approx(devkit(truth, found, k, points, settings.iou), abs=1e-12)


def test_what_evaluators_differ_in():
    truth = ground_truth([1, 1], [1, 1], [[0, 0, 9, 9], [50, 50, 9, 9]], difficult=[False, True])
    found = detections([1], [1], [[0, 0, 4, 9]], [0.9], truth=truth)  # exactly half of it
    assert evaluate(truth, found, "voc12").map == 1
    assert evaluate(truth, found, "py-faster-rcnn").map == 0
    assert evaluate(truth, found, "padilla").map == 0.5
    assert evaluate(truth, found, "voc12", inclusive=False).map == 0  # 36 of 81


def test_recall_of_exactly_three_fifths():
    box = [[20 * i, 0, 9, 9] for i in range(15)]
    truth = ground_truth([1] * 15, [1] * 15, box)
    found = detections([1] * 9, [1] * 9, box[:9], [0.5] * 9, truth=truth)
    assert evaluate(truth, found, "voc07").map == pytest.approx(6 / 11)
    assert evaluate(truth, found, "voc07", levels="tenths").map == pytest.approx(7 / 11)
    assert evaluate(truth, found, "voc07", levels="matlab").map == pytest.approx(7 / 11)


def test_relative_boxes_are_refused_where_pixels_are_inclusive():
    truth = ground_truth([1], [1], [[0.1, 0.1, 0.5, 0.5]])
    found = detections([1], [1], [[0.1, 0.1, 0.5, 0.5]], [0.9], truth=truth)
    with pytest.raises(DataError, match="between 0 and 1"):
        evaluate(truth, found, "voc07")
    assert evaluate(truth, found, "voc07", inclusive=False).map == pytest.approx(1)


def test_unknown_styles_and_options():
    truth = ground_truth([1], [1], [[0, 0, 5, 5]])
    with pytest.raises(UsageError, match="did you mean voc07"):
        evaluate(truth, detections([], [], [], [], truth=truth), "voc08")
    with pytest.raises(UsageError, match="points '12'"):
        VocSettings(points="12")
