import numpy as np
import pytest
from scipy import stats

from striate.metrics.bootstrap import bca, difference, resample

VALUES = np.random.default_rng(3).exponential(size=40)


def mean(drawn):
    return drawn @ VALUES / drawn.sum(axis=1)


def test_the_interval_of_a_mean_is_scipys():
    low, high = bca(mean, np.arange(40))
    theirs = stats.bootstrap(
        (VALUES,), np.mean, n_resamples=20_000, method="BCa", rng=np.random.default_rng(1)
    ).confidence_interval
    assert (low, high) == pytest.approx((theirs.low, theirs.high), abs=0.04)


@pytest.mark.parametrize("n", [60, 3000])
def test_draws_of_kinds_are_draws_of_images(n):
    """Few kinds are drawn as a multinomial, many one by one: the numbers have the same moments."""
    kinds = np.arange(n) % 5
    r = resample(lambda drawn: drawn[:, 0] / drawn.sum(axis=1), kinds, draws=4000)
    assert r.value == 0.2
    assert r.samples.mean() == pytest.approx(0.2, abs=0.004)
    assert r.samples.std() == pytest.approx(np.sqrt(0.2 * 0.8 / n), rel=0.05)
    # Of a mean, the influence of an image is its distance from the mean, divided by n - 1.
    expected = np.sqrt(0.2 * 0.8 * n) / (n - 1)
    assert np.sqrt(np.sum(r.influence**2)) == pytest.approx(expected, rel=0.15)


def test_the_difference_of_equal_metrics_is_none():
    r = resample(mean, np.arange(40))
    assert not difference(r, resample(mean, np.arange(40))).samples.any()


def test_no_error_at_all_has_the_interval_of_wilson():
    """Wilson's lower end for n of n is n / (n + z²), by his formula."""
    low, high = bca(lambda drawn: np.ones(len(drawn)), np.arange(30), most=1.0)
    assert high == 1.0
    assert low == pytest.approx(stats.binomtest(30, 30).proportion_ci(method="wilson").low)
    low, high = bca(lambda drawn: np.zeros(len(drawn)), np.arange(30))
    assert (low, high) == (0.0, pytest.approx(1 - 30 / (30 + 1.959964**2)))
