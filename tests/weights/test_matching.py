"""Which network a state dict is for, and the keys of timm: real listings, and timm's recorded answers."""

import importlib.util
import json
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch

from striate import models
from striate.errors import BundleError, UsageError
from striate.models.mobilenet_v3 import _adapt_epsilon
from striate.weights.matching import compare, recognize, require, translate_keys, with_counters

TIMM = json.loads((Path(__file__).parents[1] / "golden" / "timm.json").read_text("utf-8"))["models"]


@cache
def tools(shared):
    spec = importlib.util.spec_from_file_location("oracle_fill", shared / "oracle" / "oracle_fill.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", TIMM)
def test_timms_keys_and_shapes_fit(name):
    state = {key: torch.ones(shape) for key, shape in TIMM[name]["shapes"].items()}
    ours, notes = translate_keys(state)
    fit = recognize(ours, name)
    assert fit.architecture == TIMM[name]["architecture"]
    assert fit.arguments["num_classes"] == 10
    assert bool(notes) == ("resnet" not in name)
    assert fit.arguments.get("width") == (0.75 if name.endswith("075") else None)


@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=pytest.mark.slow if n in ("vgg11", "vit_base_patch32_224") else ()) for n in TIMM],
)
def test_the_translated_network_answers_as_timms(shared, name):
    """So that no two tensors of the same shape are swapped, and BatchNorm's epsilon is right."""
    recorded, fill = TIMM[name], tools(shared)
    size = recorded["size"]
    state = {key: fill.fill_value(key, shape) for key, shape in recorded["shapes"].items()}
    # In float64, so that the gains that are adapted to our epsilon are not rounded once more.
    state = {key: value.double() if value.is_floating_point() else value for key, value in state.items()}
    ours, _ = translate_keys(state)
    fit = require(recorded["architecture"], ours, name)
    network = models.build(fit.architecture, **fit.arguments).double().eval()
    network.load_state_dict(with_counters(fit.network, ours))
    pixels = (2 * fill.hash_uniform("input", 3 * size * size) - 1).astype(np.float32)
    with torch.inference_mode():
        scores = network(torch.from_numpy(pixels).double().view(1, 3, size, size))[0]
    expected = torch.tensor(recorded["logits"], dtype=torch.float64)
    assert (scores - expected).abs().max() <= 1e-9 * expected.abs().max()


def test_another_epsilon_is_the_same_function():
    """gain / sqrt(variance + epsilon), from the definition of BatchNorm, also where variances are tiny."""
    variance = torch.tensor([0.0, 1e-6, 1e-4, 1e-2, 1.0, 1e3], dtype=torch.float32)
    gain = torch.tensor([1.0, -0.5, 2.0, 0.1, 3.0, 1e-3])
    state = _adapt_epsilon({"a.bn.weight": gain, "a.bn.running_var": variance, "a.conv.weight": gain})
    before = gain.double() / torch.sqrt(variance.double() + 1e-5)
    after = state["a.bn.weight"].double() / torch.sqrt(variance.double() + 1e-3)
    torch.testing.assert_close(after, before, rtol=2e-7, atol=0)
    assert torch.equal(state["a.conv.weight"], gain)


def test_torchvisions_old_names_of_vits_layers():
    with torch.device("meta"):
        state = models.build("vit_ti_16").state_dict()
    old = {
        k.replace(".mlp.0.", ".mlp.linear_1.").replace(".mlp.3.", ".mlp.linear_2."): v
        for k, v in state.items()
    }
    assert old.keys() != state.keys()
    assert translate_keys(old)[0].keys() == state.keys()


@pytest.mark.parametrize("name", models.MODELS)
def test_our_own_names_stay(name):
    with torch.device("meta"):
        state = models.build(name).state_dict()
    same, notes = translate_keys(state)
    assert list(same) == list(state)
    assert notes == []


def on_meta(name, **arguments):
    with torch.device("meta"):
        return models.build(name, **arguments).state_dict()


# These differ from others of their files in how often a block comes, and each is built for every comparison.
DEEP = ("resnet1202", "resnet152", "resnet110", "resnet101", "resnet56", "resnet44", "resnet32", "vit_l_16")
ALL = [pytest.param(name, marks=pytest.mark.slow) if name in DEEP else name for name in models.MODELS]


