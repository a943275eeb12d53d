"""The calculator agrees with torch's layers and with the figures in the papers."""

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import assume, given, settings
from torch import nn

from striate.anatomy import conv_output_size, explain, receptive_field, reduction, stack
from striate.errors import UsageError

sizes = {
    "size": st.integers(1, 40),
    "kernel": st.integers(1, 7),
    "stride": st.integers(1, 4),
    "padding": st.integers(0, 3),
    "dilation": st.integers(1, 3),
}


@settings(deadline=None, derandomize=True)
@given(**sizes)
def test_sizes_of_convolutions(size, kernel, stride, padding, dilation):
    layer = nn.Conv1d(1, 1, kernel, stride, padding, dilation, device="meta")
    x = torch.empty(1, 1, size, device="meta")
    if dilation * (kernel - 1) + 1 > size + 2 * padding:
        with pytest.raises(UsageError):
            conv_output_size(size, kernel, stride, padding, dilation)
    else:
        assert conv_output_size(size, kernel, stride, padding, dilation) == layer(x).shape[2]


@settings(deadline=None, derandomize=True)
@given(**sizes, ceil=st.booleans())
def test_sizes_of_pools(size, kernel, stride, padding, dilation, ceil):
    assume(2 * padding <= kernel)
    assume(dilation * (kernel - 1) + 1 <= size + 2 * padding)
    layer = nn.MaxPool1d(kernel, stride, padding, dilation, ceil_mode=ceil)
    expected = layer(torch.empty(1, 1, size)).shape[2]
    assert conv_output_size(size, kernel, stride, padding, dilation, ceil=ceil) == expected


@settings(deadline=None, derandomize=True)
@given(**sizes, extra=st.integers(0, 3))
def test_sizes_of_transposed_convolutions(size, kernel, stride, padding, dilation, extra):
    assume(extra < max(stride, dilation))
    assume((size - 1) * stride - 2 * padding + dilation * (kernel - 1) + extra + 1 > 0)
    layer = nn.ConvTranspose1d(1, 1, kernel, stride, padding, extra, dilation=dilation, device="meta")
    expected = layer(torch.empty(1, 1, size, device="meta")).shape[2]
    got = conv_output_size(size, kernel, stride, padding, dilation, transposed=True, output_padding=extra)
    assert got == expected


@settings(derandomize=True)
@given(st.lists(st.tuples(st.integers(1, 7), st.integers(1, 3)), max_size=5))
def test_receptive_field_follows_the_recurrence(layers):
    field = 1
    for kernel, stride in reversed(layers):
        field = (field - 1) * stride + kernel
    assert receptive_field(layers).size == field


def test_the_first_layer_of_alexnet():
    step = explain(224, 11, 4, 2, channels=3, filters=64)
    assert (step.output, step.params, step.macs) == (55, 64 * (11 * 11 * 3 + 1), 64 * 363 * 55 * 55)
    assert "W - F + 2 P = 224 - 11 + 2 x 2 = 217" in step.lines
    assert "217 / 4 = 54.25, rounded down to 54" in step.lines


def test_two_3x3_have_the_receptive_field_of_one_5x5():
    two, one = stack([3, 3]), stack([5])
    assert (two.rf, one.rf) == (5, 5)
    assert (two.weights, one.weights) == (2 * 9, 25)
    assert (stack([3, 3, 3]).rf, stack([3, 3, 3]).weights) == (7, 27)
    assert (stack([7]).rf, stack([7]).weights) == (7, 49)


def test_a_bottleneck_saves_macs():
    # GoogLeNet's inception 3a: 192 channels to 32 by a 5x5 on 28x28, through 16 (its table 1).
    saved = reduction(28, 192, 32, 5, 16)
    assert saved.plain == 28 * 28 * 25 * 192 * 32
    assert saved.reduced == 28 * 28 * (192 * 16 + 25 * 16 * 32)


@pytest.mark.parametrize(
    "arguments", [{"kernel": 0}, {"stride": 0}, {"padding": -1}, {"dilation": 0}, {"size": 0}, {"kernel": 9}]
)
def test_impossible_values_are_refused(arguments):
    with pytest.raises(UsageError):
        conv_output_size(**{"size": 5, "kernel": 3, **arguments})
