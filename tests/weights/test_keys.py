"""timm's names: real listings of timm, and its answers to deterministic weights and images."""

import importlib.util
import json
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch

from striate import models
from striate.weights.fitting import fitted, recognised, with_counters
from striate.weights.keys import translated

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
    ours, notes = translated(state)
    fit = recognised(ours, name)
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
    ours, _ = translated(state)
    fit = fitted(recorded["architecture"], ours, name)
    network = models.build(fit.architecture, **fit.arguments).double().eval()
    network.load_state_dict(with_counters(fit.network, ours))
    pixels = (2 * fill.hash_uniform("input", 3 * size * size) - 1).astype(np.float32)
    with torch.inference_mode():
        scores = network(torch.from_numpy(pixels).double().view(1, 3, size, size))[0]
    expected = torch.tensor(recorded["logits"], dtype=torch.float64)
    assert (scores - expected).abs().max() <= 1e-9 * expected.abs().max()


def test_another_epsilon_is_the_same_function():
    """gain / sqrt(variance + epsilon), from the definition of BatchNorm, also where variances are tiny."""
    from striate.weights.keys import _other_epsilon

    variance = torch.tensor([0.0, 1e-6, 1e-4, 1e-2, 1.0, 1e3], dtype=torch.float32)
    gain = torch.tensor([1.0, -0.5, 2.0, 0.1, 3.0, 1e-3])
    state = _other_epsilon({"a.bn.weight": gain, "a.bn.running_var": variance, "a.conv.weight": gain})
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
    assert translated(old)[0].keys() == state.keys()


@pytest.mark.parametrize("name", models.MODELS)
def test_our_own_names_stay(name):
    with torch.device("meta"):
        state = models.build(name).state_dict()
    same, notes = translated(state)
    assert list(same) == list(state)
    assert notes == []
