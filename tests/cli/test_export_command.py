"""`striate export`: its formats come from the table, and what it prints from the comparison."""

import json
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from striate import bundle, cli
from striate.exporters import FORMATS, OLD_NAMES, Format, default_name, state_dict


def test_a_classifier_as_a_state_dict(run, tmp_path, capsys):
    out = tmp_path / "out.pth"
    assert cli.run(["export", str(run.training.folder), "--out", str(out)]) == 0
    first, second, *others, last = capsys.readouterr().out.splitlines()
    images = f"12 of 12 test images of {Path(run.training.config.source).name}"
    assert first == f"{out}: 12 of 12 most probable classes equal, on {images}"
    assert second.startswith("largest difference: ")
    assert float(second.split()[2]) < 1e-6
    assert [line.partition(":")[0] for line in others] == ["accuracy", "latency of one"]
    assert last == "All 10 tensors are equal bit for bit."
    state = bundle.read(run.best)[1]
    written = torch.load(out, weights_only=True)
    assert written.keys() == state.keys()
    assert all(torch.equal(written[name], tensor) for name, tensor in state.items())
    assert cli.run(["export", str(run.best), "--out", str(out)]) == 3
    assert "it exists" in capsys.readouterr().err


def test_each_format_has_a_name_of_its_own(run, tmp_path, monkeypatch):
    names = {name: default_name(name) for name in FORMATS}
    assert len(set(names.values())) == len(FORMATS)
    assert (names["onnx"], names["onnx-int8"]) == ("exported.onnx", "exported-int8.onnx")
    assert (names["torch-export"], names["openvino"]) == ("exported", "exported-openvino")
    assert (names["state-dict"], default_name("pth")) == ("exported.pth", "exported.pth")
    monkeypatch.chdir(tmp_path)
    assert cli.run(["export", str(run.best), "--to", "state-dict"]) == 0
    assert (tmp_path / "exported.pth").is_file()


def test_a_format_that_cannot_hold_the_model(run, tmp_path, capsys):
    argv = ["export", str(run.best), "--out", str(tmp_path / "x")]
    assert cli.run([*argv, "--to", "ctranslate2"]) == 2
    assert (
        "a classification model as ctranslate2: the format cannot hold it. Use onnx, onnx-float, onnx-int8, "
        in capsys.readouterr().err
    )
    assert cli.run([*argv, "--to", "onx"]) == 2
    assert "unknown format 'onx': did you mean onnx" in capsys.readouterr().err


@pytest.mark.parametrize("command", [["export"], ["seq2seq", "export"]])
def test_a_new_format_is_a_row(run, text_run, few_colors, tmp_path, capsys, monkeypatch, command):
    calls = []

    def write(model, path, request):
        calls.append((model.description.task, path.name, request.samples))
        return state_dict.export(model, path, request)

    monkeypatch.setitem(sys.modules, "new_format", SimpleNamespace(write=write))
    monkeypatch.chdir(tmp_path)  # for the model card next to the export
    monkeypatch.setitem(FORMATS, "new", Format("new_format:write", (), "a new format"))
    assert cli.run([*command, "--help"]) == 0
    text = " ".join(capsys.readouterr().out.replace("\u2502", " ").split())
    assert "new (a new format, for any model)" in text
    picture = str(next(few_colors.rglob("*.png")))
    for name, model, sample in (("x", run.best, picture), ("y", text_run.best, "abc")):
        argv = [*command, str(model), sample, "--to", "new", "--out", name]
        assert cli.run(argv) == 0
        out = capsys.readouterr().out
        outputs = (
            "most probable classes equal, on 1 given images" if name == "x" else "texts equal, on 1 given"
        )
        assert out.startswith(f"{name}: 1 of 1 {outputs}")
        assert "largest difference: 0.0e+00 " in out
    assert calls == [("classification", "x", (picture,)), ("seq2seq", "y", ("abc",))]
    assert cli.run([*argv[:-1], "z", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert (result["out"], result["format"], result["n"], result["equal"]) == ("z", "new", 1, 1)
    assert (result["max_difference"] < 1e-6, result["accuracy"]) == (True, None)


def test_the_first_format_for_a_task_is_its_default(text_run, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "new_format", SimpleNamespace(write=state_dict.export))
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
def test_earlier_names_of_formats_work_with_a_warning(run, text_run, tmp_path, capsys):
    assert cli.run(["export", str(run.best), "--format", "pth", "--out", str(tmp_path / "x.pth")]) == 0
    out, err = capsys.readouterr()
    assert out.startswith(f"{tmp_path / 'x.pth'}: 12 of 12 most probable classes equal")
    assert (
        err == "warning: the format pth is now state-dict; the old name will be removed in the next release\n"
    )
    assert cli.run(["export", str(text_run.best), "--to", "programs", "--out", str(run.best)]) == 3
    assert "the format programs is now torch-export" in capsys.readouterr().err
    assert set(OLD_NAMES.values()) <= set(FORMATS)
    assert not set(OLD_NAMES) & set(FORMATS)