@pytest.mark.parametrize("name", ALL)
def test_every_architecture_is_recognised_by_its_shapes(name):
    classes = 10 if name == "lenet5" else 23
    for channels in (1, 3):
        fit = recognize(on_meta(name, num_classes=classes, in_channels=channels), "file")
        assert fit.architecture == name
        assert fit.arguments["num_classes"] == classes
        assert fit.arguments["in_channels"] == channels


@pytest.mark.parametrize("name", ALL)
def test_the_wrong_network_is_named(name):
    asked = "resnet18" if name != "resnet18" else "vgg16"
    with pytest.raises(
        UsageError, match=f"'file' does not fit {asked}: .*looks like {name}: use --model {name}$"
    ):
        require(asked, on_meta(name), "file")


ARGUMENTS = [
    ("lenet", {"widths": [16, 32], "input_size": [32, 32]}),
    ("lenet", {"widths": [6, 16], "input_size": [28, 28]}),
    ("lenet", {"widths": [3, 5], "input_size": [16, 16]}),
    ("lenet", {"widths": [3, 5], "input_size": [224, 224]}),
    ("vit_ti_16", {"input_size": [384, 384]}),
    ("vit_b_32", {"input_size": [64, 64]}),
    ("mobilenet_v3_small", {"width": 0.75}),
    ("mobilenet_v3_large", {"width": 1.5}),
    ("googlenet", {"auxiliary": True}),
    ("googlenet_2014", {"auxiliary": False}),
]


@pytest.mark.parametrize(("name", "arguments"), ARGUMENTS)
def test_arguments_are_deduced(name, arguments):
    fit = compare(name, on_meta(name, num_classes=5, **arguments))
    assert fit.exact
    assert fit.arguments == {"num_classes": 5, "in_channels": 3, **arguments}


def test_what_differs_is_listed_with_the_likely_cause(monkeypatch):
    # Deep networks take long to build, even on meta; a whole copy put back keeps the networks' order.
    shallow = {name: kind for name, kind in models.MODELS.items() if name not in DEEP}
    monkeypatch.setattr(models, "MODELS", shallow)
    state = on_meta("resnet18", num_classes=3)
    without = {k: v for k, v in state.items() if not k.startswith("fc.")}
    with pytest.raises(BundleError, match=r"2 missing: fc\.weight, fc\.bias\. The classifier is missing"):
        require("resnet18", without, "file")
    renamed = {k.replace("layer4.1", "stage4.1"): v for k, v in state.items()}
    with pytest.raises(
        BundleError, match=r"10 missing: layer4\.1\.conv1\.weight.* and 6 more; 12 unexpected: stage4"
    ):
        require("resnet18", renamed, "file")
    other = {**state, "conv1.weight": torch.empty(64, 3, 3, 3, device="meta")}
    with pytest.raises(
        BundleError,
        match=r"1 of another shape: conv1\.weight is \[64, 3, 3, 3\], not \[64, 3, 7, 7\].*another variant",
    ):
        require("resnet18", other, "file")
    with pytest.raises(BundleError, match="A part of the network was not saved"):
        require("resnet18", {k: v for k, v in state.items() if not k.startswith("layer2.0")}, "file")
    nearly = {k: v for k, v in on_meta("resnet34").items() if k != "layer4.2.conv2.weight"}
    with pytest.raises(BundleError, match="This looks most like resnet34: 217 of its 218 tensors fit"):
        require("resnet18", nearly, "file")
    with pytest.raises(
        BundleError, match="fits no network of Striate: nearest is resnet34: 1 missing: layer4"
    ):
        recognize(nearly, "file")
    distilled = {**on_meta("vit_ti_16"), "dist_token": torch.empty(1, 1, 192, device="meta")}
    with pytest.raises(BundleError, match=r"1 unexpected: dist_token\. This is a distilled DeiT"):
        require("vit_ti_16", distilled, "file")
    with pytest.raises(BundleError, match="fits no network of Striate: it has a, b"):
        recognize({"a": torch.empty(1), "b": torch.empty(1)}, "file")
