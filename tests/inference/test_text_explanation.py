"""`striate.explain_seq2seq`: the record, its figure, its errors."""

import io
import json

import numpy as np
import pytest

import striate
from striate.errors import DataError, ResourceError


@pytest.fixture(scope="module")
def translator(text_run):
    return striate.load_translator(text_run.folder / "best.safetensors", "cpu")


def test_a_text(translator):
    found = striate.explain_seq2seq(translator, "abcd")
    assert found.text == translator.translate(["abcd"]).results[0].text
    tokens, source = len(found.tokens), len(found.source_tokens)
    assert "".join(found.source_tokens[:4]) == "abcd"
    assert found.gradients.shape == (tokens, source)
    assert found.cross.shape == (1, 2, tokens, source)
    np.testing.assert_allclose(found.cross.sum(axis=3), 1, rtol=1e-5)
    assert found.alignment == found.gradients.argmax(axis=1).tolist()
    values = json.loads(json.dumps(found.to_json(), allow_nan=False))
    assert values["tokens"] == list(found.tokens)
    with np.load(io.BytesIO(found.arrays())) as arrays:
        np.testing.assert_array_equal(arrays["gradients"], found.gradients)
    figure = found.figure()
    assert figure.width - figure.height == 28 * (source - tokens)


def test_errors(translator):
    with pytest.raises(DataError, match="it is empty"):
        striate.explain_seq2seq(translator, "")
    with pytest.raises(DataError, match="cannot explain 'aaa"):
        striate.explain_seq2seq(translator, "a" * 5000)


def test_memory_that_runs_out(translator, monkeypatch):
    def fail(*args, **kwargs):
        raise RuntimeError("could not create a primitive")  # of oneDNN

    monkeypatch.setattr(type(translator), "write", fail)
    with pytest.raises(ResourceError, match="could not create a primitive"):
        striate.explain_seq2seq(translator, "abc")
    monkeypatch.setattr(type(translator), "generate", fail)
    with pytest.raises(ResourceError, match="could not create a primitive"):
        translator.translate("abc")


@pytest.mark.slow
def test_an_image(text_lines, tmp_path):
    from text_runs import train

    run = train(text_lines, tmp_path, width=16, height=16, epochs=1)
    translator = striate.load_translator(run.folder / "best.safetensors", "cpu")
    found = striate.explain_seq2seq(translator, str(text_lines.parent / "3.png"))
    assert found.gradients.shape == (len(found.tokens), *found.pixels.shape[:2])
    rows, columns = found.grid
    assert found.cross.shape[3] == rows * columns
    assert found.figure().height >= 224
