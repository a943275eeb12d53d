"""ONNX files: their scores are those of the network, and `onnx` finds them valid."""

import json
import sys

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from striate import models
from striate.bundle import Description
from striate.errors import StriateWarning, WriteError
from striate.explain import Explainer, compute
from striate.exporters import export
from striate.exporters.onnx import graph, operators
from striate.exporters.onnx.file import encode
from striate.exporters.onnx.recorder import UnsupportedError
from striate.inference.classifier import Classifier
from striate.transforms.preprocess import Preprocess

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

FAST = {
    "lenet": 32, "lenet5": 32, "googlenet": 64, "googlenet_2014": 64, "resnet20": 32,
    "efficientnet_lite0": 64, "mobilenet_v3_small": 64, "vit_ti_16": 32,
}  # fmt: skip


def classifier(name, size=None, classes=3):
    """A network with random weights and statistics, as after training."""
    torch.manual_seed(0)
    entry = models.describe(name)
    size = size or entry.input_size
    sized = {"input_size": size} if entry.sizes == "argument" else {}
    arguments = {"num_classes": classes, **sized}
    network = models.build(name, **arguments).eval()
    nn.init.normal_(list(network.parameters())[-2], std=0.1)  # a ViT's classifier begins at zero
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = None  # the statistics become those of the one batch
        if len(norms) > 300:  # otherwise the sums of ResNet-1202 exceed float32
            nn.init.constant_(norm.weight, 0.1)
    if norms:
        with torch.no_grad():
            network.train()(torch.randn(2, entry.channels, size, size))
        network.eval()
    elif not any(isinstance(module, nn.LayerNorm) for module in network.modules()):
        for module in network.modules():  # those of AlexNet (2012) and GoogLeNet (2014) begin near zero
            if isinstance(module, (nn.Conv2d, nn.Linear)):
                nn.init.kaiming_normal_(module.weight)
    for norm in norms:
        norm.running_mean.add_(0.3 * norm.running_var.sqrt() * torch.randn_like(norm.running_mean))
        norm.running_var.mul_(torch.empty_like(norm.running_var).uniform_(0.5, 2))
    preprocess = Preprocess.for_size(size, entry.channels)
    description = Description("classification", name, arguments, tuple("abcdefgh"[:classes]), preprocess)
    return Classifier(network, description, torch.device("cpu"))


