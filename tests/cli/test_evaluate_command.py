"""`striate evaluate` and `striate predict` with models of both tasks."""

import json

import pytest

import striate
from striate import cli


@pytest.fixture
def command(capfd):
    """Run a command line; returns exit code, standard output and standard error."""

    def call(*argv):
        code = cli.run([str(a) for a in argv])
        out, err = capfd.readouterr()
        return code, out, err

    return call


@pytest.mark.parametrize("name", [["evaluate", "--data"], ["evaluate"], ["seq2seq", "evaluate"]])
def test_a_model_of_text(command, name, text_run, reversed_words, tmp_path):
    expected = striate.evaluate(text_run.best, str(reversed_words), beams=2)
    data = ("--data", reversed_words) if "--data" in name else (reversed_words,)
    argv = (*(word for word in name if word != "--data"), text_run.folder, *data, "--beam", 2)
    code, out, err = command(*argv, "--json", "--out", tmp_path / "page")
    assert code == 0, err
    result = json.loads(out)
    assert {"bleu", "chrf", "exact", "cer", "wer", "n"} <= result.keys()
    assert (result["n"], result["exact"]) == (expected.scores.n, expected.scores.exact)
    page = (tmp_path / "page" / "report.html").read_text("utf-8")
    assert result["report"] == str(tmp_path / "page" / "report.html")
    assert ">Errors<" in page
    assert (tmp_path / "page" / "predictions.csv").read_text("utf-8").count("\n") == result["n"] + 1
    assert "Attention" in page
    assert ">Training curves<" not in page
    code, out, _ = command(*argv, "--shuffled", "--split", "all")
    assert code == 0
    assert "another source" in out
    assert out.startswith("exact match ")


def test_two_files_of_text(command, text_run, reversed_words, tmp_path):
    pairs = [line.split("\t") for line in reversed_words.read_text("utf-8").splitlines()]
    for i, language in enumerate(("de", "en")):
        (tmp_path / f"x.{language}").write_text("".join(f"{pair[i]}\n" for pair in pairs), "utf-8")
    code, out, err = command("evaluate", text_run.best, tmp_path / "x.de", tmp_path / "x.en", "--json")
    assert code == 0, err
    assert json.loads(out)["n"] == len(pairs)


def test_mistakes(command, run, text_run, colors, reversed_words):
    for argv, code, text in [
        (("evaluate", text_run.best), 2, "no data to evaluate on: a bundle contains none. Give --data FILE"),
        (("evaluate", text_run.best, reversed_words, "--batch", 3), 2, "--batch with a seq2seq model"),
        (("evaluate", text_run.best, reversed_words, "--from", "de"), 2, "--from and --to: one is missing"),
        (("seq2seq", "evaluate", text_run.best), 2, "Missing argument 'DATA'"),
        (("seq2seq", "evaluate", text_run.best, reversed_words, "--batch", 3), 2, "unknown option --batch"),
        (("evaluate", text_run.best, reversed_words, "--split", "tets"), 2, "no split 'tets'"),
        (("evaluate", run.best, colors, "--beam", 3), 2, "--beam with a classification model"),
        (("evaluate", run.best, colors, "--data", colors), 2, "2 datasets"),
        (("evaluate", run.best, colors, "--no-cache", "--batch", 0), 2, "batch"),
        (("predict", text_run.best, colors / "red" / "000.png"), 3, "does not read images"),
    ]:
        result, _, err = command(*argv)
        assert (result, err.count("\n")) == (code, 1), err
        assert text in err


def test_predict_reads_text(command, text_lines, tmp_path):
    from text_runs import train

    model = train(text_lines, tmp_path, height=16, epochs=1).best
    paths = [text_lines.parent / name for name in ("85.png", "broken.png")]
    expected = striate.load(model).translate([str(paths[0])]).results[0].text
    code, out, err = command("predict", model, *paths, "--json")
    assert code == 0, err
    result = json.loads(out)
    assert result["tokens_per_second"] > 0
    assert result["results"][0] == {"path": str(paths[0]), "error": None, "text": expected, "cut": False}
    assert result["results"][1]["error"]
    assert result["results"][1]["text"] is None
    code, out, _ = command("predict", model, *paths, "--csv")
    lines = out.splitlines()
    assert lines[:2] == ["path,error,text,cut", f"{paths[0]},,{expected},"]
    code, out, _ = command("predict", model, *paths)
    assert out.splitlines()[0].split(maxsplit=1) == [str(paths[0]), *([expected] if expected else [])]
    assert "cannot be read: " in out
    assert command("predict", model, paths[1])[0] == 3
