"""MobileNetV3: its activations by their formulas, its widths by the authors' figures, its blocks by table."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from striate.errors import UsageError
from striate.models import build
from striate.models.layers import multiple_of_8
from striate.models.mobilenet_v3 import HSwish, InvertedResidual, Row, SqueezeExcitation


@settings(deadline=None)
@given(st.floats(-30, 30, width=32))
def test_h_swish_is_its_formula(x):
    value = torch.tensor(x, dtype=torch.float64)
    assert HSwish()(value).item() == pytest.approx(x * min(max(x + 3, 0), 6) / 6, rel=1e-12, abs=1e-15)


@settings(deadline=None)
@given(st.floats(0.1, 5000))
def test_channels_are_multiples_of_8_and_never_fall_by_more_than_a_tenth(channels):
    rounded = multiple_of_8(channels)
    assert rounded % 8 == 0
    assert rounded >= 8
    assert rounded >= 0.9 * channels
    assert rounded <= max(8, channels + 8)
    assert multiple_of_8(rounded) == rounded


def test_squeeze_and_excitation_by_its_formula():
    torch.manual_seed(0)
    layer = SqueezeExcitation(40).double()
    x = torch.randn(3, 40, 4, 5, dtype=torch.float64)
    squeezed = x.numpy().mean(axis=(2, 3))
    w1, b1, w2, b2 = (p.detach().numpy().squeeze() for p in layer.parameters())
    assert w1.shape == (16, 40), "a quarter of the channels, rounded to a multiple of 8"
    hidden = np.maximum(squeezed @ w1.T + b1, 0)
    scale = np.clip(hidden @ w2.T + b2 + 3, 0, 6) / 6
    np.testing.assert_allclose(layer(x).detach().numpy(), x.numpy() * scale[:, :, None, None], rtol=1e-12)


def row(**changes):
    return Row(3, 64, 16, se=False, hs=True, stride=1)._replace(**changes)


@pytest.mark.parametrize(
    ("block", "residual"),
    [
        (InvertedResidual(row(), 16, 64, 16), True),
        (InvertedResidual(row(), 16, 64, 24), False),
        (InvertedResidual(row(stride=2), 16, 64, 16), False),
    ],
)
def test_the_input_is_added_where_the_shape_stays(block, residual):
    """With a projection of zeros only the shortcut is left, since no activation follows it (section 3)."""
    nn.init.zeros_(block.block[-1][0].weight)
    x = torch.randn(2, 16, 8, 8)
    out = block.eval()(x)
    assert torch.equal(out, x) if residual else not out.any()


def test_an_unexpanded_block_has_no_first_convolution():
    assert len(InvertedResidual(row(), 16, 16, 16).block) == 2
    assert len(InvertedResidual(row(se=True), 16, 64, 16).block) == 4


@pytest.mark.parametrize(
    ("name", "width", "last"),
    [
        ("mobilenet_v3_large", 0.5, 1280),
        ("mobilenet_v3_small", 0.75, 1024),
        ("mobilenet_v3_small", 2.0, 2048),
    ],
)
def test_width_spares_the_last_layer_unless_it_grows(name, width, last):
    with torch.device("meta"):
        network = build(name, width=width)
    assert network.classifier[0].out_features == last


@pytest.mark.parametrize("width", [0.0, -1.0])
def test_a_width_that_leaves_nothing_is_refused(width):
    with pytest.raises(UsageError, match="from 0 to" if width < 0 else "above 0"):
        build("mobilenet_v3_small", width=width)


def test_initial_weights():
    torch.manual_seed(0)
    network = build("mobilenet_v3_small", num_classes=10)
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d):
            expected = math.sqrt(2 / (layer.weight.shape[0] * math.prod(layer.kernel_size)))
        elif isinstance(layer, nn.Linear):
            expected = 0.01
        else:
            continue
        assert abs(layer.weight.std() / expected - 1) < 5 / math.sqrt(2 * layer.weight.numel())
        assert layer.bias is None or not layer.bias.any()


def test_batch_norm_averages_with_a_decay_of_0_99():
    """Section 6.1.1: after one training pass, a hundredth of the batch's mean."""
    torch.manual_seed(0)
    network = build("mobilenet_v3_small", num_classes=10).train()
    convolution, norm = network.features[0][0], network.features[0][1]
    images = torch.rand(2, 3, 64, 64)
    network(images)
    expected = 0.01 * convolution(images).mean(dim=(0, 2, 3))
    torch.testing.assert_close(norm.running_mean, expected)
