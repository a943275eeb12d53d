"""The options of sequence to sequence, and the presets."""

import dataclasses
from pathlib import Path

import pytest

from striate.data.text.tokens import KINDS
from striate.errors import UsageError
from striate.tasks.seq2seq.config import FEW_PAIRS, MAX_EPOCHS, PRESETS, TOKENIZERS, Seq2SeqConfig, preset_for
from striate.training.config_file import current_config, parse_config


def test_the_preset_depends_on_the_number_of_training_pairs():
    chosen = {pairs: Seq2SeqConfig("x").filled_in(pairs) for pairs in (500, 20_000, 500_000, 5_000_000)}
    assert [config.model for config in chosen.values()] == ["tiny", "small", "base", "large"]
    for pairs, config in chosen.items():
        preset = preset_for(config.model, pairs)
        names = ("width", "depth", "heads", "hidden", "dropout", "word_dropout", "batch", "lr")
        assert [getattr(config, name) for name in names] == [getattr(preset, name) for name in names]
        assert config.epochs is None  # the length of the data in tokens decides


def test_few_pairs_have_more_regularization():
    """Up to 1,000; from there to 3,000 pairs the values change evenly to those of the preset."""
    assert preset_for("tiny", 10) == preset_for("tiny", 1_000)
    assert dataclasses.asdict(preset_for("tiny", 1_000)).items() >= FEW_PAIRS.items()
    half = preset_for("tiny", 2_000)
    assert (half.dropout, half.word_dropout, half.batch, half.steps) == (0.25, 0.1, 650, 3_500)
    assert preset_for("tiny", 3_000) == preset_for("tiny", 10**6) == PRESETS["tiny"]
    assert preset_for("small", 10) == PRESETS["small"]


@pytest.mark.parametrize(
    ("pairs", "steps_per_epoch", "epochs"),
    [
        (10, 1, MAX_EPOCHS),  # not 5,000 passes over ten pairs
        (800, 40, 125), (1_000, 84, 60), (2_000, 35, 100), (3_000, 20, 100), (3_000, 45, 60),
        (3_001, 15, 134), (16_000, 80, 25), (100_000, 500, 25),
        (100_001, 250, 10), (1_000_001, 600, 10),
    ],
)  # fmt: skip
def test_small_data_are_passed_over_more_often(pairs, steps_per_epoch, epochs):
    """Until there are 5,000 (up to 1,000 pairs) to 2,000 steps; larger data have their preset's epochs."""
    config = Seq2SeqConfig("x").filled_in(pairs)
    assert config.with_epochs(pairs, steps_per_epoch).epochs == epochs
    assert dataclasses.replace(config, epochs=3).with_epochs(pairs, steps_per_epoch).epochs == 3
    assert dataclasses.replace(config, budget="5m").with_epochs(pairs, steps_per_epoch).epochs is None


@pytest.mark.parametrize(
    ("pairs", "name"),
    [
        (1, "tiny"), (3_000, "tiny"), (3_001, "small"), (100_000, "small"), (100_001, "base"),
        (1_000_000, "base"), (1_000_001, "large"), (10**9, "large"),
    ],
)  # fmt: skip
def test_boundaries_of_the_presets(pairs, name):
    assert Seq2SeqConfig("x").filled_in(pairs).model == name


def test_given_options_replace_those_of_the_preset():
    own = Seq2SeqConfig("x", width=64, dropout=0.0, model="large").filled_in(500)
    assert (own.width, own.dropout, own.depth) == (64, 0.0, PRESETS["large"].depth)
    assert own.filled_in(500) == own
    assert Seq2SeqConfig("x", sched="noam").filled_in(500).lr == 1.0  # a factor on the paper's rate


def test_invalid_options_are_refused():
    with pytest.raises(UsageError, match="unknown value for --tokenizer 'charakters': did you mean charact"):
        Seq2SeqConfig("x", tokenizer="charakters")
    with pytest.raises(UsageError, match="the number of steps is not known in advance"):
        Seq2SeqConfig("x", budget="5m", warmup=4000)
    with pytest.raises(UsageError, match="the number of steps is not known in advance"):
        Seq2SeqConfig("x", budget="5m", sched="noam")
    with pytest.raises(UsageError, match=r"--label-smoothing 1\.0: it must be at least 0 and below 1"):
        Seq2SeqConfig("x", label_smoothing=1.0)
    with pytest.raises(UsageError, match="--channels 2: it must be 1 or 3"):
        Seq2SeqConfig("x", channels=2)
    with pytest.raises(UsageError, match="unknown value for --encoder 'resnet21': did you mean resnet"):
        Seq2SeqConfig("x", encoder="resnet21")


