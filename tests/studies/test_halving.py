"""Asynchronous successive halving, against its definition in the paper."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from striate.studies.halving import ETA, WORST, next_job, rungs


@pytest.mark.parametrize(
    ("epochs", "expected"),
    [(20, (2, 7, 20)), (27, (3, 9, 27)), (9, (1, 3, 9)), (5, (1, 2, 5)), (2, (1, 2)), (1, (1,))],
)
def test_rungs_are_a_ninth_a_third_and_all(epochs, expected):
    assert rungs(epochs) == expected


def promotable(results, top):
    """Algorithm 2 of Li et al. 2020, get_job: rung by rung from the top, the best 1/eta not yet promoted."""
    for rung in reversed(range(top)):
        inside = {t: s for (t, r), s in results.items() if r == rung}
        candidates = sorted(inside, key=lambda t: (-inside[t][0], t))[: len(inside) // ETA]
        waiting = [t for t in candidates if (t, rung + 1) not in results]
        if waiting:
            return waiting[0], rung + 1
    return None


@settings(max_examples=10)
@given(st.integers(0, 10_000), st.integers(1, 3))
def test_each_job_is_that_of_the_paper(seed, top):
    quality = np.random.default_rng(seed).random(200)
    results = {}
    for _ in range(60):
        job = next_job(results, top, first=0)
        assert job not in results
        expected = promotable(results, top)
        assert job == (expected or (len({t for t, _ in results}), 0))
        results[job] = (quality[job[0]] + job[1],)
    counts = [sum(r == rung for _, r in results) for rung in range(top + 1)]
    for below, above in itertools.pairwise(counts):
        assert below // ETA - 1 <= above <= below  # the best may change while a rung grows


def test_what_failed_is_not_promoted_and_the_defaults_take_no_part():
    results = {(0, 2): (9.0,), (1, 0): WORST, (2, 0): WORST, (3, 0): WORST}
    assert next_job(results, 2, first=1) == (4, 0)
    assert next_job({**results, (3, 0): (0.5,)}, 2, first=1) == (3, 1)
    assert next_job({(0, 2): (9.0,)}, 2, first=1) == (1, 0)
