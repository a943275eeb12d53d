"""Sequence models as ONNX write the texts of the network, for any number of texts, tokens and images."""

import json

import numpy as np
import pytest
import torch
from test_translators import translator

from striate.data.text.lines import collate_images, pad_images
from striate.errors import WriteError
from striate.exporters import export, formats_for, translators
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


def reader(encoder, preprocess, **arguments):
    """A network that reads text in images, with norms that have seen some, and weights that matter."""
    width = None if preprocess.resize == "line" and encoder in ("columns", "patches") else preprocess.size[1]
    size = [preprocess.size[0], width]
    arguments = {"depth": 2, "in_channels": preprocess.channels, "input_size": size, **arguments}
    made = translator("image_to_text", preprocess, encoder=encoder, **arguments)
    with torch.no_grad():
        made.network.decoder.output.bias[[0, 1, 3]] = 50.0  # padding, BEGIN and UNKNOWN: never written
        made.network.train()
        made.network.encode(torch.randn(8, preprocess.channels, *preprocess.size))
        for parameter in made.network.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    made.network.eval()
    return made


LINE, FIXED = Preprocess.for_line(32, 66), Preprocess(size=(32, 50), resize="squash", channels=3)


@pytest.mark.parametrize(
    ("encoder", "preprocess", "arguments"),
    [
        ("columns", LINE, {"encoder_arguments": {"channels": [4, 4, 8, 8]}, "positions": "learned"}),
        ("columns", FIXED, {"encoder_arguments": {"channels": [4, 4, 8, 8]}, "positions": "none"}),
        ("patches", LINE, {"encoder_arguments": {"patch": 8, "channels": 12}}),
        (
            "patches",
            FIXED,
            {"encoder_arguments": {"patch": 4, "channels": 12}, "depth": 0, "decoder_depth": 1},
        ),
        ("resnet20", FIXED, {}),
    ],
)
def test_a_reader_of_images_as_three_files(encoder, preprocess, arguments, tmp_path):
    """With images of several widths, which no tile divides, and any values in the padding."""
    original = reader(encoder, preprocess, **arguments)
    parity = export(original, tmp_path / "model", "onnx")
    assert (parity.n, parity.equal) == (translators.SAMPLES,) * 2
    assert parity.max_difference < 1e-5
    folder = tmp_path / "model"
    for file in folder.glob("*.onnx"):
        onnx.checker.check_model(str(file), full_check=True)
    assert list(json.loads((folder / "tokens.json").read_text("utf-8"))) == ["target"]
    images = [np.random.default_rng(i).integers(0, 256, (40, 30 + 17 * i, 3), np.uint8) for i in range(5)]
    pixels = [preprocess.fit(image) for image in images]
    batch, widths = collate_images(pixels, preprocess, torch.device("cpu"))
    padded = pad_images(pixels, preprocess)
    sources = Sources(batch, widths, 7, pixels=padded)
    torch_engine, texts = TorchEngine(original.network), [[4, 9, 5, 7, 11, 2]] * len(images)
    with torch.inference_mode():
        written, scores = torch_engine.generate(sources), torch.stack(torch_engine.score(sources, texts))
    assert scores.std(dim=0).max() > 1e-2  # the images matter
    if preprocess is LINE:
        assert len(set(widths.tolist())) > 1
        for row, width in zip(padded, widths.tolist(), strict=True):
            row[:, width:] = 255
    engine = OnnxEngine(folder)
    assert engine.generate(sources) == written
    assert (torch.stack(engine.score(sources, texts)) - scores).abs().max() < 1e-4
    *_, mask = engine.encoder.run(None, engine_inputs(engine.encoder, sources))
    with torch.inference_mode():
        expected = original.network.encode(*sources.arguments)[1]
    assert np.array_equal(mask, expected)


def engine_inputs(session, sources):
    inputs = {"images": sources.pixels, "widths": None if sources.widths is None else sources.widths.numpy()}
    return {one.name: inputs[one.name] for one in session.get_inputs()}


def test_the_default_for_texts_stays(tmp_path):
    assert formats_for("seq2seq")[:2] == ["torch-export", "onnx"]
    assert formats_for("classification")[0] == "onnx"


def test_a_wrong_export_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(sequence, "NORM_EPSILON", 0.5)
    with pytest.raises(WriteError, match="log-probabilities of its tokens differ by"):
        export(translator(), tmp_path / "x", "onnx")
    assert not list(tmp_path.iterdir())
