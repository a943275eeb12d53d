"""The shapes of results are those of the operators when they really run, layout included."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from striate.anatomy.operators import Operator
from striate.anatomy.shape_inference import META, ShapeInference
from striate.anatomy.shapes import SHAPES

aten = torch.ops.aten
small = st.integers(1, 9)


def inferred(func, *args, **kwargs):
    """The result that is computed without a kernel, or None; and that of the real operator."""
    operator = Operator.of(func)

    def meta(value):
        if isinstance(value, list):
            return [meta(item) for item in value]
        return value.to(META) if isinstance(value, torch.Tensor) else value

    arguments = [meta(arg) for arg in args]
    tensors = operator.tensors(arguments, {})
    found = ShapeInference({})._without_kernel(operator, tensors, arguments, kwargs)
    return found, func(*args, **kwargs)


def equal(pair):
    found, real = pair
    if found is None or found.shape != real.shape:
        return False
    strides = zip(found.shape, found.stride(), real.stride(), strict=True)
    return all(size == 1 or one == other for size, one, other in strides)


@settings(max_examples=30)
@given(
    small, small, small, st.integers(1, 4), st.integers(1, 3), st.integers(0, 2), st.integers(1, 2), st.data()
)
def test_windows(height, width, channels, kernel, stride, padding, dilation, data):
    images = torch.zeros(2, 2 * channels, height, width)
    reach = dilation * (kernel - 1) + 1
    if min(height, width) + 2 * padding < reach:
        return
    groups = data.draw(st.sampled_from([1, 2]))
    weight = torch.zeros(4, 2 * channels // groups, kernel, kernel)
    steps = [stride, stride], [padding, padding], [dilation, dilation]
    assert equal(inferred(aten.conv2d.default, images, weight, None, *steps, groups))
    whole = (images, weight, None, *steps, False, [0, 0], groups)
    assert equal(inferred(aten.convolution.default, *whole))
    ceil, padding = data.draw(st.booleans()), min(padding, kernel // 2, dilation * (kernel - 1) // 2)
    if min(height, width) + 2 * padding >= reach:
        steps = [stride, stride], [padding, padding], [dilation, dilation]
        assert equal(inferred(aten.max_pool2d.default, images, [kernel, kernel], *steps, ceil))
        both = inferred(aten.max_pool2d_with_indices.default, images, [kernel, kernel], *steps, ceil)
        assert [equal(pair) for pair in zip(*both, strict=True)] == [True] * 2
    if min(height, width) + 2 * padding >= kernel:
        assert equal(inferred(aten.avg_pool2d.default, images, [kernel, kernel], *steps[:2], ceil))


def test_other_operators():
    x, y = torch.zeros(3, 4, 5, 6), torch.zeros(4, 1, 6)
    ones = torch.ones(4)
    assert equal(inferred(aten.mul.Tensor, x, y))
    assert equal(inferred(aten.add.Tensor, y, x))
    assert equal(inferred(aten.pow.Tensor_Scalar, x, 2.0))
    part = x.to(META)[:, :2]  # not dense
    assert equal(inferred(aten.mul.Scalar, part, 0.5))
    assert equal(inferred(aten.mul.Scalar, part.permute(2, 0, 3, 1), 0.5))
    assert inferred(aten.mul.Scalar, x[:1].to(META).expand(3, -1, -1, -1), 0.5)[0] is None
    assert equal(inferred(aten._safe_softmax.default, x, -1))
    assert inferred(aten._safe_softmax.default, x, -1, torch.float64)[0] is None
    assert equal(inferred(aten.mul.Scalar, x.transpose(1, 2), 0.5))
    assert equal(inferred(aten.mean.dim, x, [-1, 1], True))
    assert equal(inferred(aten.sum.dim_IntList, x, [2, 3]))
    assert equal(inferred(aten.cat.default, [x, x[:, :2].contiguous()], -3))
    tokens = x.flatten(2).transpose(1, 2)
    assert equal(inferred(aten.cat.default, [tokens, torch.zeros(1, 1, 4).expand(3, -1, -1)], 1))
    assert equal(inferred(aten.linear.default, x[:, :, 0], torch.zeros(7, 6), torch.zeros(7)))
    matrix = torch.zeros(7, 4).t()
    for added in (torch.zeros(7), torch.zeros(1), torch.zeros(3, 1)):
        assert equal(inferred(aten.addmm.default, added, torch.zeros(3, 4), matrix))
    assert equal(inferred(aten.bmm.default, torch.zeros(2, 3, 4), torch.zeros(2, 7, 4).mT))
    assert equal(inferred(aten.batch_norm.default, x, ones, ones, ones, ones, False, 0.1, 1e-5, False))
    assert equal(inferred(aten.layer_norm.default, x, [5, 6], torch.ones(5, 6), torch.ones(5, 6)))
    assert equal(inferred(aten.layer_norm.default, x, [6]))
    for axes in ([5, 6], [6]):
        found, real = inferred(
            aten.native_layer_norm.default, x, axes, torch.ones(axes), torch.ones(axes), 1e-5
        )
        assert [equal(pair) for pair in zip(found, real, strict=True)] == [True] * 3
    assert inferred(aten.native_layer_norm.default, x, [6], torch.ones(6), None, 1e-5)[0] is not None
    assert equal(inferred(aten.adaptive_avg_pool2d.default, x, [2, 3]))
    heads = torch.zeros(2, 5, 3, 4).transpose(1, 2)
    with torch.inference_mode():
        assert equal(inferred(aten.scaled_dot_product_attention.default, heads, heads, heads))


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("mul", {"self": torch.zeros(2, 3), "other": torch.zeros(2)}),
        ("cat", {"tensors": [torch.zeros(2, 3), torch.zeros(3, 3)], "dim": 1}),
        ("cat", {"tensors": [torch.zeros(2, 3), torch.zeros(2)], "dim": 0}),
        ("linear", {"input": torch.zeros(2, 3), "weight": torch.zeros(4, 2), "bias": None}),
        ("addmm", {"self": torch.zeros(4), "mat1": torch.zeros(2, 3), "mat2": torch.zeros(2, 4)}),
        ("addmm", {"self": torch.zeros(3), "mat1": torch.zeros(2, 3), "mat2": torch.zeros(3, 4)}),
        ("bmm", {"self": torch.zeros(2, 3, 4), "mat2": torch.zeros(2, 3, 4)}),
        ("bmm", {"self": torch.zeros(2, 3, 4), "mat2": torch.zeros(1, 4, 3)}),
        ("mean", {"self": torch.zeros(2, 3), "dim": [2], "keepdim": False}),
        ("sum", {"self": torch.zeros(2, 3), "dim": None, "keepdim": False}),
        ("layer_norm", {"input": torch.zeros(2, 3), "normalized_shape": [4], "weight": None, "bias": None}),
    ],
)  # fmt: skip
def test_what_a_formula_does_not_cover_is_left_to_the_kernel(name, arguments):
    assert SHAPES[name](arguments) is None


def test_transposed_convolutions_are_left_to_the_kernel():
    images, weight, ones = torch.zeros(1, 3, 5, 5), torch.zeros(3, 3, 2, 2), [1, 1]
    steps = (None, ones, [0, 0], ones, True, [0, 0], 1)
    assert inferred(aten.convolution.default, images, weight, *steps)[0] is None


def test_integers_and_other_layouts_are_left_to_the_kernel():
    channels_last = torch.zeros(1, 3, 4, 4).to(memory_format=torch.channels_last)
    assert inferred(aten.mul.Tensor, channels_last, channels_last)[0] is None
    assert inferred(aten.add.Tensor, torch.ones(2), torch.ones(2, dtype=torch.int64))[0] is None
    assert inferred(aten.conv2d.default, channels_last, F.pad(torch.zeros(2, 3, 1, 1), (0, 1)))[0] is None
