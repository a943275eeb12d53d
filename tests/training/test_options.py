"""Options are declared once: help, flags, ranges and config.yaml all follow from the declaration."""

import dataclasses
import functools
import inspect
import re

import pytest
import typer
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import striate
from striate import api, cli
from striate.cli.seq2seq import train as train_seq2seq
from striate.cli.train import train
from striate.errors import UsageError
from striate.progress import Progress
from striate.tasks import entry
from striate.tasks.classification.config import ClassificationConfig
from striate.tasks.seq2seq.config import Seq2SeqConfig
from striate.training.config_file import parse_config, read_config
from striate.training.options import (
    Option,
    Options,
    current_names,
    declarations,
    docstring,
    flag,
    kinds_of,
    option,
    override,
)
from striate.training.run_folder import TrainingRun

KINDS = {ClassificationConfig: ["train"], Seq2SeqConfig: ["seq2seq", "train"]}
OPTIONS = [(kind, *row) for kind in KINDS for row in declarations(kind)]
IDS = [f"{kind.__name__.removesuffix('Config').lower()}-{name}" for kind, name, _, _ in OPTIONS]

# What some options need besides themselves.
COMPANIONS = {
    "classifier": {"model": "timm:resnet18"}, "model_arguments": {"model": "package:make"},
    "transfer": {"weights": "x"}, "views": {"weights": "x", "transfer": "last"}, "nesterov": {"opt": "sgd"},
    "exclude_kinds": {"exclude": "x"}, "fold": {"folds": 5}, "unfreeze_every": {"weights": "x"},
}  # fmt: skip
# Valid values of options whose declaration does not say what is valid.
VALUES = {
    "budget": "10m", "milestones": "1/3", "name": "another", "out": "elsewhere", "device": "cpu",
    "weights": "some.safetensors", "recipe": "modern", "encoder_from": "some.safetensors",
    "languages": ("en", "de"), "log": "tensorboard", "channels": 3, "classifier": "fc",
    "model_arguments": {"width": 3}, "exclude": "problems.csv", "exclude_kinds": "duplicates",
    "reducing_gap": 3.0,
}  # fmt: skip


def other_value(declared, hint, default):
    """A valid value that is not the default."""
    if declared.known:
        return next(value for value in declared.known if value not in (default, "noam"))
    kinds = kinds_of(hint)
    if bool in kinds:
        return not default
    low = max(x for x in (declared.minimum, declared.above, 0) if x is not None)
    if int in kinds and float not in kinds:
        return int(low) + (2 if default != low + 2 else 3)
    return 0.25 if default != 0.25 else 0.125


def config_with(kind, name, value):
    return kind("x", **{**COMPANIONS.get(name, {}), name: value})


@functools.cache
def parameters(kind):
    """The parameters of the command that trains."""
    app = typer.Typer()
    app.command()({ClassificationConfig: train, Seq2SeqConfig: train_seq2seq}[kind])
    return typer.main.get_command(app).params


@pytest.mark.parametrize(("kind", "name", "declared", "hint"), OPTIONS, ids=IDS)
def test_every_option_has_help_without_a_full_stop(kind, name, declared, hint):
    assert re.match(r"[A-Z0-9][^\n]{3,}", declared.help)
    assert not declared.help.endswith((".", " "))
    assert f"{name}: {declared.help}" in docstring(kind)
    assert declared.help in striate.train.__doc__


@pytest.mark.parametrize(("kind", "name", "declared", "hint"), OPTIONS, ids=IDS)
def test_every_option_is_in_the_help_of_its_command(kind, name, declared, hint):
    found = [p for p in parameters(kind) if p.name == name]
    if not declared.in_cli:
        assert not found
        return
    (parameter,) = found
    assert not parameter.hidden
    assert parameter.help.startswith(declared.help)
    assert parameter.help.endswith(".")
    spelled = [*parameter.opts, *parameter.secondary_opts]
    expected = [word for words in declared.flags for word in words.split("/")] or [flag(name)]
    assert spelled == expected
    for old in declared.old_names:
        (alias,) = [p for p in parameters(kind) if p.name == old]
        assert alias.hidden
        assert flag(old) in alias.opts


