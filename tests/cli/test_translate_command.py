"""`striate seq2seq translate`."""

import gzip
import json
import sys

import pytest

from striate import cli
from striate.inference.translator import load_translator


@pytest.fixture
def expected(text_run):
    results = load_translator(text_run.best).translate(["abc", "dd"]).results
    return [result.text + (" [cut]" if result.cut else "") for result in results]


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


@pytest.mark.parametrize("ends", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_files_are_read_as_in_training(ends, mark, text_run, expected, tmp_path, capsys, monkeypatch):
    """Byte order mark, blanks, line ends, gzip and bytes that are no text."""
    raw = ends.join([f"{mark}abc", "\u00a0dd ", ""]).encode()
    file = tmp_path / "lines.txt.gz"
    file.write_bytes(gzip.compress(raw))
    command = ["seq2seq", "translate", str(text_run.best)]
    assert cli.run([*command, "--file", str(file)]) == 0
    assert capsys.readouterr().out.splitlines() == expected
    file.write_bytes(raw + b"\xff" + ends.encode())
    with file.open() as stream:
        monkeypatch.setattr(sys, "stdin", stream)
        assert cli.run(command) == 3
    line = 1 if ends == "\r" else 3
    assert f"standard input:{line}: the line is not valid UTF-8" in capsys.readouterr().err
    assert cli.run([*command, "--file", str(file)]) == 3
    assert f"lines.txt.gz:{line}: the line is not valid UTF-8" in capsys.readouterr().err
    file.with_name("pairs.tsv").write_bytes(raw.replace(b"abc", b"abc\tcba").replace(b"dd ", b"dd\tdd"))
    assert cli.run([*command, "--file", str(tmp_path / "pairs.tsv"), "--source-columns", "1"]) == 0
    assert capsys.readouterr().out.splitlines() == expected


def test_warnings_are_printed_and_in_json(text_run, capsys):
    command = ["seq2seq", "translate", str(text_run.best), "a\u2603", "", "abc"]
    assert cli.run(command) == 0
    out, err = capsys.readouterr()
    assert out.splitlines()[1] == ""
    assert "warning: 1 of 3 sources have characters or words that the model does not know: '\u2603'" in err
    assert "warning: 1 of 3 sources are empty" in err
    assert cli.run([*command, "--json"]) == 0
    values = json.loads(capsys.readouterr().out)
    assert [(r["unknown"], r["empty"]) for r in values["results"]] == [
        (["\u2603"], False),
        ([], True),
        ([], False),
    ]
    cut = [not r["answers"][0]["ended"] for r in values["results"]]
    assert cut == [line.endswith(" [cut]") for line in out.splitlines()]
    assert len(values["notes"]) == 2 + any(cut)


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
        (["abc", "--source-columns", "1"], 2, "only a file has columns"),
        (["a" * 3000], 3, ""),
    ],
)
def test_mistakes(arguments, code, message, text_run, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert cli.run(["seq2seq", "translate", str(text_run.best), *arguments]) == code
    assert message in capsys.readouterr().err
