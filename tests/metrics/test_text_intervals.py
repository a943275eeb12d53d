"""Sums of the counts of single answers against sacrebleu's scores of the whole."""

import numpy as np
import pytest

from striate.metrics import text
from striate.metrics.text_intervals import bleu_of_counts, chrf_counts, chrf_of_counts

ANSWERS = ["the cat sat on the mat", "a dog barks at night", "", "two birds", "it is a  long way home today"]
REFERENCES = [
    ["the cat sat on a mat", "a cat was on the mat"],
    ["the dog barks at night", "a dog barked all night long"],
    ["something"],
    ["two birds"],
    ["it was a long way home today"],
]


def test_chrf_of_a_corpus_is_sacrebleus():
    pytest.importorskip("sacrebleu")
    counts = sum(chrf_counts(*pair) for pair in zip(ANSWERS, REFERENCES, strict=True))
    scores = text.measure(ANSWERS, REFERENCES)
    assert chrf_of_counts(counts[None])[0] == pytest.approx(scores.chrf, abs=1e-12)


@pytest.mark.parametrize("some", [slice(0, 5), slice(3, 4), slice(1, 2)])
def test_bleu_of_counts_is_sacrebleus(some):
    metrics = pytest.importorskip("sacrebleu.metrics")
    references = [[these[i] if i < len(these) else None for these in REFERENCES[some]] for i in (0, 1)]
    whole = metrics.BLEU().corpus_score(ANSWERS[some], references)
    counts = np.array([[*whole.counts, *whole.totals, whole.sys_len, whole.ref_len]], float)
    assert bleu_of_counts(counts)[0] == pytest.approx(whole.score / 100, abs=1e-12)


def test_the_intervals_contain_the_scores():
    pytest.importorskip("sacrebleu")
    scores = text.measure(ANSWERS * 8, REFERENCES * 8)
    values = scores.to_json()
    assert values["exact_ci"] == pytest.approx([0.1050, 0.3476], abs=1e-4)  # Wilson's for 8 of 40
    for name in ("cer", "wer", "bleu", "chrf"):
        low, high = values[f"{name}_ci"]
        assert 0 <= low < values[name] < high
    assert "intervals" not in values


def test_an_error_rate_is_resampled_by_answers():
    """Of ten answers one is wrong throughout: the rate is the share of draws of that answer."""
    low, high = text.measure(["ab"] * 9 + ["xy"], [["ab"]] * 10).intervals["cer"]
    assert low == 0
    assert high == pytest.approx(0.3, abs=0.11)