def scores_of(network, shape, count):
    """The scores of a module and of its graph for `count` float images."""
    preprocess = Preprocess(size=shape[1:], resize="squash", channels=shape[0], mean=(0.5,) * shape[0],
                            std=(0.5,) * shape[0])  # fmt: skip
    content = b"".join(encode(graph(network.eval(), preprocess, floats=True), ("test", "1"), {}))
    onnx.checker.check_model(onnx.load_from_string(content), full_check=True)
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    images = torch.randn(count, *shape, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        return network(images).numpy(), session.run(None, {"images": images.numpy()})[0]


@pytest.mark.parametrize("name", FAST)  # test_onnx_files.py has all
def test_every_network(name, tmp_path):
    original = classifier(name, FAST[name])
    file = tmp_path / "model.onnx"
    parity = export(original, file, "onnx")
    assert parity.equal == parity.n
    assert parity.max_difference < 1e-5
    onnx.checker.check_model(str(file), full_check=True)


def test_the_file_has_the_names_and_the_description(tmp_path):
    original = classifier("resnet20")
    export(original, tmp_path / "model.onnx", "onnx")
    model = onnx.load(tmp_path / "model.onnx")
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    assert json.loads(metadata["classes"]) == ["a", "b", "c"]
    assert Description.from_json(json.loads(metadata["striate"])) == original.description
    (image,), (scores, maps) = model.graph.input, model.graph.output
    dimensions = [d.dim_param or d.dim_value for d in image.type.tensor_type.shape.dim]
    assert dimensions == ["batch", 32, 32, 3]
    assert image.type.tensor_type.elem_type == onnx.TensorProto.UINT8
    assert [d.dim_param or d.dim_value for d in scores.type.tensor_type.shape.dim] == ["batch", 3]
    assert [d.dim_param or d.dim_value for d in maps.type.tensor_type.shape.dim] == ["batch", 8, 8]
    weights = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    name, last = list(original.network.named_parameters())[-2]
    assert np.array_equal(weights[name], last.detach().numpy())
    assert not any(node.op_type == "BatchNormalization" for node in model.graph.node)


def test_float_images_and_pixels_have_the_same_scores(tmp_path, few_colors):
    original = classifier("lenet")
    samples = sorted(map(str, few_colors.rglob("*.png")))[:4]
    parities = [export(original, tmp_path / f"{name}.onnx", name, samples) for name in ("onnx", "onnx-float")]
    assert [parity.n for parity in parities] == [4, 4]
    images = np.stack([original.preprocess.read(sample) for sample in samples])
    inputs = images, original.preprocess.normalize(torch.from_numpy(images)).numpy()
    sessions = [onnxruntime.InferenceSession(tmp_path / f"{n}.onnx") for n in ("onnx", "onnx-float")]
    one, other = (s.run(None, {"images": x})[0] for s, x in zip(sessions, inputs, strict=True))
    assert np.allclose(one, other, atol=1e-5 * abs(other).max())


SLOW_HEADS = [pytest.param(name, marks=pytest.mark.slow) for name in ("resnet18", "googlenet")]


@pytest.mark.parametrize("name", ["resnet20", "efficientnet_lite0", *SLOW_HEADS])
def test_maps_of_a_linear_head_are_those_of_grad_cam(name):
    """For the most probable class, of any number of images; the scores are the same."""
    model = classifier(name, FAST.get(name, 64), classes=7)
    content = b"".join(encode(graph(model.network, model.preprocess), ("test", "1"), {}))
    session = onnxruntime.InferenceSession(content)
    assert [output.name for output in session.get_outputs()] == ["scores", "maps"]
    pixels = np.random.default_rng(1).integers(0, 256, (3, *model.preprocess.size, 3), np.uint8)
    scores, maps = session.run(None, {"images": pixels})
    plain = Explainer(model.network, (3, *model.preprocess.size))
    for image, row, values in zip(
        model.preprocess.normalize(torch.from_numpy(pixels)), scores, maps, strict=True
    ):
        expected = compute(plain, image[None], int(row.argmax())).numpy()
        assert np.abs(values - expected).max() <= 1e-4 * expected.max()
        assert expected.max() > 0
    assert np.array_equal(session.run(["scores"], {"images": pixels})[0], scores)


class Headed(nn.Module):
    """Ends in a mean of its maps and one linear layer, or in something that is not the same."""

    def __init__(self, kind):
        super().__init__()
        self.conv, self.linear, self.kind = nn.Conv2d(3, 4, 3), nn.Linear(4, 3), kind

    def forward(self, x):
        x = self.conv(x).relu()
        if self.kind == "mean":
            return self.linear(F.dropout(x.mean((-1, -2), keepdim=True), 0.5, self.training).flatten(1))
        if self.kind == "activation":
            return self.linear(x.mean((2, 3)).tanh())
        if self.kind == "softmax":
            return self.linear(x.mean((2, 3))).softmax(1)
        return self.linear(
            F.adaptive_max_pool2d(x, 1).flatten(1) if self.kind == "max" else x.mean(3)[..., 0]
        )


def test_only_linear_heads_have_maps():
    preprocess = Preprocess.for_size(9, 3)
    for kind, count in {"mean": 2, "activation": 1, "softmax": 1, "row": 1}.items():
        assert len(graph(Headed(kind).eval(), preprocess).outputs) == count
        assert len(graph(Headed(kind).eval(), preprocess, floats=True).outputs) == 1


class Layers(nn.Module):
    """Operators that few of the networks have."""

    def __init__(self):
        super().__init__()
        self.token = nn.Parameter(torch.randn(1, 1, 4))
        self.norm = nn.BatchNorm2d(3)
        self.same = nn.Conv2d(3, 6, (3, 5), padding="same", groups=3, bias=False)
        self.twice = nn.Conv2d(6, 6, 1)
        self.norm2 = nn.BatchNorm2d(6)
        with torch.no_grad():
            for norm in (self.norm, self.norm2):
                norm.running_mean.normal_()
                norm.running_var.uniform_(0.5, 2)

    def forward(self, x):
        x = self.same(self.norm(x))
        x = self.twice(x) + self.norm2(self.twice(x))  # its weights are used twice: the norm stays
        a = F.adaptive_avg_pool2d(x, (3, 4))
        b = F.avg_pool2d(F.max_pool2d(x, 3, 2, 1, ceil_mode=True), 2, padding=1, count_include_pad=False)
        c = F.pad(x, (1, 0, 2, -1), value=0.5)[:, 1:5:2, ::2].clamp(min=-1)
        parts = [part.flatten(1) for part in (a, b, c, *x.split([1, 5], 1), *torch.chunk(x, 2, 2))]
        flat = torch.cat([*parts, x.unbind(1)[2].flatten(1), x.sum((1, 2)), x.mean(3).flatten(1)], 1)
        flat = F.gelu(flat, approximate="tanh") - 2 * F.silu(flat) + F.relu6(flat * 3).exp()
        rows = torch.cat([self.token.expand(len(x), -1, -1), flat[:, :80].reshape(-1, 20, 4)], 1)
        mixed = F.scaled_dot_product_attention(rows[:, None], rows[:, None], rows[:, None], scale=0.3)
        return (mixed.squeeze(1).transpose(1, 2) @ rows).flatten(1) / 2 + F.softmax(flat[:, :16], 1)


@pytest.mark.parametrize("count", [1, 5])
def test_the_rules_of_operators(count):
    torch.manual_seed(0)
    ours, theirs = scores_of(Layers(), (3, 9, 11), count)
    assert np.abs(ours - theirs).max() < 1e-5 * np.abs(ours).max()


class Function(nn.Module):
    """A network without layers."""

    def __init__(self, function):
        super().__init__()
        self.forward = function


@pytest.mark.parametrize(
    "function",
    [
        lambda x: x.mean((2, 3)) * torch.arange(3),
        lambda x: x.flatten(1) * torch.tensor([True]),
        lambda x: F.linear(x.flatten(1)[:, :4], x[0, 0, :2, :4]),
    ],
    ids=["integers", "booleans", "weights from images"],
)
def test_operators_of_mixed_types(function):
    for _ in range(2):  # the second time the shapes of the views of the images are known
        ours, theirs = scores_of(Function(function), (3, 8, 8), 4)
        assert np.abs(ours - theirs).max() < 1e-5 * np.abs(ours).max()


class MoreLayers(nn.Module):
    """Layers and functions of other libraries' networks."""

    def __init__(self):
        super().__init__()
        self.grow = nn.ConvTranspose2d(3, 8, 3, stride=2, padding=1, output_padding=1, groups=1)
        self.group = nn.GroupNorm(2, 8)
        self.instance = nn.InstanceNorm2d(8, affine=True)
        self.prelu, self.one = nn.PReLU(8), nn.PReLU()
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.add_(0.3 * torch.randn_like(parameter))
        self.register_buffer("order", torch.randperm(8))

    def forward(self, x):
        x = self.instance(self.prelu(self.group(self.grow(x))))
        a = F.leaky_relu(x, 0.1) + F.elu(x, 0.7) + F.celu(x, 1.3) + F.selu(x) + F.softplus(x) + F.mish(x)
        b = 1 - x.abs() + 2 ** x.clamp(max=2) + (x * x + 1).rsqrt() + F.logsigmoid(x) + self.one(x)
        c = F.glu(torch.cat([a, b], 1), 1).to(torch.float32) + F.dropout(x, training=False)
        c = c[:, self.order].roll((1, -2), (2, 3)).flip((1, 3))
        c = c + torch.maximum(a, b).index_select(1, self.order)
        mask = torch.ones(c.shape[2:], dtype=torch.bool).triu()
        d = torch.where(mask, c, a).masked_fill(mask.flip(0), -0.5)
        d = (d + x.new_zeros(1, 8, 1, 1) + torch.ones_like(a)).addcmul(a, b, value=0.3)
        e = F.interpolate(d, scale_factor=2) + F.interpolate(d, size=(24, 20), mode="bilinear")
        e = F.pixel_shuffle(e, 2) + F.interpolate(d[:, :2], (48, 40), mode="bilinear", align_corners=True)
        rows = d.flatten(2)[:, :, :12].swapaxes(1, 2)
        causal = F.scaled_dot_product_attention(rows, rows, rows, is_causal=True)
        masked = F.scaled_dot_product_attention(rows, rows, rows, attn_mask=torch.eye(12, dtype=torch.bool))
        h = F.layer_norm(causal + masked, (8,)) + F.normalize(rows, dim=-1)
        parts = (torch.einsum("bchw,bdhw->bcd", e, e), h, F.adaptive_max_pool2d(e, (3, 4)))
        parts += (F.adaptive_avg_pool1d(rows, 3), F.max_pool1d(rows, 2), torch.stack([rows, rows + 1], 1))
        parts += (rows.repeat(1, 2, 1), d.amax((2, 3)), d.amin(1))
        flat = torch.cat([part.flatten(1) for part in parts], 1)
        sums = torch.baddbmm(flat[:, None, :4], flat[:, None, :4], flat[:, :16].reshape(-1, 4, 4))
        return torch.cat([flat, sums.flatten(1), F.log_softmax(flat, 1)], 1)


@pytest.mark.parametrize("count", [1, 4])
def test_the_rules_of_more_operators(count):
    torch.manual_seed(0)
    ours, theirs = scores_of(MoreLayers(), (3, 6, 5), count)
    assert np.abs(ours - theirs).max() < 1e-5 * np.abs(ours).max()


class SharedBias(nn.Module):
    def __init__(self):
        super().__init__()
        self.one, self.two, self.norm = nn.Conv2d(3, 4, 1), nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)
        self.two.bias = self.one.bias
        self.norm.running_mean.normal_()

    def forward(self, x):
        return (self.one(x) + self.norm(self.two(x))).flatten(1)


