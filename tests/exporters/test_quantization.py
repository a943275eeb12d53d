"""ONNX files in int8 keep the answers, or are refused with the figures."""

import dataclasses
import sys

import numpy as np
import pytest
import torch

import striate
from striate.bundle import Description
from striate.errors import DataError, UsageError, WriteError
from striate.exporters import export
from striate.exporters.onnx import graph, quantization
from striate.exporters.onnx.file import Graph, Node, Signature, encode
from striate.exporters.onnx.quantization import with_int8_weights
from striate.inference.classifier import Classifier
from striate.models import build
from striate.transforms.preprocess import Preprocess

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")


def test_a_trained_model_in_int8(run, tmp_path, capsys):
    parity = striate.export(run.best, tmp_path / "model.onnx", "onnx-int8")
    assert capsys.readouterr().out == ""
    assert (parity.n, parity.accuracy) == (12, (1.0, 1.0))
    assert parity.inputs.startswith("12 of 12 test images")
    bits = 8 if quantization.has_integer_products() else 7
    expected = f"int8 after {quantization_images(run)} calibration images, with weights of {bits} bits."
    assert parity.notes[0] == expected
    for kind in ("per tensor", "per channel"):
        for method in ("minmax", "percentile", "entropy"):
            assert f"{kind}, {method} " in parity.notes[1]
    assert "times as fast" in parity.notes[3] or "int8 is not faster here" in parity.notes[3]
    model = onnx.load(tmp_path / "model.onnx")
    onnx.checker.check_model(model, full_check=True)
    kinds = {tensor.name: tensor.data_type for tensor in model.graph.initializer}
    assert kinds["conv1.weight_quantized"] == onnx.TensorProto.INT8
    assert "conv1.weight" not in kinds
    assert sorted(path.name for path in tmp_path.iterdir()) == ["EXPORT.md", "MODEL_CARD.md", "model.onnx"]
    opened, original = striate.load(tmp_path / "model.onnx"), striate.load(run.best, "cpu")
    images = run.evaluation.images[:12]
    assert np.abs(opened.probabilities(images) - original.probabilities(images)).max() < 0.1


def quantization_images(run):
    """All val images of the run: fewer than are wanted."""
    rows = (run.training.folder / "split.csv").read_text("utf-8").splitlines()
    return sum(row.rpartition(",")[2] == "val" or ",val" in row or row.startswith("val,") for row in rows)


def test_int8_that_loses_too_much_is_refused_with_the_figures(run, tmp_path, monkeypatch):
    def damaged(fp32, out, ranges, exclude, *, per_channel):
        model = onnx.load(str(fp32))
        last = [tensor for tensor in model.graph.initializer if tensor.name.endswith("weight")][-1]
        last.CopyFrom(onnx.numpy_helper.from_array(-onnx.numpy_helper.to_array(last), last.name))
        onnx.save(model, str(out))

    monkeypatch.setattr(quantization, "_quantize", damaged)
    monkeypatch.setattr(quantization, "_METHODS", ("MinMax",))
    with pytest.raises(
        WriteError, match=r"points of accuracy on 12 of 12 test images .*more than 1.*minmax \d"
    ):
        striate.export(run.best, tmp_path / "model.onnx", "onnx-int8")
    assert not list(tmp_path.iterdir())


def test_a_way_to_choose_ranges_that_fails_is_left_out(tmp_path, few_colors):
    """A histogram of values that hardly differ has no bins."""
    torch.manual_seed(0)
    network = build("lenet", num_classes=3).eval()
    first = next(module for module in network.modules() if isinstance(module, torch.nn.Conv2d))
    with torch.no_grad():
        first.weight.mul_(1e-6)
        first.bias.fill_(1.0)
    description = Description(
        "classification", "lenet", {"num_classes": 3}, ("a", "b", "red"), Preprocess.for_size(32)
    )
    classifier = Classifier(network, description, torch.device("cpu"))
    (tmp_path / "data").mkdir()
    names = zip(("a", "b", "red"), sorted(few_colors.rglob("*.png"))[:12:4], strict=True)
    for name, picture in names:
        for i in range(4):
            copy = tmp_path / "data" / name / f"{i}{picture.name}"
            copy.parent.mkdir(exist_ok=True)
            copy.write_bytes(picture.read_bytes())
    parity = export(classifier, tmp_path / "x.onnx", "onnx-int8", data=tmp_path / "data", max_loss=100)
    assert "per channel, minmax" in parity.notes[1]
    assert "percentile cannot be used: Too many bins" in parity.notes[1]


