"""Explanations of every built-in network, frozen or not, and of users' networks; nothing is left behind."""

import pytest
import torch
from pretrained import build
from torch import nn
from unchanged_network import require_unchanged, state_of

from striate import models
from striate.errors import LayoutError
from striate.explain import METHODS, Explainer, compute
from striate.explain.perturbation import occlusion
from striate.kernels import prepare
from striate.models.appended import Appended
from striate.training.transfer import freeze

SIZES = {"alexnet": 64, "alexnet_2012": 64, "googlenet_2014": 80}
SMALL = {"lenet", "lenet5"}
QUICK = {*SMALL, "resnet20", "resnet18", "mobilenet_v3_small", "vit_ti_16"}  # with one mode
# Methods for these: each way to use the network once.
BRIEF = ("grad-cam", "layer-cam", "integrated-gradients", "relevance")
VARIANTS = [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in models.MODELS]


def suits(method, network):
    return method.networks != "attention" or hasattr(network, "class_token")


def require_maps(network, size, names=tuple(METHODS)):
    """Compute each method's map with few samples."""
    image = torch.randn(1, network.in_channels, size, size, generator=torch.Generator().manual_seed(1))
    explainer = Explainer(network, tuple(image.shape[1:]))
    for name in names:
        method = METHODS[name]
        if not suits(method, network):
            continue
        if name == "occlusion":  # with few windows
            values = occlusion(explainer, image, 1, window=size // 2, stride=size // 2)
        else:
            values = compute(explainer, image, 1, name, samples=method.samples and 2)
        assert values.dtype == torch.float32
        assert values.isfinite().all()
        assert values.shape == (explainer.location.grid if method.networks == "attention" else values.shape)
        assert not values.requires_grad


@pytest.mark.parametrize("name", VARIANTS)
def test_every_network_and_transfer_mode(name):
    """In training mode and with all parameters frozen, or all but the last stage or the classifier."""
    size = SIZES.get(name, 32 if models.MODELS[name].input_size == 32 else 64)
    network, _ = build(name, size, num_classes=3, in_channels=models.MODELS[name].channels)
    prepare(network, torch.device("cpu"), training=False)
    head = models.MODELS[name].classifier
    network.train()
    is_brief = name in QUICK - SMALL
    for mode in ("none",) if is_brief else ("none", "last", "head", "all"):
        if mode == "none":
            network.requires_grad_(False)
        else:
            freeze(network, mode, 1, head)
        before = state_of(network)
        require_maps(network, size, BRIEF if is_brief else tuple(METHODS))
        require_unchanged(network, before)


def test_an_appended_layer_alone_trains():
    base, _ = build("resnet20", 32, num_classes=5)
    network = Appended(base, 5, 2)
    network.in_channels = 3
    freeze(network, "append", 1, "head")
    before = state_of(network)
    require_maps(network, 32, BRIEF)
    require_unchanged(network, before)


def test_a_folded_explainer_is_the_same_function():
    network, _ = build("resnet20", 32, num_classes=5)
    image = torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(2))
    plain, folded = (Explainer(network.eval(), (3, 32, 32), folded=f) for f in (False, True))
    assert not any(isinstance(p, nn.BatchNorm2d) for p in folded._split(fine=False).trunk.modules())
    torch.testing.assert_close(folded.scores(image), plain.scores(image), rtol=1e-4, atol=1e-4)
    for name in ("grad-cam", "layer-cam", "finer-cam"):
        a, b = (compute(explainer, image, 3, name) for explainer in (plain, folded))
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5 * float(b.abs().max()))


class Branching(nn.Module):
    """Cannot be traced symbolically: its steps depend on values. Its ReLU works in place."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.relu = nn.ReLU(inplace=True)
        self.head = nn.Linear(4, 3)
        self.calls = 0

    def forward(self, x):
        self.calls += 1
        x = self.conv(x)
        if x.mean() > 0:
            x = x * 2
        return self.head(self.relu(x).mean(dim=(2, 3)))


class Failing(Branching):
    def forward(self, x):
        if self.calls >= 3:
            raise RuntimeError("no more")
        return super().forward(x)


def test_a_network_that_cannot_be_traced():
    network = Branching().train()
    before = state_of(network)
    image = torch.randn(1, 3, 8, 8)
    explainer = Explainer(network, (3, 8, 8), folded=True)
    found = compute(explainer, image, 1)
    require_unchanged(network, before)
    maps = network.relu(network.conv(image) * (2 if network.conv(image).mean() > 0 else 1))
    # The head's gradient in closed form: its weights, equal for all units.
    torch.testing.assert_close(
        found, (network.head.weight[1][:, None, None] / 64 * maps[0]).sum(dim=0).relu()
    )


def test_the_network_is_restored_after_an_error():
    network = Failing().train()
    before = state_of(network)
    explainer, image = Explainer(network, (3, 8, 8)), torch.randn(1, 3, 8, 8)
    network.calls = 3
    with pytest.raises(Exception, match="no more"):
        compute(explainer, image, 1)
    with pytest.raises(RuntimeError, match="no more"):
        explainer.gradients(image, 1)
    network.calls = 0
    require_unchanged(network, before)


def test_a_callers_settings_have_no_effect():
    network, _ = build("lenet", 32, num_classes=3)
    explainer, image = Explainer(network, (3, 32, 32)), torch.randn(1, 3, 32, 32)
    expected = compute(explainer, image, 1)
    with torch.inference_mode(), torch.autocast("cpu"):
        assert torch.equal(compute(explainer, image, 1), expected)
    with torch.no_grad():
        assert torch.equal(compute(Explainer(network, (3, 32, 32)), image, 1), expected)


def test_images_of_another_shape():
    network, _ = build("lenet", 32, num_classes=3)
    explainer = Explainer(network, (3, 32, 32))
    for call in (explainer.scores, lambda x: explainer.gradients(x, 0), explainer.attention):
        with pytest.raises(LayoutError, match=r"images of shape \[1, 1, 32, 32\]"):
            call(torch.zeros(1, 1, 32, 32))