def test_folding_leaves_a_bias_that_two_convolutions_share():
    torch.manual_seed(0)
    ours, theirs = scores_of(SharedBias(), (3, 4, 4), 2)
    assert np.abs(ours - theirs).max() < 1e-5 * np.abs(ours).max()


class InPlace(nn.Module):
    def forward(self, x):
        view = x[:, 0] * 1
        part = view[:, :2]
        view.relu_()
        return part.flatten(1)


class Counts(nn.Module):
    def forward(self, x):
        return x.mean((2, 3)) * torch.arange(len(x), device=x.device)[:, None]


class Branches(nn.Module):
    def forward(self, x):
        return x.mean((2, 3)) if len(x) > 2 else x.sum((2, 3))


class Padded(nn.Module):
    """Zeros around the input of a convolution, as TensorFlow's "same" padding adds them."""

    def __init__(self, *amounts, value=0.0, twice=False, padding=0, kind=nn.Conv2d):
        super().__init__()
        self.amounts, self.value, self.twice = amounts, value, twice
        self.layer = kind(3, 4, 3, stride=1 if padding == "same" else 2, padding=padding)

    def forward(self, x):
        x = F.pad(x, self.amounts, value=self.value)
        return self.layer(x).flatten(1) + (x.sum((1, 2, 3), keepdim=True)[:, 0, 0] if self.twice else 0)


