"""GoogLeNet: training answers of torchvision, heads that exist in training only, weights with and without."""

import copy
import math

import numpy as np
import pytest
import recorded_answers as oracle
import torch
import torch.nn.functional as F
from torch import nn

from striate.errors import LayoutError
from striate.models import build
from striate.models.googlenet import AUXILIARY_WEIGHT, GoogLeNet, GoogLeNetOutput, match_auxiliary
from striate.models.layers import weighted_outputs


@pytest.fixture(scope="module")
def networks():
    """With and without heads, in evaluation; the same weights elsewhere."""
    torch.manual_seed(0)
    full = build("googlenet", num_classes=5).eval()
    bare = on_meta(auxiliary=False).to_empty(device="cpu").eval()
    bare.load_state_dict(match_auxiliary(bare, full.state_dict())[0])
    return full, bare


def on_meta(**arguments):
    """A network of which only the names and shapes matter: its initial weights take seconds to draw."""
    with torch.device("meta"):
        return build("googlenet", num_classes=5, **arguments)


def images(size=64):
    return torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("kind", ["f64", "f32"])
def test_training_is_torchvisions(shared, kind):
    """Scores of all three heads, the losses with weight 0.3, gradient norms, BatchNorm's statistics."""
    dtype = {"f64": torch.float64, "f32": torch.float32}[kind]
    tolerance = {"f64": 1e-9, "f32": 1e-4}[kind]
    answers = oracle.numbers(shared, "googlenet_train_ti0")
    network = oracle.filled(shared, "googlenet").to(dtype).train()
    for layer in network.modules():
        if isinstance(layer, nn.Dropout):
            layer.p = 0.0  # the record is without chance
    output = network(oracle.tools(shared).make_input((2, 3, 224, 224)).to(dtype))
    assert isinstance(output, GoogLeNetOutput)
    losses = [F.cross_entropy(scores, torch.tensor(answers["targets"])) for scores in output]
    assert weighted_outputs(output) == [(output[0], 1.0), (output[1], 0.3), (output[2], 0.3)]
    loss = losses[0] + AUXILIARY_WEIGHT * (losses[1] + losses[2])
    loss.backward()

    for name, scores in output._asdict().items():
        theirs = answers[f"{name}_{kind}"]
        assert np.abs(scores.detach().numpy() - theirs).max() <= tolerance * np.abs(theirs).max()
    ours = [value.item() for value in (loss, *losses)]
    np.testing.assert_allclose(ours, answers[f"loss_{kind}"], rtol=tolerance)
    for name in ("running_mean", "running_var"):
        theirs = answers[f"conv1_bn_{name}_after_{kind}"]
        np.testing.assert_allclose(getattr(network.conv1.bn, name).numpy(), theirs, rtol=tolerance)
    if kind == "f64":  # in float32 BatchNorm over a batch of two loses more than four digits of a gradient
        gradients = dict(network.named_parameters())
        assert list(gradients) == list(answers["grad_names"])
        norms = [parameter.grad.norm().item() for parameter in gradients.values()]
        np.testing.assert_allclose(norms, answers["grad_norms_f64"], rtol=tolerance)


@pytest.mark.parametrize("name", ["googlenet", "googlenet_2014"])
def test_heads_answer_in_training_and_cost_nothing_in_evaluation(name):
    network = build(name, num_classes=4)
    calls = []
    for head in (network.aux1, network.aux2):
        head.register_forward_hook(lambda *_: calls.append(1))
    output = network.train()(images(96))
    assert isinstance(output, GoogLeNetOutput)
    assert [scores.shape for scores in output] == [(2, 4)] * 3
    assert len(calls) == 2
    assert network.eval()(images(96)).shape == (2, 4)
    assert len(calls) == 2


def test_without_heads_training_gives_scores_alone(networks):
    full, bare = networks
    assert isinstance(copy.deepcopy(bare).train()(images()), torch.Tensor)
    torch.testing.assert_close(bare(images()), full(images()), rtol=0, atol=0)


def test_weights_with_heads_into_a_network_with_heads(networks):
    full, _ = networks
    state, note = match_auxiliary(on_meta(), full.state_dict())
    assert list(state) == list(full.state_dict())
    assert note == "auxiliary heads: loaded"


def test_weights_with_heads_into_a_network_without(networks):
    full, bare = networks
    state, note = match_auxiliary(bare, full.state_dict())
    assert list(state) == list(bare.state_dict())
    assert "removed" in note


def test_weights_without_heads_into_a_network_with_heads(networks):
    _, bare = networks
    network = build("googlenet", num_classes=5).eval()
    before = network.aux1.fc1.weight.clone()
    state, note = match_auxiliary(network, bare.state_dict())
    assert "untrained" in note
    network.load_state_dict(state, strict=True)
    assert torch.equal(network.aux1.fc1.weight, before)
    torch.testing.assert_close(network(images()), bare(images()), rtol=0, atol=0)


