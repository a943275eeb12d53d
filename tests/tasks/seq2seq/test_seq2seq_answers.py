"""Errors by length and by token."""

import numpy as np

from striate.metrics.text import alignment, edit_distance
from striate.tasks.seq2seq import answers
from striate.tasks.seq2seq.answers import errors_by_length, errors_by_token


def test_lengths_are_grouped_evenly():
    references = [("x" * n, "longer than the first") for n in (1, 1, 1, 2, 3, 4, 5, 9, 9, 20)]
    rates = np.array([0, 0, 1, 0, 0.5, 0.5, 0, 1, 0, 0.1])
    found = errors_by_length(references, rates)
    assert found[0] == ("1", 1 / 3, 3)
    assert found[-1] == ("20", 1.0, 1)
    assert sum(size for _, _, size in found) == 10
    assert sum(share * size for _, share, size in found) == (rates > 0).sum()


def test_tokens_that_are_answered_wrongly():
    rows, compared = errors_by_token(["abxd", "ab", "ab", "xbcc"], ["abcd", "abc", "abc", "abc"])
    assert compared == 4
    assert rows == [("c", 4, 3, ""), ("a", 4, 1, "x")]


def test_long_texts_are_not_all_compared(monkeypatch):
    monkeypatch.setattr(answers, "_MAX_CELLS", 20)
    rows, compared = errors_by_token(["abcd"] * 3, ["abxd"] * 3)
    assert (rows, compared) == ([("x", 1, 1, "c")], 1)


def test_an_alignment_has_as_few_edits_as_the_distance():
    rng = np.random.default_rng(0)
    for _ in range(60):
        left, right = ("".join(rng.choice(list("abc"), rng.integers(0, 9))) for _ in range(2))
        pairs = alignment(left, right)
        assert "".join(a for a, _ in pairs if a) == left
        assert "".join(b for _, b in pairs if b) == right
        assert sum(a != b for a, b in pairs) == edit_distance(left, right)
        assert (None, None) not in pairs
