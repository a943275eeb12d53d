"""Scores and weights that are NaN or infinite: wrong answers, warnings, strict JSON, never the best epoch."""

import dataclasses
import json
import re
import warnings

import numpy as np
import pytest
import torch
from test_strict_json import strictly

import striate
from striate import bundle, cli, tensor_file, weights
from striate.errors import DataError, StriateWarning
from striate.inference.prediction import NOT_FINITE


def damaged(source, target, change):
    """A copy of a bundle with changed weights."""
    description, state = bundle.read(source)
    change(state)
    bundle.write(target, state, description)
    return target


@pytest.fixture(scope="module")
def broken(run, tmp_path_factory):
    """The classifier of the colors, with one weight that is NaN; it is next to the run's split."""

    def change(state):
        state[next(name for name in state if name.endswith("weight"))].view(-1)[0] = torch.nan

    return damaged(run.best, tmp_path_factory.mktemp("broken") / "nan.safetensors", change)


@pytest.fixture(scope="module")
def broken_text(text_run, tmp_path_factory):
    """The translator of the reversed words with infinite embeddings."""

    def change(state):
        for name in state:
            if "embedding" in name:
                state[name][:] = torch.inf

    return damaged(text_run.best, tmp_path_factory.mktemp("broken") / "inf.safetensors", change)


@pytest.fixture
def command(capfd):
    """Run a command line; returns exit code, standard output and standard error."""

    def call(*argv):
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            code = cli.run([str(a) for a in argv])
        out, err = capfd.readouterr()
        return code, out, err

    return call


def test_a_model_with_nan_evaluates_to_zero(broken, colors, command):
    code, out, err = command("evaluate", broken, colors, "--json")
    found = strictly(out)
    assert code == 0
    assert (found["top1"], found["nonfinite"], found["n"]) == (0.0, 60, 60)
    assert (found["macro_f1"], found["ece"]) == (0.0, None)
    assert {scores["support"] for scores in found["per_class"].values()} == {20}
    assert {scores["recall"] for scores in found["per_class"].values()} == {0.0}
    assert found["notes"][0] == "the scores of 60 of 60 images are not finite: they count as wrong"
    assert f"warning: 1 of 61,411 values of '{broken}' are NaN or infinite (" in err
    code, out, _ = command("evaluate", broken, colors, "--out", broken.parent / "page")
    assert code == 0
    assert "top-1 accuracy 0.00 % of 60 images" in out
    page = (broken.parent / "page" / "report.html").read_text("utf-8")
    assert "are not finite" in page
    assert not re.search(r">\s*nan\b(?!\.safetensors)", page)


def test_a_model_with_nan_predicts_nothing(broken, colors, command):
    image = colors / "red" / "000.png"
    code, out, err = command("predict", broken, image, "--json")
    assert code == 3
    assert strictly(out) == {"results": [{"path": str(image), "error": NOT_FINITE, "top": []}]}
    assert "none of 1 images" in err
    code, out, _ = command("predict", broken, image)
    assert (code, out.split("  ")[1]) == (3, f"no answer: {NOT_FINITE}\n")
    with pytest.warns(StriateWarning):
        model = striate.load(broken)
    assert next(model.predict_many([image])).label is None
    with pytest.raises(DataError, match="scores are not finite"):
        model.predict(image)


def test_answers_that_are_not_finite_are_wrong(broken_text, reversed_words, command):
    code, out, _ = command("evaluate", broken_text, reversed_words, "--json")
    found = strictly(out)
    assert code == 0
    assert (found["exact"], found["cer"], found["nonfinite"]) == (0.0, 1.0, found["n"])
    assert "answers are not finite" in found["notes"][0]
    for beams in (1, 3):
        code, out, _ = command("seq2seq", "translate", broken_text, "abc", "--beam", beams, "--json")
        assert code == 3
        assert strictly(out)["results"] == [
            {"source": "abc", "error": NOT_FINITE, "unknown": [], "empty": False, "answers": []}
        ]


