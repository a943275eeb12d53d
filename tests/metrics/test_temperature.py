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


@pytest.mark.parametrize("temperature", [0.4, 2.5])
def test_it_is_the_minimum_of_the_likelihood_and_the_prior(temperature):
    scores, labels = sample(temperature)

    def loss(t):
        chosen = log_softmax(scores / np.exp(t), axis=1)[np.arange(400), labels]
        return -chosen.sum() + t**2 / 2

    expected = np.exp(minimize_scalar(loss, bounds=(-3, 3), method="bounded", options={"xatol": 1e-9}).x)
    found = fit_temperature(scores.astype(np.float32), labels)
    assert found == pytest.approx(expected, rel=1e-4)
    assert found == pytest.approx(temperature, rel=0.15)


def test_a_calibrated_model_nearly_always_stays_as_it_is():
    """The test at the 5 % level, of which the prior takes a little."""
    assert np.mean([fit_temperature(*sample(1.0, n=200, seed=i)) == 1 for i in range(100)]) >= 0.93


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