def test_data_may_be_one_path_or_several():
    for data in ("a.tsv", Path("a.tsv"), ("a.tsv",), ["a.tsv"]):
        assert Seq2SeqConfig(data).data == ("a.tsv",)
    assert Seq2SeqConfig(["a.en", Path("a.de")]).data == ("a.en", "a.de")
    assert Seq2SeqConfig(("a.en", "a.de")).source == "a.en a.de"


def test_the_tokenizers_are_those_of_the_data():
    assert TOKENIZERS == KINDS


def test_the_run_is_named_after_its_data_and_preset():
    assert Seq2SeqConfig("some/words.tsv").filled_in(10).run_name == "words-tiny"
    assert Seq2SeqConfig(("train.en", "train.de"), model="base").filled_in(10).run_name == "train-base"
    assert Seq2SeqConfig("x", name="mine").run_name == "mine"


def test_old_names_are_read_with_a_note():
    old = {"tokens": "bytes", "source_tokens": "words", "target_tokens": "characters", "vocab": 90}
    config, notes = Seq2SeqConfig.from_user({"data": "x", **old, "joint": False, "check": True})
    assert (config.tokenizer, config.source_tokenizer, config.target_tokenizer) == (
        "bytes", "words", "characters",
    )  # fmt: skip
    assert (config.vocab_size, config.shared_vocab, config.sanity_check) == (90, False, True)
    assert len(notes) == 6
    assert "--tokens is now called --tokenizer; the old name will be removed in the next release" in notes


@pytest.mark.parametrize(
    "name", ["width", "depth", "heads", "hidden", "encoder_channels", "epochs", "batch", "lr"]
)
def test_0_means_the_default_in_older_runs_only(name):
    """Format 1 had 0 where None is now."""
    older = current_config({"data": ["x"], "target_tokens": None, name: 0}, 1)
    assert parse_config(Seq2SeqConfig, older) == Seq2SeqConfig(
        "x", monitor="error", reference_columns="all", word_dropout=0.0
    )
    with pytest.raises(UsageError, match="it must be"):
        Seq2SeqConfig("x", **{name: 0})


def test_it_survives_config_yaml():
    config = Seq2SeqConfig(("a.en", "a.de"), languages=("en", "de"), shared_vocab=False, vocab_size=500)
    assert parse_config(Seq2SeqConfig, config.to_json()) == config


def test_paths_become_absolute(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = Seq2SeqConfig(("a.en", "b/c.de"), encoder_from="net.safetensors").absolute()
    assert config.data == (str(tmp_path / "a.en"), str(tmp_path / "b/c.de"))
    assert config.encoder_from == str(tmp_path / "net.safetensors")


def test_options_of_the_other_kind_of_source_are_noted(tmp_path):
    path = tmp_path / "pairs.tsv"
    path.write_text("".join(f"word{i}\t{i}\n" for i in range(20)))
    config = Seq2SeqConfig(str(path), height=48, encoder="patches", source_tokenizer="words")
    with config.open_data() as pairs:
        assert pairs.notes[-2:] == (
            "--height 48 has no effect: the sources are text",
            "--encoder patches has no effect: the sources are text",
        )
    both = dataclasses.replace(
        config, height=32, encoder="columns", tokenizer="bytes", target_tokenizer="words"
    )
    with both.open_data() as pairs:
        assert pairs.notes[-1] == "--tokenizer bytes has no effect: each side has its own tokenizer"
    plain = Seq2SeqConfig(str(path))
    with plain.open_data() as pairs:
        assert not any("no effect" in note for note in pairs.notes)


def test_fractions_of_data_with_splits_are_noted():
    config = Seq2SeqConfig("x", val=0.2, test=0.3)
    assert config.unused_shares(("train", "val")) == [
        "--val 0.2 has no effect: the data have splits", "--test 0.3 has no effect: the data have splits",
    ]  # fmt: skip
    assert config.unused_shares(("train",)) == ["--test 0.3 has no effect: the data have splits"]
    assert config.unused_shares(("all",)) == []
    assert Seq2SeqConfig("x").unused_shares(("train", "val", "test")) == []
