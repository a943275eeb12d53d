"""Text-to-text models as ONNX write the texts of the network, for any number of texts and tokens."""

import json

import numpy as np
import pytest
import torch
from test_translators import translator

from striate.errors import UsageError, WriteError
from striate.exporters import export, formats_for
from striate.exporters.onnx import sequence
from striate.exporters.onnx.translator import OnnxEngine
from striate.exporters.text_verification import Sources, TorchEngine
from striate.transforms.preprocess import Preprocess

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")


@pytest.mark.parametrize(
    "arguments", [{"depth": 2}, {"positions": "none", "tied": "none"}, {"positions": "learned", "heads": 4}]
)
def test_a_translator_as_three_files(arguments, tmp_path):
    original = translator(**arguments)
    with torch.no_grad():
        original.network.decoder.output.bias[[0, 1, 3]] = 50.0  # padding, BEGIN and UNKNOWN: never written
        for parameter in original.network.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    parity = export(original, tmp_path / "model", "onnx", ("one two three two", "three", "", "two two"))
    assert (parity.n, parity.equal) == (4, 4)
    assert parity.max_difference < 1e-5
    folder = tmp_path / "model"
    names = {"encoder.onnx", "greedy.onnx", "step.onnx", "tokens.json"}
    assert {path.name for path in folder.iterdir()} == names
    for file in folder.glob("*.onnx"):
        onnx.checker.check_model(str(file), full_check=True)
    strings = json.loads((folder / "tokens.json").read_text("utf-8"))
    assert strings["target"][4:7] == [original.target.id_to_token(i) for i in (4, 5, 6)]
    engine = OnnxEngine(folder)
    for shape in ((1, 1), (5, 9)):
        sources = Sources(torch.randint(4, len(original.source), shape), None, 7)
        with torch.inference_mode():
            texts = TorchEngine(original.network).generate(sources)
        assert engine.generate(sources) == texts
        assert max(map(len, texts)) <= 7
    *_, mask = engine.encoder.run(None, {"source": np.array([[4, 5, 0]])})
    assert mask.tolist() == [[True, True, False]]


def test_the_default_for_texts_stays(tmp_path):
    assert formats_for("seq2seq")[:2] == ["torch-export", "onnx"]
    assert formats_for("classification")[0] == "onnx"


def test_a_wrong_or_impossible_export_is_refused(tmp_path, monkeypatch):
    with pytest.raises(UsageError, match="as ONNX: only text to text can"):
        export(translator("image_to_text", Preprocess.for_line(32, 64)), tmp_path / "x", "onnx")
    monkeypatch.setattr(sequence, "NORM_EPSILON", 0.5)
    with pytest.raises(WriteError, match="log-probabilities of its tokens differ by"):
        export(translator(), tmp_path / "x", "onnx")
    assert not list(tmp_path.iterdir())
