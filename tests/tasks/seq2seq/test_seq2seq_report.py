"""The report of a run on pairs."""

import re

import pytest

from striate.inference.text_evaluation import TextEvaluation
from striate.metrics.text import TextScores, measure
from striate.report.page import write_report
from striate.tasks.seq2seq.report import report


@pytest.mark.parametrize(("text", "shown"), [("a man sleeps here", True), ("a man sleeps", False)])
def test_bleu_is_shown_if_texts_have_four_words(text_run, text, shown):
    pytest.importorskip("sacrebleu")
    scores = measure([text], [[text]])
    evaluation = TextEvaluation(scores, "pairs", "test", ("abcd",), ((text,),), (text,), 1.0)
    content = report(evaluation, text_run, model=str(text_run.best))
    page = write_report(content, text_run.folder, text_run).read_text("utf-8")
    page = re.sub(r"</?span[^>]*>", "", page)
    assert (re.search("<b>100.0</b>[^<]*BLEU", page) is not None, "<td>bleu</td><td>nrefs" in page) == (
        shown,
        shown,
    )
    assert re.search("<b>100.0</b>[^<]*interval [^<]* to 100.0chrF", page)


def test_sections_and_commands(text_run):
    scores = TextScores(n=2, exact=0.5, cer=0.25, wer=0.5, bleu=None, chrf=None, signatures={})
    evaluation = TextEvaluation(
        scores, "pairs", "test", ("ab", "abcd"), (("ba",), ("dcba",)), ("ba", "dbba"), 9.0, ("a note",)
    )
    content = report(evaluation, text_run, model=str(text_run.best))
    headings = [section.heading for section in content.sections]
    assert headings == [
        "Errors", "Errors by length", "Errors by token", "Attention", "Training curves",
        "Sample answers by epoch",
    ]  # fmt: skip
    (answers,) = content.sections[0].blocks
    assert answers.rates.tolist() == [0, 0.25]
    (table,) = content.sections[2].blocks
    assert table.rows == (("c", 1, 1, 1.0, "b"),)
    attention = content.sections[3].blocks[0]
    assert attention.source[:2] == ("a", "b")
    assert attention.weights.shape == (len(attention.target), len(attention.source))
    assert content.warnings == ("a note",)
    assert content.commands[0].startswith("striate seq2seq translate ")
