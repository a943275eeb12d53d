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


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("decay", [0.0, 0.3])
@pytest.mark.parametrize("opt", ["adamw", "sgd"])
def test_it_moves_the_weights_as_torch_does_to_the_bit(opt, decay, fused):
    networks = [models.build("lenet") for _ in range(2)]
    networks[1].load_state_dict(networks[0].state_dict())
    config = TrainConfig(data="x", opt=opt, lr=0.05, weight_decay=decay)
    ours = make_optimizer(networks[0], config)
    copied = dict(zip(networks[0].parameters(), networks[1].parameters(), strict=True))
    for group in ours.param_groups:
        group["fused"] = fused
    groups = [{**group, "params": [copied[p] for p in group["params"]]} for group in ours.param_groups]
    kind = {"adamw": torch.optim.AdamW, "sgd": torch.optim.SGD}[opt]
    theirs = kind(groups)
    generator = torch.Generator().manual_seed(1)
    for step in range(5):
        for group, other in zip(ours.param_groups, theirs.param_groups, strict=True):
            group["lr"] = other["lr"] = 0.05 / (step + 1)
        for mine, its in copied.items():
            gradient = torch.randn(mine.shape, generator=generator)
            mine.grad, its.grad = gradient, gradient.clone()
        ours.step()
        theirs.step()
        for mine, its in copied.items():
            assert torch.equal(mine, its)
            assert ours.state[mine].keys() == theirs.state[its].keys()
            for name, value in ours.state[mine].items():
                assert torch.equal(value, theirs.state[its][name])
    ours.zero_grad()
    assert all(p.grad is None for p in copied)


def test_the_same_names_are_saved_whether_fused_or_not():
    for opt, names in (("adamw", {"step", "exp_avg", "exp_avg_sq"}), ("sgd", {"momentum_buffer"})):
        network = models.build("lenet")
        optimizer = make_optimizer(network, TrainConfig(data="x", opt=opt))
        assert all(group["fused"] for group in optimizer.param_groups)
        for parameter in network.parameters():
            parameter.grad = torch.ones_like(parameter)
        optimizer.step()
        assert {name for state in optimizer.state.values() for name in state} == names


def test_fused_steps_are_those_of_the_formula():
    """Loshchilov, Hutter 2019, algorithm 2, in float64."""
    network = nn.Linear(3, 2, bias=False)
    w = network.weight.detach().double()
    optimizer = make_optimizer(network, TrainConfig(data="x", lr=0.01, weight_decay=0.1))
    m = v = torch.zeros_like(w)
    generator = torch.Generator().manual_seed(1)
    for t in range(1, 6):
        network.weight.grad = torch.randn(2, 3, generator=generator)
        g = network.weight.grad.double()
        optimizer.step()
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
        w = w - 0.01 * (m / (1 - 0.9**t) / ((v / (1 - 0.999**t)).sqrt() + 1e-8) + 0.1 * w)
        assert torch.allclose(network.weight.detach().double(), w, rtol=1e-6, atol=1e-7)
