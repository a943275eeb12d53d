"""Residual networks: shortcuts of both options, and what a block does. The counts are in test_facts.py."""

import math

import pytest
import torch
from torch import nn

from striate.models import build
from striate.models.resnet import BasicBlock, Bottleneck
from striate.models.resnet_cifar import Block


def silenced(block):
    """The block with its residual branch at zero: BatchNorm's last gain is 0."""
    last = [layer for layer in block.children() if isinstance(layer, nn.BatchNorm2d)][-1]
    nn.init.zeros_(last.weight)
    return block.eval()


def test_shortcut_of_option_a_takes_every_other_pixel_and_pads_with_zeros():
    """Section 4.2: no parameters; zeros for the new channels."""
    x = torch.randn(2, 4, 6, 6)
    out = silenced(Block(4, 8, stride=2))(x)
    assert torch.equal(out[:, 2:6], x[:, :, ::2, ::2].relu())
    assert not out[:, :2].any()
    assert not out[:, 6:].any()


@pytest.mark.parametrize("block", [BasicBlock(8, 8), Bottleneck(32, 8), Block(8, 8)])
def test_identity_shortcut_where_the_shape_stays(block):
    x = torch.randn(2, block.conv1.in_channels, 4, 4)
    assert getattr(block, "downsample", None) is None
    assert torch.equal(silenced(block)(x), x.relu())


@pytest.mark.parametrize(("block", "out"), [(BasicBlock(8, 16, stride=2), 16), (Bottleneck(8, 8), 32)])
def test_projection_where_the_shape_changes(block, out):
    """Option B: a 1x1 convolution and BatchNorm."""
    x = torch.randn(2, 8, 4, 4)
    convolution, norm = block.downsample
    assert convolution.kernel_size == (1, 1)
    answer = silenced(block)(x)
    assert answer.shape[1] == out
    torch.testing.assert_close(answer, norm(convolution(x)).relu())


def test_the_stride_of_a_bottleneck_sits_on_its_3x3():
    block = Bottleneck(8, 4, stride=2)
    assert (block.conv1.stride, block.conv2.stride, block.conv3.stride) == ((1, 1), (2, 2), (1, 1))


@pytest.mark.parametrize(("name", "fan"), [("resnet18", "out"), ("resnet20", "in")])
def test_initial_weights(name, fan):
    torch.manual_seed(0)
    for layer in build(name, num_classes=10).modules():
        if isinstance(layer, nn.Conv2d):
            inputs = layer.weight[0].numel()
            outputs = layer.out_channels * math.prod(layer.kernel_size)
            expected = math.sqrt(2 / (outputs if fan == "out" else inputs))
            assert abs(layer.weight.std() / expected - 1) < 5 / math.sqrt(2 * layer.weight.numel())
