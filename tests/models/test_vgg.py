"""VGG: the columns of table 1 and the initial weights."""

import math

import pytest
import torch
from torch import nn

from striate.models import build
from striate.models.layers import initialize
from striate.models.vgg import convolutions

# Table 1, read row by row: "3-64" is a 3x3 convolution with 64 channels, M a pool.
COLUMNS = {
    "vgg11": "64 M 128 M 256 256 M 512 512 M 512 512 M",
    "vgg13": "64 64 M 128 128 M 256 256 M 512 512 M 512 512 M",
    "vgg16": "64 64 M 128 128 M 256 256 256 M 512 512 512 M 512 512 512 M",
    "vgg19": "64 64 M 128 128 M 256 256 256 256 M 512 512 512 512 M 512 512 512 512 M",
}


@pytest.mark.parametrize("name", COLUMNS)
@pytest.mark.parametrize("suffix", ["", "_bn"])
def test_columns_of_table_1(name, suffix):
    with torch.device("meta"):
        network = build(name + suffix)
    row, layers = [], list(network.features)
    for index, layer in enumerate(layers):
        if isinstance(layer, nn.Conv2d):
            assert layer.kernel_size == (3, 3)
            row.append(str(layer.out_channels))
            after = [type(layer) for layer in layers[index + 1 : index + 3]]
            assert after[:1] == [nn.ReLU] if not suffix else after == [nn.BatchNorm2d, nn.ReLU]
        elif isinstance(layer, nn.MaxPool2d):
            row.append("M")
    assert " ".join(row) == COLUMNS[name]


def test_initial_weights():
    torch.manual_seed(0)
    network = nn.Sequential(convolutions((1, 1, 1, 1, 1), True, 3), nn.Linear(300, 400))
    initialize(network)
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d):
            expected = math.sqrt(2 / (layer.out_channels * 9))  # He et al. 2015, fan-out
        elif isinstance(layer, nn.Linear):
            expected = 0.01
        else:
            continue
        assert abs(layer.weight.std() / expected - 1) < 5 / math.sqrt(2 * layer.weight.numel())
        assert not layer.bias.any()
