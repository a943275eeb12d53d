"""Flags from the declarations of options: earlier names, defaults, and what is passed on."""

import pytest

from striate import api, cli
from striate.errors import UsageError


@pytest.fixture
def configured(monkeypatch):
    """The configurations of runs that would start."""
    found = []

    def run_training(config):
        found.append(config)
        raise UsageError("stopped by the test")

    monkeypatch.setattr(api, "run_training", run_training)
    return found


OLD = {
    "--tokens": (["words"], "tokenizer", "words"),
    "--source-tokens": (["bytes"], "source_tokenizer", "bytes"),
    "--target-tokens": (["bytes"], "target_tokenizer", "bytes"),
    "--vocab": (["50"], "vocab_size", 50),
    "--joint": ([], "shared_vocab", True),
    "--no-joint": ([], "shared_vocab", False),
    "--check": ([], "sanity_check", True),
}


@pytest.mark.parametrize("old", OLD)
def test_an_earlier_flag_works_and_prints_a_note(old, configured, capsys):
    values, name, expected = OLD[old]
    assert cli.run(["seq2seq", "train", "pairs.tsv", old, *values]) == 2
    (config,) = configured
    assert getattr(config, name) == expected
    new = name.replace("_", "-")
    note = f"{old.replace('no-', '')} is now called --{new}; the old name will be removed in the next release"
    assert note in capsys.readouterr().err


def test_earlier_flags_are_hidden(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    cli.run(["seq2seq", "train", "--help"])
    words = capsys.readouterr().out.replace(",", " ").split()
    assert not set(OLD) & set(words)
    assert {"--tokenizer", "--vocab-size", "--shared-vocab", "--sanity-check", "--samples"} <= set(words)


def test_the_command_passes_on_what_the_user_gave(configured, capsys):
    argv = ["--opt", "sgd", "--nesterov", "--no-amp", "-j", "3", "--augment", "none", "--lr", "0.5"]
    assert cli.run(["train", "flowers", *argv]) == 2
    (config,) = configured
    assert (config.data, config.opt, config.nesterov, config.amp) == ("flowers", "sgd", True, False)
    assert (config.workers, config.augment, config.lr, config.epoch_limit) == (3, "none", 0.5, 20)


def test_choices_that_the_help_explains_are_not_repeated(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "300")
    cli.run(["train", "--help"])
    assert "append (a new layer after the classifier). [default: all]" in capsys.readouterr().out


def test_seq2seq_evaluate_has_only_its_own_options(capsys):
    cli.run(["seq2seq", "evaluate", "--help"])
    out = capsys.readouterr().out
    assert "--beam" in out
    assert "words.tsv" in out
    assert not {"--batch", "--workers", "--cache", "--data", "accuracy"} & set(out.replace(",", " ").split())


@pytest.mark.parametrize("argv", [["train"], ["seq2seq", "train"]])
def test_the_help_has_panels_choices_and_defaults(argv, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    cli.run([*argv, "--help"])
    out = capsys.readouterr().out
    places = [out.index(f" {name} \u2500") for name in ("Data", "Model", "Optimization", "Run")]
    assert places == sorted(places)
    assert "Optimizer (adamw, sgd, rmsprop). [default: adamw]" in out
    assert "[default: ()]" not in out
    assert "--from" in out[places[0] : places[1]] or argv == ["train"]
    assert "--seed" in out[places[3] :]
