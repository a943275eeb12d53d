"""The evaluation of a translator on pairs."""

from dataclasses import replace

import pytest

from striate.data.text.columns import ColumnSelection
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


def test_all_splits_together(text_run):
    data = text_run.task.data
    translator = load_translator(text_run.best, "cpu")
    parts = [measure_on(translator, data, name) for name in data.splits]
    together = measure_on(translator, data, "all")
    assert together.answers == tuple(answer for part in parts for answer in part.answers)
    assert together.references == tuple(these for part in parts for these in part.references)
    assert any("the data that the model was trained on" in note for note in together.notes)


def test_shuffled_references_are_those_of_other_sources(text_run, reversed_words):
    plain, shuffled = (
        evaluate_seq2seq(text_run.best, reversed_words, shuffled=shuffled) for shuffled in (False, True)
    )
    assert sorted(shuffled.references) == sorted(plain.references)
    assert all(a != b for a, b in zip(shuffled.references, plain.references, strict=True))
    assert any("control" in note for note in shuffled.notes)


def test_columns_unknown_characters_and_empty_pairs_are_counted(text_run, tmp_path):
    """The model knows a, b, c and d."""
    table = tmp_path / "a.tsv"
    table.write_text("ab\tba\tx\ncx\txc\ty\n\tb\t\n", "utf-8")
    evaluation = evaluate_seq2seq(text_run.best, table)
    values = evaluation.to_json()
    assert evaluation.references == (("ba",), ("xc",))
    assert [values[key] for key in ("n", "unknown_sources", "unknown_references", "empty")] == [2, 1, 1, 1]
    assert values["cut"] == sum("cut off" in note and int(note.split()[0]) for note in evaluation.notes)
    assert values["columns"] == [
        {"name": "column 1", "use": "source", "lines": 2},
        {"name": "column 2", "use": "target", "lines": 3},
        {"name": "column 3", "use": "unused", "lines": 2},
    ]
    assert any("not used: column 3 (2 lines)" in note for note in evaluation.notes)
    assert any("the model does not know: 'x'" in note for note in evaluation.notes)
    assert any(
        "1 references have characters or words that the model cannot write: 'x'" in n
        for n in evaluation.notes
    )
    assert any("skipped 1 pairs with an empty side" in note for note in evaluation.notes)
    more = evaluate_seq2seq(text_run.best, table, source_columns=1, target_columns="3", reference_columns="2")
    assert more.references == (("x", "ba"), ("y", "xc"), ("b",))[:2]


def test_columns_are_those_of_training(text_run, tmp_path):
    """Unless others are given; parallel files have none."""
    translator = load_translator(text_run.best, "cpu")
    text = {**translator.description.text, "columns": ColumnSelection.of(source="3,2", target="1").to_json()}
    trained = replace(translator, description=replace(translator.description, text=text))
    table = tmp_path / "a.tsv"
    table.write_text("ab\tb\ta\n", "utf-8")
    assert evaluate_seq2seq(trained, table).sources == ("a b",)
    assert evaluate_seq2seq(trained, table, source_columns="1").sources == ("ab",)
    for name in ("x.en", "x.de"):
        (tmp_path / name).write_text("ab\n", "utf-8")
    assert evaluate_seq2seq(trained, tmp_path / "x.en", tmp_path / "x.de").sources == ("ab",)
