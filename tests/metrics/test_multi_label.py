"""Metrics of images with several classes, against scikit-learn; thresholds against all possible ones."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk

from striate.errors import LayoutError
from striate.metrics.multi_label import (
    average_precision,
    average_precisions,
    best_thresholds,
    intervals,
    label_predictions,
    measure,
    precision_recall,
)


def guesses(n=80, classes=5, seed=0, digits=2):
    """Probabilities with many ties, and truth that they know something about."""
    rng = np.random.default_rng(seed)
    truth = rng.random((n, classes)) < np.linspace(0.05, 0.6, classes)
    return np.round(np.clip(0.3 * truth + 0.8 * rng.random((n, classes)), 0, 1), digits), truth


@pytest.mark.parametrize("seed", range(5))
def test_metrics_are_scikit_learns(seed):
    chances, truth = guesses(seed=seed)
    thresholds = np.linspace(0.3, 0.7, 5)
    predicted = chances >= thresholds
    found = measure(chances, truth, thresholds)
    assert found["map"] == pytest.approx(sk.average_precision_score(truth, chances), abs=1e-12)
    for kind in ("micro", "macro"):
        expected = sk.f1_score(truth, predicted, average=kind, zero_division=0)
        assert found[f"{kind}_f1"] == pytest.approx(expected, abs=1e-12)
    assert found["exact"] == pytest.approx(sk.accuracy_score(truth, predicted), abs=1e-12)
    each = [sk.average_precision_score(truth[:, i], chances[:, i]) for i in range(5)]
    assert average_precisions(chances, truth) == pytest.approx(each, abs=1e-12)


@pytest.mark.filterwarnings("ignore:No positive class")
def test_a_class_without_images_counts_as_in_scikit_learn():
    chances, truth = guesses()
    truth[:, 2] = False
    found = measure(chances, truth, np.full(5, 2.0))  # nothing is predicted
    assert found["map"] == pytest.approx(sk.average_precision_score(truth, chances), abs=1e-12)
    assert found["micro_f1"] == found["macro_f1"] == 0
    assert best_thresholds(chances, truth)[2] == 0.5


def test_the_curve_is_scikit_learns():
    chances, truth = guesses()
    recall, precision, scores = precision_recall(chances[:, 4], truth[:, 4])
    theirs, sensitivity, thresholds = sk.precision_recall_curve(truth[:, 4], chances[:, 4])
    assert scores[::-1] == pytest.approx(thresholds)
    assert precision[::-1] == pytest.approx(theirs[:-1])
    assert recall[::-1] == pytest.approx(sensitivity[:-1])


@settings(max_examples=40)
@given(st.lists(st.tuples(st.integers(0, 9), st.booleans()), min_size=1, max_size=30))
def test_thresholds_have_the_largest_f1_of_all(pairs):
    chances = np.array([[value / 9] for value, _ in pairs])
    truth = np.array([[own] for _, own in pairs])
    best = best_thresholds(chances, truth)

    def f1(predicted):
        hits, both = (predicted & truth).sum(), predicted.sum() + truth.sum()
        return 2 * hits / both if both else 0.0

    scores = [f1(chances >= (i + 0.5) / 9) for i in range(-1, 10)]
    assert f1(label_predictions(chances, best)) == pytest.approx(max(scores))


def test_neighbouring_floats_are_told_apart():
    low = 0.5
    high = np.nextafter(low, 1)
    chances, truth = np.array([[low], [high]]), np.array([[False], [True]])
    assert label_predictions(chances, best_thresholds(chances, truth)).tolist() == [[False], [True]]


def test_an_image_without_finite_scores_is_wrong_everywhere():
    chances, truth = guesses()
    broken = chances.copy()
    broken[3] = np.nan
    worst = chances.copy()
    worst[3] = np.where(truth[3], -1, 2)
    thresholds = np.full(5, 0.5)
    assert measure(broken, truth, thresholds) == measure(worst, truth, thresholds)
    assert not label_predictions(broken, thresholds)[3].any()


def test_intervals_are_those_of_samples_of_scikit_learn():
    chances, truth = guesses(n=200)
    thresholds = np.full(5, 0.5)
    found = intervals(chances, truth, thresholds)
    rng = np.random.default_rng(1)
    draws = [rng.integers(0, 200, 200) for _ in range(150)]
    scores = {
        "map": [sk.average_precision_score(truth[d], chances[d]) for d in draws],
        "micro_f1": [sk.f1_score(truth[d], chances[d] >= 0.5, average="micro") for d in draws],
        "macro_f1": [sk.f1_score(truth[d], chances[d] >= 0.5, average="macro") for d in draws],
    }
    for name, values in scores.items():
        assert found[name] == pytest.approx(np.percentile(values, [2.5, 97.5]), abs=0.05)
    assert found["exact"][0] < measure(chances, truth, thresholds)["exact"] < found["exact"][1]


def test_equal_scores_have_the_precision_of_all_of_them():
    truth = np.arange(100)[:, None] % 2 == 0
    found = intervals(np.full((100, 1), 0.5), truth, np.array([0.5]))
    assert found["map"] == pytest.approx((0.4, 0.6), abs=0.03)  # of a share of 100


def test_one_perfect_class():
    assert average_precision(np.array([0.9, 0.1]), np.array([True, False])) == 1


def test_shapes_must_belong_together():
    with pytest.raises(LayoutError):
        measure(np.zeros((3, 2)), np.zeros(3, bool), np.full(2, 0.5))
