"""Filters, feature maps and what a unit sees."""

import numpy as np
import pytest
import torch
from pretrained import build
from torch import nn

from striate.errors import UsageError
from striate.explain import Explainer
from striate.explain.channels import box_of, feature_maps, filters, receptive_field, strongest

SHAPE = (3, 32, 32)


@pytest.fixture(scope="module")
def network():
    return build("resnet20", 32, num_classes=3)[0].eval()


def test_filters_of_colours_are_images(network):
    name, values = filters(network)
    assert name == "conv1"
    assert values.shape == (16, 3, 3, 3)
    assert values[5, 0, 2, 1] == network.conv1.weight[5, 1, 0, 2]
    name, values = filters(network, "layer2.0.conv2")
    assert values.shape == (32 * 32, 3, 3)
    assert values[32 * 7 + 9, 1, 2] == network.layer2[0].conv2.weight[7, 9, 1, 2]
    with pytest.raises(UsageError, match="unknown convolution 'conv7': did you mean"):
        filters(network, "conv7")
    with pytest.raises(UsageError, match="no filters in Linear"):
        filters(nn.Linear(2, 2))


def test_feature_maps_and_the_strongest_unit(network):
    images = torch.randn(3, *SHAPE, generator=torch.Generator().manual_seed(0))
    explainer = Explainer(network, SHAPE)
    with torch.no_grad():
        x = network.layer1(torch.relu(network.bn1(network.conv1(images))))
    values = feature_maps(explainer, images[:1], "layer1")
    np.testing.assert_allclose(values, x[0].numpy(), rtol=1e-4, atol=1e-5)
    for row, (value, top, left) in enumerate(strongest(explainer, images, "layer1", 11)):
        assert value == pytest.approx(float(x[row, 11].max()), rel=1e-4)
        assert float(x[row, 11, top, left]) == pytest.approx(value, rel=1e-4)
    assert not any(part._forward_hooks for part in network.modules())


def test_a_unit_sees_its_receptive_field(network):
    """Three 3x3 convolutions see 7x7 pixels: the first one and the two of a block."""
    explainer = Explainer(network, SHAPE)
    where = receptive_field(explainer, "layer1.0")
    assert where.rf == (7, 7)
    assert box_of(where, (10, 20), (32, 32)) == (7, 17, 14, 24)
    assert box_of(where, (0, 31), (32, 32)) == (0, 28, 4, 32)
    assert receptive_field(explainer, "linear") is None
    assert box_of(None, (3, 3), (32, 40)) == (0, 0, 32, 40)


def test_layers_without_maps(network):
    explainer, image = Explainer(network, SHAPE), torch.zeros(1, *SHAPE)
    with pytest.raises(UsageError, match="no feature maps in linear"):
        feature_maps(explainer, image, "linear")
    with pytest.raises(UsageError, match="unknown layer 'layer4'"):
        feature_maps(explainer, image, "layer4")
    with pytest.raises(UsageError, match="no channel 16 in layer1: it has channels 0 to 15"):
        strongest(explainer, image, "layer1", 16)
    network.unused = nn.Conv2d(3, 2, 1)  # as GoogLeNet's auxiliary heads, which run only in training
    try:
        for call in (
            lambda: feature_maps(explainer, image, "unused"),
            lambda: strongest(explainer, image, "unused", 0),
        ):
            with pytest.raises(UsageError, match="no feature maps in unused: the network does not run it"):
                call()
    finally:
        del network.unused
    assert not any(part._forward_hooks for part in network.modules())
