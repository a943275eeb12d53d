"""The intervals against percentiles of bootstrap samples that are computed one by one."""

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import balanced_accuracy_score, f1_score, matthews_corrcoef

from striate.metrics.classification import METRICS, expected_calibration_error
from striate.metrics.classification_intervals import (
    INTERVALS,
    balanced_accuracy_interval,
    calibration_error_interval,
    intervals,
    macro_f1_interval,
    matthews_interval,
)

RNG = np.random.default_rng(0)
LABELS = RNG.integers(0, 4, 250)
CHANCES = RNG.dirichlet(np.ones(4), 250)
CHANCES[np.arange(250), LABELS] += 0.5
CHANCES /= CHANCES.sum(axis=1, keepdims=True)


def test_every_metric_has_one():
    assert {metric.name for metric in METRICS} == set(INTERVALS)
    values = {metric.name: metric.compute(CHANCES, LABELS) for metric in METRICS}
    found = intervals(values, CHANCES, LABELS)
    for name, value in values.items():
        assert found[name][0] <= value <= found[name][1] + 1e-12


def test_macro_f1_is_that_of_samples_of_scikit_learn():
    draws = [RNG.integers(0, 250, 250) for _ in range(300)]
    predicted = CHANCES.argmax(axis=1)
    f1 = [f1_score(LABELS[d], predicted[d], average="macro") for d in draws]
    assert macro_f1_interval(CHANCES, LABELS) == pytest.approx(np.percentile(f1, [2.5, 97.5]), abs=0.015)


@pytest.mark.parametrize(
    ("interval", "score"),
    [(balanced_accuracy_interval, balanced_accuracy_score), (matthews_interval, matthews_corrcoef)],
)
def test_metrics_of_imbalanced_classes_are_those_of_samples_of_scikit_learn(interval, score):
    draws = [RNG.integers(0, 250, 250) for _ in range(300)]
    predicted = CHANCES.argmax(axis=1)
    scores = [score(LABELS[d], predicted[d]) for d in draws]
    assert interval(CHANCES, LABELS) == pytest.approx(np.percentile(scores, [2.5, 97.5]), abs=0.02)
    worse = np.eye(4)[(LABELS + 1) % 4]  # always wrong
    assert interval(worse, LABELS)[0] < score(LABELS, (LABELS + 1) % 4) + 1e-9


def test_macro_f1_with_absent_classes_and_missing_answers():
    chances = np.eye(5)[[0, 0, 1, 1, 1]]
    chances[4] = np.nan
    low, high = macro_f1_interval(chances, np.array([0, 0, 1, 1, 1]))
    assert 0 <= low < 0.9 <= high <= 1


def test_a_calibrated_model_may_have_no_calibration_error():
    """The measured error of a calibrated model is noise, but draws of the images have even more of it."""
    rng = np.random.default_rng(1)
    confidence = rng.uniform(0.5, 1, 400)
    chances = np.column_stack([confidence, 1 - confidence])
    labels = (rng.random(400) > confidence).astype(int)
    assert expected_calibration_error(chances, labels) > 0.03
    low, high = calibration_error_interval(chances, labels)
    assert low < 0.005
    assert high < 0.12


def test_a_large_calibration_error_of_many_images():
    """Always sure, right in 80 %: the error is 0.2 with the spread of a proportion."""
    labels = (np.arange(5000) % 5 == 0).astype(int)
    chances = np.tile([1.0, 0.0], (5000, 1))
    assert calibration_error_interval(chances, labels) == pytest.approx((0.189, 0.211), abs=0.001)


@pytest.mark.parametrize(("confidence", "wrong"), [(0.99, 0), (1.0, 0), (0.9999, 1), (0.5, 15), (0.4, 30)])
def test_gaps_of_one_sign_have_the_interval_of_the_accuracy(confidence, wrong):
    """All confidences are alike, so the error is the distance between them and the accuracy."""
    chances = np.tile([confidence, *np.full(3, (1 - confidence) / 3)], (30, 1))
    labels = (np.arange(30) < wrong).astype(int)
    accuracy = stats.binomtest(30 - wrong, 30).proportion_ci(method="wilson")
    distances = [abs(accuracy.low - confidence), abs(accuracy.high - confidence)]
    low, high = calibration_error_interval(chances, labels)
    assert low == 0 if accuracy.low <= confidence <= accuracy.high else low <= min(distances) + 1e-9
    assert high == pytest.approx(max(distances), rel=0.1)


def test_an_accurate_calibrated_model_of_few_images():
    """Most samples of 25 images have no error at all; in most of them the calibration error may be 0."""
    rng, contained = np.random.default_rng(0), 0
    for _ in range(20):
        confidence = rng.uniform(0.95, 1, 25)
        labels = (rng.random(25) > confidence).astype(int)
        contained += calibration_error_interval(np.column_stack([confidence, 1 - confidence]), labels)[0] == 0
    assert contained >= 18


def test_no_finite_prediction_has_no_calibration_error():
    assert np.isnan(calibration_error_interval(np.full((3, 2), np.nan), np.zeros(3, int))).all()
