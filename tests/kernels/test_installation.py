"""A prepared network is the plain network: the same numbers, parameters, names and uses, only faster."""

import copy
import subprocess
import sys

import pytest
import torch
from tiny_transformer import random_tokens
from torch import nn

from striate import models
from striate.kernels import linear as linear_module
from striate.kernels import prepare
from striate.kernels.dropout import Dropout
from striate.kernels.installation import COUNTERPARTS
from striate.kernels.linear import Linear
from striate.models.layers import set_drop_path, set_dropout
from striate.models.seq2seq import ImageToText, TextToText

CPU = torch.device("cpu")
SMALL = {"width": 32, "depth": 2, "heads": 4, "hidden": 64, "dropout": 0.0}


def text_to_text(**arguments):
    return TextToText(40, 30, **{**SMALL, **arguments})


def image_to_text(encoder="columns", **arguments):
    return ImageToText(30, encoder, **{**SMALL, **arguments})


NETWORKS = {
    "text": text_to_text,
    "text, learned positions": lambda: text_to_text(positions="learned", tied="none"),
    "text, one vocabulary": lambda: TextToText(30, 30, **SMALL, tied="all"),
    "columns": image_to_text,
    "patches": lambda: image_to_text("patches"),
    "resnet20": lambda: image_to_text("resnet20", in_channels=3, input_size=(32, 48)),
    "vit encoder": lambda: image_to_text("vit_ti_16", in_channels=3, input_size=(32, 48)),
    "vit": lambda: models.build("vit_ti_16", num_classes=7, input_size=32),
}


def built(name, dtype=torch.float32):
    torch.manual_seed(0)
    network = NETWORKS[name]().to(dtype)
    for parameter in network.parameters():  # no gain of one, no bias or classifier of zero
        nn.init.normal_(parameter, std=0.1) if parameter.ndim > 1 else parameter.data.add_(0.1)
    return network


def inputs(network, dtype=torch.float32):
    """A batch with padding: positional arguments of `forward`, the expected tokens, and named arguments."""
    generator = torch.Generator().manual_seed(1)
    if not isinstance(network, TextToText | ImageToText):
        return (torch.randn(4, 3, 32, 32, generator=generator, dtype=dtype),), None, {}
    target = random_tokens(4, 9, 30, 2, [9, 2, 5, 1])
    expected = random_tokens(4, 9, 30, 3, [9, 2, 5, 1])
    if isinstance(network, TextToText):
        return (random_tokens(4, 11, 30, 4, [1, 11, 6, 3]), target), expected, {}
    channels = 3 if "Network" in type(network.front).__name__ else 1
    images = torch.randn(4, channels, 32, 48, generator=generator, dtype=dtype)
    return (images, target), expected, {} if channels == 3 else {"widths": torch.tensor([48, 8, 33, 21])}


def answers(network, dtype=torch.float32):
    """Logits of real tokens, loss, and the gradient of every parameter."""
    arguments, expected, more = inputs(network, dtype)
    logits = network(*arguments, **more)
    if expected is None:
        loss = nn.functional.cross_entropy(logits, torch.arange(4))
    else:
        loss = network.loss(*arguments, expected, 0.1, **more)
        logits = logits[expected != 0]
    network.zero_grad()
    loss.backward()
    return {"logits": logits, "loss": loss} | {name: p.grad for name, p in network.named_parameters()}


def require_equal(ours, theirs, tolerance):
    assert ours.keys() == theirs.keys()
    for name, expected in theirs.items():
        difference = (ours[name] - expected).abs().max()
        assert difference <= tolerance * expected.abs().max(), (name, float(difference))


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("name", NETWORKS)
def test_a_prepared_network_is_the_plain_one(name, training, monkeypatch):
    """In float32 through oneDNN, whatever the processor and the size; in float64 to its last digits."""
    monkeypatch.setattr(linear_module, "mkl_is_slow", lambda: hasattr(torch.ops.mkldnn, "_linear_pointwise"))
    monkeypatch.setattr(linear_module, "LEAST", 0)
    plain, prepared = built(name), prepare(built(name), CPU, training=training)
    for network in (plain, prepared):
        network.train(training)
    require_equal(answers(prepared), answers(plain), 1e-5)
    plain, prepared = (network.double().train(training) for network in (plain, prepared))
    require_equal(answers(prepared, torch.float64), answers(plain, torch.float64), 1e-13)


def test_in_float64_a_vision_transformer_is_the_same_to_the_bit():
    plain, prepared = built("vit", torch.float64), prepare(built("vit", torch.float64), CPU, training=False)
    ours, theirs = answers(prepared, torch.float64), answers(plain, torch.float64)
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


