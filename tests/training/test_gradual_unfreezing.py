"""Gradual unfreezing: which stages train in which epoch, and exact resume across the unfreezing."""

import pytest
import torch
from conftest import Messages
from exact_resume import outcome, start, start_and_crash
from safetensors.torch import load_file

from striate import models
from striate.api import resume_training
from striate.errors import UsageError
from striate.tasks.classification.config import ClassificationConfig
from striate.training import transfer

HEAD = models.describe("resnet20").classifier


def test_gradual_unfreezing_adds_one_stage_after_the_other():
    """From the classifier to the first convolution."""
    network = models.build("resnet20", num_classes=2)
    stages = transfer.stages(network)
    for count in range(1, len(stages) + 2):
        trained = transfer.freeze_gradually(network, "all", 2, HEAD, count)
        expected = tuple(f"{name}." for stage in stages[-count:] for name in stage)
        assert tuple(f"{name}." for name in trained) == expected
        for name, parameter in network.named_parameters():
            assert parameter.requires_grad == name.startswith(expected)
    last = transfer.freeze_gradually(network, "last", 2, HEAD, 9)
    assert last == [name for stage in stages[-2:] for name in stage]


def test_frozen_stages_keep_weights_and_statistics_until_their_epoch(few_colors, tmp_path):
    options = {"model": "resnet20", "imgsz": 32, "ema": 0.0, "accumulate": 1, "batch": 12}
    first = str(start(few_colors, tmp_path / "first", epochs=1, **options).best)
    options |= {"weights": first, "unfreeze_every": 1, "layer_decay": 0.5}
    before, messages = load_file(first), Messages()
    for epochs in (1, 2):
        done = start(few_colors, tmp_path / str(epochs), messages, **options, epochs=epochs)
        after = load_file(done.last)
        changed = {name for name, value in before.items() if not torch.equal(value, after[name])}
        network = models.build("resnet20", num_classes=3)
        trained = transfer.freeze_gradually(network, "all", 2, HEAD, epochs)
        assert changed
        assert all(name.startswith(tuple(f"{module}." for module in trained)) for name in changed)
    assert {name.partition(".")[0] for name in changed} == {name.partition(".")[0] for name in trained}
    assert any(line.startswith("from epoch 2 on, training ") for line in messages.infos)


@pytest.mark.slow
def test_gradual_unfreezing_resumes_exactly(few_colors, tmp_path):
    first = str(start(few_colors, tmp_path / "first", epochs=1).best)
    options = {"weights": first, "unfreeze_every": 1}
    whole = outcome(start(few_colors, tmp_path / "whole", **options).folder)
    folder = start_and_crash(few_colors, tmp_path, 7, **options)
    torch.manual_seed(99)
    resume_training(folder)
    assert outcome(folder) == whole


def test_gradual_unfreezing_needs_weights():
    with pytest.raises(UsageError, match="would be random"):
        ClassificationConfig("x", unfreeze_every=1)
