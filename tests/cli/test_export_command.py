"""`striate export`: its formats come from the table, and what it prints from the comparison."""

import json
import sys
from types import SimpleNamespace

import pytest
import torch

from striate import bundle, cli
from striate.exporters import FORMATS, OLD_NAMES, Format, Parity


def test_a_classifier_as_a_state_dict(run, tmp_path, capsys):
    out = tmp_path / "out.pth"
    assert cli.run(["export", str(run.training.folder), "--out", str(out)]) == 0
    assert capsys.readouterr().out == f"{out}: 10 of 10 tensors equal\nlargest difference: 0.0e+00\n"
    state = bundle.read(run.best)[1]
    written = torch.load(out, weights_only=True)
    assert written.keys() == state.keys()
    assert all(torch.equal(written[name], tensor) for name, tensor in state.items())
    assert cli.run(["export", str(run.best), "--out", str(out)]) == 3
    assert "it exists" in capsys.readouterr().err


def test_a_format_that_cannot_hold_the_model(run, tmp_path, capsys):
    argv = ["export", str(run.best), "--out", str(tmp_path / "x")]
    assert cli.run([*argv, "--to", "ctranslate2"]) == 2
    assert (
        "a classification model as ctranslate2: the format cannot hold it. Use onnx, onnx-float, state-dict"
        in capsys.readouterr().err
    )
    assert cli.run([*argv, "--to", "onx"]) == 2
    assert "unknown format 'onx': did you mean onnx" in capsys.readouterr().err


@pytest.mark.parametrize("command", [["export"], ["seq2seq", "export"]])
def test_a_new_format_is_a_row(run, text_run, tmp_path, capsys, monkeypatch, command):
    calls = []

    def write(model, out, samples):
        calls.append((model.description.task, out.name, samples))
        return Parity(3, 2, 0.25, outputs="answers", unit="points")

    monkeypatch.setitem(sys.modules, "new_format", SimpleNamespace(write=write))
    monkeypatch.chdir(tmp_path)  # for the model card next to the export
    monkeypatch.setitem(FORMATS, "new", Format("new_format:write", (), "a new format"))
    assert cli.run([*command, "--help"]) == 0
    text = " ".join(capsys.readouterr().out.replace("\u2502", " ").split())
    assert "new (a new format, for any model)" in text
    for model in (run.best, text_run.best):
        argv = [*command, str(model), "one", "two", "--to", "new", "--out", "x"]
        assert cli.run(argv) == 0
        assert capsys.readouterr().out == "x: 2 of 3 answers equal\nlargest difference: 2.5e-01 points\n"
    assert calls == [("classification", "x", ("one", "two")), ("seq2seq", "x", ("one", "two"))]
    assert cli.run([*argv, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {
        "out": "x", "format": "new", "n": 3, "equal": 2, "max_difference": 0.25, "outputs": "answers",
        "unit": "points",
    }  # fmt: skip


def test_the_first_format_for_a_task_is_its_default(text_run, tmp_path, capsys, monkeypatch):
    def write(model, out, samples):
        return Parity(1, 1, 0.0)

    monkeypatch.setitem(sys.modules, "new_format", SimpleNamespace(write=write))
    monkeypatch.chdir(tmp_path)  # for the model card next to the export
    for name, row in FORMATS.items():
        monkeypatch.setitem(FORMATS, name, Format("new_format:write", row.tasks, row.summary))
    assert cli.run(["export", str(text_run.best), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["format"] == "torch-export"


def test_earlier_names_print_a_note_and_are_not_listed(run, tmp_path, capsys):
    for group in ("weights", "seq2seq"):
        cli.run([group, "--help"])
        assert " export " not in capsys.readouterr().out
    assert cli.run(["weights", "export", str(run.best), "--out", str(tmp_path / "x.pth")]) == 0
    assert capsys.readouterr().err == (
        "note: `striate weights export` is now `striate export --to state-dict`; "
        "the old name will be removed in the next release\n"
    )
    (tmp_path / "text").write_text("no bundle")
    assert cli.run(["weights", "export", str(tmp_path / "text"), "--out", str(tmp_path / "y")]) == 3
    assert not (tmp_path / "y").exists()


@pytest.mark.filterwarnings("always::striate.errors.StriateWarning")
def test_earlier_names_of_formats_work_with_a_warning(run, tmp_path, capsys):
    assert cli.run(["export", str(run.best), "--format", "pth", "--out", str(tmp_path / "x.pth")]) == 0
    out, err = capsys.readouterr()
    assert out.startswith(f"{tmp_path / 'x.pth'}: 10 of 10 tensors equal")
    assert (
        err == "warning: the format pth is now state-dict; the old name will be removed in the next release\n"
    )
    assert cli.run(["export", str(run.best), "--to", "programs", "--out", str(tmp_path / "y")]) == 2
    assert "a classification model as torch-export: the format cannot hold it" in capsys.readouterr().err
    assert set(OLD_NAMES.values()) <= set(FORMATS)
    assert not set(OLD_NAMES) & set(FORMATS)
