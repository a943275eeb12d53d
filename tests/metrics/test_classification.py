"""Accuracy, intervals, per-class scores and calibration against scikit-learn, scipy and plain loops."""

import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest
from sklearn import metrics as sk

from striate.errors import LayoutError
from striate.metrics.classification import (
    averages,
    balanced_accuracy,
    class_counts,
    class_scores,
    confusion_matrix,
    expected_calibration_error,
    macro_f1,
    matthews_correlation,
    predictions,
    top_k_accuracy,
    wilson_interval,
)

RNG = np.random.default_rng(0)


def guesses(n, classes, seed=0):
    rng = np.random.default_rng(seed)
    probabilities = rng.dirichlet(np.ones(classes) * 0.5, n)
    return probabilities, rng.integers(0, classes, n)


@pytest.mark.parametrize("k", [1, 2, 5, 9])
def test_top_k_is_scikit_learns(k):
    probabilities, labels = guesses(500, 9)
    expected = sk.top_k_accuracy_score(labels, probabilities, k=k, labels=range(9)) if k < 9 else 1.0
    assert top_k_accuracy(probabilities, labels, k) == pytest.approx(expected, abs=1e-15)


def test_ties_go_to_the_lower_class_as_argmax_has_it():
    probabilities = np.array([[0.4, 0.4, 0.2]] * 3)
    assert top_k_accuracy(probabilities, np.array([0, 1, 2]), 1) == pytest.approx(1 / 3)
    assert top_k_accuracy(probabilities, np.array([0, 1, 2]), 2) == pytest.approx(2 / 3)


@given(st.integers(1, 2000), st.data())
def test_the_interval_is_scipys(n, data):
    hits = data.draw(st.integers(0, n))
    expected = binomtest(hits, n).proportion_ci(0.95, method="wilson")
    assert wilson_interval(hits / n, n) == pytest.approx((expected.low, expected.high), abs=1e-12)


@pytest.mark.parametrize("seed", range(5))
def test_class_scores_are_scikit_learns(seed):
    rng = np.random.default_rng(seed)
    truth, predicted = rng.integers(0, 4, 60), rng.integers(0, 6, 60)  # classes 4, 5 are never true
    predicted[predicted == 2] = 0  # class 2 is never predicted
    confusion = confusion_matrix(truth, predicted, 6)
    assert np.array_equal(confusion, sk.confusion_matrix(truth, predicted, labels=range(6)))
    expected = sk.precision_recall_fscore_support(truth, predicted, labels=range(6), zero_division=0)
    scores = class_scores(confusion, tuple("abcdef"))
    for i, field in enumerate(("precision", "recall", "f1", "support")):
        assert [getattr(s, field) for s in scores] == pytest.approx(list(expected[i]), abs=1e-15)


def test_calibration_error_is_the_paper_s_sum():
    probabilities, labels = guesses(400, 3)
    total = 0.0
    for m in range(15):
        inside = [
            i for i in range(400) if m / 15 < probabilities[i].max() <= (m + 1) / 15
        ]  # the bins of equation 2
        if inside:
            accuracy = np.mean([probabilities[i].argmax() == labels[i] for i in inside])
            confidence = np.mean([probabilities[i].max() for i in inside])
            total += len(inside) / 400 * abs(accuracy - confidence)
    assert expected_calibration_error(probabilities, labels) == pytest.approx(total, abs=1e-12)


def test_calibration_of_the_certain():
    sure = np.eye(4)[[0, 1, 2, 3]]
    assert expected_calibration_error(sure, np.arange(4)) == 0
    assert expected_calibration_error(sure, np.array([1, 2, 3, 0])) == 1


@pytest.mark.parametrize(
    ("probabilities", "labels"),
    [
        (np.zeros((0, 3)), np.zeros(0, int)),
        (np.zeros((2, 3)), np.zeros(3, int)),
        (np.zeros(3), np.zeros(3, int)),
    ],
)
def test_shapes_that_do_not_belong_together(probabilities, labels):
    with pytest.raises(LayoutError, match=r"\[n, classes\]"):
        top_k_accuracy(probabilities, labels, 1)


