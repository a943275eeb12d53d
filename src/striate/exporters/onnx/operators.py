"""Torch's operators as nodes of ONNX (https://onnx.ai/onnx/operators, opset 17).

Each function appends the nodes of one recorded step to a `Builder`. `OPERATORS` is the table.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

from striate.exporters.onnx.builder import Builder
from striate.exporters.onnx.recorder import BATCH, Step, UnsupportedError, Value

Array = npt.NDArray[Any]
Arguments = Mapping[str, Any]
_MAX = np.iinfo(np.int64).max


Operator = Callable[[Builder, Step, Arguments], None]


def _ints(value: Any, count: int) -> list[int]:
    """One number per axis; torch repeats a single one."""
    numbers = [int(item) for item in value] if isinstance(value, (list, tuple)) else [int(value)]
    return numbers * count if len(numbers) == 1 else numbers


def unary(op: str, **attributes: Any) -> Operator:
    """An operator of one tensor."""

    def translate(builder: Builder, step: Step, a: Arguments) -> None:
        builder.set(step.results[0], builder.add(op, a["self"], **attributes))

    return translate


def binary(op: str) -> Operator:
    """An operator of two tensors, or of a tensor and a number."""

    def translate(builder: Builder, step: Step, a: Arguments) -> None:
        other = a["other"]
        if a.get("alpha", 1) != 1:
            other = builder.add("Mul", other, float(a["alpha"]))
        if a.get("rounding_mode") is not None:
            raise UnsupportedError("a division that rounds")
        builder.set(step.results[0], builder.add(op, a["self"], other))

    return translate


def same(builder: Builder, step: Step, a: Arguments) -> None:
    """An operator that changes no value in inference."""
    first = next(iter(a.values()))
    builder.set(step.results[0], builder.name(first))


def reshape(builder: Builder, step: Step, a: Arguments) -> None:
    """Operators that keep the values and their order."""
    builder.set(step.results[0], builder.reshape(next(iter(a.values())), step.results[0].shape))


def convolution(builder: Builder, step: Step, a: Arguments) -> None:
    """Convolutions with one, two or three axes."""
    weight = a["weight"]
    axes = weight.ndim - 2
    if a.get("transposed") or isinstance(weight, Value):
        raise UnsupportedError("a transposed convolution, or one whose weights depend on the images")
    attributes: dict[str, Any] = {
        "kernel_shape": list(weight.shape[2:]),
        "strides": _ints(a["stride"], axes),
        "dilations": _ints(a["dilation"], axes),
        "group": int(a["groups"]),
    }
    if a["padding"] == "same":
        attributes["auto_pad"] = "SAME_UPPER"
    elif a["padding"] != "valid":
        attributes["pads"] = _ints(a["padding"], axes) * 2
    bias = () if a["bias"] is None else (a["bias"],)
    builder.set(
        step.results[0], builder.add("Conv", a.get("input", a.get("self")), weight, *bias, **attributes)
    )


def batch_norm(builder: Builder, step: Step, a: Arguments) -> None:
    """BatchNorm in evaluation mode: a scale and a shift of each channel."""
    if a.get("training") or a["running_mean"] is None:
        raise UnsupportedError("a BatchNorm that uses the statistics of the batch")
    scale = 1 / np.sqrt(_float64(a["running_var"]) + a["eps"])
    scale = scale if a["weight"] is None else scale * _float64(a["weight"])
    shift = -_float64(a["running_mean"]) * scale
    shift = shift if a["bias"] is None else shift + _float64(a["bias"])
    if builder.fold_into_convolution(a["input"], scale, shift):
        builder.set(step.results[0], builder.name(a["input"]))
        return
    axes = (-1, *[1] * (len(a["input"].shape) - 2))
    factor, offset = (builder.constant(part.reshape(axes).astype(np.float32)) for part in (scale, shift))
    builder.set(step.results[0], builder.add("Add", builder.add("Mul", a["input"], factor), offset))


def _float64(tensor: Tensor) -> Array:
    return tensor.detach().double().cpu().numpy()


def linear(builder: Builder, step: Step, a: Arguments) -> None:
    """`x @ weight.T + bias`."""
    x, weight, bias = a["input"], a["weight"], a["bias"]
    if len(x.shape) == 2:
        inputs = (x, weight) if bias is None else (x, weight, bias)
        name = builder.add("Gemm", *inputs, transB=1)
    else:
        name = builder.add("MatMul", x, weight.detach().t().contiguous())
        name = name if bias is None else builder.add("Add", name, bias)
    builder.set(step.results[0], name)


def matmul(builder: Builder, step: Step, a: Arguments) -> None:
    """A product of two tensors."""
    builder.set(step.results[0], builder.add("MatMul", *list(a.values())[:2]))


def layer_norm(builder: Builder, step: Step, a: Arguments) -> None:
    """LayerNorm over the last axes."""
    if a["weight"] is None:
        raise UnsupportedError("a LayerNorm without weights")
    inputs = [item for item in (a["input"], a["weight"], a["bias"]) if item is not None]
    axis = -len(a["normalized_shape"])
    name = builder.add("LayerNormalization", *inputs, axis=axis, epsilon=float(a["eps"]))
    builder.set(step.results[0], name)


def attention(builder: Builder, step: Step, a: Arguments) -> None:
    """softmax(q k^T / sqrt(d)) v (Vaswani et al. 2017, equation 1)."""
    if a["attn_mask"] is not None or a["is_causal"]:
        raise UnsupportedError("attention with a mask")
    query, key, value = a["query"], a["key"], a["value"]
    scale = a.get("scale") or 1 / math.sqrt(query.shape[-1])
    axes = [*range(len(key.shape) - 2), len(key.shape) - 1, len(key.shape) - 2]
    scores = builder.add("MatMul", builder.add("Mul", query, scale), builder.add("Transpose", key, perm=axes))
    name = builder.add("MatMul", builder.add("Softmax", scores, axis=-1), value)
    builder.set(step.results[0], name)


def softmax(builder: Builder, step: Step, a: Arguments) -> None:
    """Softmax along one axis."""
    builder.set(step.results[0], builder.add("Softmax", a["self"], axis=int(a["dim"])))


def gelu(builder: Builder, step: Step, a: Arguments) -> None:
    """GELU, x Phi(x) (Hendrycks and Gimpel 2016), exact or with the approximation by tanh."""
    x = a["self"]
    if a.get("approximate", "none") == "tanh":
        cube = builder.add("Mul", builder.add("Mul", builder.add("Mul", x, x), x), 0.044715)
        inner = builder.add("Mul", builder.add("Add", x, cube), math.sqrt(2 / math.pi))
        inner = builder.add("Tanh", inner)
    else:
        inner = builder.add("Erf", builder.add("Div", x, math.sqrt(2)))
    half = builder.add("Mul", builder.add("Mul", x, builder.add("Add", inner, 1.0)), 0.5)
    builder.set(step.results[0], half)


def silu(builder: Builder, step: Step, a: Arguments) -> None:
    """SiLU, x sigmoid(x)."""
    builder.set(step.results[0], builder.add("Mul", a["self"], builder.add("Sigmoid", a["self"])))


def clip(builder: Builder, step: Step, a: Arguments) -> None:
    """Clamping to a range, such as ReLU6."""
    low, high = (a.get(key, a.get(other)) for key, other in (("min", "min_val"), ("max", "max_val")))
    if step.name == "relu6":
        low, high = 0.0, 6.0
    bounds = ["" if bound is None else builder.name(float(bound)) for bound in (low, high)]
    builder.set(step.results[0], builder.add("Clip", a["self"], *bounds))


def power(builder: Builder, step: Step, a: Arguments) -> None:
    """A power with a number as the exponent."""
    builder.set(step.results[0], builder.add("Pow", a["self"], float(a["exponent"])))


def square(builder: Builder, step: Step, a: Arguments) -> None:
    """The square."""
    builder.set(step.results[0], builder.add("Mul", a["self"], a["self"]))


def pool(op: str) -> Operator:
    """Max or average pooling over windows."""

    def translate(builder: Builder, step: Step, a: Arguments) -> None:
        axes = len(step.results[0].shape) - 2
        kernel = _ints(a["kernel_size"], axes)
        attributes: dict[str, Any] = {
            "kernel_shape": kernel,
            "strides": _ints(a["stride"], axes) if a["stride"] else kernel,
            "pads": _ints(a["padding"], axes) * 2,
            "ceil_mode": int(a["ceil_mode"]),
        }
        if op == "MaxPool":
            attributes["dilations"] = _ints(a["dilation"], axes)
        else:
            attributes["count_include_pad"] = int(a["count_include_pad"])
            if a.get("divisor_override") is not None:
                raise UnsupportedError("average pooling with another divisor")
        builder.set(step.results[0], builder.add(op, a["self"], **attributes))

    return translate


def adaptive_pool(builder: Builder, step: Step, a: Arguments) -> None:
    """The mean of each cell of a grid: exact for all sizes, as a product with a matrix for each axis."""
    before, after = a["self"].shape[2:], step.results[0].shape[2:]
    name = builder.name(a["self"])
    if set(after) == {1}:
        name = builder.add("GlobalAveragePool", name)
    elif before != after:
        rows, columns = (_means(a, b) for a, b in zip(before, after, strict=True))
        name = builder.add("MatMul", builder.constant(rows), name)
        name = builder.add("MatMul", name, builder.constant(columns.T.copy()))
    builder.set(step.results[0], name)


def _means(size: int, cells: int) -> npt.NDArray[np.float32]:
    """`[cells, size]`: row i takes the mean from floor(i size / cells) to ceil((i + 1) size / cells)."""
    matrix = np.zeros((cells, size), np.float32)
    for i in range(cells):
        low, high = i * size // cells, -(-(i + 1) * size // cells)
        matrix[i, low:high] = 1 / (high - low)
    return matrix


def mean(builder: Builder, step: Step, a: Arguments) -> None:
    """The mean over some axes."""
    axes = _ints(a["dim"], 1)
    name = builder.add("ReduceMean", a["self"], axes=axes, keepdims=int(a["keepdim"]))
    builder.set(step.results[0], name)


def total(builder: Builder, step: Step, a: Arguments) -> None:
    """The sum over some axes."""
    axes = builder.constant(np.array(_ints(a["dim"], 1), np.int64))
    builder.set(step.results[0], builder.add("ReduceSum", a["self"], axes, keepdims=int(a["keepdim"])))


def concatenate(builder: Builder, step: Step, a: Arguments) -> None:
    """Join tensors along an axis."""
    builder.set(step.results[0], builder.add("Concat", *a["tensors"], axis=int(a["dim"])))


def permute(builder: Builder, step: Step, a: Arguments) -> None:
    """Exchange axes."""
    rank = len(a["self"].shape)
    axes = list(range(rank))
    if "dims" in a:
        axes = [axis % rank for axis in a["dims"]]
    else:  # `transpose`, and `t` for a matrix
        one, other = a.get("dim0", 0) % rank, a.get("dim1", 1) % rank
        axes[one], axes[other] = axes[other], axes[one]
    builder.set(step.results[0], builder.add("Transpose", a["self"], perm=axes))


def expand(builder: Builder, step: Step, a: Arguments) -> None:
    """Repeat along axes of size 1."""
    x, shape = a["self"], step.results[0].shape
    if shape.count(BATCH) > x.shape.count(BATCH):
        raise UnsupportedError("a tensor is repeated for each image")
    ones = [1 if size == BATCH else size for size in shape]
    builder.set(step.results[0], builder.add("Expand", x, builder.constant(np.array(ones, np.int64))))


def select(builder: Builder, step: Step, a: Arguments) -> None:
    """One index of an axis."""
    index = builder.constant(np.array(a["index"], np.int64))
    builder.set(step.results[0], builder.add("Gather", a["self"], index, axis=int(a["dim"])))


def unbind(builder: Builder, step: Step, a: Arguments) -> None:
    """Each index of an axis."""
    for i, result in enumerate(step.results):
        index = builder.constant(np.array(i, np.int64))
        builder.set(result, builder.add("Gather", a["self"], index, axis=int(a["dim"])))


def part(builder: Builder, step: Step, a: Arguments) -> None:
    """A slice of one axis."""
    start, end, stride = a["start"] or 0, _MAX if a["end"] is None else a["end"], a["step"]
    numbers = [builder.constant(np.array([n], np.int64)) for n in (start, end, a["dim"], stride)]
    builder.set(step.results[0], builder.add("Slice", a["self"], *numbers))


def split(builder: Builder, step: Step, a: Arguments) -> None:
    """Parts of an axis, one after the other."""
    axis, start = int(a["dim"]), 0
    if a["self"].shape[axis] == BATCH:
        raise UnsupportedError("the images of a batch are split")
    for result in step.results:
        end = start + result.shape[axis]
        numbers = [builder.constant(np.array([n], np.int64)) for n in (start, end, axis)]
        builder.set(result, builder.add("Slice", a["self"], *numbers))
        start = end


def pad(builder: Builder, step: Step, a: Arguments) -> None:
    """Add constant values around a tensor; torch lists the last axis first."""
    if a.get("mode", "constant") != "constant":
        raise UnsupportedError(f"padding with mode {a['mode']}")
    amounts = [int(n) for n in a["pad"]]
    rank = len(a["self"].shape)
    amounts += [0] * (2 * rank - len(amounts))
    pads = builder.constant(np.array([*amounts[-2::-2], *amounts[::-2]], np.int64))
    builder.set(step.results[0], builder.add("Pad", a["self"], pads, float(a.get("value") or 0)))


OPERATORS: dict[str, Operator] = {
    **dict.fromkeys(("conv1d", "conv2d", "conv3d", "convolution"), convolution),
    **dict.fromkeys(("alias", "clone", "contiguous", "detach", "dropout", "feature_dropout"), same),
    **dict.fromkeys(
        ("_unsafe_view", "flatten", "reshape", "squeeze", "unflatten", "unsqueeze", "view"), reshape
    ),
    **dict.fromkeys(("bmm", "matmul", "mm"), matmul),
    **dict.fromkeys(("clamp", "clamp_min", "hardtanh", "relu6"), clip),
    **dict.fromkeys(("constant_pad_nd", "pad"), pad),
    **dict.fromkeys(("permute", "t", "transpose"), permute),
    **dict.fromkeys(("chunk", "split", "split_with_sizes"), split),
    **{op.lower(): unary(op) for op in ("Abs", "Erf", "Exp", "Neg", "Relu", "Sigmoid", "Sqrt", "Tanh")},
    **{name: binary(op) for name, op in (("add", "Add"), ("sub", "Sub"), ("mul", "Mul"), ("div", "Div"))},
    "adaptive_avg_pool2d": adaptive_pool,
    "avg_pool2d": pool("AveragePool"),
    "avg_pool3d": pool("AveragePool"),
    "batch_norm": batch_norm,
    "cat": concatenate,
    "expand": expand,
    "gelu": gelu,
    "hardsigmoid": unary("HardSigmoid", alpha=1 / 6, beta=0.5),
    "hardswish": unary("HardSwish"),
    "layer_norm": layer_norm,
    "linear": linear,
    "max_pool2d": pool("MaxPool"),
    "mean": mean,
    "pow": power,
    "scaled_dot_product_attention": attention,
    "select": select,
    "silu": silu,
    "slice": part,
    "softmax": softmax,
    "square": square,
    "sum": total,
    "unbind": unbind,
}


def translate(builder: Builder, step: Step) -> None:
    """Append the nodes of a step; raises UnsupportedError."""
    function = OPERATORS.get(step.name)
    if function is None:
        raise UnsupportedError(f"there is no rule for the operator {step.name}")
    try:
        function(builder, step, step.arguments)
    except (AttributeError, KeyError, TypeError) as error:  # a tensor instead of a number, an absent argument
        raise UnsupportedError(f"there is no rule for the arguments of the operator {step.name}") from error
