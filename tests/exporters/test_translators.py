"""Translators of texts and of images in other formats."""

import pytest
import torch

from striate.bundle import Description
from striate.data.text.tokens import Tokenizer
from striate.errors import UsageError
from striate.exporters import export, translators
from striate.inference.translator import Translator
from striate.models.seq2seq import build
from striate.transforms.preprocess import Preprocess

SMALL = {"width": 16, "depth": 1, "heads": 2, "hidden": 32}


def translator(architecture="text_to_text", preprocess=None, **arguments):
    torch.manual_seed(0)
    target = Tokenizer("characters", tuple("abcdefgh"))
    source = (
        None if preprocess else Tokenizer("words", ("<end>", "one", "two", "three"))
    )  # one word is spelt like END
    if source is not None:
        arguments["source_vocab"] = len(source)
    arguments = {**SMALL, **arguments, "target_vocab": len(target)}
    network = build(architecture, **arguments).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(1.7)
    text = {"ratio": 1.0, "longest": 5}
    description = Description("seq2seq", architecture, arguments, (), preprocess, text=text)
    return Translator(network, description, source, target, torch.device("cpu"))


@pytest.mark.parametrize("texts", [(), ("one two", "three")])
def test_to_ctranslate2(texts, tmp_path):
    pytest.importorskip("ctranslate2")
    parity = export(translator(), tmp_path / "model", "ctranslate2", texts)
    assert (parity.n, parity.equal) == (2 if texts else translators.SAMPLES,) * 2
    assert parity.max_difference < 1e-4


@pytest.mark.slow
def test_to_programs(tmp_path):
    parity = export(translator(), tmp_path / "text", "torch-export", ("one two", "three"))
    assert (parity.n, parity.equal) == (2, 2)
    reader = translator("image_to_text", Preprocess.for_line(32, 64))
    parity = export(reader, tmp_path / "image", "torch-export")
    assert (parity.n, parity.equal) == (translators.SAMPLES,) * 2
    assert parity.max_difference < 1e-5


def test_what_a_format_cannot_hold_is_refused(tmp_path):
    with pytest.raises(UsageError, match="did you mean ctranslate2"):
        export(translator(), tmp_path / "model", "ctranslate")
    reader = translator("image_to_text", Preprocess.for_line(32, 64))
    with pytest.raises(UsageError, match="it holds text to text only"):
        export(reader, tmp_path / "model", "ctranslate2")
    assert not list(tmp_path.iterdir())