@pytest.mark.parametrize("seed", range(3))
def test_scores_that_are_not_finite_are_wrong(seed):
    """As if those samples had been given a class that does not exist."""
    scores, labels = guesses(200, 4, seed)
    bad = np.random.default_rng(seed).permutation(200)[:60]
    scores[bad, np.arange(60) % 4] = np.resize([np.nan, np.inf, -np.inf], 60)
    answers = np.where(np.isin(np.arange(200), bad), -1, np.nan_to_num(scores).argmax(axis=1))
    assert np.array_equal(predictions(scores), answers)
    assert top_k_accuracy(scores, labels, 1) == np.mean(answers == labels)
    assert top_k_accuracy(scores, labels, 4) == 140 / 200
    good = np.setdiff1d(np.arange(200), bad)
    assert expected_calibration_error(scores, labels) == expected_calibration_error(
        scores[good], labels[good]
    )
    assert np.isnan(expected_calibration_error(scores[bad], labels[bad]))
    confusion = confusion_matrix(labels, answers, 4)
    assert np.array_equal(confusion, sk.confusion_matrix(labels[good], answers[good], labels=range(4)))
    found = class_scores(confusion, tuple("abcd"), np.bincount(labels, minlength=4))
    expected = sk.precision_recall_fscore_support(labels, answers, labels=range(4), zero_division=0)
    for i, field in enumerate(("precision", "recall", "f1", "support")):
        assert [getattr(s, field) for s in found] == pytest.approx(list(expected[i]), abs=1e-15)


@pytest.mark.parametrize("seed", range(5))
def test_macro_f1_is_scikit_learns(seed):
    scores, labels = guesses(40, 7, seed)
    labels[labels == 3] = 2  # class 3 has no sample
    scores[:, 5] = 0  # class 5 is never predicted
    scores[:, 6], labels[labels == 6] = 0, 1  # class 6 does not occur at all
    expected = sk.f1_score(labels, scores.argmax(axis=1), average="macro", zero_division=0)
    assert macro_f1(class_counts(scores, labels)) == pytest.approx(expected, abs=1e-15)
    parts = class_counts(scores[:15], labels[:15]) + class_counts(scores[15:], labels[15:])
    assert macro_f1(parts) == pytest.approx(expected, abs=1e-15)


@pytest.mark.parametrize("seed", range(5))
def test_metrics_of_imbalanced_classes_are_scikit_learns(seed):
    rng = np.random.default_rng(seed)
    truth = rng.choice(6, 200, p=[0.6, 0.3, 0.04, 0.03, 0.03, 0.0])  # class 5 is never true
    predicted = np.where(rng.random(200) < 0.5, truth, rng.choice([0, 1, 3, 5], 200))  # 2 hardly ever called
    counts = class_counts(np.eye(6)[predicted], truth)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # classes that are predicted but never true
        assert balanced_accuracy(counts) == pytest.approx(
            sk.balanced_accuracy_score(truth, predicted), abs=1e-12
        )
    assert matthews_correlation(counts) == pytest.approx(sk.matthews_corrcoef(truth, predicted), abs=1e-12)
    confusion = confusion_matrix(truth, predicted, 6)
    found = averages(class_scores(confusion, tuple("abcdef")), confusion.sum(axis=0))
    for score, kind in zip(found, ("macro", "weighted"), strict=True):
        expected = sk.precision_recall_fscore_support(truth, predicted, average=kind, zero_division=0)
        assert (score.precision, score.recall, score.f1) == pytest.approx(expected[:3], abs=1e-12)


def test_one_class_for_all_is_worth_nothing():
    truth = np.array([0] * 150 + [1] * 30 + [2] * 8)
    counts = class_counts(np.tile([0.5, 0.3, 0.2], (188, 1)), truth)
    assert balanced_accuracy(counts) == pytest.approx(1 / 3, abs=1e-15)
    assert matthews_correlation(counts) == 0


def test_an_answer_that_is_not_finite_is_a_wrong_one_in_every_metric():
    truth = np.array([0, 0, 1, 1])
    scores = np.array([[0.9, 0.1], [np.nan, np.nan], [0.2, 0.8], [0.3, 0.7]])
    counts = class_counts(scores, truth)
    assert balanced_accuracy(counts) == pytest.approx((0.5 + 1) / 2)
    # scikit-learn, with the missing answer as a third class
    assert matthews_correlation(counts) == pytest.approx(sk.matthews_corrcoef(truth, [0, 2, 1, 1]), abs=1e-12)
