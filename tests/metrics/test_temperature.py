"""Temperature scaling against scipy's minimum of the same likelihood, and data with a known temperature."""

import numpy as np
import pytest
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax

from striate.errors import LayoutError
from striate.metrics.temperature import fit_temperature


def sample(temperature, n=400, classes=5, seed=0):
    """Scores and labels of a model that is calibrated at this temperature."""
    rng = np.random.default_rng(seed)
    scores = 3 * rng.normal(size=(n, classes))
    chances = softmax(scores / temperature, axis=1).cumsum(axis=1)
    return scores, (rng.random((n, 1)) > chances).sum(axis=1)


@pytest.mark.parametrize(("temperature", "n"), [(0.4, 400), (2.5, 400), (2.0, 150)])
def test_it_is_the_minimum_of_the_likelihood_and_the_prior_shrunk_by_the_evidence(temperature, n):
    scores, labels = sample(temperature, n)

    def loss(t):
        chosen = log_softmax(scores / np.exp(t), axis=1)[np.arange(n), labels]
        return -chosen.sum() + t**2 / 2

    best = minimize_scalar(loss, bounds=(-3, 3), method="bounded", options={"xatol": 1e-9}).x
    confidence = softmax(scores, axis=1).max(axis=1)
    z = (confidence.sum() - (scores.argmax(axis=1) == labels).sum()) / np.sqrt(
        (confidence * (1 - confidence)).sum()
    )
    evidence = min(2 * (loss(0) - loss(best)), z**2)
    assert np.sign(z) == np.sign(best)
    assert evidence > 10
    found = fit_temperature(scores.astype(np.float32), labels)
    assert found == pytest.approx(np.exp(best * (1 - 9 / evidence)), rel=1e-4)
    assert found == pytest.approx(temperature, rel=0.2 if n == 400 else 0.5)


def test_a_calibrated_model_nearly_always_stays_as_it_is():
    """Three standard errors are exceeded in 0.3 % of cases."""
    assert np.mean([fit_temperature(*sample(1.0, n=200, seed=i)) == 1 for i in range(100)]) >= 0.99


def test_scaling_that_makes_the_most_probable_class_worse_is_not_done():
    """The likelihood asks for a temperature above 1, while confidence is below accuracy."""
    rng = np.random.default_rng(0)
    labels = np.zeros(400, int)
    labels[:60] = rng.integers(3, 5, 60)  # the classes that the scores exclude
    scores = np.tile([1.5, 0.0, 0.0, -6.0, -6.0], (400, 1))
    assert softmax(scores[0]).max() < 0.75 < np.mean(labels == 0)
    assert log_softmax(scores[0] / 2)[labels].sum() > log_softmax(scores[0])[labels].sum() + 10
    assert fit_temperature(scores, labels) == 1.0


def test_some_of_many_images_stand_for_all(monkeypatch):
    scores, labels = sample(2.0, n=150)
    twice = np.repeat(scores, 2, axis=0), np.repeat(labels, 2)
    expected = fit_temperature(*twice)
    assert expected > fit_temperature(scores, labels) > 1  # there is more evidence
    monkeypatch.setattr("striate.metrics.temperature._MOST_NUMBERS", scores.size)
    assert fit_temperature(*twice) == pytest.approx(expected)


def test_data_without_errors_do_not_ask_for_certainty():
    scores = 10 * np.eye(4)[np.arange(40) % 4]
    assert 0.05 < fit_temperature(scores, np.arange(40) % 4) <= 1


def test_large_scores_and_scores_that_are_not_finite():
    scores, labels = sample(2.0)
    scores[:3] = np.nan
    assert fit_temperature(scores + 5000, labels) == pytest.approx(fit_temperature(scores[3:], labels[3:]))
    assert fit_temperature(scores[:3], labels[:3]) == 1.0
    with pytest.raises(LayoutError, match=r"labels of shape \(3,\)"):
        fit_temperature(scores, labels[:3])
