"""Receptive fields in closed form agree with gradients, and output sizes with torch."""

import hypothesis.strategies as st
import pytest
import torch
import torch.nn.functional as F
from hypothesis import HealthCheck, assume, given, settings
from torch import nn

from striate.anatomy import trace
from striate.anatomy.receptive_fields import (
    ONE_PIXEL,
    conv,
    transposed_conv,
)

quick = settings(max_examples=30, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))


class Spread(torch.autograd.Function):
    """A max-pool with a gradient for every pixel of the window, not only for the maximum."""

    @staticmethod
    def forward(ctx, x, kernel, stride, padding, dilation, ceil):
        ctx.save_for_backward(x)
        ctx.options = kernel, stride, padding, dilation
        return F.max_pool2d(x, kernel, stride, padding, dilation, ceil)

    @staticmethod
    def backward(ctx, grad):
        (x,) = ctx.saved_tensors
        kernel, stride, padding, dilation = ctx.options
        full = F.conv_transpose2d(
            grad, torch.ones(1, 1, kernel, kernel, dtype=x.dtype), stride=stride, dilation=dilation
        )
        height, width = x.shape[2:]
        spare = (0, max(0, padding + width - full.shape[3]), 0, max(0, padding + height - full.shape[2]))
        out = F.pad(full, spare)[:, :, padding : padding + height, padding : padding + width]
        return out, None, None, None, None, None


class MaxPool(nn.MaxPool2d):
    """A max-pool that uses `Spread` unless it runs on meta tensors."""

    def forward(self, x):
        if x.is_meta:
            return super().forward(x)
        return Spread.apply(x, self.kernel_size, self.stride, self.padding, self.dilation, self.ceil_mode)