@pytest.mark.parametrize("name", NETWORKS)
def test_parameters_and_names_are_the_same_objects(name):
    network = built(name)
    before = {key: (value.data_ptr(), value.clone()) for key, value in network.state_dict().items()}
    parameters, random = list(network.parameters()), torch.get_rng_state()
    prepared = prepare(network, CPU, training=False)
    assert prepared is network
    assert torch.equal(torch.get_rng_state(), random)
    assert all(a is b for a, b in zip(prepared.parameters(), parameters, strict=True))
    assert list(prepared.state_dict()) == list(before)
    for key, value in prepared.state_dict().items():
        assert value.data_ptr() == before[key][0]
        assert torch.equal(value, before[key][1])


@pytest.mark.parametrize("name", NETWORKS)
def test_preparing_twice_changes_nothing(name):
    network = prepare(built(name), CPU, training=True)
    expected, kinds = answers(network), [type(module) for module in network.modules()]
    prepare(network, CPU, training=True)
    assert [type(module) for module in network.modules()] == kinds
    require_equal(answers(network), expected, 0)


@pytest.mark.parametrize("name", ["text", "columns", "vit"])
def test_every_part_of_a_transformer_is_fast(name):
    network = prepare(built(name), CPU, training=True)
    if name == "vit":
        network = network.encoder
    kinds = {type(module) for module in network.modules()}
    assert kinds.isdisjoint(COUNTERPARTS)
    assert {Linear, Dropout} < kinds
    for kind in kinds & set(COUNTERPARTS.values()):
        plain = next(a for a, b in COUNTERPARTS.items() if b is kind)
        assert issubclass(kind, plain)


@pytest.mark.parametrize("name", ["alexnet", "vgg11", "googlenet", "mobilenet_v3_small"])
def test_other_networks_keep_torchs_layers(name):
    with torch.device("meta"):
        network = models.build(name)
    kinds = [type(module) for module in network.modules()]
    prepare(network, torch.device("meta"), training=True)
    assert [type(module) for module in network.modules()] == kinds


def test_the_dropout_of_patches_and_the_classifier_are_torchs():
    """They have their own draws and rounding, which a run from before must find again."""
    network = prepare(models.build("vit_ti_16", input_size=32), CPU, training=True)
    assert type(network.dropout) is nn.Dropout
    assert type(network.heads.head) is nn.Linear


def test_rates_of_dropout_and_stochastic_depth_reach_a_prepared_network():
    network = prepare(models.build("vit_ti_16", input_size=32), CPU, training=True)
    set_dropout(network, 0.2)
    set_drop_path(network, 0.3)
    assert {module.p for module in network.modules() if isinstance(module, nn.Dropout)} == {0.2}
    assert network.encoder.layers[-1].drop_rate == pytest.approx(0.3)


@pytest.mark.parametrize("name", ["text", "columns", "vit"])
def test_a_copy_is_prepared_and_separate(name):
    network = prepare(built(name), CPU, training=True)
    twin = copy.deepcopy(network)
    assert [type(module) for module in twin.modules()] == [type(module) for module in network.modules()]
    require_equal(answers(twin), answers(network), 0)
    assert not {id(p) for p in network.parameters()} & {id(p) for p in twin.parameters()}


@pytest.mark.parametrize("name", ["text", pytest.param("columns", marks=pytest.mark.slow), "vit"])
def test_it_compiles_whole_and_exports(name):
    """The compiler's own back end takes minutes; what it is given shows without. No part stays in Python."""
    network = prepare(built(name), CPU, training=False).eval()
    arguments, expected, more = inputs(network)
    with torch.no_grad():
        logits = network(*arguments, **more)
        torch.compiler.reset()
        compiled = torch.compile(network, backend="eager", fullgraph=True)
        program = torch.export.export(network, arguments, more).module()
        real = slice(None) if expected is None else expected != 0
        for other in (compiled, program):
            torch.testing.assert_close(other(*arguments, **more)[real], logits[real], atol=1e-5, rtol=1e-5)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch.jit's own, of 2.13
def test_a_prepared_vision_transformer_scripts():
    network = prepare(built("vit"), CPU, training=False).eval()
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(torch.jit.script(network)(images), network(images))


def test_wide_convolutions_have_channels_last_in_training():
    for name, training, channels_last in (
        ("resnet20", True, True), ("resnet20", False, False), ("lenet", True, False),
    ):  # fmt: skip
        network = prepare(models.build(name), CPU, training=training)
        weights = [m.weight for m in network.modules() if isinstance(m, nn.Conv2d) and m.kernel_size[0] > 1]
        assert {w.is_contiguous(memory_format=torch.channels_last) for w in weights} == {channels_last}


def test_importing_loads_no_torch_and_changes_nothing():
    """The processor is read, and malloc told, when a network is prepared or used."""
    code = """
import sys
import striate.kernels
assert "torch" not in sys.modules
import striate.kernels.installation, striate.kernels.folding, striate.kernels.prepacking, striate.device
from striate.kernels import allocator, linear
striate.device.choose("cpu")
assert not linear.mkl_is_slow.cache_info().currsize
assert not allocator.keep.cache_info().currsize
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
