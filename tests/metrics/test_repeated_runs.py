"""The mean of several runs, against SciPy's t distribution and the formula of Nadeau and Bengio."""

import math

import numpy as np
import pytest
from scipy import stats

from striate.metrics.repeated_runs import spread, t_quantile


@pytest.mark.parametrize("degrees", [*range(1, 12), 29, 30, 999])
def test_quantiles_of_t(degrees):
    for p in (0.6, 0.9, 0.975, 0.9995):
        assert t_quantile(p, degrees) == pytest.approx(stats.t.ppf(p, degrees), rel=1e-9)


def test_the_interval_is_that_of_the_t_distribution():
    values = [0.81, 0.84, 0.79, 0.9]
    found = spread(values)
    assert (found.mean, found.std) == pytest.approx((np.mean(values), np.std(values, ddof=1)))
    expected = stats.t.interval(0.95, 3, np.mean(values), stats.sem(values))
    assert (found.low, found.high) == pytest.approx(expected)


def test_shared_training_images_make_it_wider():
    values = [0.5, 0.6, 0.7, 0.55, 0.65]
    half = stats.t.ppf(0.975, 4) * math.sqrt((1 / 5 + 1 / 4) * np.var(values, ddof=1))
    found = spread(values, 1 / 4)
    assert (found.low, found.high) == pytest.approx((0.6 - half, 0.6 + half))


def test_shares_stay_between_0_and_1_and_one_run_has_no_interval():
    assert (spread([0.95, 1.0], share=True).high, spread([0.95, 1.0]).high > 1) == (1.0, True)
    assert spread([0.0, 0.1], share=True).low == 0.0
    one = spread([0.7])
    assert one.mean == 0.7
    assert all(map(math.isnan, (one.std, one.low, one.high)))
    assert math.isnan(spread([0.7, math.nan]).low)


def test_equal_runs_have_no_interval():
    found = spread([0.4, 0.4, 0.4], share=True)
    assert (found.mean, found.std) == (pytest.approx(0.4), 0.0)
    assert math.isnan(found.low)
    assert math.isnan(found.high)
