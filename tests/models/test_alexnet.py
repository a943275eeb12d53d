"""AlexNet: response normalization by the paper's formula, the two GPUs, the initial weights of section 5."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from striate.models import build
from striate.models.alexnet import response_norm


def test_response_normalisation_is_the_papers_formula():
    """b[i] = a[i] / (k + alpha sum over j of a[j]^2)^beta, j from i - n/2 to i + n/2 (section 3.3)."""
    n, alpha, beta, k = 5, 1e-4, 0.75, 2
    a = 40 * np.random.default_rng(0).standard_normal((2, 9, 3, 4))
    expected = np.empty_like(a)
    for i in range(9):
        near = a[:, max(0, i - n // 2) : min(8, i + n // 2) + 1]
        expected[:, i] = a[:, i] / (k + alpha * (near**2).sum(axis=1)) ** beta
    np.testing.assert_allclose(response_norm()(torch.from_numpy(a)).numpy(), expected, rtol=1e-12)


def kinds(network):
    return [type(layer).__name__ for layer in network.features]


def test_the_layers_of_2012_stand_in_the_papers_order():
    with torch.device("meta"):
        network = build("alexnet_2012")
    conv, norm_pool = ["Conv2d", "ReLU"], ["LocalResponseNorm", "MaxPool2d"]
    assert kinds(network) == conv + norm_pool + conv + norm_pool + conv * 3 + ["MaxPool2d"]
    convolutions = [layer for layer in network.features if isinstance(layer, nn.Conv2d)]
    assert [layer.out_channels for layer in convolutions] == [96, 256, 384, 384, 256]
    assert [layer.groups for layer in convolutions] == [1, 2, 1, 2, 2]
    pools = [layer for layer in network.features if isinstance(layer, nn.MaxPool2d)]
    assert all((pool.kernel_size, pool.stride) == (3, 2) for pool in pools), "they overlap"


@pytest.mark.parametrize("name", ["alexnet", "alexnet_2012"])
def test_dropout_stands_before_the_first_two_fully_connected_layers(name):
    with torch.device("meta"):
        network = build(name)
    layers = [type(layer).__name__ for layer in network.classifier]
    assert layers == ["Dropout", "Linear", "ReLU", "Dropout", "Linear", "ReLU", "Linear"]
    assert [layer.p for layer in network.classifier if isinstance(layer, nn.Dropout)] == [0.5, 0.5]


def test_the_two_gpus_meet_only_in_the_third_convolution():
    """A pixel of the upper half of conv1's maps reaches the upper half of conv2's maps only."""
    with torch.device("meta"):
        network = build("alexnet_2012")
    second, third = (network.features[index].to_empty(device="cpu") for index in (4, 8))
    maps = torch.zeros(1, 96, 5, 5)
    maps[:, :48] = 1.0
    for layer in (second, third):
        nn.init.constant_(layer.weight, 1.0)
        nn.init.zeros_(layer.bias)
    upper, lower = second(maps).split(128, dim=1)
    assert (upper > 0).all()
    assert (lower == 0).all()
    maps = torch.zeros(1, 256, 3, 3)
    maps[:, :128] = 1.0
    assert (third(maps) > 0).all()


def test_initial_weights_of_2012():
    torch.manual_seed(0)
    network = build("alexnet_2012", num_classes=10)
    layers = [layer for layer in network.modules() if isinstance(layer, (nn.Conv2d, nn.Linear))]
    assert [layer.bias.unique().tolist() for layer in layers] == [[0], [1], [0], [1], [1], [1], [1], [0]]
    for layer in layers:
        weights = layer.weight.detach()
        assert abs(weights.mean()) < 5 * 0.01 / math.sqrt(weights.numel())
        assert abs(weights.std() / 0.01 - 1) < 5 / math.sqrt(2 * weights.numel())
