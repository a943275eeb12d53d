"""Every count of facts.py is counted again on the networks, which are built without memory (meta device)."""

import copy
import importlib
import json
import math
import re
from functools import cache

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from striate import facts
from striate.models import MODELS, build, googlenet, vgg, vit
from striate.models.lenet5 import RadialBasis, Subsampling, TableConv2d
from striate.models.resnet import Bottleneck


@cache
def _network(name, arguments):
    with torch.device("meta"):
        return build(name, **dict(arguments)).eval()


def build_meta(name, arguments):
    """A network without memory; the same one for the same arguments."""
    return _network(name, tuple(arguments.items()))


def network_of(count):
    return build_meta(count.network, count.arguments)


def images_for(count):
    entry = MODELS[count.network]
    size = count.arguments.get("input_size", entry.input_size)
    return torch.empty(1, entry.channels, size, size, device="meta")


def parameters(module):
    return sum(p.numel() for p in module.parameters())


@cache
def _macs(name, arguments):
    return _macs_of(build_meta(name, dict(arguments)), name, dict(arguments))


def _macs_of(network, name, arguments, module=""):
    size = arguments.get("input_size", MODELS[name].input_size)
    images = torch.empty(1, MODELS[name].channels, size, size, device="meta")
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        network(images)
    counts = counter.get_flop_counts()
    flops = sum(counts[f"{type(network).__name__}.{module}" if module else "Global"].values())
    assert flops % 2 == 0
    return flops // 2


def macs(count):
    return _macs(count.network, tuple(count.arguments.items()))


def outputs(network, images, kinds):
    """Each module of those kinds with the output that it gave, in the order of the call."""
    seen = []
    hooks = [
        module.register_forward_hook(lambda module, _, out: seen.append((module, out)))
        for module in network.modules()
        if isinstance(module, kinds)
    ]
    with torch.no_grad():
        network(images)
    for hook in hooks:
        hook.remove()
    return seen


def macs_by_hand(network, images):
    """What the field's formula gives: every output of a layer costs as many as it has inputs."""
    total = 0
    for module, out in outputs(network, images, (nn.Conv2d, nn.Linear)):
        inputs = math.prod(module.weight.shape[1:])
        total += out.numel() * inputs
    return total


def macs_stride_first(count):
    """The paper's bottlenecks: the first 1x1 has the stride, not the 3x3."""
    network = copy.deepcopy(network_of(count))
    for block in network.modules():
        if isinstance(block, Bottleneck):
            block.conv1.stride, block.conv2.stride = block.conv2.stride, block.conv1.stride
    return _macs_of(network, count.network, {})


def connections(count):
    """Section II.B of LeNet-5: an output has one connection to each input and one to its bias."""
    total = 0
    kinds = (nn.Conv2d, nn.Linear, TableConv2d, Subsampling, RadialBasis)
    for module, out in outputs(network_of(count), images_for(count), kinds):
        if isinstance(module, RadialBasis):
            total += module.codes.numel()
        elif isinstance(module, Subsampling):
            total += out.numel() * (4 + 1)
        elif isinstance(module, nn.Linear):
            total += parameters(module)
        else:
            total += parameters(module) * out.shape[2] * out.shape[3]
    return total


def neurons(count):
    return [out.numel() for _, out in outputs(network_of(count), images_for(count), (nn.Conv2d, nn.Linear))]


def depth(count):
    """Convolutions and fully connected layers on the longest way, which the shortcuts are not on."""
    beside = re.compile(r"downsample|branch[134]")
    layers = [
        name
        for name, module in network_of(count).named_modules()
        if isinstance(module, (nn.Conv2d, nn.Linear)) and not beside.search(name)
    ]
    return len(layers)


def weights(module):
    return sum(layer.weight.numel() for layer in module.modules() if isinstance(layer, nn.Conv2d))


def three_of_3x3(count):
    last_stage = [layer for layer in network_of(count).features if isinstance(layer, nn.Conv2d)][-3:]
    assert [layer.kernel_size for layer in last_stage] == [(3, 3)] * 3
    return sum(layer.weight.numel() for layer in last_stage) / 512**2


def one_of_7x7(_count):
    return nn.Conv2d(8, 8, 7).weight.numel() / 8**2


