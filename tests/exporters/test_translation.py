"""Translation in CTranslate2 through the cache of exports: the texts of torch."""

import dataclasses
import json
import pickle
import random
import sys

import pytest
import torch
from text_runs import train

import striate
from striate import cli
from striate.bundle import read, write
from striate.data.text.tokens import EOS
from striate.errors import StriateWarning, UsageError
from striate.exporters import translation
from striate.exporters.records import Request
from striate.exporters.text_verification import TorchEngine
from striate.exporters.translation import TwoEngineTranslator, load
from striate.exporters.translators import export_ctranslate2, sources_for

pytest.importorskip("ctranslate2")


@pytest.fixture(scope="module")
def bundle(text_run, tmp_path_factory):
    """A bundle with random weights, whose texts are of many lengths; some reach their limits."""
    description, state = read(text_run.best)
    generator = torch.Generator().manual_seed(0)
    for tensor in state.values():
        if tensor.ndim == 2:
            tensor.copy_(torch.randn(tensor.shape, generator=generator) / tensor.shape[1] ** 0.5)
    path = tmp_path_factory.mktemp("translation") / "model.safetensors"
    write(path, state, description)
    return path


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "striate" / "exports"


def words(count, most=12):
    """Also longer ones than the model has learned, which it cannot end."""
    rng = random.Random(0)
    return ["".join(rng.choices("abcd", k=rng.randint(1, most))) for _ in range(count)]


def test_the_texts_and_scores_are_those_of_torch(bundle, cache):
    sources = [*words(60), "", "x" * 3, "a" * 5000]
    expected = load(bundle).translate(sources).results
    translator = load(bundle, engine="ctranslate2")
    found = translator.translate(sources)
    assert len(list(cache.iterdir())) == 1
    assert 0 < sum(result.cut for result in expected) < 30
    assert {len(result.text) for result in expected} >= {0, 2, 5, 6}
    for ours, theirs in zip(expected, found.results, strict=True):
        assert (ours.text, ours.error, ours.cut, ours.empty) == (
            theirs.text,
            theirs.error,
            theirs.cut,
            theirs.empty,
        )
        assert ours.unknown == theirs.unknown
        assert [a.score for a in ours.answers] == pytest.approx([a.score for a in theirs.answers], abs=1e-4)
    assert found.tokens == load(bundle).translate(sources).tokens
    again = pickle.loads(pickle.dumps(translator)).translate(sources[:3]).results
    assert [result.text for result in again] == [result.text for result in expected[:3]]
    assert len(list(cache.iterdir())) == 1


def test_a_text_may_end_at_once_and_at_its_limit(bundle, tmp_path):
    """Unless it is told otherwise, CTranslate2 does not allow END as the first token."""
    translator = load(bundle)
    request = Request(tuple(words(30)))
    engine = export_ctranslate2(translator, tmp_path / "model", request).texts
    sources, ends = sources_for(translator, request), set()
    for limit in range(1, 8):
        part = dataclasses.replace(sources, limit=limit)
        expected = TorchEngine(translator.network).generate(part)
        assert engine.generate(part) == expected
        ends |= {(limit, len(text)) for text in expected if text[-1] == EOS}
    assert {(1, 1), (3, 3), (6, 6)} <= ends


def test_auto_needs_a_large_input_and_takes_the_faster_one(bundle, cache, monkeypatch):
    translator, sources = load(bundle, engine="auto"), words(40)
    expected = [result.text for result in load(bundle).translate(sources).results]
    monkeypatch.setattr(translation, "_FEWEST_CACHED", 40)
    monkeypatch.setattr(translation, "_FEWEST", 41)
    assert [result.text for result in translator.translate(sources).results] == expected
    assert not cache.exists()
    used = []
    greedy = TwoEngineTranslator._with_ctranslate2
    monkeypatch.setattr(
        TwoEngineTranslator,
        "_with_ctranslate2",
        lambda self, rows: used.append(len(rows)) or greedy(self, rows),
    )
    assert load(bundle, engine="ctranslate2").translate(sources).results
    monkeypatch.setattr(translation, "_FEWEST_CACHED", 41)
    used.clear()
    load(bundle, engine="auto").translate(sources)
    assert not used  # too few, with the export in the cache too
    monkeypatch.setattr(translation, "_FEWEST_CACHED", 40)
    for faster, count in ((1e-9, 0), (1e9, 1)):
        monkeypatch.setattr(translation, "_FASTER", faster)
        translator = load(bundle, engine="auto")
        used.clear()
        for _ in range(2):
            assert [result.text for result in translator.translate(sources).results] == expected
        assert len(used) == 1 + 2 * count  # the sample, then all of them
        few = translator.translate(sources[:3]).results  # the rest of a file: the choice is made
        assert [result.text for result in few] == expected[:3]
        assert len(used) == 1 + 3 * count
    assert [r.answers[1].text for r in translator.translate(sources[:3], beams=2, best=2).results]


def test_int8_says_how_many_texts_it_changes(bundle, cache):
    with pytest.warns(
        StriateWarning, match=r"ctranslate2-int8: \d+ of 60 texts of a sample .* tokens differ"
    ):
        results = load(bundle, engine="ctranslate2-int8").translate(words(60)).results
    assert len(results) == 60


def test_the_command(bundle, cache, tmp_path, capsys):
    (tmp_path / "words.txt").write_text("\n".join(words(20)))
    outputs = []
    for engine in ("torch", "ctranslate2", "auto"):
        options = ["--file", str(tmp_path / "words.txt"), "--engine", engine, "--json"]
        assert cli.run(["seq2seq", "translate", str(bundle), *options]) == 0
        outputs.append([r["answers"][0]["text"] for r in json.loads(capsys.readouterr().out)["results"]])
    assert outputs[0] == outputs[1] == outputs[2]


def test_what_ctranslate2_cannot_do_is_refused(bundle, cache, text_lines, tmp_path, monkeypatch):
    with pytest.raises(UsageError, match="did you mean ctranslate2"):
        load(bundle, engine="ctranslate")
    with pytest.raises(UsageError, match="another length penalty"):
        load(bundle, engine="ctranslate2").translate(["ab"], beams=2)
    with pytest.raises(UsageError, match="ctranslate2 with attention: "):
        list(load(bundle, engine="ctranslate2").generate([[4]], attention=True))
    reader = train(text_lines, tmp_path, epochs=1, height=16).best
    with pytest.raises(UsageError, match="translates text only"):
        load(reader, engine="ctranslate2")
    assert type(load(reader, engine="auto")).__name__ == "Translator"
    monkeypatch.setitem(sys.modules, "ctranslate2", None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"pip install 'striate\[ctranslate2\]'"):
        load(bundle, engine="ctranslate2")
    assert striate.load(bundle, engine="auto").translate(["ab"]).results[0].error is None