@pytest.mark.parametrize(
    ("network", "pads"),
    [
        (Padded(0, 1, 0, 1), [0, 0, 1, 1]),
        (Padded(1, 2, 3, 0, padding=(1, 2)), [4, 3, 1, 4]),
        (Padded(1, 2, value=0.5), None),
        (Padded(1, -1, 0, 1), None),
        (Padded(0, 0, 0, 1, 1, 1), None),  # of the channels, too
        (Padded(0, 1, 0, 1, twice=True), None),
        (Padded(0, 1, 0, 1, kind=nn.ConvTranspose2d), None),
        (Padded(0, 1, 0, 1, padding="same"), None),
    ],
    ids=range(8),
)
def test_convolutions_add_zeros_themselves(network, pads):
    """So that int8, in which ONNX Runtime has no other padding, stays int8."""
    if len(network.amounts) > 4:
        network.layer = nn.Conv2d(5, 4, 3, stride=2)
    made = graph(network.eval(), Preprocess.for_size(9), floats=True)
    ops = [node.op for node in made.nodes]
    assert ("Pad" in ops) == (pads is None)
    if pads:
        assert made.nodes[ops.index("Conv")].attributes["pads"] == pads
    expected, found = scores_of(network, (3, 9, 9), 2)
    assert np.allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize(
    ("network", "why"),
    [
        (InPlace(), "changes a tensor that has another view"),
        (Counts(), "a constant depends on the number of images"),
        (Branches(), "its steps depend on the number of images"),
        (Function(lambda x: x.flatten(1) * len(x)), "the arguments of the operator mul"),
        (Function(lambda x: x.flatten(1)[: len(x) - 1]), "the arguments of the operator slice"),
        (Function(lambda x: x.mean(3).mean()), "the arguments of the operator mean"),
        (Function(lambda x: x.mean((2, 3)).to(torch.float64)), "a conversion to torch.float64"),
        (Function(lambda x: torch.where(x > 0, x, 2).flatten(1)), "no rule for the operator gt"),
        (Function(lambda x: x.roll(1, 0).flatten(1)), "the images of a batch are shifted"),
        (Function(lambda x: F.adaptive_max_pool2d(x, 3)), "cells of several sizes"),
        (Function(lambda x: x[:1].expand(len(x), -1, -1, -1)), "a tensor is repeated for each image"),
        (Function(lambda x: torch.cat(x.split(1))), "its steps depend on the number of images"),
        (Function(lambda x: torch.cat(x.chunk(2))), "the images of a batch are split"),
        (nn.Sequential(nn.Flatten(), nn.Hardshrink()), "no rule for the operator hardshrink"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_cannot_be_written_is_refused(network, why):
    with pytest.raises(UnsupportedError, match=why):
        graph(network, Preprocess.for_size(8), floats=True)


def test_a_file_with_other_scores_is_not_left(tmp_path, monkeypatch):
    monkeypatch.setitem(operators.OPERATORS, "relu", operators.OPERATORS["tanh"])
    cannot_run = operators.unary("Cast", to=2)  # to uint8, which no convolution takes
    for rule, why in (
        (operators.OPERATORS["tanh"], "its scores differ by"),
        (operators.unary("Log"), "its scores differ by nan"),
        (cannot_run, "ONNX Runtime cannot read it"),
    ):
        monkeypatch.setitem(operators.OPERATORS, "relu", rule)
        with pytest.raises(WriteError, match=why):
            export(classifier("resnet20"), tmp_path / "model.onnx", "onnx")
        assert not list(tmp_path.iterdir())


def test_scores_that_are_zero_or_not_finite(tmp_path):
    original = classifier("lenet")
    last = list(original.network.parameters())[-2:]
    with torch.no_grad():
        for parameter in last:
            parameter.zero_()
    assert export(original, tmp_path / "zero.onnx", "onnx").max_difference == 0
    with torch.no_grad():
        last[1].fill_(float("nan"))
    with pytest.raises(WriteError, match="the original has scores that are NaN"):
        export(original, tmp_path / "nan.onnx", "onnx")
    assert not (tmp_path / "nan.onnx").exists()


def test_without_onnxruntime_it_is_written_but_not_compared(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.warns(StriateWarning, match="was not compared"):
        parity = export(classifier("lenet"), tmp_path / "model.onnx", "onnx")
    assert (parity.n, "not compared" in (tmp_path / "EXPORT.md").read_text("utf-8")) == (0, True)
    onnx.checker.check_model(str(tmp_path / "model.onnx"))
    with pytest.raises(WriteError, match="it exists"):
        export(classifier("lenet"), tmp_path / "model.onnx", "onnx")
