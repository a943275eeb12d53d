"""The loss of average precision is shared among the mistakes; suspicions name what may be wrong."""

import numpy as np
import pytest

from striate.metrics.detection import Detections, GroundTruth
from striate.metrics.detection.breakdown import breakdown
from striate.metrics.detection.effects import effects, suspicions
from striate.metrics.detection.explain import match


def truth_of(image, category, box, classes=3, images=6):
    n = len(image)
    return GroundTruth(
        np.arange(images), np.arange(classes), tuple("abc"[:classes]), np.array(image, np.int32),
        np.array(category, np.int32), np.array(box, float), np.full(n, 100.0), np.zeros(n, bool),
        np.arange(1, n + 1), np.zeros(n, bool),
    )  # fmt: skip


def found_of(image, category, box, score):
    return Detections(
        np.array(image, np.int32), np.array(category, np.int32), np.array(box, float), np.array(score, float)
    )


@pytest.fixture(scope="module")
def random_match():
    rng = np.random.default_rng(5)
    image, category = rng.integers(0, 6, 30), rng.integers(0, 2, 30)  # no object of class c
    box = np.c_[rng.integers(0, 300, (30, 2)), np.full((30, 2), 20)]
    near = box[rng.integers(0, 30, 40)] + np.c_[rng.integers(-6, 7, (40, 2)), np.zeros((40, 2))]
    again = rng.integers(0, 30, 60)
    found = found_of(
        np.r_[image[again], rng.integers(0, 6, 40)], np.r_[category[again], rng.integers(0, 3, 40)],
        np.r_[box[again] + np.c_[rng.integers(-9, 10, (60, 2)), np.zeros((60, 2))], near],
        rng.permutation(100) / 100 + 0.001,
    )  # fmt: skip
    return match(truth_of(image, category, box), found, 0.5)


def average_precision(m, k):
    """The mean over the objects of the precision at each one's detection, 0 for missed ones."""
    rows = np.flatnonzero((m.detections.category == k) & (m.right | m.wrong))
    precisions = []
    for row in rows[m.right[rows]]:
        above = rows[m.detections.score[rows] >= m.detections.score[row]]  # no scores are equal
        precisions.append(m.right[above].mean())
    return sum(precisions) / (m.counts & (m.truth.category == k)).sum()


def test_the_shares_of_all_mistakes_are_what_average_precision_lacks(random_match):
    m = random_match
    found = effects(m)
    assert found.ap == pytest.approx(np.mean([average_precision(m, k) for k in (0, 1)]))
    assert found.image.sum() == pytest.approx(1 - found.ap)
    assert found.detection[~m.wrong].max() == 0
    assert found.detection[m.detections.category == 2].max() == 0  # a class without objects has no precision


def test_the_share_of_a_mistake_is_the_gain_of_its_correction_where_it_is_alone():
    box = [[0, 0, 9, 9], [50, 0, 9, 9]]
    truth = truth_of([0, 0], [0, 0], box, classes=1)
    wrong_first = match(truth, found_of([0, 1, 0], [0, 0, 0], [box[0], box[0], box[1]], [0.9, 0.8, 0.7]), 0.5)
    found = effects(wrong_first)
    assert found.ap == pytest.approx((1 + 2 / 3) / 2)
    assert found.detection.tolist() == pytest.approx([0, (1 / 3) / 2, 0])
    assert found.image[:3].tolist() == pytest.approx([0, 1 / 6, 0])
    missed = effects(match(truth, found_of([0], [0], [box[0]], [0.9]), 0.5))
    assert (missed.truth.tolist(), missed.ap) == ([0, 0.5], 0.5)


def test_suspicions_name_what_the_annotations_may_lack():
    box = [[0, 0, 20, 20], [100, 0, 20, 20], [200, 0, 20, 20]]
    truth = truth_of([0, 0, 0], [0, 1, 2], box)
    found = found_of(
        [0, 0, 0, 1, 0, 0],
        [0, 0, 2, 1, 0, 1],
        [box[0], box[1], [212, 0, 20, 20], box[0], [1, 0, 20, 20], [0, 200, 20, 20]],
        [0.95, 0.9, 0.8, 0.7, 0.6, 0.1],
    )
    m = match(truth, found, 0.5)
    rows = [(s.detection, s.truth, s.kind) for s in suspicions(m, breakdown(m), 0.5)]
    assert rows == [
        (1, 1, "classification"),
        (2, 2, "localisation"),
        (3, -1, "background"),
        (4, 0, "duplicate"),
    ]


def test_without_objects_nothing_is_lost():
    m = match(truth_of([], [], np.zeros((0, 4))), found_of([0], [0], [[0, 0, 5, 5]], [0.5]), 0.5)
    found = effects(m)
    assert (found.image.tolist(), found.detection.tolist()) == ([0.0] * 6, [0.0])
