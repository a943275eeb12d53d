"""Prediction sets against sets that are made class by class, and against MAPIE where it is installed."""

import numpy as np
import pytest
from scipy.stats import betabinom

from striate.metrics.conformal import (
    calibration_scores,
    images_needed,
    prediction_sets,
    quantile_rank,
    raps_scores,
)

METHODS = ("lac", "raps")


def sample(n, classes=30, seed=0):
    rng = np.random.default_rng(seed)
    chances = rng.dirichlet(np.full(classes, 0.1), n)
    labels = (rng.random((n, 1)) > chances.cumsum(axis=1)).sum(axis=1).clip(max=classes - 1)
    return chances, labels


def threshold(chances, labels, method, coverage):
    return calibration_scores(chances, labels, method)[quantile_rank(len(labels), coverage) - 1]


def brute_force(row, limit, method):
    inside, total = set(), 0.0
    for rank, c in enumerate(sorted(range(len(row)), key=lambda c: -row[c]), 1):
        score = 1 - row[c] if method == "lac" else total + 0.01 * max(0, rank - 5)
        total += row[c]
        if score <= limit + 1e-12:
            inside.add(c)
    return inside


@pytest.mark.parametrize("method", METHODS)
def test_sets_are_those_of_the_definition(method):
    chances, labels = sample(300)
    scores = []
    for row, label in zip(chances, labels, strict=True):
        order = sorted(range(30), key=lambda c: -row[c])
        rank = order.index(label) + 1
        total = sum(row[c] for c in order[: rank - 1])
        scores.append(1 - row[label] if method == "lac" else total + 0.01 * max(0, rank - 5))
    limit = sorted(scores)[int(np.ceil(301 * 0.9)) - 1]
    assert threshold(chances, labels, method, 0.9) == pytest.approx(limit, abs=1e-12)
    others, _ = sample(50, seed=1)
    found = prediction_sets(others, limit, method)
    assert [set(np.flatnonzero(row)) for row in found] == [brute_force(r, limit, method) for r in others]


@pytest.mark.parametrize("method", METHODS)
def test_coverage_of_many_splits_is_that_of_theory(method):
    """Of 100 calibration images: 96 / 101 on average, with the spread of a beta-binomial distribution."""
    covered = []
    for seed in range(200):
        chances, labels = sample(300, seed=seed)
        limit = threshold(chances[:100], labels[:100], method, 0.95)
        inside = prediction_sets(chances[100:], limit, method)
        covered.append(inside[np.arange(200), labels[100:]].mean())
    theory = betabinom(200, 96, 5)
    assert np.mean(covered) == pytest.approx(theory.mean() / 200, abs=0.005)
    assert np.std(covered) == pytest.approx(theory.std() / 200, rel=0.2)


def test_95_percent_need_19_images():
    assert [images_needed(c) for c in (0.5, 0.9, 0.95, 0.99)] == [1, 9, 19, 99]
    assert quantile_rank(19, 0.95) == 19
    assert quantile_rank(18, 0.95) == 19  # more than there are


class Known:
    """A classifier of scikit-learn's form whose probabilities are its inputs."""

    def __init__(self, classes):
        self.classes_ = np.arange(classes)

    def fit(self, *_):
        return self

    def __sklearn_is_fitted__(self):
        return True

    def predict_proba(self, x):
        return np.asarray(x)

    def predict(self, x):
        return np.argmax(x, axis=1)


@pytest.mark.parametrize(("method", "classes"), [("lac", 30), ("raps", 30), ("raps", 150)])
def test_sets_are_mapies(method, classes):
    pytest.importorskip("mapie", reason="MAPIE is a test oracle; it is not a dependency")
    from mapie.classification import SplitConformalClassifier
    from mapie.conformity_scores import LACConformityScore, RAPSConformityScore
    from sklearn.base import BaseEstimator, ClassifierMixin

    estimator = type("Estimator", (Known, ClassifierMixin, BaseEstimator), {})(classes)
    chances, labels = sample(500 if classes == 30 else 3000, classes)
    others, _ = sample(200, classes, seed=1)
    score = LACConformityScore() if method == "lac" else RAPSConformityScore(size_raps=0.3)
    theirs = SplitConformalClassifier(estimator, confidence_level=0.9, conformity_score=score, random_state=0)
    theirs.conformalize(chances, labels)
    options = {} if method == "lac" else {"conformity_score_params": {"include_last_label": False}}
    sets = theirs.predict_set(others, **options)[1][:, :, 0]
    if method == "lac":
        assert (prediction_sets(others, threshold(chances, labels, "lac", 0.9), "lac") == sets).all()
        return
    # MAPIE chooses rank and penalty on a part of the images, and subtracts a random part of the label's
    # probability from the scores of the others.
    from sklearn.model_selection import StratifiedShuffleSplit

    rank, penalty = float(score.k_star[0]), float(score.lambda_star)
    split = StratifiedShuffleSplit(n_splits=1, test_size=score.size_raps, random_state=score.random_state)
    kept, _ = next(split.split(chances, labels))
    at = np.arange(len(kept)), labels[kept]
    uniform = np.random.RandomState(0).uniform(size=len(kept))
    scores = raps_scores(chances[kept], rank, penalty)[at] - uniform * chances[kept][at]
    limit = np.sort(scores)[quantile_rank(len(kept), 0.9) - 1]
    ours = raps_scores(others, rank, penalty) <= limit
    ours[np.arange(200), others.argmax(axis=1)] = True
    assert (ours == sets).all()
