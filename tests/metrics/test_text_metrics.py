import functools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from striate.errors import LayoutError
from striate.metrics import text as metrics

WORDS = st.text("abc", max_size=7)


def brute(left, right):
    """Levenshtein's distance from its recursive definition."""

    @functools.cache
    def distance(i, j):
        if i == 0 or j == 0:
            return i + j
        return min(
            distance(i - 1, j) + 1,
            distance(i, j - 1) + 1,
            distance(i - 1, j - 1) + (left[i - 1] != right[j - 1]),
        )

    return distance(len(left), len(right))


@settings(max_examples=200, deadline=None)
@given(WORDS, WORDS, WORDS)
def test_edit_distance_is_the_definition_and_a_metric(one, two, three):
    distance = metrics.edit_distance(one, two)
    assert distance == brute(one, two)
    assert distance == metrics.edit_distance(two, one)
    assert distance <= metrics.edit_distance(one, three) + metrics.edit_distance(three, two)
    assert (distance == 0) == (one == two)
    assert abs(len(one) - len(two)) <= distance <= max(len(one), len(two))


def test_error_rates_by_hand():
    # 1 edit in 4 characters, none in 2: 1 of 6.
    assert metrics.error_rate(["cats", "ab"], [["catt"], ["ab"]]) == pytest.approx(1 / 6)
    # kitten to sitting: 3 edits (Levenshtein's textbook example) over 7 letters.
    assert metrics.error_rate(["kitten"], [["sitting"]]) == pytest.approx(3 / 7)
    assert metrics.error_rate([["R", "IY1", "D"]], [[["R", "EH1", "D"], ["R", "IY1", "D"]]]) == 0


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(WORDS, st.lists(WORDS, min_size=1, max_size=3)), min_size=1, max_size=5))
def test_another_reference_never_makes_an_answer_less_exact(rows):
    answers, references = zip(*rows, strict=True)
    fewer = [these[:1] for these in references]
    assert metrics.exact_match(answers, references) >= metrics.exact_match(answers, fewer)
    own = [[*these, answer] for answer, these in rows]
    assert metrics.exact_match(answers, own) == 1
    assert metrics.error_rate(answers, own) == 0


def test_bleu_and_chrf_are_sacrebleus():
    sacrebleu = pytest.importorskip("sacrebleu")
    answers = ["the cat sat on the mat today", "a dog runs over the beach", "he reads a book"]
    references = [
        ["the cat sat on a mat today", "a cat was sitting on the mat today"],
        ["a dog is running over the beach"],
        ["he reads a book"],
    ]
    scores = metrics.measure(answers, references)
    streams = [[these[0] for these in references], ["a cat was sitting on the mat today", None, None]]
    assert scores.bleu == pytest.approx(sacrebleu.corpus_bleu(answers, streams).score / 100)
    assert scores.chrf == pytest.approx(sacrebleu.corpus_chrf(answers, streams).score / 100)
    assert scores.signatures["bleu"].startswith("nrefs:var|case:mixed|eff:no|tok:13a|smooth:exp")
    assert scores.exact == pytest.approx(1 / 3)
    assert scores.wer == pytest.approx((1 + 2 + 0) / (7 + 7 + 4))  # "the" for "a"; "runs" for "is running"
    names = ("bleu", "chrf", "exact", "cer", "wer")
    assert set(scores.to_json()) == {*names, *(f"{name}_ci" for name in names), "n", "signatures"}


@given(st.lists(st.tuples(st.text("abc", max_size=8), st.text("abc", max_size=8)), min_size=1, max_size=5))
def test_similarity_is_one_minus_the_normalized_distance(pairs):
    answers, references = zip(*pairs, strict=True)
    error, similarity = metrics.error_rate_and_similarity(answers, [[r] for r in references])
    assert error == metrics.error_rate(answers, [[r] for r in references])
    expected = [1 - brute(a, b) / max(len(a), len(b), 1) for a, b in pairs]
    assert similarity == pytest.approx(sum(expected) / len(pairs))


def test_similarity_is_to_the_nearest_reference():
    assert metrics.error_rate_and_similarity(["abc"], [["x", "abd", ""]]) == (1 / 3, pytest.approx(2 / 3))


def test_perfect_and_useless_answers():
    perfect = metrics.measure(["one two three four five"], [["one two three four five"]])
    assert (perfect.exact, perfect.cer, perfect.wer) == (1, 0, 0)
    assert (perfect.bleu, perfect.chrf) == pytest.approx((1, 1))
    useless = metrics.measure(["x"], [["one two three four five"]])
    assert useless.exact == 0
    assert useless.wer == 1
    assert useless.bleu is not None
    assert useless.bleu < 0.01


def test_what_cannot_be_compared_is_refused():
    with pytest.raises(LayoutError, match="2 answers and 1 lists"):
        metrics.measure(["a", "b"], [["a"]])
    with pytest.raises(LayoutError, match="answer 1 has no reference"):
        metrics.measure(["a", "b"], [["a"], []])
