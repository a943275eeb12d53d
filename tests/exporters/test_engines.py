"""Bundles in ONNX Runtime through the cache of exports: the answers of torch, without loading it."""

import csv
import dataclasses
import json
import os
import subprocess
import sys
import time

import numpy as np
import pytest
from pretrained import build
from torch import nn

import striate
from striate import bundle, cli
from striate.bundle import Calibration, Description
from striate.bundle.calibration import encode_scores
from striate.bundle.unknown import of_features
from striate.errors import TrustError, UsageError, WriteError
from striate.exporters import engines, verification
from striate.exporters.engines import load
from striate.inference.onnx_classifier import OnnxClassifier
from striate.inference.prediction import NOT_FINITE
from striate.transforms.preprocess import Preprocess

onnxruntime = pytest.importorskip("onnxruntime")


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache, on a machine without a GPU; returns the folder of the exports."""
    monkeypatch.setattr(engines, "may_have_gpu", lambda: False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "striate" / "exports"


def write(path, name="lenet", size=32, seed=0, **more):
    """A bundle of a network with seeded weights."""
    network, arguments = build(name, size, num_classes=3)
    for parameter in network.parameters():
        parameter.data += seed / 100
    channels = striate.models.MODELS[name].channels
    preprocess = Preprocess.for_size(size, channels)
    bundle.write(
        path, network, Description("classification", name, arguments, tuple("abc"), preprocess, **more)
    )
    return path


@pytest.fixture
def pictures(few_colors, tmp_path):
    (tmp_path / "bad.png").write_bytes(b"")
    return [*map(str, sorted(few_colors.rglob("*.png"))[::4]), str(tmp_path / "bad.png")]


def unknown_of(path, pictures):
    """Features of training images for a bundle, with a threshold that about half of the pictures exceed."""
    model = striate.load(path, "cpu")
    features = model.embed(pictures[:-1])
    noise = np.random.default_rng(0).normal(0, 0.1, (2, 40, features.shape[1])).astype(np.float32)
    record = of_features(*(np.repeat(features, 10, 0)[:40] + noise))
    far = np.sort(record.distances(features))
    return dataclasses.replace(record, threshold=float(far[4] + far[5]) / 2).encode()


def calibration(temperature):
    scores = encode_scores(np.linspace(0.1, 0.9, 100))
    return Calibration(temperature, 100, "val", (0.1, 0.05), "lac", scores)


def equal(one, other):
    """Whether two JSON results are the same, up to rounding of probabilities."""
    if isinstance(one, float):
        return other == pytest.approx(one, abs=1e-5)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(equal(one[name], other[name]) for name in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(equal, one, other))
    return one == other


@pytest.mark.parametrize("kind", ["plain", "calibrated", "thresholds", "unknown", "unknown_with_maps"])
def test_the_same_json_as_with_torch(kind, cache, pictures, tmp_path, capsys):
    more = {}
    if kind == "calibrated":
        more["calibration"] = calibration(2.5)
    if kind == "thresholds":
        more["thresholds"] = (0.2, 0.5, 0.3)
    name = "resnet20" if "maps" in kind else "lenet"
    path = write(tmp_path / "model.safetensors", name)
    if more:
        write(path, name, **more)
    if "unknown" in kind:
        bundle.add_metrics(path, {}, unknown=unknown_of(path, pictures))
    options = ["--coverage", "0.9"] if kind == "calibrated" else []
    results = []
    for engine in ("torch", "onnxruntime", "auto"):
        assert cli.run(["predict", str(path), *pictures, "--json", "--engine", engine, *options]) == 0
        results.append(json.loads(capsys.readouterr().out))
    assert all(equal(results[0], other) for other in results[1:])
    marks = [result.get("unknown") for result in results[0]["results"]]
    assert (True in marks and False in marks) if "unknown" in kind else not any(marks)
    assert all(("set" in result) == (kind == "calibrated") for result in results[0]["results"])
    assert all(("labels" in result) == (kind == "thresholds") for result in results[0]["results"])


def test_the_second_process_loads_no_torch(cache, pictures, tmp_path, capsys):
    bundle_path = str(write(tmp_path / "model.safetensors"))
    arguments = ["predict", bundle_path, pictures[0], "--device", "cpu", "--json"]
    assert cli.run(arguments) == 0
    assert not cache.exists()  # without a wish nothing is exported
    assert cli.run([*arguments, "--engine", "onnxruntime"]) == 0
    code = (
        f"import sys; from striate.cli import run; assert run({arguments!r}) == 0; "
        "assert not any(name.split('.')[0] == 'torch' for name in sys.modules); "
        "assert 'libtorch' not in open('/proc/self/maps').read()"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_auto_leaves_a_gpu_to_torch(cache, tmp_path, monkeypatch):
    path = write(tmp_path / "model.safetensors")
    load(path, engine="onnxruntime")
    monkeypatch.setattr(engines, "may_have_gpu", lambda: True)
    kinds = {
        (engine, device): isinstance(load(path, device, engine=engine), OnnxClassifier)
        for engine in ("auto", "onnxruntime")
        for device in ("auto", "cpu")
    }
    assert [pair for pair, is_onnx in kinds.items() if not is_onnx] == [("auto", "auto")]


def test_an_export_that_differs_is_no_file_of_the_cache(cache, tmp_path, monkeypatch):
    """The error names the bundle, not the temporary file that the user has never seen."""
    path = write(tmp_path / "model.safetensors")
    monkeypatch.setattr(verification, "TOLERANCE", -1.0)
    with pytest.raises(WriteError, match="it cannot be exported: its scores differ by") as info:
        load(path, engine="onnxruntime")
    assert "Use --engine torch" in info.value.fix
    assert info.value.what == f"--engine onnxruntime with {str(path)!r}"
    assert not list(cache.iterdir())


@pytest.mark.filterwarnings("ignore:.* are NaN or infinite")
def test_an_image_without_an_answer_has_no_mark(cache, pictures, tmp_path, capsys):
    """In CSV the mark would be in the column of the first class."""
    path = write(tmp_path / "model.safetensors", "resnet20", seed=np.nan)
    record = of_features(*np.random.default_rng(0).normal(size=(2, 40, 64)))
    bundle.add_metrics(path, {}, unknown=record.encode())
    assert cli.run(["predict", str(path), pictures[0], "--csv"]) == 3
    header, row = csv.reader(capsys.readouterr().out.splitlines())
    assert header[-1] == "unknown"
    assert row == [pictures[0], NOT_FINITE, *[""] * 7]


def test_calibration_needs_no_new_export_and_other_weights_do(cache, pictures, tmp_path):
    path = write(tmp_path / "model.safetensors")
    scores = load(path, engine="onnxruntime").predict(pictures[0])
    (first,) = cache.iterdir()
    bundle.add_metrics(path, {"test": {"top1": 1.0}}, calibration(2.0))
    model = load(path, engine="auto")
    assert isinstance(model, OnnxClassifier)
    ratios = np.log(scores.probabilities[1:] / scores.probabilities[0])
    flatter = model.predict(pictures[0]).probabilities
    assert np.allclose(np.log(flatter[1:] / flatter[0]), ratios / 2)
    write(path, seed=1)
    assert not isinstance(load(path, engine="auto"), OnnxClassifier)
    other = load(path, engine="onnxruntime").predict(pictures[0])
    assert np.allclose(other.probabilities, load(path, "cpu").predict(pictures[0]).probabilities, atol=1e-5)
    assert not np.allclose(other.probabilities, scores.probabilities, atol=1e-3)
    assert len(list(cache.iterdir())) == 2
    assert first.exists()


def test_a_damaged_export_is_made_again(cache, pictures, tmp_path):
    path = write(tmp_path / "model.safetensors")
    expected = load(path, engine="onnxruntime").predict(pictures[0]).probabilities
    (export,) = cache.iterdir()
    content = bytearray(export.read_bytes())
    content[len(content) // 2] ^= 1  # a bit of a weight
    export.write_bytes(content)
    assert not isinstance(load(path, engine="auto"), OnnxClassifier)
    assert not export.exists()
    assert np.array_equal(load(path, engine="onnxruntime").predict(pictures[0]).probabilities, expected)


def test_old_exports_are_deleted(cache, tmp_path, monkeypatch, capsys):
    path = write(tmp_path / "model.safetensors")
    load(path, engine="onnxruntime")
    (export,) = cache.iterdir()
    old = time.time() - 31 * 24 * 3600
    for name in ("unused.onnx", ".part"):
        (cache / name).write_bytes(b"x")
        os.utime(cache / name, (old, old))
    load(write(path, seed=1), engine="onnxruntime")
    assert not {"unused.onnx", ".part"} & {file.name for file in cache.iterdir()}
    os.utime(export, (old + 10**6, old + 10**6))
    monkeypatch.setenv("STRIATE_CACHE_LIMIT", str(1.5 * export.stat().st_size / 1e9))
    load(write(path, seed=2), engine="onnxruntime")
    (left,) = cache.iterdir()
    assert isinstance(load(path, engine="auto"), OnnxClassifier)  # the one that was used last
    size = left.stat().st_size
    assert cli.run(["doctor", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["cache"]["bytes"] == size
    assert cli.run(["doctor", "--clear-cache", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["cleared_bytes"] == size
    assert not list(cache.iterdir())


def test_what_an_engine_cannot_run_is_refused(cache, run, text_run, pictures, tmp_path, capsys, monkeypatch):
    path = str(write(tmp_path / "model.safetensors"))
    cases = [
        ([path, "--engine", "onnxruntime", "--device", "cuda"], "it runs on the CPU, not on cuda"),
        ([path, "--engine", "onnx"], "did you mean onnxruntime"),
        ([str(text_run.best), "--engine", "onnxruntime"], "it runs in torch"),
        (["model.onnx", "--engine", "torch"], "torch cannot run ONNX files"),
    ]
    for (model, *options), why in cases:
        assert cli.run(["predict", model, pictures[0], *options]) == 2
        err = capsys.readouterr().err
        assert why in err
        assert err.count("\n") == 1
    assert cli.run(["predict", path, pictures[0], "--explain", "--out", str(tmp_path / "x")]) == 0
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    assert cli.run(["predict", path, pictures[0], "--engine", "onnxruntime"]) == 2
    assert "pip install 'striate[onnx]'" in capsys.readouterr().err
    assert cli.run(["predict", path, pictures[0]]) == 0


def test_a_network_of_the_user_runs_in_torch(cache, tmp_path):
    arguments = {"num_classes": 2, "in_channels": 3, "input_size": [2, 2]}
    description = Description("classification", "mine:Net", arguments, ("a", "b"), Preprocess.for_size(2, 3))
    bundle.write(tmp_path / "model.safetensors", nn.Linear(12, 2), description)
    with pytest.raises(UsageError, match="does not define its network"):
        load(tmp_path / "model.safetensors", engine="onnxruntime")
    with pytest.raises(TrustError):
        load(tmp_path / "model.safetensors", engine="auto")
