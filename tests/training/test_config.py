"""The options that all tasks share are checked before any work starts."""

import pytest
from conftest import Messages

from striate.api import configure
from striate.errors import UsageError
from striate.tasks.classification.config import ClassificationConfig
from striate.tasks.seq2seq.config import Seq2SeqConfig
from striate.training.config import dataset_name
from striate.training.options import with_unit


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"opt": "adam"}, "unknown value for --opt 'adam': did you mean adamw"),
        ({"sched": "cos"}, "cosine"),
        ({"batch": -1}, "--batch -1: it must be from 1 to"),
        ({"accumulate": 0}, "--accumulate 0: it must be from 1 to"),
        ({"micro_batches": 0}, "--micro-batches 0: it must be from 1 to"),
        ({"epochs": -1}, "--epochs -1"),
        ({"epochs": "2"}, "it must be a number"),
        ({"seed": -1}, "--seed -1"),
        ({"lr": -1.0}, "--lr -1.0: it must be above 0"),
        ({"lr": float("nan")}, "above 0"),
        ({"warmup": 0.7}, "--warmup 0.7: it must be at most 0.5, or a number of steps"),
        ({"label_smoothing": 1.0}, "--label-smoothing 1.0: it must be at least 0 and below 1"),
        ({"ema": 1.0}, "--ema 1.0"),
        ({"val": 0.0}, "--val 0: without validation data"),
        ({"test": 0.9}, "--test 0.9: it must be from 0 to 0.5"),
        ({"weight_decay": -0.1}, "--weight-decay -0.1"),
        ({"name": "../x"}, "the name of one folder"),
        ({"milestones": "30,60"}, "--milestones 30,60: they must be fractions of the run"),
        ({"milestones": "half"}, "fractions of the run"),
        ({"milestones": ""}, "fractions of the run"),
        ({"gamma": 0.0}, "--gamma 0.0: it must be above 0 and at most 1"),
        ({"dropout": -0.1}, "--dropout -0.1"),
        ({"momentum": 1.0}, "--momentum 1.0"),
        ({"nesterov": True}, "it needs sgd with momentum"),
        ({"nesterov": True, "opt": "sgd", "momentum": 0.0}, "it needs sgd with momentum"),
        ({"budget": "10m", "warmup": 4000}, "the number of steps is not known in advance"),
    ],
    ids=str,
)
@pytest.mark.parametrize("kind", [ClassificationConfig, Seq2SeqConfig])
def test_invalid_options_are_refused_in_one_line(kind, options, message):
    with pytest.raises(UsageError, match=message) as caught:
        kind("x", **options)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("option", ["epochs", "batch", "lr"])
@pytest.mark.parametrize("kind", [ClassificationConfig, Seq2SeqConfig])
def test_zero_is_refused(kind, option):
    with pytest.raises(UsageError, match=f"--{option} 0"):
        kind("x", **{option: 0})


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90s", 90), ("90", 90), ("10m", 600), ("1h30m", 5400), ("1.5h", 5400), ("2m5s", 125)],
)
def test_durations_are_read(text, seconds):
    assert ClassificationConfig("x", budget=text).budget_seconds == seconds


@pytest.mark.parametrize(
    ("text", "says"), [("10", ["10 seconds", "10m"]), ("1m30", ["90 seconds"]), ("10s", [])]
)
def test_a_budget_without_a_unit_is_announced(text, says):
    messages = Messages()
    configure("x", {"budget": text, "progress": messages})
    assert len(messages.infos) == bool(says)
    assert all(part in messages.infos[0] for part in says)
    assert ("minutes" in "".join(messages.infos)) == (text == "10")
    assert with_unit(text) == (f"{text}s" if says else text)


@pytest.mark.parametrize("text", ["", "m", "ten", "10x", "-5m", "10 m", "0s"])
def test_a_budget_that_is_not_a_duration_is_refused(text):
    with pytest.raises(UsageError, match="--budget"):
        ClassificationConfig("x", budget=text)


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("data/flowers", "flowers"),
        ("flowers.tar.gz", "flowers"),
        ("flowers.zip", "flowers"),
        ("shards/train-{000..012}.tar", "train"),
        ("digits", "digits"),
    ],
)
def test_the_run_is_named_after_its_data(source, name):
    assert dataset_name(source) == name
