"""What a checkpoint says is checked before anything uses it; the next one is read instead."""

import dataclasses

import pytest
from conftest import Messages
from exact_resume import outcome, start_and_crash

from striate.api import resume_training
from striate.errors import DataError
from striate.tasks.classification.config import ClassificationConfig
from striate.training import checkpoint
from striate.training.facts import require_valid


@pytest.fixture(scope="module")
def saved(few_colors, tmp_path_factory):
    found, _ = checkpoint.newest(start_and_crash(few_colors, tmp_path_factory.mktemp("facts"), 5))
    require_valid(found, ClassificationConfig)
    return found


@pytest.mark.parametrize(
    ("where", "name", "value", "why"),
    [
        ("values", "step", -1, "values.step is -1, not 0 or more"),
        ("values", "lr", None, "values.lr is null"),
        ("values", "micro_batches", 0, "values.micro_batches is 0"),
        ("values", "best_epoch", 77, "values.best_epoch is 77, not an epoch of values.rows"),
        ("values", "rows", [{"epoch": "1"}], r"values.rows\[0\].epoch is '1'"),
        ("values", "totals", {}, "values.totals.correct is missing"),
        ("values", "colour", 1, "values.colour is unknown"),
        ("facts", "config", {"model": "lenett"}, "facts.config is damaged: .*lenett"),
        ("facts", "given", {"batch": "x"}, "facts.given is damaged: batch is 'x'"),
        ("facts", "description", {"task": "classification"}, "architecture is missing"),
        ("facts", "extension", {"before": {}}, "facts.extension.averaged is missing"),
        ("facts", "files", {"split.csv": {"lines": "x"}}, "facts.files.split.csv.sha256 is missing"),
    ],
)
def test_a_field_that_cannot_be_right_is_named(saved, where, name, value, why):
    changed = dataclasses.replace(saved, **{where: {**getattr(saved, where), name: value}})
    with pytest.raises(DataError, match=why):
        require_valid(changed, ClassificationConfig)


def test_a_newer_checkpoint_of_nonsense_is_skipped(few_colors, uninterrupted, tmp_path):
    run = start_and_crash(few_colors, tmp_path, 5)
    found, _ = checkpoint.newest(run)
    checkpoint.write(run, found.tensors, {**found.values, "step": 999, "epoch": None}, found.facts)
    messages = Messages()
    resume_training(run, messages)
    assert "values.epoch is null, not a whole number; resuming from the checkpoint" in messages.warnings[0]
    assert outcome(run) == uninterrupted


def test_tensors_of_another_network_are_an_error(few_colors, tmp_path):
    run = start_and_crash(few_colors, tmp_path, 5)
    found, _ = checkpoint.newest(run)
    tensors = {"network.x": next(iter(found.tensors.values()))}
    checkpoint.write(run, tensors, {**found.values, "step": 999}, found.facts)
    with pytest.raises(DataError, match="its tensors or values are of another network"):
        resume_training(run)
