"""What lies behind an AP: worked by hand, and against the evaluation of data that is changed accordingly."""

from dataclasses import replace

import numpy as np
import pytest
import scipy.stats

from striate.errors import DataError, UsageError
from striate.metrics.detection import CocoSettings, detections, evaluate_coco, ground_truth
from striate.metrics.detection.breakdown import KINDS, breakdown
from striate.metrics.detection.explain import by_size, calibration, confusion, curves, match, operating_point
from striate.metrics.detection.resampling import (
    OneClass,
    Resampled,
    bca_interval,
    bootstrap,
    compare,
    draw_images,
    influence,
    resample,
    weighted_ap,
)

AT = np.array([[0, 0, 10, 10], [100, 0, 10, 10], [200, 0, 10, 10], [300, 0, 10, 10]], float)
CATS = {1: "cat", 2: "dog"}


def one_of_each():
    """One image; objects: cat, cat, dog, dog. A detection for each kind of mistake, and one hit."""
    truth = ground_truth([1] * 4, [1, 1, 2, 2], AT, image_ids=[1], categories=CATS)
    rows = [
        (1, AT[0], 0.9),  # the hit
        (1, AT[0], 0.8),  # a duplicate of it
        (1, AT[1] + [5, 0, 0, 0], 0.7),  # localisation: overlaps the second cat by 50 of 150
        (1, AT[2], 0.6),  # classification: a dog taken for a cat
        (2, AT[1] + [0, 5, 0, 0], 0.5),  # both: the second cat, by 50 of 150, taken for a dog
        (2, np.array([50, 50, 10, 10.0]), 0.4),  # background
    ]
    found = detections([1] * 6, [r[0] for r in rows], [r[1] for r in rows], [r[2] for r in rows], truth=truth)
    return truth, found


def random_case(seed, images=8, objects=60, found=150):
    rng = np.random.default_rng(seed)
    boxes = rng.random((objects, 4)) * [60, 60, 30, 30] + [0, 0, 8, 8]
    where, kind = rng.integers(0, images, objects), rng.integers(0, 3, objects)
    truth = ground_truth(
        where,
        kind,
        boxes,
        crowd=rng.random(objects) < 0.1,
        image_ids=range(images),
        categories={0: "a", 1: "b", 2: "c"},
    )
    of = rng.integers(0, objects, found)
    near = boxes[of] + rng.normal(0, 3, (found, 4))
    near[:, 2:] = np.abs(near[:, 2:]) + 1
    wrong = rng.random(found) < 0.2
    classes = np.where(wrong, rng.integers(0, 3, found), kind[of])
    score = np.round(rng.random(found), 2)
    return truth, detections(where[of], classes, near, score, truth=truth)


def test_operating_point_by_hand():
    point = operating_point(match(*one_of_each()), 0.45)
    assert (point.tp.tolist(), point.fp.tolist(), point.fn.tolist()) == ([1, 0], [3, 1], [1, 2])
    total = point.total()
    assert (total["precision"], total["recall"], total["f1"]) == (1 / 5, 1 / 4, 2 / 9)
    assert point.per_class()[1]["class"] == "dog"


@pytest.mark.parametrize("seed", range(8))
def test_operating_point_is_the_matching_of_the_sure_detections(seed):
    truth, found = random_case(seed)
    for iou, score in ((0.5, 0.3), (0.7, 0.55)):
        point = operating_point(match(truth, found, iou), score)
        kept = found.score >= score
        sure = replace(found, **{c: getattr(found, c)[kept] for c in ("image", "category", "box", "score")})
        settings = CocoSettings(thresholds=(iou,), areas={"all": (0, 1e10)}, limits=(1000,))
        recall = evaluate_coco(truth, sure, settings).recall[0, :, 0, 0]
        np.testing.assert_allclose(point.tp / (point.tp + point.fn), recall)


@pytest.mark.parametrize("seed", range(4))
def test_sizes_add_up_to_the_operating_point(seed):
    m = match(*random_case(seed))
    sizes = by_size(m, 0.4)
    for key, value in operating_point(m, 0.4).total().items():
        if key in ("tp", "fp", "fn"):
            assert sum(row[key] for row in sizes) == value
    assert sum(row["objects"] for row in sizes) == m.counts.sum()
    assert sum(row["objects"] > 0 for row in sizes) == 2  # boxes of 8 to 38 pixels


