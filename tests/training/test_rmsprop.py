"""TensorFlow's RMSprop: its formula number by number, and PyTorch's RMSprop where the two agree."""

import copy

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from striate import models
from striate.tasks.classification.config import ClassificationConfig
from striate.training.optimizer import layer_scales, make_optimizer, parameter_groups
from striate.training.rmsprop import RMSprop


@given(
    momentum=st.sampled_from([0.0, 0.9]),
    epsilon=st.sampled_from([1e-10, 1e-3, 1.0]),
    weight_decay=st.sampled_from([0.0, 0.1]),
    seed=st.integers(0, 99),
)
@settings(max_examples=20, deadline=None)
def test_steps_equal_the_formula(momentum, epsilon, weight_decay, seed):
    """mean_square from 1; mom = momentum mom + lr g / sqrt(mean_square + epsilon); the rate changes."""
    rng = np.random.default_rng(seed)
    w = rng.normal(size=3)
    weight = nn.Parameter(torch.from_numpy(w.copy()))
    unused = nn.Parameter(torch.ones(2))
    optimizer = RMSprop(
        [weight, unused], lr=0.0, momentum=momentum, epsilon=epsilon, weight_decay=weight_decay
    )
    mean_square, mom = np.ones(3), np.zeros(3)
    for step in range(5):
        g = rng.normal(size=3)
        lr = 0.1 / (1 + step)
        weight.grad = torch.from_numpy(g)
        optimizer.param_groups[0]["lr"] = lr
        optimizer.step()
        g = g + weight_decay * w
        mean_square = 0.9 * mean_square + (1 - 0.9) * g**2
        mom = momentum * mom + lr * g / np.sqrt(mean_square + epsilon)
        w = w - mom
        np.testing.assert_allclose(weight.detach().numpy(), w, rtol=1e-12)
    assert torch.equal(unused, torch.ones(2))
    assert unused not in optimizer.state


def test_steps_equal_pytorchs_where_the_two_agree():
    """From the same mean square, without epsilon and momentum, at a constant rate."""
    torch.manual_seed(0)
    ours = nn.Linear(4, 3).double()
    theirs = copy.deepcopy(ours)
    a = RMSprop(ours.parameters(), lr=0.05, momentum=0.0, epsilon=0.0, weight_decay=0.01)
    b = torch.optim.RMSprop(theirs.parameters(), lr=0.05, alpha=0.9, eps=0.0, weight_decay=0.01)
    for parameter in theirs.parameters():
        b.state[parameter] = {"step": torch.tensor(0.0), "square_avg": torch.ones_like(parameter)}
    for _ in range(6):
        x = torch.randn(5, 4, dtype=torch.float64)
        for network, optimizer in ((ours, a), (theirs, b)):
            optimizer.zero_grad()
            network(x).square().sum().backward()
            optimizer.step()
    for one, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert torch.allclose(one, other, rtol=1e-12)


def test_opt_rmsprop_selects_it():
    config = ClassificationConfig("x", model="mobilenet_v3_small", opt="rmsprop", batch=4096, momentum=0.8)
    network = models.build("mobilenet_v3_small", num_classes=2)
    groups = parameter_groups(network, config.decay, layer_scales(network, 1.0))
    optimizer = make_optimizer(groups, config, {})
    assert isinstance(optimizer, RMSprop)
    assert {group["weight_decay"] for group in optimizer.param_groups} == {0.0, 1e-5}
    assert optimizer.defaults["momentum"] == 0.8
    assert config.peak_lr == pytest.approx(0.256)  # EfficientNetV2's for 4096, torchvision's 0.064 for 1024
