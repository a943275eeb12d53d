"""What every network of MODELS can be: of other classes and channels, scripted, exported, copied, on meta."""

import copy
import time
import warnings

import pytest
import torch
from torch import nn

from striate.errors import LayoutError, UsageError
from striate.models import MODELS, build

# Compared on real images; the others on the meta device, where only shapes can be compared.
SMALL = (
    "lenet",
    "lenet5",
    "resnet20",
    "googlenet_2014",
    "mobilenet_v3_small",
    "vit_ti_16",
    "efficientnet_lite0",
)
# These differ from others of their files in how often or how wide a block comes: for `make test-slow`.
DEEP = (
    "resnet101",
    "resnet152",
    "resnet32",
    "resnet44",
    "resnet56",
    "resnet110",
    "resnet1202",
    "efficientnet_lite1",
    "efficientnet_lite2",
)
WIDE = (
    "vgg13", "vgg19", "vgg13_bn", "vgg16_bn", "vgg19_bn", "resnet34", "mobilenet_v3_large",
    "vit_s_16", "vit_b_16", "vit_b_32", "vit_l_16",
)  # fmt: skip


def with_slow(names, slow):
    """The names, those of `slow` marked so."""
    return [pytest.param(name, marks=pytest.mark.slow) if name in slow else name for name in names]


ALL = with_slow(MODELS, DEEP)
LARGE = with_slow([name for name in MODELS if name not in SMALL], DEEP + WIDE)


def on_meta(name, **arguments):
    with torch.device("meta"):
        return build(name, **arguments)


def images_for(name, channels=None):
    entry = MODELS[name]
    return torch.empty(2, channels or entry.channels, entry.input_size, entry.input_size, device="meta")


def scripted(network):
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=DeprecationWarning)  # torch.jit's own, of 2.13
        return torch.jit.script(network)


@pytest.mark.parametrize("name", ALL)
def test_classes_and_channels(name):
    network = on_meta(name, num_classes=7, in_channels=2).eval()
    assert network(images_for(name, channels=2)).shape == (2, 7)


@pytest.mark.parametrize("name", ALL)
def test_a_row_names_the_first_and_the_last_layer(name):
    network, row = on_meta(name, in_channels=2), MODELS[name]
    kinds = (nn.Conv2d, nn.Linear)  # a classifier can be a 1x1 convolution
    layers = [key for key, module in network.named_modules() if isinstance(module, kinds)]
    assert row.first_conv == layers[0]
    assert network.get_submodule(row.first_conv).in_channels == 2
    assert row.classifier == layers[-1]
    assert row.auxiliary == hasattr(network, "aux1")


@pytest.mark.parametrize("name", ALL)
def test_training_gives_every_parameter_a_gradient(name):
    network = on_meta(name).train()
    scores = network(images_for(name))
    scores = [scores] if isinstance(scores, torch.Tensor) else scores
    sum(score.sum() for score in scores).backward()
    assert [key for key, p in network.named_parameters() if p.grad is None] == []


@pytest.mark.parametrize("name", LARGE)
def test_scripts(name):
    network = on_meta(name).eval()
    images = images_for(name)
    assert scripted(network)(images).shape == network(images).shape


@pytest.mark.parametrize("name", LARGE)
def test_exports(name):
    network = on_meta(name).eval()
    images = images_for(name)
    program = torch.export.export(network, (images,))
    assert program.module()(images).shape == network(images).shape
    assert set(program.state_dict) == set(network.state_dict())


@pytest.mark.parametrize("name", ALL)
def test_deep_copies(name):
    network = on_meta(name)
    twin = copy.deepcopy(network)
    assert list(twin.state_dict()) == list(network.state_dict())
    shared = {id(p) for p in network.parameters()} & {id(p) for p in twin.parameters()}
    assert not shared


@pytest.mark.parametrize("name", SMALL)
def test_scripted_exported_and_copied_networks_answer_alike(name):
    arguments = {"input_size": 64} if MODELS[name].sizes == "argument" else {}
    network = build(name, **arguments).eval()
    # The initial classifier of a Vision Transformer is zero, which would make any two of them agree.
    for key, value in network.named_parameters():
        if key.startswith("heads."):
            nn.init.normal_(value, generator=torch.Generator().manual_seed(1))
    size = 32 if MODELS[name].sizes == "one" else 64
    images = torch.rand(1, MODELS[name].channels, size, size, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = network(images)
        assert expected.std() > 0
        program = torch.export.export(network, (images,))
        for other in (scripted(network), program.module(), copy.deepcopy(network)):
            torch.testing.assert_close(other(images), expected)


@pytest.mark.parametrize("name", ALL)
def test_on_meta_it_takes_no_memory_and_milliseconds(name):
    seconds = []
    for _ in range(2):  # the first may load a part of torch
        start = time.process_time()
        network = on_meta(name)
        seconds.append(time.process_time() - start)
    tensors = [*network.parameters(), *network.buffers()]
    assert all(tensor.is_meta for tensor in tensors)
    modules = sum(1 for _ in network.modules())
    assert min(seconds) < 0.05 + 0.001 * modules


BATCH_NORMALISED = [
    name for name in MODELS if name.startswith(("resnet", "mobilenet")) or name.endswith("_bn")
]


@pytest.mark.parametrize("name", with_slow([*BATCH_NORMALISED, "googlenet"], DEEP))
def test_convolution_before_batch_norm_has_no_bias(name):
    network = on_meta(name)
    biased = [
        key
        for key, module in network.named_modules()
        if isinstance(module, nn.Conv2d) and module.bias is not None
    ]
    if name.startswith("vgg"):  # where the original has it
        assert len(biased) == sum(isinstance(m, nn.Conv2d) for m in network.modules())
    else:
        assert all(
            key.endswith(("block.1.fc1", "block.1.fc2", "block.2.fc1", "block.2.fc2")) for key in biased
        )


TOO_SMALL = {"alexnet": 62, "alexnet_2012": 62, "vgg11": 31, "vgg19_bn": 31, "googlenet": 14}


@pytest.mark.parametrize("name", TOO_SMALL)
def test_images_of_which_nothing_would_be_left_are_refused(name):
    network = on_meta(name).eval()
    size = TOO_SMALL[name]
    with pytest.raises(LayoutError, match=f"below {size + 1} px"):
        network(torch.empty(1, 3, 224, size, device="meta"))
    assert network(torch.empty(1, 3, size + 1, size + 1, device="meta")).shape == (1, 1000)


@pytest.mark.parametrize("name", ["alexnet", "vgg16", "googlenet", "mobilenet_v3_large", "vit_b_32"])
def test_other_layouts_are_refused_with_the_way_out(name):
    network = on_meta(name)
    with pytest.raises(LayoutError, match="permute"):
        network(torch.empty(1, 224, 224, 3, device="meta"))
    with pytest.raises(LayoutError, match="unsqueeze"):
        network(torch.empty(3, 224, 224, device="meta"))
    with pytest.raises(LayoutError, match="in_channels"):
        network(torch.empty(1, 1, 224, 224, device="meta"))


def test_unknown_names_and_arguments():
    with pytest.raises(UsageError, match="vgg16"):
        build("vgg_16")
    with pytest.raises(UsageError, match="It takes num_classes, in_channels, auxiliary"):
        build("googlenet", aux_logits=False)
