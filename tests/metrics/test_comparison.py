import numpy as np
import pytest
from scipy.stats import binomtest

from striate.metrics.comparison import difference_interval, holm, mcnemar


@pytest.mark.parametrize(
    ("b", "c"), [(0, 0), (0, 1), (3, 3), (2, 9), (40, 12), (0, 60), (900, 1000), (5000, 5200)]
)
def test_mcnemar_is_scipys_exact_binomial_test(b, c):
    expected = binomtest(b, b + c, 0.5).pvalue if b + c else 1.0
    assert mcnemar(b, c) == pytest.approx(expected, rel=1e-9)
    assert mcnemar(b, c) == mcnemar(c, b)


def test_the_interval_of_a_difference_is_that_of_paired_proportions():
    """Of 400 images 60 become right and 30 wrong: the standard error is that of paired proportions."""
    first = np.r_[np.zeros(60), np.ones(30), np.ones(250), np.zeros(60)].astype(bool)
    second = np.r_[np.ones(60), np.zeros(30), np.ones(250), np.zeros(60)].astype(bool)
    error = np.sqrt((90 - 30**2 / 400) / 400**2)
    low, high = difference_interval(first, second)
    assert (low, high) == pytest.approx((0.075 - 1.96 * error, 0.075 + 1.96 * error), abs=0.006)


def test_equal_answers_have_a_small_difference_at_most():
    right = np.arange(100) % 3 > 0
    assert difference_interval(right, right) == pytest.approx((-0.037, 0.037), abs=1e-3)
    low, high = difference_interval(np.zeros(30, bool), np.ones(30, bool))
    assert (low, high) == (pytest.approx(binomtest(30, 30).proportion_ci(method="wilson").low), 1)


def test_holms_correction_by_hand():
    """0.01 times 4, 0.02 times 3, 0.03 times 2, 0.04: the last two are not below the ones before them."""
    found = holm(np.array([0.04, 0.01, 0.03, 0.02]))
    assert found == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert holm(np.array([0.9, 0.8])).tolist() == [1.0, 1.0]