def test_what_int8_needs_is_said(run, tmp_path, few_colors, monkeypatch):
    preprocess = Preprocess.for_size(32)
    network = build("lenet", num_classes=3).eval()
    description = Description("classification", "lenet", {"num_classes": 3}, ("a", "b", "red"), preprocess)
    classifier = Classifier(network, description, torch.device("cpu"))
    with pytest.raises(UsageError, match=r"labeled images, and none are known\. Give --data"):
        export(classifier, tmp_path / "x.onnx", "onnx-int8")
    (tmp_path / "data" / "red").mkdir(parents=True)
    (tmp_path / "data" / "a").mkdir()
    for folder in ("red", "a"):
        picture = next(few_colors.rglob("*.png"))
        (tmp_path / "data" / folder / picture.name).write_bytes(picture.read_bytes())
    with pytest.raises(DataError, match="too few images"):
        export(classifier, tmp_path / "x.onnx", "onnx-int8", data=tmp_path / "data")
    several = dataclasses.replace(description, thresholds=(0.5, 0.5, 0.5))
    with pytest.raises(UsageError, match=r"several classes\. Export to onnx-int8-weights"):
        export(dataclasses.replace(classifier, description=several), tmp_path / "x.onnx", "onnx-int8")
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(UsageError, match=r"onnx is not installed. pip install 'striate\[onnx\]' onnx"):
        export(classifier, tmp_path / "x.onnx", "onnx-int8", data=few_colors)
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


def test_weights_of_8_bits(tmp_path):
    torch.manual_seed(0)
    preprocess = Preprocess.for_size(32)
    network = build("resnet20", num_classes=3).eval()
    description = Description("classification", "resnet20", {"num_classes": 3}, ("a", "b", "c"), preprocess)
    parity = export(
        Classifier(network, description, torch.device("cpu")),
        tmp_path / "x.onnx",
        "onnx-int8-weights",
        max_loss=10,
    )
    assert parity.max_difference < 0.05
    made = graph(network, preprocess)
    size = sum(array.nbytes for array in made.initializers.values())
    assert 0.25 * size < (tmp_path / "x.onnx").stat().st_size < 0.35 * size
    small = with_int8_weights(made)
    name = "layer3.0.conv2.weight"
    whole, rounded = made.initializers[name], small.initializers[name]
    steps = np.abs(whole).max(axis=(1, 2, 3)) / 127
    assert rounded.dtype == np.int8
    assert np.abs(rounded).max() == 127
    assert np.allclose(small.initializers[f"{name}_scale"], steps)
    assert np.abs(whole - rounded * steps[:, None, None, None]).max() <= steps.max() / 2 * (1 + 1e-5)


def test_weights_of_products_are_rounded_for_each_output():
    weight = np.random.default_rng(0).normal(size=(40, 50)).astype(np.float32) * np.arange(1, 51)
    nodes = [Node("MatMul", ("images", "w"), ("x",)), Node("MatMul", ("x", "small"), ("scores",))]
    signatures = (
        (Signature("images", "float32", ("batch", 40)),),
        (Signature("scores", "float32", ("batch", 2)),),
    )
    constants = {"w": weight.astype(np.float32), "small": np.ones((50, 2), np.float32)}
    made = with_int8_weights(Graph("g", nodes, constants, *signatures))
    assert made.initializers["small"].dtype == np.float32
    rows = np.eye(40, dtype=np.float32)
    sessions = [
        onnxruntime.InferenceSession(b"".join(encode(g, ("t", "1"), {})))
        for g in (Graph("g", nodes, constants, *signatures), made)
    ]
    one, other = (session.run(None, {"images": rows})[0] for session in sessions)
    assert np.abs(one - other).max() <= (np.abs(weight).max(0) / 127 / 2).sum() * (1 + 1e-5)
    assert np.abs(one - other).max() > 0


def test_processors_without_integer_products_get_7_bits(monkeypatch, tmp_path):
    monkeypatch.setattr("platform.machine", lambda: "arm64")
    assert quantization.has_integer_products()
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    for flags, expected in (("avx2 avx512f", False), ("avx2 avx_vnni", True), ("avx512_vnni", True)):
        (tmp_path / "cpuinfo").write_text(f"model name: x\nflags\t: fpu {flags} sse\nbugs: avx_vnni\n")
        monkeypatch.setattr(quantization, "_CPU", tmp_path / "cpuinfo")
        assert quantization.has_integer_products() == expected
    monkeypatch.setattr(quantization, "_CPU", tmp_path / "absent")
    assert not quantization.has_integer_products()
