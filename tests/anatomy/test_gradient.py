"""Measured receptive fields agree with the closed form and expose a wrong one."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from striate import memory
from striate.anatomy import check, effective_field, gradient, receptive_fields, tracing
from striate.errors import ResourceError, UsageError


@pytest.mark.parametrize("name", ["lenet", "lenet5", "resnet20"])
def test_closed_form_and_gradient_agree(name):
    found = check(name)
    assert all(item.agrees for item in found)
    assert len(found) > 20


def test_squeeze_and_excitation_reaches_the_whole_image():
    class Excited(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.fc = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 1)

        def forward(self, x):
            x = self.conv(x)
            return x * F.hardsigmoid(self.fc(F.adaptive_avg_pool2d(x, 1)))

    found = check(Excited(), size=(40, 50))
    assert all(item.agrees for item in found)
    assert [item.measured for item in found if item.layer == "mul"] == [(0, 39), (0, 49)] * 3
    assert {item.layer for item in found} == {"conv", "mul"}


class Odd(nn.Module):
    """Pools of all kinds, in-place activations, concatenation, transposed convolutions."""

    def __init__(self):
        super().__init__()
        self.a = nn.Conv2d(3, 4, (3, 5), stride=(2, 1), padding=(1, 2))
        self.b = nn.Conv2d(4, 4, 3, dilation=2, groups=2)
        self.up = nn.ConvTranspose2d(8, 2, 3, stride=2)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x):
        x = self.relu(self.a(x))
        x = F.max_pool2d(x, 3, 2, 1, ceil_mode=True)
        y = torch.tanh(self.b(x))
        z = F.avg_pool2d(x, 5, 1)
        z[:, :1, :, :] += y[:, :1]
        return self.up(torch.cat([y, z.clone()], dim=1))


def test_unusual_networks_agree_and_are_left_unchanged():
    net = Odd()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    found = check(net, size=(60, 72))
    assert all(item.agrees for item in found), [item for item in found if not item.agrees]
    assert any(not item.cut for item in found)
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert all(value.dtype == torch.float32 for value in net.state_dict().values())
    assert net.training


def test_a_wrong_closed_form_is_found(monkeypatch):
    true = receptive_fields.conv
    wrong = lambda kernel, stride=1, padding=0, dilation=1: true(kernel, stride, 0, dilation)
    monkeypatch.setattr(receptive_fields, "conv", wrong)
    assert not all(item.agrees for item in check("resnet20"))


def test_a_network_without_images_cannot_be_checked():
    with pytest.raises(UsageError, match="not an image"):
        check(nn.Linear(3, 3), torch.zeros(1, 3))


def linear_stack(depth):
    """3x3 convolutions of equal weights on one channel, without nonlinearities."""
    layers = [nn.Conv2d(1, 1, 3, padding=1, bias=False) for _ in range(depth)]
    for layer in layers:
        nn.init.constant_(layer.weight, 1 / 9)
    return nn.Sequential(*layers).double()


@pytest.mark.parametrize("depth", [1, 3, 8])
def test_effective_field_of_equal_weights_is_a_convolution_of_boxes(depth):
    # Luo et al. 2016, section 2.2: equal weights give the kernel convolved with itself.
    heat, layer, unit = effective_field(linear_stack(depth), torch.zeros(1, 1, 41, 41, dtype=torch.float64))
    row = np.array([1.0])
    for _ in range(depth):
        row = np.convolve(row, np.ones(3) / 3)
    expected = np.zeros((41, 41))
    expected[20 - depth : 21 + depth, 20 - depth : 21 + depth] = np.outer(row, row)
    np.testing.assert_allclose(heat, expected, atol=1e-12)
    assert unit == (20, 20)
    assert layer.sees(unit) == ((20 - depth, 20 + depth),) * 2


def test_effective_field_lies_inside_the_theoretical_one():
    net = tracing.build("resnet18")
    heat, layer, unit = effective_field(net, torch.rand(2, 3, 128, 128), "layer2.1.conv2", (3, 9))
    assert heat.sum() == pytest.approx(1)
    (top, bottom), (left, right) = layer.sees(unit)
    inside = heat[max(top, 0) : bottom + 1, max(left, 0) : right + 1]
    assert inside.sum() == pytest.approx(1)
    assert (inside > 0).any(axis=1).all()


def test_effective_field_needs_spatial_dimensions():
    net = tracing.build("resnet18")
    with pytest.raises(UsageError, match="no spatial dimensions"):
        effective_field(net, torch.rand(1, 3, 64, 64), "fc")
    with pytest.raises(UsageError, match="conv1"):
        effective_field(net, torch.rand(1, 3, 64, 64), "conv11")


def test_max_pool_gradient_reaches_the_whole_window():
    x = torch.rand(1, 2, 7, 8, requires_grad=True)
    with gradient._DenseGradients():
        y = F.max_pool2d(x, (2, 3), stride=(2, 3), padding=(1, 0))
    assert torch.equal(y, F.max_pool2d(x, (2, 3), stride=(2, 3), padding=(1, 0)))
    (g,) = torch.autograd.grad(y.sum(), x)
    windows = torch.ones(1, 1, 7, 8)
    windows[..., 6:] = 0  # no window reads the last columns
    assert torch.equal(g, windows.expand(1, 2, 7, 8))


def test_images_whose_gradients_cannot_fit_are_refused(monkeypatch):
    """A convolution of 3 to 4 channels keeps 4 x 10 x 10 numbers, in double precision for three images."""
    net, images = nn.Conv2d(3, 4, 3, padding=1), torch.zeros(1, 3, 10, 10)
    for run, need in (
        (lambda: check(net, size=10), 3 * 8 * 400), (lambda: effective_field(net, images), 4 * 400),
    ):  # fmt: skip
        monkeypatch.setattr(memory, "available", lambda need=need: need)
        run()
        monkeypatch.setattr(memory, "available", lambda need=need: need - 1)
        with pytest.raises(ResourceError, match="gradients for an image of 10x10 pixels: it needs at least"):
            run()


@pytest.mark.parametrize(("name", "size"), [("resnet18", 1_000_000), ("vit_b_16", 16_384)])
def test_enormous_images_are_refused_at_once(name, size):
    with pytest.raises(ResourceError, match=r"it needs at least .* Use a smaller --imgsz"):
        check(name, size=size)
