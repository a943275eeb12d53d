"""Suspected label errors against a plain reading of the definition."""

import numpy as np
import pytest

from striate.metrics.label_errors import suspected_labels


def by_definition(probabilities, labels):
    """Northcutt et al. 2021, equations 1 and 2, row by row."""
    K = probabilities.shape[1]
    thresholds = [np.mean(probabilities[labels == k, k]) if (labels == k).any() else np.inf for k in range(K)]
    found = []
    for i, row in enumerate(probabilities):
        reached = [k for k in range(K) if row[k] >= thresholds[k]]
        if reached and (best := max(reached, key=lambda k: row[k])) != labels[i]:
            found.append((i, best, row[labels[i]]))
    return sorted(found, key=lambda one: one[2])


def test_the_definition():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 4, 300)
    chances = np.array([rng.dirichlet(0.2 + 20 * (np.arange(5) == label)) for label in labels])
    labels[7:20] = (labels[7:20] + 1) % 4  # wrong labels; no image is of class 4
    which, classes = suspected_labels(chances, labels)
    expected = by_definition(chances, labels)
    assert list(zip(which, classes, strict=True)) == [(i, k) for i, k, _ in expected]
    assert len(set(range(7, 20)) & set(which.tolist())) >= 10


def test_it_is_cleanlabs_confident_learning():
    filters = pytest.importorskip("cleanlab.filter", reason="cleanlab is a test oracle, not a dependency")
    rng = np.random.default_rng(1)
    labels = rng.integers(0, 4, 400)
    chances = np.array([rng.dirichlet(0.3 + 6 * (np.arange(4) == label)) for label in labels])
    labels[:40] = (labels[:40] + rng.integers(1, 4, 40)) % 4
    theirs = filters.find_label_issues(
        labels, chances, filter_by="confident_learning", return_indices_ranked_by="self_confidence", n_jobs=1
    )
    assert suspected_labels(chances, labels)[0].tolist() == theirs.tolist()


def test_scores_that_are_not_finite_are_not_suspected():
    chances = np.array([[0.9, 0.1], [np.nan, np.nan], [0.1, 0.9], [0.95, 0.05]])
    which, classes = suspected_labels(chances, np.array([0, 0, 1, 1]))
    assert (which.tolist(), classes.tolist()) == ([3], [0])
