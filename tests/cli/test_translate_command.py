"""`striate seq2seq translate`."""

import json
import sys

import pytest

from striate import cli
from striate.inference.translator import load_translator


@pytest.fixture
def expected(text_run):
    return [result.text for result in load_translator(text_run.best).translate(["abc", "dd"]).results]


def test_arguments_a_file_and_standard_input(text_run, expected, tmp_path, capsys, monkeypatch):
    best = str(text_run.best)
    assert cli.run(["seq2seq", "translate", best, "abc", "dd"]) == 0
    out, err = capsys.readouterr()
    assert out.splitlines() == expected
    assert "tok/s" in err
    file = tmp_path / "lines.txt"
    file.write_text("abc\ndd\n", "utf-8")
    assert cli.run(["seq2seq", "translate", best, "--file", str(file)]) == 0
    assert capsys.readouterr().out.splitlines() == expected
    with file.open() as stream:
        monkeypatch.setattr(sys, "stdin", stream)
        assert cli.run(["seq2seq", "translate", best, "--n-best", "2", "--json"]) == 0
    results = json.loads(capsys.readouterr().out)["results"]
    assert [len(result["answers"]) for result in results] == [2, 2]
    scores = [answer["score"] for answer in results[0]["answers"]]
    assert scores == sorted(scores, reverse=True)


def test_lines_as_they_are_typed(text_run, expected, capsys, monkeypatch):
    lines = iter(["abc", "", "dd"])

    class Terminal:
        def isatty(self):
            return True

    def typed(prompt):
        try:
            return next(lines)
        except StopIteration:
            raise EOFError from None

    monkeypatch.setattr(sys, "stdin", Terminal())
    monkeypatch.setattr("builtins.input", typed)
    assert cli.run(["seq2seq", "translate", str(text_run.best)]) == 0
    assert capsys.readouterr().out.splitlines() == expected


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["abc", "--file", "x.txt"], 2, "texts and --file"),
        (["--file", "absent.txt"], 3, "cannot read 'absent.txt'"),
        (["a" * 3000], 3, ""),
    ],
)
def test_mistakes(arguments, code, message, text_run, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert cli.run(["seq2seq", "translate", str(text_run.best), *arguments]) == code
    assert message in capsys.readouterr().err
