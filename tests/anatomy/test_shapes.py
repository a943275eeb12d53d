"""Formulas for shapes give what torch gives, layout and type included."""

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import assume, given, settings

from striate.anatomy import shapes
from striate.models import MODELS, build

aten = torch.ops.aten
quick = settings(deadline=None, derandomize=True, max_examples=60)


def agree(func, *args):
    """The formula's shapes are those of torch's own kernel, or it declines to answer."""
    formula = shapes.FORMULAS[f"{func.overloadpacket.__name__}.{func._overloadname}"]
    expected = func(*args)
    expected = [expected] if isinstance(expected, torch.Tensor) else list(expected)
    found = formula(args)
    if found is None:
        return False
    assert [tuple(shape) for shape in found] == [tuple(tensor.shape) for tensor in expected]
    assert all(tensor.is_contiguous() for tensor in expected)
    assert expected[0].dtype == args[0].dtype if isinstance(args[0], torch.Tensor) else True
    return True


def meta(*shape):
    return torch.empty(shape, device="meta")


@quick
@given(
    st.integers(1, 2), st.integers(1, 4), st.integers(3, 20), st.integers(3, 20), st.integers(1, 3),
    st.integers(1, 3), st.integers(1, 2), st.integers(0, 1), st.integers(1, 2), st.booleans(),
)  # fmt: skip
def test_windows(batch, channels, height, width, kernel, other, stride, padding, dilation, ceil):
    x = meta(batch, 2 * channels, height, width)
    assume(min(height, width) > dilation * 2)
    pair = [padding, padding]
    weight = meta(6, channels, kernel, other)
    options = ([stride, 1], pair, [dilation, 1], False, [0, 0], 2)
    assert agree(aten.convolution.default, x, weight, None, *options)
    assume(2 * padding <= kernel)
    pool = ([kernel, kernel], [stride, stride], pair, [dilation, dilation], ceil)
    assert agree(aten.max_pool2d_with_indices.default, x, *pool)
    assert agree(aten.max_pool2d_with_indices.default, x, *pool[:2])
    assert agree(aten.max_pool2d_with_indices.default, x, pool[0])
    assert agree(aten.avg_pool2d.default, x, *pool[:3], ceil)
    assert agree(aten.avg_pool3d.default, meta(1, 1, 5, height, width), [3, kernel, 1], [1, stride, 1])
    assert agree(aten._adaptive_avg_pool2d.default, x, [kernel, 3])


@quick
@given(st.lists(st.integers(1, 5), min_size=3, max_size=3), st.lists(st.booleans(), min_size=3, max_size=3))
def test_broadcast_arithmetic(shape, ones):
    other = [1 if one else n for n, one in zip(shape, ones, strict=True)]
    assert agree(aten.mul.Tensor, meta(*shape), meta(*other))
    assert agree(aten.mul.Tensor, meta(*other), meta(*shape))
    assert agree(aten.sub.Tensor, meta(other[0], 1, 4), meta(shape[1], 4))
    assert agree(aten.add.Tensor, meta(*shape), meta(*other[1:]))
    assert agree(aten.add.Tensor, meta(*shape), 2.0)
    assert agree(aten.div.Tensor, meta(*shape), torch.tensor(3.0, dtype=torch.float64, device="meta"))
    assert agree(aten.pow.Tensor_Scalar, meta(*shape), 0.75)
    assert agree(aten.mean.dim, meta(*shape), [-1, 1], True)


@quick
@given(st.integers(1, 5), st.integers(1, 5), st.integers(1, 5))
def test_products(n, m, k):
    assert agree(aten.mm.default, meta(n, m), meta(k, m).t())
    assert agree(aten.bmm.default, meta(2, n, m), meta(2, k, m).transpose(1, 2))
    assert agree(aten.addmm.default, meta(k), meta(n, m), meta(k, m).t())
    assert agree(aten.cat.default, [meta(2, n, 3), meta(2, m, 3)], 1)


@pytest.mark.parametrize("name", shapes.UNARY)
def test_functions_of_one_tensor(name):
    assert agree(getattr(aten, name).default, meta(2, 3, 4))


@pytest.mark.parametrize("name", ["googlenet", "mobilenet_v3_small", "resnet50", "vit_ti_16"])
def test_a_trace_with_formulas_is_a_trace_without(name, monkeypatch):
    from striate.anatomy import trace
    from striate.anatomy.imitation import Imitation

    with torch.device("meta"):
        net = build(name)
    x = meta(2, 3, MODELS[name].input_size, MODELS[name].input_size)
    quick_way = trace(net, x)
    monkeypatch.setattr(Imitation, "_formula", lambda *_: None)
    monkeypatch.setattr(Imitation, "_remembered", lambda _, func, args, kwargs: func(*args, **kwargs))
    assert trace(net, x) == quick_way
