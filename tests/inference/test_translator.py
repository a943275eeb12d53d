"""Translators: bundles opened for use."""

import copy
import dataclasses
import pickle

import pytest
import torch
from text_runs import train

import striate
from striate import bundle, memory
from striate.data.text.tokens import EOS
from striate.errors import BundleError, ResourceError, UsageError
from striate.inference import translator
from striate.inference.classifier import load
from striate.inference.translator import load_translator, warnings_of


def test_a_batch_has_the_translations_of_its_sources(text_run):
    translator = load_translator(text_run.best, "cpu")
    val = text_run.task.data.splits["val"]
    batch = translator.translate(val.sources).results
    for source, result in zip(val.sources[:5], batch, strict=False):
        assert translator.translate([source]).results[0].text == result.text


def test_a_bundle_of_another_task_is_refused(text_run, run):
    with pytest.raises(BundleError, match="trained for seq2seq"):
        load(text_run.best)
    with pytest.raises(BundleError, match="trained for classification"):
        load_translator(run.best)
    assert type(striate.load(text_run.best)).__name__ == "Translator"
    assert type(striate.load(run.best)).__name__ == "Classifier"


def test_weights_with_another_vocabulary_are_refused(text_run, tmp_path):
    description, state = bundle.read(text_run.best)
    swapped = {**description.text, "source": {**description.text["source"], "vocabulary": list("dcba")}}
    path = tmp_path / "swapped.safetensors"
    bundle.write(path, state, dataclasses.replace(description, text=swapped))
    with pytest.raises(BundleError, match="vocabulary"):
        load_translator(path)


def test_padding_does_not_change_an_answer(text_lines, tmp_path):
    """Images of other widths in the batch leave an image's answer as it is."""
    run = train(text_lines, tmp_path, epochs=2, height=16)
    translator = load_translator(run.best, "cpu")
    paths = [str(text_lines.parent / f"{i}.png") for i in range(80, 90)]
    together = translator.translate(paths, beams=2).results
    for path, result in zip(paths, together, strict=True):
        alone = translator.translate([path], beams=2).results[0]
        assert alone.text == result.text
        assert alone.answers[0].score == pytest.approx(result.answers[0].score, abs=1e-4)


@pytest.mark.parametrize("alpha", [1e9, -11.0, float("nan"), float("inf")])
def test_the_length_penalty_has_a_range(text_run, alpha):
    with pytest.raises(UsageError, match="must be from -10 to 10"):
        load_translator(text_run.best).translate(["ab"], beams=2, alpha=alpha)


def test_beams_and_answers_have_a_range(text_run):
    translator = load_translator(text_run.best, "cpu")
    for options in ({"beams": 0}, {"beams": 2, "best": 3}, {"beams": len(translator.target)}):
        with pytest.raises(UsageError, match="beams"):
            translator.translate(["ab"], **options)


def test_a_source_that_is_too_long_has_an_error(text_run):
    translator = load_translator(text_run.best, "cpu")
    long, short = translator.translate(["a" * 2000, "ab"]).results
    assert "more than the 1,024 that this model reads" in long.error
    assert long.text == ""
    assert short.error is None


def test_what_a_model_cannot_read_is_marked(text_run):
    """Unknown characters, sources without text, and bytes that are no text."""
    translator = load_translator(text_run.best, "cpu")
    unknown, empty, broken, known = translator.translate(
        ["a\u2603b\u2603x", " \ufeff ", "a\udcff", "ab"]
    ).results
    assert unknown.unknown == ("\u2603", "x")
    assert (empty.empty, empty.text, empty.answers[0].ended, empty.cut) == (True, "", True, False)
    assert broken.error == "it is not valid UTF-8"
    assert (known.unknown, known.empty, known.error) == ((), False, None)
    assert translator.translate(" ab\r").results[0].text == known.text  # as training reads it
    cut = sum(result.cut for result in (unknown, known))
    assert warnings_of([unknown, empty, broken, known]) == [
        "1 of 4 sources have characters or words that the model does not know: '\u2603', 'x'",
        "1 of 4 sources are empty, so their answers are empty too",
        *([f"{cut} of 4 answers were cut off at the maximum length"] if cut else []),
    ]


def test_answers_at_the_length_limit_are_cut(text_run):
    """The limit is 1.2 times the source times the ratio plus 2, at least 8, at most twice the longest."""
    translator = load_translator(text_run.best, "cpu")
    with torch.no_grad():  # a model that never ends
        translator.network.decoder.output.bias[EOS] = -50.0
    for source, beams in (("ab", 1), ("abcdab", 3)):
        (result,) = translator.translate([source], beams=beams).results
        assert result.cut
        text = translator.description.text
        limit = max(8, min(2 * text["longest"], int(1.2 * text["ratio"] * (len(source) + 1)) + 2))
        assert len(result.text) == limit


def test_a_used_translator_can_be_copied_and_does_not_share_its_network(text_run):
    translator = load_translator(text_run.best, "cpu")
    sources = text_run.task.data.splits["val"].sources[:3]
    before = translator.translate(sources).results
    for other in (pickle.loads(pickle.dumps(translator)), copy.deepcopy(translator)):
        assert other.translate(sources).results == before
    with torch.no_grad():
        for parameter in translator.network.parameters():
            parameter.mul_(0.5)
    assert translator.translate(sources).results == before
    assert dataclasses.replace(translator).translate(sources).results != before


def test_many_beams_have_smaller_batches_and_must_fit(text_run, monkeypatch):
    model = load_translator(text_run.best, "cpu")
    words = ["abcd", "dcba", "aabb"] * 4
    expected = [result.text for result in model.translate(words, beams=4).results]
    rows, original = [], translator.beam
    monkeypatch.setattr(translator, "beam", lambda *a, **k: rows.append(len(a[3])) or original(*a, **k))
    monkeypatch.setattr(translator, "_TOKENS", 40)
    monkeypatch.setattr(translator, "_FEW_BEAMS", 2)
    assert [result.text for result in model.translate(words, beams=4).results] == expected
    assert rows == [2] * 6  # rows of 5 source and 5 target tokens
    need = 2 * 4 * 4 * len(model.target)
    monkeypatch.setattr(memory, "available", lambda: need - 1)
    with pytest.raises(ResourceError, match=r"4 beams of [0-9]+ scores: .* Use a smaller --beam"):
        model.translate(words, beams=4)
