"""What is decayed, and what is averaged."""

import pytest
import torch
from torch import nn

from striate import models
from striate.training.config import TrainConfig
from striate.training.optimizer import make_optimizer, moving_average


def test_biases_and_norms_are_not_decayed():
    network = models.build("resnet20")
    names = {id(p): name for name, p in network.named_parameters()}
    decayed, free = make_optimizer(network, TrainConfig(data="x")).param_groups
    assert {names[id(p)] for p in free["params"]} == {
        name for name in names.values() if ".bn" in name or name.startswith("bn") or name.endswith("bias")
    }
    assert (decayed["weight_decay"], free["weight_decay"]) == (0.01, 0.0)
    assert len(decayed["params"]) + len(free["params"]) == len(names)


def test_the_moving_average_is_the_formula():
    network = nn.BatchNorm1d(1)
    average = moving_average(network, 0.5)
    values = [1.0, 3.0, -2.0, 5.0, 8.0]
    expected = None
    for t, value in enumerate(values):
        with torch.no_grad():
            network.weight.fill_(value)
            network.running_mean.fill_(-value)
            network.num_batches_tracked.fill_(t)
        average.update_parameters(network)
        kept = min(0.5, (1 + t) / (10 + t))
        expected = value if expected is None else kept * expected + (1 - kept) * value
    assert average.module.weight.item() == pytest.approx(expected)
    assert average.module.running_mean.item() == pytest.approx(-expected)
    assert average.module.num_batches_tracked.item() == 4
