"""Stochastic depth: the formula, nothing outside training, nothing of it in weights, counts or folding."""

import pytest
import torch
from scipy import stats

from striate import anatomy
from striate.device import seed_step
from striate.errors import UsageError
from striate.kernels.folding import fold
from striate.models import build
from striate.models.layers import ResidualBlock, set_drop_path, set_dropout
from striate.training.transfer import freeze, training_mode

BLOCKS = {
    "resnet18": 8,
    "resnet50": 16,
    "resnet20": 9,
    "mobilenet_v3_small": 11,
    "vit_ti_16": 12,
    "efficientnet_lite0": 16,
}


def blocks_of(network):
    return [module for module in network.modules() if isinstance(module, ResidualBlock)]


def small(name):
    return build(name, num_classes=3, **({"input_size": 32} if name.startswith("vit") else {}))


@pytest.mark.parametrize(("name", "count"), BLOCKS.items())
def test_the_chance_rises_linearly_with_depth(name, count):
    """1 - p_l = l / L (1 - p_L), equation 4."""
    with torch.device("meta"):
        network = build(name)
    keys = list(network.state_dict())
    set_drop_path(network, 0.4)
    assert [block.drop_rate for block in blocks_of(network)] == pytest.approx(
        [0.4 * place / count for place in range(1, count + 1)]
    )
    assert list(network.state_dict()) == keys


def test_a_branch_stays_whole_or_goes_for_each_image():
    block = ResidualBlock().train()
    block.drop_rate = 0.3
    torch.manual_seed(0)
    branch = torch.randn(4000, 3, 2, 2, dtype=torch.float64)
    out = block.drop_path(branch)
    gone = (out == 0).flatten(1).all(dim=1)
    assert torch.equal(out[~gone], branch[~gone] / (1 - 0.3))
    assert stats.binomtest(int(gone.sum()), 4000, 0.3).pvalue > 1e-3
    assert torch.equal(block.eval().drop_path(branch), branch)


@pytest.mark.parametrize("name", ["resnet18", "resnet20", "mobilenet_v3_small", "vit_ti_16"])
def test_training_is_the_formula_and_a_function_of_seed_and_step(name):
    """Replacing each branch by the formula's, with the numbers drawn again, gives the same scores."""
    torch.manual_seed(0)
    network = small(name)
    set_dropout(network, 0.0)
    for module in network.modules():  # statistics of a batch would hide which image lost what
        if isinstance(module, torch.nn.BatchNorm2d):
            module.eval()
    torch.nn.init.normal_(list(network.parameters())[-2])
    images = torch.randn(6, 3, 32, 32)
    norms = [m for m in network.modules() if isinstance(m, torch.nn.BatchNorm2d)]

    def scores(rate):
        set_drop_path(network, rate)
        network.train()
        for norm in norms:
            norm.eval()
        seed_step(torch.device("cpu"), 7, 3)
        with torch.no_grad():
            return network(images)

    dropped = scores(0.5)
    assert torch.equal(scores(0.5), dropped)
    assert not torch.equal(scores(0.0), dropped)

    def formula(block, branch):
        stays = (torch.rand(len(branch)) >= block.drop_rate).float() / (1 - block.drop_rate)
        return torch.einsum("b...,b->b...", branch, stays)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ResidualBlock, "drop_path", formula)
        assert (scores(0.5) - dropped).abs().max() < 1e-5 * dropped.abs().max()


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v3_small", "vit_ti_16"])
def test_evaluation_folding_and_counts_are_as_without(name):
    torch.manual_seed(0)
    network = small(name).eval()
    images = torch.randn(2, 3, 32, 32)
    before, traced = network(images), anatomy.trace(network, images)
    set_drop_path(network, 0.5)
    assert torch.equal(network(images), before)
    after = anatomy.trace(network, images)
    assert (after.params, after.macs, after.layers) == (traced.params, traced.macs, traced.layers)
    folded = fold(network, (3, 32, 32))
    assert name == "vit_ti_16" or folded is not network
    assert torch.allclose(folded(images), before, atol=1e-4)


def test_a_frozen_block_is_not_dropped():
    network = build("resnet18", num_classes=3)
    set_drop_path(network, 0.5)
    freeze(network, "last", 2, "fc")
    training_mode(network)
    assert [block.training for block in blocks_of(network)] == [False] * 6 + [True] * 2


@pytest.mark.parametrize(("name", "set_it", "says"), [
    ("vgg11", set_drop_path, "no residual blocks"), ("resnet20", set_dropout, "no dropout layers"),
])  # fmt: skip
def test_networks_without_are_refused(name, set_it, says):
    with torch.device("meta"):
        network = build(name)
    set_it(network, 0.0)
    with pytest.raises(UsageError, match=says):
        set_it(network, 0.1)


def test_dropout_is_that_of_all_layers():
    with torch.device("meta"):
        network = build("vit_ti_16")
    set_dropout(network, 0.1)
    rates = {module.p for module in network.modules() if isinstance(module, torch.nn.Dropout)}
    assert rates == {0.1}