@st.composite
def layer(draw):
    """One convolution or pool over one channel."""
    kind = draw(
        st.sampled_from(["conv", "conv", "avg", "max", "transposed", "nearest", "bilinear", "bicubic"])
    )
    stride = draw(st.integers(1, 3))
    if kind == "conv":
        kernel, dilation = draw(st.tuples(st.integers(1, 4), st.integers(1, 4))), draw(st.integers(1, 2))
        padding = draw(st.tuples(st.integers(0, 3), st.integers(0, 3)))
        return nn.Conv2d(1, 1, kernel, stride, padding, dilation, bias=False)
    if kind == "transposed":
        kernel = draw(st.tuples(st.integers(1, 4), st.integers(1, 4)))
        return nn.ConvTranspose2d(1, 1, kernel, stride, dilation=draw(st.integers(1, 2)), bias=False)
    kernel = draw(st.integers(1, 4))
    padding = draw(st.integers(0, kernel // 2))
    ceil = draw(st.booleans())
    if kind == "avg":
        return nn.AvgPool2d(kernel, stride, padding, ceil)
    if kind == "max":
        return MaxPool(kernel, stride, padding, draw(st.integers(1, 2)), ceil_mode=ceil)
    factor = draw(st.integers(2, 3))
    return nn.Upsample(scale_factor=factor, mode=kind)


def positive(net):
    for parameter in net.parameters():
        nn.init.constant_(parameter, 0.5)
    return net.double()


def interior_units(reach, units, pixels, wanted=3):
    """The first and last units whose receptive field lies inside the image."""
    inside = []
    for unit in range(units):
        lo, hi = reach.at(unit)
        if lo >= 0 and hi < pixels:
            inside.append(unit)
    return inside[:wanted] + inside[-wanted:]


def check(net, height, width):
    """Compare receptive fields, clipped to the image, with the pixels that have a nonzero gradient."""
    positive(net)
    x = torch.rand(1, 1, height, width, dtype=torch.float64, requires_grad=True)
    try:
        y = net(x)
    except RuntimeError:
        assume(False)
    anatomy = trace(net, x)
    last = anatomy.layers[-1]
    assert last.output == tuple(y.shape)
    assert not anatomy.untracked
    n, m = y.shape[2:]
    whole_units = 0
    for axis, (units, pixels) in enumerate(((n, height), (m, width))):
        reach = last.fields[axis]
        assert reach is not None
        for unit in {0, units // 2, units - 1, *interior_units(reach, units, pixels)}:
            row = y[0, 0, unit, :].sum() if axis == 0 else y[0, 0, :, unit].sum()
            (gradient,) = torch.autograd.grad(row, x, retain_graph=True, allow_unused=True)
            seen = torch.zeros(pixels, dtype=torch.bool)
            if gradient is not None:
                seen = gradient[0, 0].abs().sum(dim=1 - axis) > 0
            lo, hi = reach.at(unit)
            places = seen.nonzero().flatten().tolist()
            if lo > hi:
                assert places == []
            elif lo >= 0 and hi < pixels:
                whole_units += 1
                assert places, f"unit {unit} sees nothing, not {lo} to {hi}"
                assert (places[0], places[-1]) == (lo, hi)
            elif places:  # padding hides part of the field; the visible part lies inside
                assert lo <= places[0]
                assert places[-1] <= hi
    return whole_units


@quick
@given(st.lists(layer(), min_size=1, max_size=4), st.integers(24, 40), st.integers(24, 40))
def test_stacks(layers, height, width):
    assume(all(not isinstance(part, nn.Upsample) for part in layers) or len(layers) <= 3)
    check(nn.Sequential(*layers), height, width)


class Merge(nn.Module):
    """Two or three branches of the same size, added or concatenated."""

    def __init__(self, branches, how):
        super().__init__()
        self.branches, self.how = nn.ModuleList(branches), how

    def forward(self, x):
        outs = [branch(x) for branch in self.branches]
        if self.how == "add":
            return sum(outs[1:], outs[0])
        return torch.cat(outs, dim=1).mean(dim=1, keepdim=True)


@st.composite
def branch(draw, stride):
    """Convolutions and pools that keep the size, except for one stride."""
    parts = []
    for index in range(draw(st.integers(0 if stride == 1 else 1, 2))):
        half, dilation = draw(st.integers(0, 2)), draw(st.integers(1, 2))
        step = stride if index == 0 else 1
        if draw(st.booleans()):
            parts.append(nn.Conv2d(1, 1, 2 * half + 1, step, half * dilation, dilation, bias=False))
        else:
            parts.append(MaxPool(2 * half + 1, step, half))
    return nn.Sequential(*parts)


@st.composite
def merge(draw):
    stride = draw(st.integers(1, 2))
    branches = draw(st.lists(branch(stride), min_size=2, max_size=3))
    return Merge(branches, draw(st.sampled_from(["add", "cat"])))


@quick
@given(st.lists(st.one_of(merge(), layer()), min_size=1, max_size=3), st.integers(24, 36))
def test_branching_graphs(parts, size):
    check(nn.Sequential(*parts), size, size + 5)


def test_a_decoder_with_a_skip_connection():
    class UNet(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = nn.Conv2d(1, 1, 3, padding=1, bias=False)
            self.up = nn.ConvTranspose2d(1, 1, 2, stride=2, bias=False)

        def forward(self, x):
            return x + self.up(self.inner(F.avg_pool2d(x, 2)))

    assert check(UNet(), 24, 32) > 5
    (last,) = [layer for layer in trace(UNet(), size=24).layers if layer.type == "add"]
    # Pooled pixel q covers 2 q and 2 q + 1; the 3x3 sees q - 1 to q + 1, that is 2 q - 2 to 2 q + 3.
    assert last.sees((8, 9)) == ((6, 11), (6, 11))
    assert last.jump == (1, 1)


def test_padding_of_a_transposed_convolution_shifts_the_field():
    net = positive(
        nn.Sequential(nn.ConvTranspose2d(1, 1, 4, stride=2, padding=1), nn.Conv2d(1, 1, 3, padding=1))
    )
    x = torch.rand(1, 1, 12, 12, dtype=torch.float64, requires_grad=True)
    y = net(x)
    last = trace(net, x).layers[-1]
    for unit in range(6, 18):  # the cut is at the border, where padding takes its place
        (gradient,) = torch.autograd.grad(y[0, 0, unit].sum(), x, retain_graph=True)
        places = gradient[0, 0].sum(dim=1).nonzero().flatten().tolist()
        assert last.sees((unit, 0))[0] == (places[0], places[-1])


def test_writes_into_slices_are_tracked():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.small, self.large = nn.Conv2d(1, 1, 1, bias=False), nn.Conv2d(1, 1, 5, padding=2, bias=False)

        def forward(self, x):
            out = torch.zeros(1, 2, *x.shape[2:], dtype=x.dtype)
            out[:, :1] = self.small(x)
            out[:, 1:] = self.large(x)
            return out.sum(dim=1, keepdim=True)

    assert check(Net(), 16, 16) > 5
    assert trace(Net(), size=16).layers[-1].rf == (5, 5)


def test_a_write_into_a_part_of_the_map_is_untracked():
    # Torch pads in a circle by writing the map and its two edges into a larger one.
    circular = nn.Conv2d(3, 4, 3, padding=1, padding_mode="circular")
    anatomy = trace(circular, size=9)
    assert anatomy.layers[-1].rf == (None, None)
    assert "copy" in anatomy.untracked


def test_squeeze_and_excitation_is_a_global_path():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.fc = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 1)
            self.after = nn.Conv2d(4, 4, 3)

        def forward(self, x):
            x = self.conv(x)
            return self.after(x * torch.sigmoid(self.fc(F.adaptive_avg_pool2d(x, 1))))

    layers = {layer.name: layer for layer in trace(Net(), size=20).layers}
    assert (layers["conv"].rf, layers["conv"].whole_image) == ((3, 3), False)
    assert (layers["mul"].rf, layers["mul"].whole_image) == ((3, 3), True)
    assert (layers["after"].rf, layers["after"].rf_strict) == ((5, 5), (20, 20))


def test_a_pool_as_large_as_the_map_is_a_global_path_too():
    class Net(nn.Module):
        def forward(self, x):
            return x * torch.sigmoid(F.avg_pool2d(x, x.shape[2:]))

    last = trace(Net(), size=(9, 12)).layers[-1]
    assert (last.rf, last.whole_image, last.rf_strict) == ((1, 1), True, (9, 12))


def test_attention_over_patches_keeps_the_patch_and_sees_the_image():
    class Vision(nn.Module):
        def __init__(self):
            super().__init__()
            self.patch = nn.Conv2d(3, 16, 4, stride=4)
            self.token = nn.Parameter(torch.zeros(1, 1, 16))
            self.position = nn.Parameter(torch.zeros(1, 31, 16))
            self.norm = nn.LayerNorm(16)
            self.attention = nn.MultiheadAttention(16, 2, batch_first=True)
            self.mlp = nn.Linear(16, 16)
            self.back = nn.Conv2d(16, 1, 3)

        def forward(self, x):
            x = self.patch(x).flatten(2).transpose(1, 2)
            x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], dim=1) + self.position
            y = self.mlp(self.norm(x))
            z = x + self.attention(y, y, y, need_weights=False)[0]
            grid = z[:, 1:].transpose(1, 2).reshape(-1, 16, 6, 5)
            return self.back(grid), z[:, 0]

    anatomy = trace(Vision(), size=(24, 20))
    layers = {layer.name: layer for layer in anatomy.layers}
    assert (layers["mlp"].rf, layers["mlp"].whole_image) == ((4, 4), False)
    assert (layers["attention"].whole_image, layers["attention"].rf_strict) == (True, (24, 20))
    # Patches at (row, column) and their neighbors: three patches of four pixels.
    assert (layers["back"].rf, layers["back"].jump, layers["back"].whole_image) == ((12, 12), (4, 4), True)
    assert layers["back"].sees((1, 2)) == ((4, 15), (8, 19))
    assert anatomy.outputs == ((1, 1, 4, 3), (1, 16))
    assert not anatomy.untracked


@pytest.mark.parametrize("norm", [nn.GroupNorm(2, 4), nn.InstanceNorm2d(4), nn.BatchNorm2d(4)])
def test_norms_over_the_map_see_the_map(norm):
    anatomy = trace(nn.Sequential(nn.Conv2d(3, 4, 3), norm), size=9)
    assert anatomy.layers[-1].rf == (3, 3)
    assert anatomy.layers[-1].whole_image == (not isinstance(norm, nn.BatchNorm2d))


@given(st.integers(1, 5), st.integers(1, 3), st.integers(0, 3), st.integers(1, 3), st.integers(-5, 20))
def test_convolution_reads_the_indices_of_the_formula(kernel, stride, padding, dilation, unit):
    taps = {unit * stride - padding + k * dilation for k in range(kernel)}
    assert ONE_PIXEL.through(conv(kernel, stride, padding, dilation)).at(unit) == (
        min(taps),
        max(taps),
    )


@given(st.integers(1, 5), st.integers(1, 3), st.integers(0, 3), st.integers(1, 3), st.integers(-5, 20))
def test_transposed_convolution_reads_its_writers(kernel, stride, padding, dilation, unit):
    writers = [
        i for i in range(-50, 50) if (unit + padding - i * stride) in range(0, kernel * dilation, dilation)
    ]
    lo, hi = ONE_PIXEL.through(transposed_conv(kernel, stride, padding, dilation)).at(unit)
    assert (lo > hi) if not writers else (lo, hi) == (min(writers), max(writers))
