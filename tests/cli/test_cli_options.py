"""Flags from the declarations of options: earlier names, defaults, and what is passed on."""

import math

import pytest
from command_options import command_options

from striate import api, cli
from striate.errors import UsageError
from striate.tasks.classification.config import ClassificationConfig
from striate.tasks.seq2seq.config import Seq2SeqConfig
from striate.training.options import declarations, kinds_of


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


NUMBERS = [
    pytest.param(name, info, id=f"{command} {name}")
    for command, name, hint, info in command_options()
    # channels are 1 or 3; a coverage has a message of its own, such as "did you mean 0.95?"
    if {int, float} & set(kinds_of(hint)) and name not in ("channels", "coverage")
]
DECLARED = {
    name: declared
    for kind in (ClassificationConfig, Seq2SeqConfig)
    for field, declared, _ in declarations(kind)
    for name in (field, *declared.old_names)
}


@pytest.mark.parametrize(("name", "info"), NUMBERS)
def test_each_number_has_a_finite_range(name, info):
    if name in DECLARED and info.min is None:
        low = next(v for v in (DECLARED[name].minimum, DECLARED[name].above) if v is not None)
        high = next(v for v in (DECLARED[name].maximum, DECLARED[name].below) if v is not None)
    else:
        low, high = info.min, info.max
    assert -math.inf < low < high < math.inf


@pytest.mark.parametrize("config", [ClassificationConfig, Seq2SeqConfig])
def test_each_number_of_a_configuration_is_checked(config):
    """As keywords in Python and keys of a config.yaml, where no parser has seen them."""
    for name, declared, hint in declarations(config):
        if not {int, float} & set(kinds_of(hint)) or declared.known:
            continue
        most = 10**39 if float in kinds_of(hint) else 10**20  # rates may be as large as float32 allows
        for value in (math.nan, math.inf, -math.inf, most, -most, 1e308, "1", 10**5000):
            if value != "1" or str not in kinds_of(hint):
                with pytest.raises(UsageError):
                    config("digits", **{name: value})