def test_a_detection_goes_by_the_size_of_what_it_found():
    truth = ground_truth(
        [0, 0], [0, 0], [[0, 0, 30, 30], [200, 0, 100, 100]], image_ids=[0], categories={0: "a"}
    )
    boxes = [[0, 0, 33, 33], [0, 300, 40, 40]]  # found: small, in a medium box; wrong: medium
    rows = by_size(match(truth, detections([0, 0], [0, 0], boxes, [0.9, 0.8], truth=truth)), 0.5)
    counts = [[row[k] for k in ("size", "objects", "tp", "fp", "fn")] for row in rows]
    assert counts == [["small", 1, 1, 0, 0], ["medium", 0, 0, 1, 0], ["large", 1, 0, 0, 1]]


@pytest.mark.parametrize("seed", range(4))
def test_curves_pass_through_the_operating_points(seed):
    m = match(*random_case(seed))
    for k, curve in enumerate(curves(m)):
        best = curve.best()
        for i in range(0, curve.score.size, 7):
            row = operating_point(m, curve.score[i]).per_class()[k]
            assert (row["precision"], row["recall"]) == (curve.precision[i], curve.recall[i])
            assert row["f1"] == pytest.approx(curve.f1[i])
            assert row["f1"] <= best["f1"] + 1e-12


def test_confusion_by_hand():
    matrix = confusion(match(*one_of_each()), 0.45)
    # Rows are true: cat, dog, background. The hit; the second cat unfound; a dog taken for a cat and the
    # other unfound; the duplicate and the misplaced box are background taken for a cat, one for a dog.
    assert matrix.tolist() == [[1, 0, 1], [1, 0, 1], [2, 1, 0]]


@pytest.mark.parametrize("seed", range(6))
def test_confusion_adds_up(seed):
    m = match(*random_case(seed))
    matrix, point = confusion(m, 0.3), operating_point(m, 0.3)
    assert np.diag(matrix)[:-1].tolist() == point.tp.tolist()
    assert matrix[:-1].sum(axis=1).tolist() == (point.tp + point.fn).tolist()
    assert matrix[:, :-1].sum(axis=0).tolist() == (point.tp + point.fp).tolist()


def test_breakdown_by_hand():
    truth, found = one_of_each()
    b = breakdown(match(truth, found))
    kinds = ["duplicate", "localisation", "classification", "both", "background"]
    assert b.kind.tolist() == [-1] + [KINDS.index(kind) for kind in kinds]
    assert b.count == dict.fromkeys(KINDS, 1)
    assert b.missed.tolist() == [False, False, False, True]
    # Cats: one hit first, 51 of 101 levels at precision 1. Dogs: nothing.
    assert b.ap == pytest.approx(51 / 101 / 2)
    # The misplaced box moved: hits at ranks 1 and 3, so levels above 0.5 have precision 2 / 3.
    assert b.ap + b.gain["localisation"] == pytest.approx((51 + 50 * 2 / 3) / 101 / 2)
    # The dog called a dog: first of the dogs, and one of two.
    assert b.ap + b.gain["classification"] == pytest.approx((51 + 51) / 101 / 2)
    assert b.gain["duplicate"] == b.gain["both"] == b.gain["background"] == pytest.approx(0)
    # One dog fewer to find changes nothing, as none is found.
    assert b.gain["missed"] == pytest.approx(0)


@pytest.mark.parametrize("seed", range(4))
def test_breakdown_starts_from_cocos_ap(seed):
    truth, found = random_case(seed)
    m = match(truth, found)
    settings = CocoSettings(thresholds=(0.5,), areas={"all": (-np.inf, np.inf)}, limits=(1000, 1000, 1000))
    expected = evaluate_coco(truth, found, settings).mean_precision(limit=1000)
    b = breakdown(m)
    assert b.ap == pytest.approx(expected, abs=1e-12)
    assert sum(b.count[k] for k in KINDS[:-1]) == m.wrong.sum()
    assert all(gain > -1e-9 for gain in b.gain.values())


def test_calibration_by_formula():
    m = match(*one_of_each())
    table = calibration(m, bins=2)
    # Below 0.5: one detection of 0.4, wrong. From 0.5: five of 0.9 ... 0.5 (mean 0.7), one right.
    assert [row["count"] for row in table["bins"]] == [1, 5]
    assert table["ece"] == pytest.approx((1 * 0.4 + 5 * (0.7 - 0.2)) / 6)


