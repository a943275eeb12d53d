"""Formats of other tools: the scores are those of the original, or the error says what to install."""

import json
import sys
from types import SimpleNamespace

import pytest
import torch
from test_onnx import classifier

from striate.errors import StriateWarning, UsageError, WriteError
from striate.exporters import FORMATS, converters, export

INSTALLED = {
    "openvino": "openvino", "tflite": "litert_torch", "coreml": "coremltools", "ncnn": "pnnx",
    "tensorrt": "tensorrt",
}  # fmt: skip
OUT = {"openvino": "folder", "ncnn": "folder", "coreml": "x.mlpackage", "tflite": "x.tflite"}


@pytest.mark.parametrize("name", INSTALLED)
def test_a_converter_that_is_not_installed_is_named(name, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, INSTALLED[name], None)
    with pytest.raises(UsageError, match=r"converter is not installed \(.*\)\. pip install ") as caught:
        export(classifier("lenet"), tmp_path / f"x{FORMATS[name].suffix}", name)
    assert f"`pip install {caught.value.fix.removeprefix('pip install ')}`" in converters.__doc__
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", OUT)
@pytest.mark.parametrize("network", ["lenet", "efficientnet_lite0"])
def test_installed_converters_keep_the_scores(name, network, tmp_path):
    pytest.importorskip(INSTALLED[name])
    if name == "coreml" and network != "lenet":
        pytest.skip("coremltools 9.0 fails with the newest NumPy")
    original = classifier(network, None if network == "lenet" else 64)
    if name == "coreml" and sys.platform != "darwin":
        with pytest.warns(StriateWarning, match="Core ML runs on a Mac only"):
            assert export(original, tmp_path / OUT[name], name).n == 0
    else:
        parity = export(original, tmp_path / OUT[name], name)
        assert (parity.equal, parity.max_difference < 1e-4) == (parity.n, True)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(
        ["EXPORT.md", "MODEL_CARD.md", OUT[name]]
    )


def test_what_a_converter_cannot_do_is_one_line(tmp_path, monkeypatch, capfd):
    def convert(model):
        print("noise")
        raise RuntimeError("two\nlines")

    monkeypatch.setitem(sys.modules, "openvino", SimpleNamespace(convert_model=convert))
    why = r"OpenVINO cannot convert it \(two lines\)\. Use --to onnx"
    with pytest.raises(WriteError, match=why):
        export(classifier("lenet"), tmp_path / "x", "openvino")
    assert capfd.readouterr() == ("", "")
    assert not list(tmp_path.iterdir())


# torch.export leaves objects behind whose finalizers fail when they are collected.
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize(
    ("name", "out"),
    [pytest.param("torch-export", "x.pt2", marks=pytest.mark.slow), ("torchscript", "x.torchscript")],
)
def test_programs_of_torch_take_pixels(name, out, tmp_path, capfd):
    original = classifier("lenet")
    parity = export(original, tmp_path / out, name)
    assert (parity.equal, parity.max_difference < 1e-5) == (parity.n, True)
    images = torch.randint(256, (5, 32, 32, 3), dtype=torch.uint8)
    kept = {"comparison.json": ""}
    if name == "torchscript":
        module = torch.jit.load(tmp_path / out, _extra_files=kept)
    else:
        module = torch.export.load(tmp_path / out, extra_files=kept).module()
    scores = original.network(original.preprocess.normalize(images))
    assert torch.allclose(module(images), scores, atol=1e-5)
    assert json.loads(kept["comparison.json"])["equal"] == parity.n
    assert capfd.readouterr().err == ""
