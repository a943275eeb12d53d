"""Tokenizers, examples, network and bundle header of a run on pairs."""

import os

import numpy as np
import pytest
import torch
from text_runs import SMALL, Messages, config, train

import striate
from striate import bundle, memory
from striate.bundle import Description
from striate.data.text.columns import ColumnSelection
from striate.data.text.pairs import Pairs
from striate.errors import DataError, ResourceError, UsageError
from striate.inference.translator import load_translator
from striate.tasks.seq2seq import estimate
from striate.tasks.seq2seq.config import Seq2SeqConfig
from striate.tasks.seq2seq.inputs import digests
from striate.tasks.seq2seq.preparation import train_tokenizers
from striate.tasks.seq2seq.task import Seq2Seq
from striate.training.distributed import SINGLE
from striate.training.profile import OFF
from striate.training.task import Context
from striate.transforms.preprocess import Preprocess

CONTEXT = Context(torch.device("cpu"), SINGLE, Messages(), OFF)


def prepared(data, tmp_path, resumed=None, **options):
    """A task after `prepare`."""
    chosen = config(data, tmp_path, **options)
    with chosen.open_data() as pairs:
        task = Seq2Seq(chosen, pairs, CONTEXT)
        task.setup = task.prepare(resumed)
        return task


@pytest.fixture
def classifier(tmp_path):
    """A bundle of an image classifier with random weights."""
    torch.manual_seed(7)
    network = striate.models.build("resnet20", num_classes=5, in_channels=1)
    preprocess = Preprocess.for_size(32, 1, resize="letterbox")
    arguments = {"num_classes": 5, "in_channels": 1}
    description = Description("classification", "resnet20", arguments, tuple("abcde"), preprocess)
    bundle.write(tmp_path / "classifier.safetensors", network, description)
    return network, description


def test_an_encoder_starts_from_a_classifier(text_lines, classifier, tmp_path):
    """With its weights and its preprocessing."""
    network, description = classifier
    options = {"encoder_from": str(tmp_path / "classifier.safetensors")}
    ready = prepared(text_lines, tmp_path, **options)
    assert ready.translator.description.preprocess == description.preprocess
    own = ready.translator.network.state_dict()
    loaded = [name for name in own if name.startswith("front.network.")]
    assert len(loaded) > 50
    for name in loaded:
        assert torch.equal(own[name], network.state_dict()[name.removeprefix("front.network.")]), name
    run = train(text_lines, tmp_path, epochs=1, **options)
    image = str(text_lines.parent / "85.png")
    assert load_translator(run.best, "cpu").translate(image).results[0].error is None


def test_only_a_classifier_can_be_the_encoder(text_lines, text_run, tmp_path):
    with pytest.raises(UsageError, match="it is a text_to_text, not an image classifier"):
        prepared(text_lines, tmp_path, encoder_from=str(text_run.best))


def test_sentences_share_one_vocabulary(tmp_path):
    pytest.importorskip("sentencepiece")
    words = ["the", "a", "dog", "cat", "man", "woman", "runs", "sits", "reads", "in", "on", "park", "bench"]
    rng = np.random.default_rng(0)
    for split, count in (("train", 300), ("val", 20)):
        text = "".join(" ".join(rng.choice(words, 8)) + "\n" for _ in range(count))
        (tmp_path / f"{split}.en").write_text(text, "utf-8")
        (tmp_path / f"{split}.xx").write_text(text.upper(), "utf-8")
    chosen = Seq2SeqConfig((tmp_path / "train.en", tmp_path / "train.xx"), vocab_size=90, **SMALL)
    with chosen.open_data() as pairs:
        ready = Seq2Seq(chosen, pairs, CONTEXT)
        ready.prepare(None)
    translator = ready.translator
    assert translator.source == translator.target
    assert translator.source.kind == "sentencepiece"
    network = translator.network
    assert network.embed.embedding.weight is network.decoder.embed.embedding.weight
    assert "one vocabulary" in ready.tokenizers
    assert {name: len(split) for name, split in pairs.splits.items()} == {"train": 300, "val": 20}


def test_the_tokenizer_of_each_side():
    pairs = Pairs(("a b", "c"), (("x",), ("y", "z")), ("1", "2"))

    def kinds(**options):
        source, target, message = train_tokenizers(config("x", ".", **options), pairs, images=False)
        return source.kind, target.kind, source == target, message

    assert kinds()[:3] == ("characters", "characters", False)  # only sentencepiece shares by default
    assert kinds(shared_vocab=True) == (
        "characters", "characters", True, "tokenizer: characters, one vocabulary of 11 ids for both sides",
    )  # fmt: skip
    assert kinds(tokenizer="words", target_tokenizer="bytes")[:2] == ("words", "bytes")
    with pytest.raises(UsageError, match="--shared-vocab with words and bytes"):
        kinds(source_tokenizer="words", target_tokenizer="bytes", shared_vocab=True)


def test_a_vocabulary_size_without_effect_is_noted(reversed_words, tmp_path):
    for kind, noted in (("characters", True), ("words", False)):
        task = prepared(reversed_words, tmp_path, tokenizer=kind, vocab_size=50)
        assert any("--vocab-size 50 has no effect" in note for note in task.setup.notes) == noted