@pytest.mark.parametrize("seed", range(4))
def test_a_draw_is_the_data_set_with_images_repeated(seed):
    """An image drawn w times counts as w images with the same content."""
    rng = np.random.default_rng(seed)
    truth, found = random_case(seed)
    found = replace(found, score=rng.permutation(len(found)) / len(found))  # no ties
    times = rng.integers(0, 3, truth.image_ids.size)
    settings = CocoSettings(thresholds=(0.5,), areas={"all": (0, 1e10)}, limits=(100,))

    def repeated(side, columns):
        rows = np.repeat(np.arange(len(side)), times[side.image])
        copy = np.concatenate([np.arange(times[i]) for i in side.image] or [[]]).astype(int)
        return {c: getattr(side, c)[rows] for c in columns}, side.image[rows] * 3 + copy

    gt, gt_image = repeated(truth, ("box", "category", "crowd"))
    dt, dt_image = repeated(found, ("box", "category", "score"))
    names = {0: "a", 1: "b", 2: "c"}
    big = ground_truth(
        gt_image, gt["category"], gt["box"], crowd=gt["crowd"], image_ids=range(24), categories=names
    )
    copies = detections(dt_image, dt["category"], dt["box"], dt["score"], truth=big)
    # Copies of a hit and of a miss may rank in any order; precision at the last copy of a hit is the same
    # whichever comes first only where scores differ, as they do here but among copies.
    expected = evaluate_coco(big, copies, settings).precision[0, :, :, 0, 0]
    m = match(truth, found)
    order = np.argsort(-found.score)
    for k in range(3):
        rows = order[found.category[order] == k]
        positives = times[truth.image[(truth.category == k) & ~truth.crowd]].sum()
        ap = weighted_ap(
            times[None, found.image[rows]],
            m.right[rows],
            m.wrong[rows],
            np.array([positives]),
            np.array(settings.recalls),
        )
        assert ap[0] == pytest.approx(expected[:, k].mean(), abs=0.02)


def test_bootstrap_is_about_cocos_ap_and_repeats():
    truth, found = random_case(1, images=30, objects=200, found=500)
    interval = bootstrap(truth, found, draws=40)
    assert interval.value == pytest.approx(evaluate_coco(truth, found).stats[0], abs=1e-12)
    assert interval.low < interval.value < interval.high
    assert bootstrap(truth, found, draws=40) == interval
    assert bootstrap(truth, found, draws=40, seed=1) != interval


def test_two_detectors():
    truth, found = random_case(2, images=30, objects=200, found=500)
    same = compare(truth, found, found, draws=40)
    assert (same.difference.value, same.difference.low, same.difference.high, same.p) == (0, 0, 0, 1)
    worse = replace(found, box=found.box + np.array([4, 4, 0, 0]))
    gap = compare(truth, worse, found, draws=40)
    assert gap.difference.low > 0
    assert gap.p == pytest.approx(2 / 41)


def test_mistakes_of_the_caller():
    truth, found = one_of_each()
    with pytest.raises(UsageError, match="IoU threshold 0"):
        match(truth, found, 0)
    with pytest.raises(UsageError, match="at least 20"):
        bootstrap(truth, found, draws=3)
    with pytest.raises(DataError, match="an interval from 1 image: the draws would all be alike"):
        bootstrap(truth, found)


def test_difficult_objects_count_neither_way():
    truth, found = one_of_each()
    point = operating_point(
        match(replace(truth, difficult=np.array([True, False, False, True])), found), 0.45
    )
    assert (point.tp.tolist(), point.fp.tolist(), point.fn.tolist()) == ([0, 0], [3, 1], [1, 1])


def test_the_interval_is_of_the_corrected_ap():
    truth, found = one_of_each()
    truth = replace(truth, id=np.array([0, 5, 5, 7]), image_ids=np.array([1, 2]))
    expected = evaluate_coco(truth, found, CocoSettings(mode="corrected")).stats[0]
    assert bootstrap(truth, found, draws=20).value == pytest.approx(expected)
    assert evaluate_coco(truth, found).stats[0] < expected


@pytest.mark.parametrize("limits", [(1, 2, 100, 1000), (1, 2, 3, 1000), (1, 3)])
def test_the_interval_and_the_classes_have_the_limit_of_the_ap(limits):
    truth, found = random_case(2, images=5, objects=60, found=800)
    settings = CocoSettings(limits=limits)
    result = evaluate_coco(truth, found, settings)
    assert bootstrap(truth, found, draws=20, settings=settings).value == pytest.approx(result.stats[0])
    classes = [row["ap"] for row in result.per_class() if row["ap"] is not None]
    assert np.mean(classes) == pytest.approx(result.stats[0])
    assert result.stats[0] != pytest.approx(result.mean_precision(limit=limits[0]))


