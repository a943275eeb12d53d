"""Shape inference gives the shapes, strides and types of torch's own kernels."""

import subprocess
import sys

import pytest
import torch
from torch import nn

from striate.anatomy import trace
from striate.anatomy.shape_inference import UNARY, ShapeInference
from striate.models import MODELS, build


def uncached(_, func, args, kwargs):
    return func(*args, **kwargs)


class Recorded(ShapeInference):
    """Runs torch's kernel as well, and compares."""

    compared: list[str] = []  # noqa: RUF012

    def run(self, func, operator, tensors, args, kwargs):
        result = super().run(func, operator, tensors, args, kwargs)
        if tensors and not operator.mutates and all(tensor.is_meta for tensor in tensors):
            expected = func(*args, **kwargs)
            pairs = zip(flat(result), flat(expected), strict=True)
            for index, (got, want) in enumerate(pairs):
                if index and operator.name == "native_batch_norm":
                    continue  # the statistics, which inference does not fill
                assert (got.shape, got.stride(), got.dtype) == (want.shape, want.stride(), want.dtype), func
            self.compared.append(operator.name)
        return result


def flat(result):
    return [result] if isinstance(result, torch.Tensor) else list(result)


@pytest.fixture
def recorded(monkeypatch):
    monkeypatch.setattr("striate.anatomy.recorder.ShapeInference", Recorded)
    monkeypatch.setattr(ShapeInference, "cache", {})
    monkeypatch.setattr(Recorded, "compared", [])
    return Recorded.compared


def traced(name):
    with torch.device("meta"):
        net = build(name)
    return net, torch.empty(2, 3, MODELS[name].input_size, MODELS[name].input_size, device="meta")


@pytest.mark.parametrize("name", ["googlenet", "mobilenet_v3_small", "resnet50", "vit_ti_16"])
def test_every_operator_has_the_layout_of_torchs_kernel(name, recorded):
    net, x = traced(name)
    first = trace(net, x)
    assert trace(net, x) == first  # now from the cache
    assert len(recorded) > len(first.layers)


@pytest.mark.parametrize("name", ["googlenet", "mobilenet_v3_small", "resnet50", "vit_ti_16"])
def test_a_trace_with_shortcuts_is_a_trace_without(name, monkeypatch):
    net, x = traced(name)
    quick = trace(net, x)
    monkeypatch.setattr(ShapeInference, "_without_kernel", lambda *_: None)
    monkeypatch.setattr(ShapeInference, "_cached", uncached)
    assert trace(net, x) == quick


@pytest.mark.parametrize("layout", ["contiguous", "transposed", "channels_last", "half"])
def test_shortcuts_for_any_layout(layout, recorded):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm = nn.BatchNorm2d(3)

        def forward(self, x):
            for name in sorted(UNARY):
                x = getattr(torch.ops.aten, name).default(x)
            return self.norm(torch.roll(x, (1, 2), (2, 3)))

    x = torch.empty(2, 3, 4, 5)
    x = {
        "contiguous": x,
        "transposed": x.transpose(2, 3),
        "channels_last": x.contiguous(memory_format=torch.channels_last),
        "half": x.half(),
    }[layout]
    trace(Net(), x)
    assert {*UNARY, "native_batch_norm", "roll"} <= set(recorded)


def test_the_cache_tells_types_of_numbers_and_the_default_type_apart(recorded):
    class Net(nn.Module):
        def forward(self, x):
            return x * 2, x * 2.0, x * True, x / 2, x.float() * 2

    for _ in range(2):
        trace(Net(), torch.empty(3, 4, dtype=torch.int64))
    torch.set_default_dtype(torch.float64)
    try:
        trace(Net(), torch.empty(3, 4, dtype=torch.int64))
    finally:
        torch.set_default_dtype(torch.float32)
    assert recorded.count("mul") == 12


def test_the_cache_is_bounded(monkeypatch, recorded):
    monkeypatch.setattr("striate.anatomy.shape_inference.MAX_CACHE", 5)
    net, x = traced("resnet50")
    trace(net, x)
    assert 0 < len(ShapeInference.cache) <= 5


def test_the_first_trace_of_a_network_imports_nothing():
    """Not sympy or torch's compiler, which take longer than any trace."""
    program = """
import sys
from striate.anatomy import trace
from striate.models import MODELS

for name in MODELS:
    if name not in ("lenet5", "resnet1202"):  # the constructor of one imports sympy, the other is too deep
        trace(name)
        assert not {"sympy", "torch._dynamo"} & set(sys.modules), name
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
