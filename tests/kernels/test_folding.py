"""Folded networks: as near the truth as the networks they were made from, and never another function."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from striate import models
from striate.kernels import folding
from striate.kernels.folding import fold
from striate.models.layers import SamePadding

WITH_NORMS = {
    "resnet18": 64, "resnet50": 64, "resnet20": 32, "googlenet": 64, "vgg11_bn": 32,
    "mobilenet_v3_small": 64, "mobilenet_v3_large": 64, "efficientnet_lite0": 64,
}  # fmt: skip
DEEPER = {
    "resnet34": 64, "resnet101": 64, "resnet152": 64, "vgg13_bn": 32, "vgg16_bn": 32, "vgg19_bn": 32,
    "resnet32": 32, "resnet44": 32, "resnet56": 32, "resnet110": 32, "resnet1202": 32,
    "efficientnet_lite1": 64, "efficientnet_lite2": 64,
}  # fmt: skip
WITHOUT = {"lenet": 32, "lenet5": 32, "alexnet": 64, "vgg11": 32}


def trained(name, size):
    """A network whose norms have statistics of images, and scales and offsets that are not one and zero."""
    torch.manual_seed(0)
    with torch.device("meta" if name.startswith("vgg") else "cpu"):
        network = models.build(name, num_classes=10)
    if name.startswith("vgg"):  # its fully connected layers do not fold, and are most of its weights
        network.classifier = nn.Identity()
        network.to_empty(device="cpu")
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d) and name.startswith("vgg"):
            nn.init.kaiming_normal_(layer.weight)
            nn.init.uniform_(layer.bias, -0.1, 0.1)
        if isinstance(layer, nn.BatchNorm2d):
            layer.reset_running_stats()
            layer.momentum = None  # the plain mean of what it sees
            nn.init.uniform_(layer.weight, 0.5, 1.5)
            nn.init.uniform_(layer.bias, -0.3, 0.3)
    channels = models.MODELS[name].channels
    with torch.no_grad():
        network(torch.rand(4, channels, size, size))
    return network.eval(), torch.rand(2, channels, size, size)


def difference(a, b):
    return ((a.double() - b.double()).norm() / b.double().norm()).item()


@torch.no_grad()
def require_as_exact(network, images, shape=None):
    """Folding rounds about as often as the network does: neither may be far behind, against float64.

    What a sum of n products may err by otherwise is sqrt(n) roundings (Higham, Mary 2019, theorem 2.4).
    """
    folded = fold(network, shape or tuple(images.shape[1:]))
    assert folded is not network
    assert not any(isinstance(layer, (nn.Conv2d, nn.BatchNorm2d)) for layer in folded.modules())
    longest = max(layer.weight[0].numel() for layer in network.modules() if isinstance(layer, nn.Conv2d))
    truth = copy.deepcopy(network).double()(images.double())
    allowed = 3 * difference(network(images), truth) + longest**0.5 * torch.finfo(torch.float32).eps / 2
    assert difference(folded(images), truth) <= allowed
    return folded


@pytest.mark.parametrize(("name", "size"), (WITH_NORMS | WITHOUT).items())
def test_the_folded_network_is_as_exact_as_the_network(name, size):
    require_as_exact(*trained(name, size))


@pytest.mark.slow
@pytest.mark.parametrize(("name", "size"), DEEPER.items())
def test_the_folded_network_is_as_exact_as_a_deep_network(name, size):
    require_as_exact(*trained(name, size))


def test_every_network_with_norms_is_among_them():
    with torch.device("meta"):
        built = {name: models.build(name) for name in models.MODELS}
    with_norms = {
        name for name, network in built.items()
        if any(isinstance(layer, nn.BatchNorm2d) for layer in network.modules())
    }  # fmt: skip
    assert with_norms == {*WITH_NORMS, *DEEPER}


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v3_small"])
def test_without_onednn_it_is_as_exact(name, monkeypatch):
    monkeypatch.setattr(folding, "has_onednn", lambda weight: False)
    require_as_exact(*trained(name, 64))


def test_images_of_another_size_are_answered_too():
    network, _ = trained("resnet18", 64)
    images = torch.rand(3, 3, 97, 75)
    folded = require_as_exact(network, images, (3, 64, 64))
    with pytest.raises(models.layers.LayoutError, match="The channels are last"):
        folded(images.permute(0, 2, 3, 1))


@pytest.mark.parametrize("size", [(64, 64), (65, 64)])
def test_tensorflows_padding_holds_for_every_size(size):
    """Even sides need one pixel more at the end than at the start, odd ones as many."""
    network, _ = trained("efficientnet_lite0", 64)
    folded = require_as_exact(network, torch.rand(2, 3, *size))
    copies = []
    for module in folded.modules():
        if isinstance(module, SamePadding):
            module.register_forward_hook(lambda *_: copies.append(1))
    for other in (size, (66, 70), (65, 70), (66, 71), (65, 71)):
        images = torch.rand(1, 3, *other)
        with torch.no_grad():
            expected = network(images)  # shares its paddings
            copies.clear()
            assert difference(folded(images), expected) < 1e-4, other
        assert bool(copies) == (other != size), "for the typical size, no map is copied"


def test_the_network_and_the_images_stay_as_they_were():
    network, images = trained("resnet20", 32)
    attributes = set(vars(network))
    state, kept = copy.deepcopy(network.state_dict()), images.clone()
    folded = fold(network, (3, 32, 32))
    with torch.no_grad():
        folded(images)
    assert torch.equal(images, kept)
    assert set(vars(network)) == attributes
    assert all(torch.equal(value, state[key]) for key, value in network.state_dict().items())
    assert not any(layer._forward_pre_hooks for layer in network.modules())


class Twisted(nn.Module):
    """What must not be folded as if it were a plain block: one way out of the usual for each `kind`."""

    def __init__(self, kind):
        super().__init__()
        self.kind = kind
        self.conv1 = nn.Conv2d(3, 3, 3, padding=1, padding_mode="reflect" if kind == "reflect" else "zeros")
        self.conv2 = nn.Conv2d(3, 3, 3, padding="same" if kind == "same" else 1, bias=False)
        self.norm = nn.BatchNorm2d(
            3, affine=kind != "plain norm", track_running_stats=kind != "no statistics"
        )
        self.same = nn.Identity()
        self.bias = nn.Parameter(torch.ones(3, 1, 1))

    def forward(self, x):
        if self.kind == "branch" and x.mean() > 100:
            return x
        y = F.relu(self.conv1(x))
        match self.kind:
            case "read again":
                return self.conv2(y) + y + 2 * y
            case "alias read again":
                z = self.same(y)
                return (self.conv2(y) + z) * y
            case "over its own input":
                return self.conv2(y) + y
            case "over the images":
                return self.conv2(x) + x
            case "norm read twice":
                y = self.norm(self.conv2(y))
                return y + F.relu(y)
            case "convolution read twice":
                y = self.conv2(y)
                return self.norm(y) + y
            case "activation before the norm":
                return self.norm(F.relu(self.conv2(y)))
            case "one row added":
                return self.conv2(y) + y[:, :, :1]
            case "a map of one pixel":
                return self.conv2(F.adaptive_avg_pool2d(y, 1)) + y
            case "a bias":
                return F.relu(self.conv2(y) + self.bias)
            case "hardswish after a sum":
                return F.hardswish(self.conv2(y) + F.max_pool2d(x, 1))
            case "the same layer twice":
                return self.norm(self.conv2(self.norm(self.conv2(y))))
            case "doubled":
                y = self.conv2(y)
                return F.silu(y + y)
        return self.norm(self.conv2(y))


@pytest.mark.parametrize(
    "kind",
    [
        "branch", "reflect", "same", "plain norm", "no statistics", "read again", "alias read again",
        "over its own input", "over the images", "norm read twice", "convolution read twice",
        "activation before the norm", "one row added", "a map of one pixel", "a bias",
        "hardswish after a sum", "the same layer twice", "doubled",
    ],
)  # fmt: skip
def test_unusual_networks_answer_as_before(kind):
    torch.manual_seed(1)
    network = Twisted(kind)
    images = torch.randn(2, 3, 9, 9)
    network(images + 1)  # statistics
    network.eval()
    folded = fold(network, (3, 9, 9))
    kept = images.clone()
    with torch.no_grad():
        assert difference(folded(images), network(images)) < 1e-6
    assert torch.equal(images, kept)
    assert (folded is network) == (kind in ("branch", "a map of one pixel", "a bias"))


def test_what_answers_otherwise_is_not_used(monkeypatch):
    network, _ = trained("resnet20", 32)
    honest = folding.fold_norm
    monkeypatch.setattr(
        folding, "fold_norm", lambda *layers: (honest(*layers)[0] * 1.001, honest(*layers)[1])
    )
    assert fold(network, (3, 32, 32)) is network
    monkeypatch.undo()
    network.bn1.running_var[0] = torch.nan
    assert fold(network, (3, 32, 32)) is network


def test_a_transformer_answers_as_before_for_any_number_of_images():
    torch.manual_seed(0)
    network = models.build("vit_ti_16", num_classes=5, input_size=32).eval()
    torch.nn.init.normal_(network.heads.head.weight)
    folded = fold(network, (3, 32, 32))
    for count in (1, 3):
        images = torch.randn(count, 3, 32, 32)
        with torch.inference_mode():
            torch.testing.assert_close(folded(images), network(images), atol=1e-5, rtol=1e-5)


def test_a_network_whose_steps_cannot_be_followed_is_given_back():
    class Choosy(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = torch.nn.Conv2d(3, 4, 3)

        def forward(self, x):
            return self.conv(x if x.mean() > 0 else -x)

    network = Choosy().eval()
    assert fold(network, (3, 32, 32)) is network


class _Optional(nn.Module):
    """An argument that decides, and layers whose classes do more than torch's, as in timm."""

    class Padded(nn.Conv2d):
        def forward(self, x):
            return super().forward(nn.functional.pad(x, (0, 1, 0, 1)))

    class Activated(nn.BatchNorm2d):
        def forward(self, x):
            return torch.relu(super().forward(x))

    def __init__(self):
        super().__init__()
        self.first, self.norm = self.Padded(3, 8, 3), self.Activated(8)
        self.second, self.last = nn.Conv2d(8, 8, 3), nn.Linear(8, 4)

    def forward(self, x, mask=None, pre_logits: bool = False):
        x = self.second(self.norm(self.first(x)))
        if mask is not None:
            x = x * mask
        x = x.mean((2, 3))
        return x if pre_logits else self.last(x)


def test_optional_arguments_and_derived_layers_are_kept():
    torch.manual_seed(0)
    network = _Optional().eval()
    nn.init.normal_(network.norm.running_mean)
    folded = fold(network, (3, 12, 12))
    assert folded is not network, "its plain convolution is folded"
    images = torch.randn(3, 3, 12, 12)
    with torch.inference_mode():
        torch.testing.assert_close(folded(images), network(images))
    kinds = [type(layer) for layer in folded.modules()]
    assert _Optional.Padded in kinds
    assert _Optional.Activated in kinds