def test_weights_without_heads_into_a_network_without(networks):
    _, bare = networks
    state, note = match_auxiliary(bare, bare.state_dict())
    assert list(state) == list(bare.state_dict())
    assert "in neither" in note


def test_initial_weights():
    torch.manual_seed(0)
    for layer in build("googlenet", num_classes=5).modules():
        if isinstance(layer, (nn.Conv2d, nn.Linear)):
            deviation = layer.weight.std().item()
            assert abs(deviation / 0.01 - 1) < 5 / math.sqrt(2 * layer.weight.numel())


def test_initial_weights_of_2014():
    """Glorot and Bengio 2010, equation 16: uniform in +-sqrt(6 / (fan-in + fan-out))."""
    torch.manual_seed(0)
    for layer in build("googlenet_2014", num_classes=5).modules():
        if isinstance(layer, (nn.Conv2d, nn.Linear)):
            fans = layer.weight[0].numel() + layer.weight[:, 0].numel()
            bound = math.sqrt(6 / fans)
            assert 0.9 * bound < layer.weight.abs().max() <= bound
            assert layer.bias.unique().tolist() == pytest.approx([0.2 if layer.weight.ndim == 4 else 0.0])


def test_the_input_is_left_as_it_was(networks):
    full, _ = networks
    given = dict(full.state_dict())
    before = list(given)
    match_auxiliary(on_meta(auxiliary=False), given)
    assert list(given) == before


def test_2014_is_the_papers():
    """5x5 kernels, biases, response normalization, 3x3 max-pools (table 1, figure 3); no BatchNorm."""
    with torch.device("meta"):
        network = build("googlenet_2014")
    blocks = [module for name, module in network.named_children() if name.startswith("inception")]
    assert len(blocks) == 9
    assert [block.branch3[1].conv.kernel_size for block in blocks] == [(5, 5)] * 9
    modules = list(network.modules())
    assert not any(isinstance(module, nn.BatchNorm2d) for module in modules)
    assert sum(isinstance(module, nn.LocalResponseNorm) for module in modules) == 2
    assert all(module.bias is not None for module in modules if isinstance(module, nn.Conv2d))
    assert {module.kernel_size for module in modules if isinstance(module, nn.MaxPool2d)} == {3}


def test_heads_of_2014_pool_5x5_with_stride_3():
    """Section 5: "an average pooling layer with 5x5 filter size and stride 3" gives 4x4 from 14x14."""
    with torch.device("meta"):
        network = build("googlenet_2014")
    pooled = torch.arange(14 * 14, dtype=torch.float64).reshape(1, 1, 14, 14)
    ours = network.aux1.to4x4(network.aux1.pool(pooled))
    expected = [
        [pooled[0, 0, 3 * i : 3 * i + 5, 3 * j : 3 * j + 5].mean().item() for j in range(4)] for i in range(4)
    ]
    np.testing.assert_allclose(ours[0, 0].numpy(), expected, rtol=1e-12)


def test_images_too_small_for_the_heads_of_2014_are_refused_in_training_only():
    with torch.device("meta"):
        network = build("googlenet_2014")
    small, enough = (torch.empty(2, 3, size, size, device="meta") for size in (78, 79))
    assert len(network.train()(enough)) == 3
    with pytest.raises(LayoutError, match="79"):
        network(small)
    assert network.eval()(small).shape == (2, 1000)


@pytest.mark.parametrize("name", ["googlenet", "googlenet_2014"])
def test_sizes_of_table_1(name):
    """Output sizes of the blocks for 224 px."""
    expected = {"3a": (256, 28), "3b": (480, 28), "4a": (512, 14), "4d": (528, 14), "4e": (832, 14)}
    expected |= {"5a": (832, 7), "5b": (1024, 7)}
    with torch.device("meta"):
        network = build(name).eval()
    seen = {}
    for block in expected:
        module = getattr(network, f"inception{block}")
        module.register_forward_hook(lambda _module, _input, out, at=block: seen.update({at: out.shape[1:]}))
    network(torch.empty(1, 3, 224, 224, device="meta"))
    assert seen == {block: (width, size, size) for block, (width, size) in expected.items()}


def test_torchvisions_network_with_true_5x5_kernels(shared):
    """One of the networks of the receptive-field records: only the nine kernels differ."""
    with torch.device("meta"):
        network = GoogLeNet(5, True, 2, 0.2)
    expected = [
        (key, (*shape[:2], 5, 5) if key.endswith("branch3.1.conv.weight") else shape, dtype)
        for key, shape, dtype in oracle.entries(shared, "googlenet")
    ]
    assert oracle.own_entries(network) == expected
