"""The evaluation of a translator on pairs."""

import pytest

from striate.errors import DataError, UsageError
from striate.inference.text_evaluation import evaluate_seq2seq, measure_on
from striate.inference.translator import load_translator


def test_exact_matches_are_counted(text_run):
    translator = load_translator(text_run.best, "cpu")
    val = text_run.task.data.splits["val"]
    answers = [result.text for result in translator.translate(val.sources).results]
    evaluation = measure_on(translator, text_run.task.data, "val")
    assert list(evaluation.answers) == answers
    assert evaluation.scores.exact == pytest.approx(
        sum(answer in these for answer, these in zip(answers, val.references, strict=True)) / len(val)
    )


def test_sources_must_be_what_the_model_reads(text_run, text_lines):
    with pytest.raises(DataError, match="the model reads text"):
        evaluate_seq2seq(text_run.best, text_lines)


def test_evaluation_takes_a_split(text_run, reversed_words):
    data = text_run.task.data
    evaluation = evaluate_seq2seq(text_run.best, reversed_words)
    assert (evaluation.split, evaluation.scores.n) == ("all", sum(map(len, data.splits.values())))
    with pytest.raises(UsageError, match="no split 'tets'"):
        evaluate_seq2seq(text_run.best, reversed_words, split="tets")


def test_shuffled_references_are_those_of_other_sources(text_run, reversed_words):
    plain, shuffled = (
        evaluate_seq2seq(text_run.best, reversed_words, shuffled=shuffled) for shuffled in (False, True)
    )
    assert sorted(shuffled.references) == sorted(plain.references)
    assert all(a != b for a, b in zip(shuffled.references, plain.references, strict=True))
    assert any("control" in note for note in shuffled.notes)
