"""Prediction with exported ONNX files: the original's answers, without torch."""

import json
import subprocess
import sys

import numpy as np
import pytest

import striate
from striate import cli
from striate.errors import BundleError, DecodeError, UsageError
from striate.exporters.onnx.file import Graph, Node, Signature, encode
from striate.inference.onnx_classifier import load

pytest.importorskip("onnxruntime")


@pytest.fixture(scope="module")
def exported(run, tmp_path_factory):
    path = tmp_path_factory.mktemp("exported") / "model.onnx"
    striate.export(run.best, path, "onnx")
    return path


def test_the_answers_are_the_original_s(exported, run, few_colors, tmp_path):
    (tmp_path / "bad.png").write_bytes(b"")
    files = [*sorted(few_colors.rglob("*.png"))[::5], tmp_path / "bad.png"]
    original, model = striate.load(run.best, "cpu"), striate.load(exported)
    assert (model.classes, model.preprocess) == (original.classes, original.preprocess)
    pairs = zip(original.predict_many(files), model.predict_many(files, batch=3), strict=True)
    for ours, theirs in pairs:
        assert (ours.label, ours.error, ours.path) == (theirs.label, theirs.error, theirs.path)
        assert np.allclose(ours.probabilities, theirs.probabilities, atol=1e-5)
    with pytest.raises(DecodeError, match="empty"):
        model.predict(tmp_path / "bad.png")
    assert model.predict(np.zeros((40, 30), np.uint8)).error is None


def test_the_command_loads_no_torch(exported, run, few_colors, capsys):
    picture = str(next(few_colors.rglob("*.png")))
    code = (
        "import sys; from striate.cli import run; "
        f"assert run(['predict', {str(exported)!r}, {picture!r}, '--json']) == 0; "
        "assert not any(name == 'torch' or name.startswith('torch.') for name in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert cli.run(["predict", str(run.best), picture, "--json"]) == 0
    ours, theirs = json.loads(capsys.readouterr().out), json.loads(done.stdout)
    for one, other in zip(ours["results"][0]["top"], theirs["results"][0]["top"], strict=True):
        assert one["class"] == other["class"]
        assert one["probability"] == pytest.approx(other["probability"], abs=1e-5)


def written(path, metadata, dtype="uint8", shape=("batch", 2, 2, 3)):
    """A small valid file: the sum of the pixels."""
    nodes = [Node("Cast", ("images",), ("x",), {"to": 1}), Node("Flatten", ("x",), ("scores",), {"axis": 1})]
    images, scores = Signature("images", dtype, shape), Signature("scores", "float32", ("batch", 12))
    path.write_bytes(b"".join(encode(Graph("g", nodes, {}, (images,), (scores,)), ("t", "1"), metadata)))
    return path


def test_what_cannot_be_opened_is_refused(exported, run, tmp_path, monkeypatch):
    (tmp_path / "damaged.onnx").write_bytes(exported.read_bytes()[:5000])
    header = json.dumps(striate.load(exported).description.to_json())
    striate.export(run.best, tmp_path / "float.onnx", "onnx-float")
    cases = [
        (tmp_path / "absent.onnx", "no such file"),
        (tmp_path / "damaged.onnx", "ONNX Runtime cannot read it"),
        (tmp_path / "float.onnx", "normalized images, not pixels"),
        (written(tmp_path / "other.onnx", {}), "Striate did not write it"),
        (written(tmp_path / "bad.onnx", {"striate": "{"}), "its description is damaged"),
        (written(tmp_path / "nan.onnx", {"striate": header.replace("classes", "klasses")}), "klasses"),
        (written(tmp_path / "shape.onnx", {"striate": header}), "its shapes are not those"),
    ]
    for path, why in cases:
        with pytest.raises(BundleError, match=why):
            load(path)
    with pytest.raises(BundleError, match="only predict reads ONNX: give the bundle"):
        striate.evaluate(exported)
    with pytest.raises(UsageError, match="it runs on the CPU"):
        load(exported, "cuda")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(UsageError, match="pip install"):
        load(exported)