def test_resuming_restores_the_tokenizers_of_the_checkpoint(reversed_words, tmp_path):
    ready = prepared(reversed_words, tmp_path)
    facts = {"description": ready.setup.description.to_json()}
    again = prepared(reversed_words, tmp_path, resumed=facts, tokenizer="bytes")
    assert again.translator.source == ready.translator.source
    assert again.translator.target == ready.translator.target
    assert again.setup.description == ready.setup.description
    assert again.tokenizers == ""  # it was shown at the start


def test_the_digest_of_images_follows_their_files(text_lines, tmp_path):
    (tmp_path / "lines.csv").write_bytes(text_lines.read_bytes())
    for path in text_lines.parent.glob("*.png"):
        (tmp_path / path.name).write_bytes(path.read_bytes())

    def found():
        with config(tmp_path / "lines.csv", tmp_path).open_data() as pairs:
            return digests(pairs)

    before = found()
    assert {name: count for name, (count, _) in before.items()} == {"train": 71, "val": 10, "test": 10}
    assert found() == before
    os.utime(tmp_path / "3.png", ns=(0, 0))
    changed = [name for name, value in found().items() if value != before[name]]
    assert changed == ["train"]


def test_the_length_limit_follows_a_quantile(tmp_path):
    """One wrong pair among 300, with a target of 400 letters, does not raise it."""
    lines = [f"{'ab' * (1 + i % 5)}\t{'ba' * (1 + i % 5)}\n" for i in range(300)]
    (tmp_path / "val.tsv").write_text("ab\tba\n", "utf-8")
    (tmp_path / "train.tsv").write_text("".join([*lines, f"a\t{'b' * 400}\n"]), "utf-8")
    text = prepared(tmp_path, tmp_path).setup.description.text
    assert (text["ratio"], text["longest"]) == (1.0, 11)  # with END, sources and targets have 3 to 11 tokens


def test_the_decoder_of_texts_has_its_own_depth(reversed_words, tmp_path):
    """It was as deep as the encoder, whatever --decoder-depth said."""
    task = prepared(reversed_words, tmp_path, depth=2, decoder_depth=1)
    network = task.translator.network
    assert (len(network.encoder.layers), len(network.decoder.layers.layers)) == (2, 1)
    assert "decoder_depth" not in prepared(reversed_words, tmp_path).setup.description.arguments


def test_the_bundle_has_the_columns(tmp_path):
    (tmp_path / "a.tsv").write_text("".join(f"{i}\t{i}\tx\n" for i in range(30)), "utf-8")
    task = prepared(tmp_path / "a.tsv", tmp_path, source_columns="1,3")
    assert ColumnSelection.of_training(task.setup.description.text).source == ("1", "3")
    assert (
        "columns: column 1 (source, 30 lines), column 2 (target, 30 lines), column 3 (source, 30 lines)"
        in (task.introduce())
    )
    task = prepared(tmp_path / "a.tsv", tmp_path)
    assert not ColumnSelection.of_training(task.setup.description.text)
    assert any("not used: column 3 (30 lines)" in note for note in task.setup.notes)


def test_nothing_readable_ends_the_run(text_lines, tmp_path):
    (tmp_path / "lines.csv").write_text("path,text,split\n" + "a.png,x,train\nb.png,y,val\n", "utf-8")
    for name in ("a.png", "b.png"):
        (tmp_path / name).write_bytes(b"no image")
    with pytest.raises(DataError, match="no image can be read"):
        prepared(tmp_path / "lines.csv", tmp_path)


@pytest.mark.parametrize("source", ["reversed_words", "text_lines"])
def test_the_estimate_of_a_batch_is_a_bound_for_what_training_keeps(source, request, tmp_path, monkeypatch):
    data, estimates = request.getfixturevalue(source), {}
    monkeypatch.setattr(estimate, "_USUAL_TOKENS", 0)
    with monkeypatch.context() as patched:
        patched.setattr(memory, "require", lambda size, what, fix: estimates.update({what.split()[1]: size}))
        task = prepared(data, tmp_path, batch=4000)
    # The scores of all ids for each token of the validation pairs, and their softmax.
    tokens = sum(len(references[0]) + 1 for references in task.data.splits["val"].references)
    assert estimates["scores"] == 2 * 4 * tokens * len(task.translator.target)

    (which,), kept = task.order(0), {}
    batch, network = task.train.batch(which, torch.device("cpu")), task.setup.network.train()

    def keep(tensor):
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        loss = task.training_module(network)(batch.source, batch.decoder_input, batch.target, batch.widths)
    assert loss.requires_grad
    for weight in network.parameters():
        kept.pop(weight.untyped_storage().data_ptr(), None)
    assert 0.2 * sum(kept.values()) < estimates["batch"] < sum(kept.values())

    monkeypatch.setattr(memory, "available", lambda: int(estimates["batch"]) - 1)
    with pytest.raises(ResourceError, match=r"a batch of [0-9,]+ tokens: .* --batch, or --micro-batches 2"):
        prepared(data, tmp_path, batch=4000)
    prepared(data, tmp_path, batch=4000, micro_batches=2)
