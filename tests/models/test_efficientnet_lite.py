"""EfficientNet-Lite: TensorFlow's padding by its definition, scaling by arithmetic, others' answers."""

import itertools
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from striate.models import MODELS, build
from striate.models.efficientnet_lite import MBConv, convolution, translate_keys
from striate.models.layers import set_dropout

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "efficientnet_lite.json").read_text("utf-8"))
SCORES = GOLDEN["scores"]
LITE = {name: row for name, row in MODELS.items() if row.file == "efficientnet_lite"}
# Channels of the stages and blocks in each: what the scaling of the paper's section 3.3 gives.
SCALED = {
    "efficientnet_lite0": ((16, 24, 40, 80, 112, 192, 320), (1, 2, 2, 3, 3, 4, 1)),
    "efficientnet_lite1": ((16, 24, 40, 80, 112, 192, 320), (1, 3, 3, 4, 4, 5, 1)),
    "efficientnet_lite2": ((16, 24, 48, 88, 120, 208, 352), (1, 3, 3, 4, 4, 5, 1)),
}


def on_meta(name, **arguments):
    with torch.device("meta"):
        return build(name, **arguments)


def same_convolution(signal, kernel, stride):
    """TensorFlow's definition of SAME for one axis, pixel by pixel; outside of the signal there are zeros."""
    outputs = math.ceil(len(signal) / stride)
    before = max((outputs - 1) * stride + len(kernel) - len(signal), 0) // 2
    return [
        sum(
            weight * signal[at]
            for tap, weight in enumerate(kernel)
            if 0 <= (at := i * stride + tap - before) < len(signal)
        )
        for i in range(outputs)
    ]


@pytest.mark.parametrize(("size", "kernel", "stride"), list(itertools.product(range(5, 10), (3, 5), (1, 2))))
def test_convolutions_pad_as_tensorflow_does(size, kernel, stride):
    rng = np.random.default_rng(size)
    rows, columns = rng.normal(size=size), rng.normal(size=size + 1)  # a separable image and filter
    down, across = rng.normal(size=(2, kernel))
    layer = convolution(1, 1, kernel, stride, activation=False).double()
    layer.norm = nn.Identity()
    with torch.no_grad():
        layer.conv.weight.copy_(torch.from_numpy(np.outer(down, across)))
        found = layer(torch.from_numpy(np.outer(rows, columns))[None, None])[0, 0].numpy()
    expected = np.outer(same_convolution(rows, down, stride), same_convolution(columns, across, stride))
    np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", LITE)
def test_width_and_depth_scale_the_stages_but_not_stem_and_head(name):
    channels, blocks = SCALED[name]
    network = on_meta(name)
    stem, *stages, head = network.features
    assert [len(stage) for stage in stages] == list(blocks)
    assert [stage[-1].block.project.conv.out_channels for stage in stages] == list(channels)
    assert (stem.conv.out_channels, head.conv.out_channels) == (32, 1280)
    assert network.classifier[0].p == (0.3 if name == "efficientnet_lite2" else 0.2)


@pytest.mark.parametrize("name", LITE)
def test_parameters_by_arithmetic(name):
    """Every convolution has a norm with two numbers for each channel; none has a bias."""
    total, channels = 3 * 9 * 32 + 2 * 32, 32
    kernels, expansions = (3, 3, 5, 3, 5, 5, 3), (1, 6, 6, 6, 6, 6, 6)
    for out, count, kernel, expansion in zip(*SCALED[name], kernels, expansions, strict=True):
        for _ in range(count):
            inside = channels * expansion
            total += (channels * inside + 2 * inside) * (expansion > 1)
            total += kernel**2 * inside + 2 * inside + inside * out + 2 * out
            channels = out
    total += channels * 1280 + 2 * 1280 + 1280 * 1000 + 1000
    assert sum(p.numel() for p in on_meta(name).parameters()) == total


def test_norms_are_tensorflows():
    norms = [
        module for module in on_meta("efficientnet_lite0").modules() if isinstance(module, nn.BatchNorm2d)
    ]
    assert {(norm.eps, norm.momentum) for norm in norms} == {(0.001, 0.01)}


