"""The layer that is explained: the last feature maps before pooling."""

import pytest
import torch
import torch.nn.functional as F
from pretrained import build
from torch import nn

from striate.errors import UsageError
from striate.explain.location import locate

slow = pytest.mark.slow
# Name, image size, layer and grid: of the maps that the papers' figures show before the pool.
NETWORKS = [
    ("lenet", 32, "relu_1", (10, 10)),  # C3
    (
        "lenet5",
        32,
        "mul_7",
        (5, 5),
    ),  # S4, whose subsampling is trainable and followed by a squashing function
    ("resnet20", 32, "layer3.2.relu_1", (8, 8)),
    ("resnet18", 64, "layer4.1.relu_1", (2, 2)),
    ("googlenet", 64, "inception5b.cat", (2, 2)),
    ("mobilenet_v3_small", 64, "features.12.2", (2, 2)),
    ("vit_ti_16", 64, "encoder.layers.encoder_layer_11.ln_1", (4, 4)),
    pytest.param("alexnet", 224, "features.11", (13, 13), marks=slow),
    pytest.param("alexnet_2012", 224, "features.13", (13, 13), marks=slow),
    pytest.param("vgg16", 224, "features.29", (14, 14), marks=slow),
    pytest.param("googlenet_2014", 224, "inception5b.cat", (7, 7), marks=slow),
]


def images(network, size):
    return torch.randn(1, network.in_channels, size, size, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(("name", "size", "layer", "grid"), NETWORKS)
def test_the_last_maps_before_pooling(name, size, layer, grid):
    network, _ = build(name, size, num_classes=3)
    location, result = locate(network.eval(), images(network, size))
    assert (location.layer, location.grid) == (layer, grid)
    assert location.to_maps(result).shape[2:] == grid


def test_finer_maps_are_whole_blocks():
    """At twice the resolution, and not inside a residual block, past which its shortcut leads."""
    network, _ = build("resnet18", 64, num_classes=3)
    location, _ = locate(network.eval(), images(network, 64), fine=True)
    assert (location.layer, location.grid) == ("layer3.1.relu_1", (4, 4))


class ChannelsLast(nn.Module):
    """As Swin: [batch, rows, columns, channels], and a mean instead of a pool."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 5, 4, stride=4)
        self.norm = nn.LayerNorm(5)
        self.head = nn.Linear(5, 2)

    def forward(self, x):
        return self.head(self.norm(self.conv(x).permute(0, 2, 3, 1)).mean(dim=(1, 2)))


class Tokens(nn.Module):
    """A Transformer of torch that averages its tokens, with a fresh classifier of zeros."""

    def __init__(self, class_token=False):
        super().__init__()
        self.patches = nn.Conv2d(3, 8, 4, stride=4)
        self.cls = nn.Parameter(torch.randn(1, 1, 8)) if class_token else None
        self.layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, norm_first=True)
        self.norm = nn.LayerNorm(8)
        self.head = nn.Linear(8, 2)
        nn.init.zeros_(self.head.weight)

    def forward(self, x):
        x = self.patches(x).flatten(2).transpose(1, 2)
        if self.cls is not None:
            x = torch.cat([self.cls.expand(len(x), -1, -1), x], dim=1)
        x = self.norm(self.layer(x))
        return self.head(x.mean(dim=1) if self.cls is None else x[:, 0])


def test_any_layout_and_any_readout():
    x = torch.randn(1, 3, 16, 16)
    location, result = locate(ChannelsLast().eval(), x)
    assert (location.layer, location.dims, result.shape) == ("norm", (1, 2), (1, 4, 4, 5))
    assert location.to_maps(result)[0, 3, 1, 2] == result[0, 1, 2, 3]

    location, _ = locate(Tokens().eval(), x)
    assert (location.layer, location.grid, location.extra) == ("norm", (4, 4), 0)
    location, result = locate(Tokens(class_token=True).eval(), x)
    assert (location.layer, location.grid, location.extra) == ("layer.norm1", (4, 4), 1)
    assert location.to_maps(result)[0, 3, 1, 2] == result[0, 1 + 4 + 2, 3]


class Pair(nn.Module):
    def forward(self, x):
        return x.mean(dim=(2, 3)), x


class Flat(nn.Module):
    def __init__(self):
        super().__init__()
        self.head = nn.Linear(48, 2)

    def forward(self, x):
        return self.head(x.flatten(1))


def test_what_cannot_be_explained_is_said():
    x = torch.randn(1, 3, 4, 4)
    with pytest.raises(UsageError, match="it returns a tuple of 2, not scores"):
        locate(Pair(), x)
    with pytest.raises(UsageError, match="cannot explain Flat: no layer has feature maps"):
        locate(Flat(), x)


def test_the_zero_classifier_is_put_back():
    network = Tokens().eval()
    before = network.head.weight
    locate(network, torch.randn(1, 3, 16, 16))
    assert network.head.weight is before
    assert not F.relu(before).any()