RECOUNTS = {
    r"parameters": lambda count: parameters(network_of(count)),
    r"parameters of (\w+)": lambda count, layer: parameters(getattr(network_of(count), layer.lower())),
    r"parameters without the classifier": lambda count: (
        parameters(network_of(count)) - parameters(network_of(count).heads)
    ),
    r"times fewer parameters than (\w+)": lambda count, other: (
        parameters(build_meta(other, {})) / parameters(network_of(count))
    ),
    r"fixed weights of the output": lambda count: network_of(count).output.codes.numel(),
    r"connections": connections,
    r"neurons": lambda count: sum(neurons(count)),
    r"neurons of layer (\d)": lambda count, layer: neurons(count)[int(layer) - 1],
    r"layers in depth": depth,
    r"encoder layers": lambda count: len(network_of(count).encoder.layers),
    r"width": lambda count: network_of(count).class_token.shape[2],
    r"heads": lambda count: network_of(count).encoder.layers[0].self_attention.heads,
    r"weights of inception (\w+)": lambda count, block: weights(
        getattr(network_of(count), f"inception{block}")
    ),
    r"MACs": macs,
    r"MACs of inception (\w+)": lambda count, block: _macs_of(
        network_of(count), count.network, count.arguments, f"inception{block}"
    ),
    r"MACs with the stride in the first 1x1": macs_stride_first,
    r"weights of three 3x3 layers, over C\^2": three_of_3x3,
    r"weights of one 7x7 layer, over C\^2": one_of_7x7,
    r"percent more in the 7x7 layer": lambda count: 100 * (one_of_7x7(count) / three_of_3x3(count) - 1),
}


def recount(count):
    for pattern, function in RECOUNTS.items():
        match = re.fullmatch(pattern, count.quantity)
        if match:
            return function(count, *match.groups())
    raise AssertionError(f"nothing recounts {count.quantity!r}")


def name_of(count):
    arguments = " ".join(f"{key}={value}" for key, value in count.arguments.items())
    return f"{count.network} {arguments} {count.quantity} {count.value:.12g}"


@pytest.mark.parametrize("count", facts.COUNTS, ids=name_of)
def test_a_printed_count_is_what_the_network_has(count):
    actual = recount(count)
    if count.differs is None:
        assert abs(actual - count.value) <= count.step / 2, f"counted {actual}"
    else:
        assert actual == pytest.approx(count.differs, rel=1e-12)
        assert abs(actual - count.value) > count.step / 2, "it does round to the printed number"


STATED = re.compile(r"([\d.,]+?)( [MG])? (parameters|multiply-adds)")
UNITS = {None: 1.0, " M": 1e6, " G": 1e9}


def states(text):
    """Each `11.7 M parameters` or `60,000 parameters` of a text: what, value, worth of the last digit."""
    for number, unit, what in STATED.findall(text):
        digits = number.replace(",", "")
        step = 10.0 ** -len(digits.partition(".")[2]) * UNITS[unit or None]
        yield what, float(digits) * UNITS[unit or None], step


@pytest.mark.parametrize("name", MODELS)
def test_docstrings_state_what_is_counted(name):
    """What a network's function says of it; of GoogLeNet without its heads."""
    module = importlib.import_module(f"striate.models.{MODELS[name].file}")
    arguments = {"auxiliary": False} if name.startswith("googlenet") else {}
    for what, value, step in states(getattr(module, name).__doc__):
        counted = parameters(build_meta(name, arguments))
        if what == "multiply-adds":
            counted = _macs(name, tuple(arguments.items()))
        assert abs(counted - value) <= step / 2, f"{what}: {counted}"


def test_docstrings_are_read():
    assert list(states("5.5 M parameters, 217 M multiply-adds, 60,000 parameters.")) == [
        ("parameters", 5.5e6, 1e5),
        ("multiply-adds", 217e6, 1e6),
        ("parameters", 60_000, 1),
    ]
    texts = [facts_of.__doc__ for facts_of in (vgg.vgg16, googlenet.googlenet, vit.vit_s_16)]
    assert all(len(list(states(text))) == 2 for text in texts)


CONVOLUTIONAL = sorted(
    name for name in MODELS if not name.startswith("vit") and name not in ("lenet5", "resnet1202")
)


DEEP = (
    "resnet44",
    "resnet56",
    "resnet110",
    "resnet101",
    "resnet152",
    "efficientnet_lite1",
    "efficientnet_lite2",
)  # as others, with more blocks


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=pytest.mark.slow) if name in DEEP else name for name in CONVOLUTIONAL],
)
def test_two_ways_of_counting_macs_agree(name):
    network = build_meta(name, {})
    images = torch.empty(1, 3, MODELS[name].input_size, MODELS[name].input_size, device="meta")
    assert macs_by_hand(network, images) == _macs(name, ())