def test_importing_and_inspecting_weights_that_are_not_finite(run, tmp_path, command):
    _, state = bundle.read(run.best)
    state["conv1.weight"].view(-1)[:2] = torch.inf
    torch.save(state, tmp_path / "bad.pth")
    code, out, err = command("weights", "import", tmp_path / "bad.pth", "--model", "lenet", "--json")
    assert code == 0
    assert "warning: 2 of 61,411 values of 'bad.pth' are NaN or infinite" in err
    assert any("2 of 61,411 values" in note for note in strictly(out)["provenance"]["notes"])
    code, out, _ = command("weights", "inspect", tmp_path / "bad.safetensors", "--json")
    assert strictly(out)["nonfinite"] == 2
    assert "2 values are NaN or infinite" in command("weights", "inspect", tmp_path / "bad.safetensors")[1]
    with pytest.warns(StriateWarning, match="2 of 61,411"):
        weights.open_weights(str(tmp_path / "bad.pth"), "lenet")


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_every_floating_point_type_is_looked_at(tmp_path, run, dtype):
    """Large finite values overflow a sum; they are not taken for infinite ones."""
    largest = torch.finfo(dtype).max
    state = {"a": torch.full((4,), largest, dtype=dtype), "b": torch.tensor([1, 2])}
    bundle.write(tmp_path / "large.safetensors", state, run.training.description)
    bundle.read(tmp_path / "large.safetensors")  # a warning would be an error
    assert bundle.inspect(tmp_path / "large.safetensors").nonfinite == 0
    state["a"][1:] = torch.tensor([torch.nan, torch.inf, -torch.inf], dtype=dtype)
    bundle.write(tmp_path / "bad.safetensors", state, run.training.description)
    assert bundle.inspect(tmp_path / "bad.safetensors").nonfinite == 3
    with pytest.warns(StriateWarning, match=r"3 of 6 values .* \(a\)"):
        bundle.read(tmp_path / "bad.safetensors")


def test_metrics_that_are_not_finite_are_null_in_a_bundle(run, tmp_path, command):
    description, state = bundle.read(run.best)
    path = tmp_path / "m.safetensors"
    bundle.write(path, state, dataclasses.replace(description, metrics={"val_loss": np.nan}))
    bundle.add_metrics(path, {"test": {"ece": np.inf}})
    with path.open("rb") as file:
        header = strictly(file.read(int.from_bytes(file.read(8), "little")))
    metrics = strictly(header["__metadata__"]["striate"])["metrics"]
    assert metrics == {"val_loss": None, "test": {"ece": None}}
    assert strictly(command("weights", "inspect", path, "--json")[1])["metrics"] == metrics


@pytest.mark.parametrize("more", [(), ("--ema", "0.5"), ("--average", "2", "--epochs", "2")])
def test_a_run_that_diverges_in_its_only_step_fails(few_colors, tmp_path, command, more):
    """Its weights are finite, and the scores of the validation images are not."""
    argv = ("train", few_colors, "--model", "lenet", "--lr", "1e9", "--epochs", 1, "--out", tmp_path)
    code, out, err = command(*argv, "--name", "run", "--json", *more)
    assert code == 4, err
    error = strictly(out)["error"]
    assert error["exit_code"] == 4
    assert "not finite" in error["what"]
    assert not list((tmp_path / "run").glob("*.safetensors"))


@pytest.mark.parametrize("value", ["nan", "inf", "-inf", "1e400"])
def test_options_are_finite(few_colors, tmp_path, command, value):
    code, _, err = command("train", few_colors, "--lr", value, "--out", tmp_path, "--json")
    assert code == 2
    assert "it must be above 0 and at most 3.4e+38" in err


def test_old_bundles_with_nan_in_their_header_open(run, tmp_path, command, monkeypatch):
    """Earlier versions wrote NaN, which Python reads, and no checksums."""
    description, state = bundle.read(run.best)
    path = tmp_path / "m.safetensors"
    bundle.write(path, state, dataclasses.replace(description, metrics={"val_loss": 0.123}))
    header, content = tensor_file.read_header(path, ""), path.read_bytes()
    metadata = {"striate": header.metadata["striate"].replace("0.123", "NaN")}
    path.write_bytes(tensor_file.header_bytes(header.table, metadata) + content[header.start :])
    monkeypatch.setattr(bundle, "_noted", True)  # that it has no checksums
    assert bundle.describe(path).metrics == {"val_loss": None}
    code, out, _ = command("weights", "inspect", path, "--json")
    assert (code, strictly(out)["metrics"]) == (0, {"val_loss": None})
    assert json.loads(out)["architecture"] == "lenet"
