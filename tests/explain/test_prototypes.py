"""MMD-critic against its definition."""

import itertools

import numpy as np
import pytest

from striate.explain.prototypes import criticisms, kernel, prototypes


def features(n=12, seed=0):
    rng = np.random.default_rng(seed)
    return np.concatenate([rng.normal(0, 1, (n // 2, 3)), rng.normal(4, 1, (n - n // 2, 3))])


def test_the_kernel():
    x = features(5)
    apart = [float(np.square(a - b).sum()) for a, b in itertools.permutations(x, 2)]
    expected = [[np.exp(-np.square(a - b).sum() / np.median(apart)) for b in x] for a in x]
    np.testing.assert_allclose(kernel(x), expected, rtol=1e-9)
    assert kernel(x[:1]).tolist() == [[1.0]]
    assert kernel(np.ones((3, 2))).tolist() == [[1.0] * 3] * 3


def objective(similar, chosen):
    """J(S) of equation 3."""
    size = len(chosen)
    across = sum(similar[i, j] for i in range(len(similar)) for j in chosen)
    inside = sum(similar[i, j] for i in chosen for j in chosen)
    return 2 * across / (len(similar) * size) - inside / size**2


def test_each_prototype_is_the_best_next_one():
    similar, chosen = kernel(features()), []
    for found in prototypes(similar, 5):
        rest = [i for i in range(len(similar)) if i not in chosen]
        best = max(objective(similar, [*chosen, i]) for i in rest)
        assert objective(similar, [*chosen, found]) == pytest.approx(best)
        chosen.append(found)
    assert {i < 6 for i in chosen[:2]} == {True, False}  # one of each group first


def test_each_criticism_is_the_worst_represented():
    similar = kernel(features())
    chosen = prototypes(similar, 3)
    witness = np.abs(similar.mean(axis=0) - similar[chosen].mean(axis=0))

    def value(found):
        return witness[found].sum() + np.linalg.slogdet(similar[np.ix_(found, found)])[1]

    found = []
    for new in criticisms(similar, chosen, 4):
        rest = [i for i in range(len(similar)) if i not in (*chosen, *found)]
        assert new in rest
        assert value([*found, new]) == pytest.approx(max(value([*found, i]) for i in rest))
        found.append(new)


def test_small_classes_and_copies():
    similar = kernel(np.repeat(features(2), 2, axis=0))
    chosen = prototypes(similar, 10)
    assert sorted(chosen) == [0, 1, 2, 3]
    assert criticisms(similar, chosen, 10) == []
    assert len(criticisms(similar, chosen[:1], 10)) == 3