@pytest.mark.parametrize(("name", "patch"), [("vit_ti_16", 16), ("vit_b_32", 32)])
def test_macs_of_a_vision_transformer_follow_from_its_sizes(name, patch):
    network = build_meta(name, {})
    width, depth = network.class_token.shape[2], len(network.encoder.layers)
    patches = (224 // patch) ** 2
    tokens = patches + 1
    layer = tokens * (4 + 2 * 4) * width**2 + 2 * tokens**2 * width  # projections, feed-forward, attention
    assert _macs(name, ()) == patches * 3 * patch**2 * width + depth * layer + 1000 * width


def test_every_network_has_a_count_that_is_exact():
    exact = {count.network for count in facts.COUNTS if count.step == 1}
    assert exact == set(MODELS)


def test_facts_are_said_once():
    counts = [(c.network, c.quantity, str(c.arguments), c.value, c.source) for c in facts.COUNTS]
    results = [(r.network, r.measure, r.on, r.source) for r in facts.RESULTS]
    assert len(set(counts)) == len(counts)
    assert len(set(results)) == len(results)


def test_results_are_percentages_and_top_5_is_the_easier_task():
    pairs = {}
    for result in facts.RESULTS:
        assert 0 < result.percent < 100
        pairs.setdefault((result.network, result.on, result.source), {})[result.measure] = result.percent
    both = [pair for pair in pairs.values() if "top-5 error" in pair and "top-1 error" in pair]
    assert len(both) > 10
    assert all(pair["top-5 error"] < pair["top-1 error"] for pair in both)
    both = [pair for pair in pairs.values() if "top-5 accuracy" in pair]
    assert all(pair["top-5 accuracy"] > pair["top-1 accuracy"] for pair in both)


def test_torchvision_figures_are_those_of_its_metadata(shared):
    theirs = json.loads((shared / "oracle" / "facts.json").read_text("utf-8"))["torchvision_models"]
    for name, (params, gmacs, accuracies) in facts.TORCHVISION.items():
        weights = theirs[name]["weights"]
        assert params == weights["IMAGENET1K_V1"]["num_params_meta"]
        assert gmacs == weights["IMAGENET1K_V1"]["gflops_meta"]
        for key, (top1, top5) in accuracies.items():
            assert weights[key]["metrics"]["ImageNet-1K"] == {"acc@1": top1, "acc@5": top5}
    assert set(facts.TORCHVISION) == set(theirs) & set(MODELS)


def test_papers_results_are_those_collected(shared):
    papers = json.loads((shared / "oracle" / "facts.json").read_text("utf-8"))["papers"]

    def ours(network, measure, source):
        found = [
            r.percent
            for r in facts.RESULTS
            if (r.network, r.measure) == (network, measure) and source in r.source
        ]
        assert len(found) == 1
        return found[0]

    resnet = papers["resnet"]
    for layers, error in resnet["cifar10"]["value"].items():
        assert str(error).startswith(str(ours(f"resnet{layers}", "error", "table 6")))
    for key, theirs in resnet["ten_crop_val"]["value"].items():
        network = {"34B": "resnet34"}.get(key, key if key.startswith("plain") else f"resnet{key}")
        if key not in ("34A", "34C"):
            assert theirs[0] == ours(network, "top-1 error", "tables 2 and 3")
            assert theirs[1] is None or theirs[1] == ours(network, "top-5 error", "tables 2 and 3")
    for key, theirs in resnet["single_model_val"]["value"].items():
        if key != "34C":
            network = f"resnet{key.removesuffix('B')}"
            assert theirs == [ours(network, f"top-{k} error", "table 4") for k in (1, 5)]
    for key, theirs in papers["vgg"]["single_scale_val"]["value"].items():
        network = {"A": "vgg11", "B": "vgg13", "D": "vgg16", "E": "vgg19"}.get(key.split()[0])
        if network:
            assert theirs == [ours(network, f"top-{k} error", "1409.1556") for k in (1, 5)]
    vit = [r for r in facts.RESULTS if "2010.11929" in r.source]
    collected = papers["vit"]["imagenet_top1"]["value"]
    assert len(vit) == 9
    for result in vit:
        before = result.on.rsplit(" ", 1)[1]
        assert collected[f"pretrain {before}"][f"{result.network[4].upper()}/{result.network[6:]}"] == (
            result.percent
        )
