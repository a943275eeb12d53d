"""What is decayed, and what is averaged."""

import pytest
import torch
from torch import nn

from striate import models
from striate.training.config import TrainConfig
from striate.training.optimizer import layer_shares, make_optimizer, moving_average


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


@pytest.mark.parametrize("decay", [0.65, 0.75])
def test_layer_decay_is_that_of_beit(decay):
    """get_num_layer_for_vit and LayerDecayValueAssigner of its code: L + 2 layers, the patches the first."""

    def number(name):
        if name.startswith(("class_token", "encoder.pos_embedding", "conv_proj")):
            return 0
        if name.startswith("encoder.layers"):
            return int(name.split(".")[2].removeprefix("encoder_layer_")) + 1
        return 13  # the last norm and the classifier

    with torch.device("meta"):
        network = models.build("vit_ti_16")
    scales = [decay ** (12 + 1 - i) for i in range(12 + 2)]
    expected = {name: scales[number(name)] for name, _ in network.named_parameters()}
    assert layer_shares(network, decay) == pytest.approx(expected)
    names = {id(p): name for name, p in network.named_parameters()}
    for group in make_optimizer(network, TrainConfig(data="x", layer_decay=decay), "heads.head").param_groups:
        for parameter in group["params"]:
            assert group["share"] == pytest.approx(expected[names[id(parameter)]])


def test_layer_decay_goes_by_stage_elsewhere():
    with torch.device("meta"):
        network = models.build("resnet18")
    shares = layer_shares(network, 0.5)
    order = ("conv1", "layer1", "layer2", "layer3", "layer4", "fc")
    for name, share in shares.items():
        at = order.index(name.split(".")[0]) if not name.startswith("bn1") else 0
        assert share == 0.5 ** (5 - at)
    assert set(layer_shares(network, 1.0).values()) == {1.0}


def test_a_backbone_rate_of_ones_own_goes_with_layer_decay():
    with torch.device("meta"):
        network = models.build("resnet18")
    config = TrainConfig(data="x", lr=1.0, layer_decay=0.5, backbone_lr=0.1)
    shares = {group["share"] for group in make_optimizer(network, config, "fc").param_groups}
    assert sorted(shares, reverse=True) == pytest.approx([1.0, *(0.1 * 0.5**k for k in range(1, 6))])


def test_the_positions_of_a_vit_are_not_decayed():
    with torch.device("meta"):
        network = models.build("vit_ti_16")
    names = {id(p): name for name, p in network.named_parameters()}
    decayed = {
        names[id(p)]
        for group in make_optimizer(network, TrainConfig(data="x")).param_groups
        if group["weight_decay"]
        for p in group["params"]
    }
    assert decayed == {name for name in names.values() if name.endswith("weight") and "ln" not in name}


def test_momentum_and_nesterov_are_sgds():
    config = TrainConfig(data="x", opt="sgd", momentum=0.8, nesterov=True)
    for group in make_optimizer(nn.Linear(2, 2), config).param_groups:
        assert (group["momentum"], group["nesterov"]) == (0.8, True)