def test_help_of_both_commands_prints(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")  # narrow terminals cut long names
    for kind, words in KINDS.items():
        assert cli.run([*words, "--help"]) == 0
        text = capsys.readouterr().out
        for name, declared, _ in declarations(kind):
            if declared.in_cli:
                word = declared.flags[0].split("/")[0] if declared.flags else flag(name)
                assert word in text


@pytest.mark.parametrize(("kind", "name", "declared", "hint"), OPTIONS, ids=IDS)
def test_every_option_survives_config_yaml(tmp_path, kind, name, declared, hint):
    if name == "task" or not declared.saved:
        return
    default = getattr(kind("x"), name)
    value = VALUES.get(name) or other_value(declared, hint, default)
    assert value != default
    config = config_with(kind, name, value)
    assert getattr(config, name) == value
    TrainingRun(task=None, folder=tmp_path, config=config, description=None, notes=[]).write_config()
    plain = yaml.safe_load((tmp_path / "config.yaml").read_text("utf-8"))
    assert plain[name] == (list(value) if isinstance(value, tuple) else value)
    assert parse_config(kind, read_config(tmp_path)) == config


def numeric(kind):
    return [
        (name, declared, hint)
        for name, declared, hint in declarations(kind)
        if {int, float} & set(kinds_of(hint)) and not declared.known and name not in ("channels", "task")
    ]


def numbers(low, high, whole, *, open_low=False, open_high=False):
    if whole:
        return st.integers(low, high)
    return st.floats(low, high, exclude_min=open_low, exclude_max=open_high)


@pytest.mark.parametrize("kind", list(KINDS))
@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_numbers_are_accepted_inside_the_declared_range_and_refused_outside(kind, data):
    name, declared, hint = data.draw(st.sampled_from(numeric(kind)))
    whole = float not in kinds_of(hint)
    low = declared.minimum if declared.minimum is not None else declared.above
    high = declared.maximum if declared.maximum is not None else declared.below
    assert low is not None, f"{name} has no lower limit"
    inside = data.draw(
        numbers(
            low, 10**6 if high is None else high, whole,
            open_low=declared.above is not None, open_high=declared.below is not None,
        )
    )  # fmt: skip
    fits = not (name == "warmup" and 0.5 < inside < 1) and not (name == "val" and inside == 0)
    fits = fits and not (name == "reducing_gap" and 0 < inside < 1)
    if fits:
        value = getattr(config_with(kind, name, inside), name)
        assert value == inside or (value is None and inside == 0 and kind is Seq2SeqConfig)
    outside = numbers(-(10**6), low - 1 if whole else low, whole, open_high=declared.above is None)
    if high is not None:
        low_end = high + 1 if whole else high
        above = numbers(low_end, 10 * high + 10**6, whole, open_low=declared.maximum is not None)
        outside = st.one_of(outside, above)
    if not whole:
        outside = st.one_of(outside, st.just(float("nan")))
    value = data.draw(outside)
    if value == 0 and kind is Seq2SeqConfig:  # which stands for the default
        return
    with pytest.raises(UsageError, match=f"{flag(name)} .*: it must be {re.escape(declared.range)}"):
        config_with(kind, name, value)


@pytest.mark.parametrize("kind", list(KINDS))
def test_numbers_have_the_declared_type(kind):
    for name, _, hint in numeric(kind):
        with pytest.raises(UsageError, match=f"{flag(name)} 'many': it must be a number"):
            config_with(kind, name, "many")
        if float not in kinds_of(hint):
            with pytest.raises(UsageError, match=f"{flag(name)} 2.5: it must be a whole number"):
                config_with(kind, name, 2.5)


@pytest.mark.parametrize("kind", list(KINDS))
def test_choices_are_accepted_and_others_refused(kind):
    for name, declared, _ in declarations(kind):
        if not declared.known:
            continue
        for value in declared.known:
            assert getattr(config_with(kind, name, value), name) == value
        with pytest.raises(UsageError, match=f"unknown value for {flag(name)} 'zzz'"):
            config_with(kind, name, "zzz")


@pytest.mark.parametrize("kind", list(KINDS))
def test_unknown_options_have_near_matches(kind):
    with pytest.raises(UsageError, match="unknown option 'epoch': did you mean epochs"):
        kind.from_user({"data": "x", "epoch": 3})


@pytest.mark.parametrize(
    ("old", "new", "value"),
    [
        ("tokens", "tokenizer", "words"),
        ("source_tokens", "source_tokenizer", "words"),
        ("target_tokens", "target_tokenizer", "words"),
        ("vocab", "vocab_size", 100),
        ("joint", "shared_vocab", True),
        ("check", "sanity_check", True),
    ],
)
def test_old_names_are_read_with_a_note(old, new, value):
    config, notes = Seq2SeqConfig.from_user({"data": "x", old: value})
    assert getattr(config, new) == value
    assert notes == [
        f"{flag(old)} is now called {flag(new)}; the old name will be removed in the next release"
    ]
    assert parse_config(Seq2SeqConfig, {"data": ["x"], old: value}) == config


def test_old_names_are_all_tested():
    (marker,) = test_old_names_are_read_with_a_note.pytestmark
    tested = {new: (old,) for old, new, _ in marker.args[1]}
    for kind in KINDS:
        declared = {n: d.old_names for n, d, _ in declarations(kind) if d.old_names}
        assert declared == (tested if kind is Seq2SeqConfig else {})


def test_train_has_the_options_as_keyword_arguments():
    """Editors, `help()` and notebooks read this signature."""
    names = list(inspect.signature(striate.train).parameters)
    assert names[0] == "data"
    declared = {name for kind in KINDS for name, _, _ in declarations(kind)}
    assert set(names[1:]) == {*declared, "task", "config"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Group(Options):
    size: int = option(3, "Size", minimum=1, maximum=9, old_names=("length",))
    rate: float | None = option(None, "Rate", above=0, below=1)
    progress: Progress = option(Progress(), "Progress", saved=False)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Narrower(Group):
    size: int = override(Group, "size", 5, help="Side", maximum=7)


def test_an_override_keeps_the_rest_of_the_declaration():
    (first, declared, _), *_ = declarations(Narrower)
    assert first == "size"
    assert declared == Option("Side", minimum=1, maximum=7, old_names=("length",))
    assert (Group().size, Narrower().size) == (3, 5)
    assert Group(size=9).size == 9
    with pytest.raises(UsageError, match="--size 9: it must be from 1 to 7"):
        Narrower(size=9)
    assert declarations(Narrower)[1][1].range == "above 0 and below 1"


def test_plain_values_hold_what_is_saved():
    assert Group(rate=0.5).to_json() == {"size": 3, "rate": 0.5}
    found, notes = current_names(Group, {"length": 2, "data": "x"})
    assert (found, len(notes)) == ({"size": 2, "data": "x"}, 1)


def test_a_callable_is_saved_by_its_name():
    def flip(image):
        return image

    config = ClassificationConfig("x", augment=flip)
    assert config.to_json()["augment"].endswith("test_a_callable_is_saved_by_its_name.<locals>.flip")


def test_a_number_is_no_name_of_a_network():
    with pytest.raises(UsageError, match=r"model=<int>: it must be a name\. Give one of"):
        ClassificationConfig("x", model=3)


def test_a_module_is_kept_beside_its_name():
    network = nn.Linear(2, 2)
    config = ClassificationConfig("x", model=network)
    assert (config.model, config.network) == ("object:Linear", network)
    assert config.unsaved["network"] is network
    assert "network" not in config.to_json()
    with pytest.raises(
        UsageError, match=r"model_arguments with the object object:Linear: .*functools\.partial"
    ):
        ClassificationConfig("x", model=network, model_arguments={"width": 3})


@pytest.mark.parametrize(
    ("task", "options", "why"),
    [
        (
            "classification",
            {"momentum": 0.8},
            "--momentum 0.8: it has no effect with --opt adamw. .* or rms",
        ),
        ("classification", {"gamma": 0.5}, "no effect with --sched cosine. .* use --sched step"),
        ("classification", {"milestones": "0.2"}, "no effect with --sched cosine"),
        ("classification", {"last_layers": 3, "transfer": "head"}, "no effect with --transfer head"),
        ("classification", {"backbone_lr": 0.1, "transfer": "append"}, "no effect with --transfer append"),
        ("classification", {"layer_decay": 0.7, "transfer": "head"}, "no effect with --transfer head"),
        ("seq2seq", {"encoder_channels": 8, "encoder": "resnet20"}, "no effect with --encoder resnet20"),
        ("seq2seq", {"height": 48, "encoder_from": "x"}, "no effect with --encoder-from x. .* or leave out"),
    ],
)
def test_an_option_without_effect_is_refused(task, options, why):
    with pytest.raises(UsageError, match=why):
        api.configure("x", {"task": task, **options})
    defaults = {name: entry(task).find("config").__dataclass_fields__[name].default for name in options}
    api.configure("x", {"task": task, **defaults})


def test_what_a_recipe_or_a_file_sets_is_not_refused(tmp_path):
    config = api.configure("x", {"recipe": "paper", "model": "resnet18", "opt": "adamw"})
    assert config.momentum == 0.9
    saved = ClassificationConfig("x", momentum=0.8)  # of an earlier version
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(saved.to_json()))
    assert api.configure(None, {"config": str(tmp_path / "config.yaml")}).momentum == 0.8


@pytest.mark.parametrize("config", [ClassificationConfig, Seq2SeqConfig])
def test_what_options_need_exists(config):
    table = {name: declared for name, declared, _ in declarations(config)}
    for name, declared in table.items():
        if declared.needs is not None:
            other, values = declared.needs
            assert name != other
            known = table[other].known
            assert all(value is None or value in known for value in values)