def area_under_envelope(one, weights):
    """AP of a class as the area under the envelope, with fractional weights of the images, by definition."""
    areas = []
    for right, wrong in zip(one.right, one.wrong, strict=True):
        each = weights[one.image]
        hits, misses = np.cumsum(each * right), np.cumsum(each * wrong)
        precision = hits / np.maximum(hits + misses, 1e-300)
        rows = np.flatnonzero(right)
        areas.append(sum(each[j] * precision[j:].max() for j in rows) / weights[one.objects].sum())
    return np.mean(areas)


def one_class(seed, n=60, images=12, thresholds=3):
    rng = np.random.default_rng(seed)
    right = rng.random((thresholds, n)) < np.linspace(0.9, 0.2, n)
    wrong = ~right & (rng.random((thresholds, n)) < 0.9)
    return OneClass(right, wrong, rng.integers(0, images, n), rng.integers(0, images, n))


@pytest.mark.parametrize("seed", range(1, 6))
def test_influence_is_the_derivative_by_the_weight_of_an_image(seed):
    one, images, step = one_class(seed), 12, 1e-6
    expected = []
    for i in range(images):
        up, down = np.ones(images), np.ones(images)
        up[i] += step
        down[i] -= step
        expected.append((area_under_envelope(one, up) - area_under_envelope(one, down)) / (2 * step))
    # Two places of a curve may have the same precision, where the derivative from above and below differ.
    np.testing.assert_allclose(influence(one, images), expected, atol=2e-3)
    assert np.median(np.abs(influence(one, images) - expected)) < 1e-6
    assert influence(one, images).sum() == pytest.approx(0, abs=1e-12)


def test_influence_is_what_leaving_out_an_image_does():
    """The jackknife: AP without an image is lower by about its influence."""
    truth, found = random_case(5, images=60, objects=400, found=900)
    settings = CocoSettings(limits=(1000,), mode="corrected")
    everything = resample(truth, found, draw_images(truth, 20, 0), settings)
    without = np.ones((60, 60), np.int64) - np.eye(60, dtype=np.int64)
    each = resample(truth, found, np.concatenate([np.ones((1, 60), np.int64), without]), settings).samples
    jackknife = everything.value - each
    assert np.corrcoef(jackknife, everything.influence)[0, 1] > 0.98
    assert np.sqrt(np.sum(jackknife**2)) == pytest.approx(np.sqrt(np.sum(everything.influence**2)), rel=0.1)


def test_an_interval_of_a_mean_is_that_of_scipy():
    """BCa by another implementation: the values, draws and influences of a mean of skewed numbers."""
    rng = np.random.default_rng(0)
    values = rng.exponential(size=30)
    drawn = rng.multinomial(30, np.full(30, 1 / 30), size=20_000)
    ours = bca_interval(Resampled(values.mean(), drawn @ values / 30, values - values.mean()))
    theirs = scipy.stats.bootstrap(
        (values,), np.mean, n_resamples=20_000, method="BCa", rng=np.random.default_rng(1)
    ).confidence_interval
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=0.015)
    assert ours.high - values.mean() > 1.1 * (values.mean() - ours.low)  # as skewed as the numbers


def test_draws_that_are_all_alike_or_all_above():
    same = bca_interval(Resampled(0.5, np.full(100, 0.5), np.zeros(10)))
    assert (same.low, same.high) == (0.5, 0.5)
    above = bca_interval(Resampled(0.5, np.linspace(0.6, 0.7, 100), np.ones(10)))
    assert above.low == pytest.approx(0.6)
    assert above.low <= above.high < 0.7


def test_the_interval_corrects_the_bias_of_the_draws():
    """Most draws have a larger AP than the data; the interval reaches further down than their percentiles."""
    truth, found = random_case(1, images=30, objects=200, found=500)
    r = resample(truth, found, draw_images(truth, 400, 0))
    assert (r.samples > r.value).mean() > 0.55
    interval = bca_interval(r)
    low, high = np.percentile(r.samples, [2.5, 97.5])
    assert interval.low < low
    assert interval.high < high
