"""Classes that are confused with each other stand next to each other."""

import itertools

import numpy as np

from striate.report.class_order import clustered


def adjacent(counts, order):
    both = counts + counts.T
    return sum(both[a, b] for a, b in itertools.pairwise(order))


def test_hidden_groups_are_found():
    rng = np.random.default_rng(3)
    groups = rng.permutation(30).reshape(6, 5)
    counts = np.diag(np.full(30, 90))
    for group in groups:
        for a, b in itertools.permutations(group, 2):
            counts[a, b] = 2
    order = clustered(counts)
    assert sorted(order) == list(range(30))
    places = [sorted(order.index(k) for k in group) for group in groups]
    assert all(place[-1] - place[0] == 4 for place in places)


def test_a_chain_of_confusions_is_laid_out_in_its_order():
    chain = [4, 0, 5, 2, 1, 3]
    counts = np.diag(np.full(6, 50))
    for i, (a, b) in enumerate(itertools.pairwise(chain)):
        counts[a, b] = 10 - i
    best = max(itertools.permutations(range(6)), key=lambda order: adjacent(counts, order))
    assert adjacent(counts, clustered(counts)) == adjacent(counts, best)


def test_without_confusions_the_order_stays():
    assert clustered(np.diag([3, 0, 2])) == [0, 1, 2]
    assert clustered(np.zeros((1, 1), int)) == [0]
