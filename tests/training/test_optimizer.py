"""The optimizers equal torch's to the bit; weight decay and layer-wise learning rates by parameter."""

import pytest
import torch
from torch import nn

from striate import models
from striate.models.layers import no_weight_decay
from striate.tasks.classification.config import ClassificationConfig
from striate.training.optimizer import layer_scales, make_optimizer, parameter_groups


def optimizer_of(network, **options):
    """The optimizer of a run from random weights."""
    config = ClassificationConfig("x", **options)
    scales = layer_scales(network, config.layer_decay)
    groups = parameter_groups(network, config.decay, scales, no_weight_decay(network))
    return make_optimizer(groups, config, {})


def test_biases_and_norms_are_not_decayed():
    network = models.build("resnet20")
    names = {id(p): name for name, p in network.named_parameters()}
    decayed, free = optimizer_of(network).param_groups
    assert {names[id(p)] for p in free["params"]} == {
        name for name in names.values() if ".bn" in name or name.startswith("bn") or name.endswith("bias")
    }
    assert (decayed["weight_decay"], free["weight_decay"]) == (0.01, 0.0)
    assert len(decayed["params"]) + len(free["params"]) == len(names)


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("decay", [0.0, 0.3])
@pytest.mark.parametrize("opt", ["adamw", "sgd"])
def test_steps_equal_torchs_to_the_bit(opt, decay, fused):
    networks = [models.build("lenet") for _ in range(2)]
    networks[1].load_state_dict(networks[0].state_dict())
    ours = optimizer_of(networks[0], opt=opt, lr=0.05, weight_decay=decay)
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


def test_the_state_has_the_same_names_fused_or_not():
    for opt, names in (("adamw", {"step", "exp_avg", "exp_avg_sq"}), ("sgd", {"momentum_buffer"})):
        network = models.build("lenet")
        optimizer = optimizer_of(network, opt=opt)
        assert all(group["fused"] for group in optimizer.param_groups)
        for parameter in network.parameters():
            parameter.grad = torch.ones_like(parameter)
        optimizer.step()
        assert {name for state in optimizer.state.values() for name in state} == names


def test_fused_steps_equal_the_formula():
    """Loshchilov, Hutter 2019, algorithm 2, in float64."""
    network = nn.Linear(3, 2, bias=False)
    w = network.weight.detach().double()
    optimizer = optimizer_of(network, lr=0.01, weight_decay=0.1)
    for group in optimizer.param_groups:
        group["lr"] = 0.01
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
def test_layer_decay_of_vit_is_that_of_beit(decay):
    """get_num_layer_for_vit and LayerDecayValueAssigner of its code: L + 2 layers, patches first."""

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
    assert layer_scales(network, decay) == pytest.approx(expected)
    names = {id(p): name for name, p in network.named_parameters()}
    for group in optimizer_of(network, layer_decay=decay).param_groups:
        for parameter in group["params"]:
            assert group["lr_scale"] == pytest.approx(expected[names[id(parameter)]])


def test_layer_decay_of_other_networks_goes_by_stage():
    with torch.device("meta"):
        network = models.build("resnet18")
    scales = layer_scales(network, 0.5)
    order = ("conv1", "layer1", "layer2", "layer3", "layer4", "fc")
    for name, scale in scales.items():
        at = order.index(name.split(".")[0]) if not name.startswith("bn1") else 0
        assert scale == 0.5 ** (5 - at)
    assert set(layer_scales(network, 1.0).values()) == {1.0}


def test_the_positions_of_a_vit_are_not_decayed():
    with torch.device("meta"):
        network = models.build("vit_ti_16")
    names = {id(p): name for name, p in network.named_parameters()}
    decayed = {
        names[id(p)]
        for group in optimizer_of(network).param_groups
        if group["weight_decay"]
        for p in group["params"]
    }
    assert decayed == {name for name in names.values() if name.endswith("weight") and "ln" not in name}


def test_momentum_and_nesterov_reach_sgd():
    for group in optimizer_of(nn.Linear(2, 2), opt="sgd", momentum=0.8, nesterov=True).param_groups:
        assert (group["momentum"], group["nesterov"]) == (0.8, True)


def test_settings_of_adam_reach_it():
    """Those of the Transformer (Vaswani et al. 2017, section 5.3); other optimizers ignore them."""
    groups = parameter_groups(nn.Linear(2, 2), 0.1, {"weight": 1.0, "bias": 1.0})
    adam = {"betas": (0.9, 0.98), "eps": 1e-9}
    optimizer = make_optimizer(groups, ClassificationConfig("x"), adam)
    assert all((g["betas"], g["eps"]) == ((0.9, 0.98), 1e-9) for g in optimizer.param_groups)
    assert "betas" not in make_optimizer(groups, ClassificationConfig("x", opt="sgd"), adam).defaults