def test_initial_filters_have_the_spread_of_their_outputs():
    torch.manual_seed(0)
    network = build("efficientnet_lite0", num_classes=2)
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d):
            expected = math.sqrt(2 / (math.prod(layer.kernel_size) * layer.out_channels / layer.groups))
            assert abs(layer.weight.std() / expected - 1) < 5 / math.sqrt(2 * layer.weight.numel())
    assert network.classifier[1].weight.std().item() == pytest.approx(0.01, rel=0.1)


@pytest.mark.parametrize(
    ("block", "residual"),
    [(MBConv(16, 16, 6, 3, 1), True), (MBConv(16, 24, 6, 3, 1), False), (MBConv(16, 16, 6, 3, 2), False)],
)
def test_the_input_is_added_where_the_shape_stays(block, residual):
    """With a projection of zeros only the shortcut is left, since no activation follows it."""
    nn.init.zeros_(block.block.project.conv.weight)
    x = torch.randn(2, 16, 7, 8)
    out = block.eval()(x)
    assert torch.equal(out, x) if residual else not out.any()


def theirs(name, num_classes=7):
    """The state dict of EfficientNet-PyTorch: its names, and values of a formula in float64."""
    rng = np.random.RandomState(20)  # whose numbers never change
    state = {}
    for ours, tensor in on_meta(name, num_classes=num_classes).state_dict().items():
        kind, shape = ours.rpartition(".")[2], tuple(tensor.shape)
        key = f"_layer{len(state)}.{kind}" if state else "_conv_stem.weight"
        if kind == "num_batches_tracked":
            state[key] = torch.zeros((), dtype=torch.int64)
            continue
        value = rng.standard_normal(shape)
        if kind == "running_var":
            value = 0.5 + rng.random_sample(shape)
        elif kind == "weight":
            value = 1 + 0.1 * value if len(shape) == 1 else value * np.sqrt(2 / math.prod(shape[1:]))
        else:
            value = 0.1 * value
        state[key] = torch.from_numpy(value)
    return state


@pytest.mark.parametrize("case", SCORES)
def test_scores_are_those_of_another_implementation(case):
    """Of the package efficientnet-lite-pytorch, for images whose sides are even and odd."""
    name, size = case.split()
    height, width = map(int, size.split("x"))
    state, notes = translate_keys(theirs(name))
    assert notes == ["names translated from EfficientNet-PyTorch's"]
    network = build(name, num_classes=7).double().eval()
    network.load_state_dict(state)
    images = torch.from_numpy(np.random.RandomState(1).standard_normal((2, 3, height, width)))
    with torch.no_grad():
        scores = network(images)
    np.testing.assert_allclose(scores.numpy(), SCORES[case], rtol=0, atol=1e-9)


def test_symmetric_padding_would_be_another_function():
    """What the weights were not trained for."""
    name, size = "efficientnet_lite0", 64
    network = build(name, num_classes=7).double().eval()
    network.load_state_dict(translate_keys(theirs(name))[0])
    for module in list(network.modules()):
        if isinstance(module, nn.Sequential) and hasattr(module, "pad"):
            module.conv.padding = (module.conv.kernel_size[0] // 2,) * 2
            module.pad = nn.Identity()
    images = torch.from_numpy(np.random.RandomState(1).standard_normal((2, 3, size, size)))
    with torch.no_grad():
        scores = network(images)
    assert np.abs(scores.numpy() - SCORES[f"{name} {size}x{size}"]).max() > 0.1


def test_names_of_other_networks_are_left_alone():
    state = theirs("efficientnet_lite0")
    assert translate_keys({**state, "_blocks.0._se_reduce.weight": torch.zeros(1)}) is None
    assert translate_keys(dict(list(state.items())[:-3])) is None
    key, value = list(state.items())[6]
    assert translate_keys({**state, key: value[..., :2]}) is None
    assert translate_keys(build("resnet20").state_dict()) is None


def test_weights_without_counters_or_classifier_are_translated():
    state = theirs("efficientnet_lite1")
    old = {key: value for key, value in state.items() if "num_batches" not in key}
    translated, _ = translate_keys(old)
    own = on_meta("efficientnet_lite1").state_dict()
    assert list(translated) == [key for key in own if "num_batches" not in key]
    features, _ = translate_keys(dict(list(old.items())[:-2]))
    assert list(features) == list(translated)[:-2]


def test_dropout_can_be_set():
    network = on_meta("efficientnet_lite0")
    set_dropout(network, 0.5)
    assert network.classifier[0].p == 0.5
