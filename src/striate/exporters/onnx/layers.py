"""Rules for layers: convolutions, products, norms, attention and pooling."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from striate.exporters.onnx.builder import Arguments, Builder, Rule, ints
from striate.exporters.onnx.file import Array
from striate.exporters.onnx.recorder import BATCH, Step, UnsupportedError, Value


def convolution(builder: Builder, step: Step, a: Arguments) -> None:
    """Convolutions with one, two or three axes."""
    weight = a["weight"]
    axes = weight.ndim - 2
    if a.get("transposed") or isinstance(weight, Value):
        raise UnsupportedError("a transposed convolution, or one whose weights depend on the images")
    attributes: dict[str, Any] = {
        "kernel_shape": list(weight.shape[2:]),
        "strides": ints(a["stride"], axes),
        "dilations": ints(a["dilation"], axes),
        "group": int(a["groups"]),
    }
    x = a.get("input", a.get("self"))
    if a["padding"] == "same":
        attributes["auto_pad"] = "SAME_UPPER"
    else:
        x, zeros = builder.take_padding(x)  # int8 has no other padding in ONNX Runtime
        own = [0] * axes if a["padding"] == "valid" else ints(a["padding"], axes)
        attributes["pads"] = [one + other for one, other in zip(own * 2, zeros, strict=True)]
    bias = () if a["bias"] is None else (a["bias"],)
    builder.set(step.results[0], builder.add("Conv", x, weight, *bias, **attributes))


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


def layer_norm(builder: Builder, step: Step, a: Arguments) -> None:
    """LayerNorm over the last axes."""
    weight = a["weight"]
    if weight is None:
        weight = torch.ones(tuple(a["normalized_shape"]))
    inputs = [item for item in (a["input"], weight, a["bias"]) if item is not None]
    axis = -len(a["normalized_shape"])
    name = builder.add("LayerNormalization", *inputs, axis=axis, epsilon=float(a["eps"]))
    builder.set(step.results[0], name)


def attention(builder: Builder, step: Step, a: Arguments) -> None:
    """softmax(q k^T / sqrt(d)) v (Vaswani et al. 2017, equation 1)."""
    query, key, value = a["query"], a["key"], a["value"]
    scale = a.get("scale") or 1 / math.sqrt(query.shape[-1])
    axes = [*range(len(key.shape) - 2), len(key.shape) - 1, len(key.shape) - 2]
    scores = builder.add("MatMul", builder.add("Mul", query, scale), builder.add("Transpose", key, perm=axes))
    mask = a["attn_mask"]
    if a["is_causal"]:
        mask = torch.ones(query.shape[-2], key.shape[-2], dtype=torch.bool).tril()
    if isinstance(mask, Tensor) and mask.dtype == torch.bool:
        mask = torch.zeros(mask.shape).masked_fill(~mask, -torch.inf)
    if mask is not None:
        scores = builder.add("Add", scores, mask)
    name = builder.add("MatMul", builder.add("Softmax", scores, axis=-1), value)
    builder.set(step.results[0], name)


def pool(op: str) -> Rule:
    """Max or average pooling over windows."""

    def translate(builder: Builder, step: Step, a: Arguments) -> None:
        axes = len(step.results[0].shape) - 2
        kernel = ints(a["kernel_size"], axes)
        attributes: dict[str, Any] = {
            "kernel_shape": kernel,
            "strides": ints(a["stride"], axes) if a["stride"] else kernel,
            "pads": ints(a["padding"], axes) * 2,
            "ceil_mode": int(a["ceil_mode"]),
        }
        if op == "MaxPool":
            attributes["dilations"] = ints(a["dilation"], axes)
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
    elif before != after and len(after) == 1:
        name = builder.add("MatMul", name, builder.constant(_means(before[0], after[0]).T.copy()))
    elif before != after:
        rows, columns = (_means(a, b) for a, b in zip(before, after, strict=True))
        name = builder.add("MatMul", builder.constant(rows), name)
        name = builder.add("MatMul", name, builder.constant(columns.T.copy()))
    builder.set(step.results[0], name)


def adaptive_max_pool(builder: Builder, step: Step, a: Arguments) -> None:
    """The maximum of each cell of a grid, if all cells have the same size."""
    before, after = a["self"].shape[2:], step.results[0].shape[2:]
    if any(one % other for one, other in zip(before, after, strict=True)):
        raise UnsupportedError("an adaptive max pooling with cells of several sizes")
    kernel = [one // other for one, other in zip(before, after, strict=True)]
    name = builder.add("MaxPool", a["self"], kernel_shape=kernel, strides=kernel)
    builder.set(step.results[0], name)


def transposed_convolution(builder: Builder, step: Step, a: Arguments) -> None:
    """Transposed convolutions with one, two or three axes."""
    weight = a["weight"]
    axes = weight.ndim - 2
    attributes = {
        "kernel_shape": list(weight.shape[2:]), "strides": ints(a["stride"], axes),
        "dilations": ints(a["dilation"], axes), "pads": ints(a["padding"], axes) * 2,
        "output_padding": ints(a["output_padding"], axes), "group": int(a["groups"]),
    }  # fmt: skip
    inputs = [item for item in (a["input"], weight, a["bias"]) if item is not None]
    builder.set(step.results[0], builder.add("ConvTranspose", *inputs, **attributes))


def sum_and_product(builder: Builder, step: Step, a: Arguments) -> None:
    """`self + one @ other`."""
    if a["beta"] != 1 or a["alpha"] != 1:
        raise UnsupportedError(f"a {step.name} with factors")
    first, one, other = list(a.values())[:3]
    builder.set(step.results[0], builder.add("Add", builder.add("MatMul", one, other), first))


def group_norm(builder: Builder, step: Step, a: Arguments) -> None:
    """GroupNorm (Wu and He 2018): LayerNorm of each group, then a scale and a shift of each channel."""
    x, groups = a["input"], int(a["num_groups"])
    size = math.prod(x.shape[1:]) // groups
    name = builder.reshape(x, (BATCH, groups, size))
    ones = builder.constant(np.ones(size, np.float32))
    name = builder.add("LayerNormalization", name, ones, axis=-1, epsilon=float(a["eps"]))
    name = builder.reshape(name, x.shape)
    for op, part in (("Mul", a["weight"]), ("Add", a["bias"])):
        if part is not None:
            name = builder.add(op, name, part.detach().reshape(-1, *[1] * (len(x.shape) - 2)))
    builder.set(step.results[0], name)


def instance_norm(builder: Builder, step: Step, a: Arguments) -> None:
    """InstanceNorm (Ulyanov et al. 2016) with the statistics of each image."""
    if not a["use_input_stats"]:  # torch itself calls batch_norm then
        raise UnsupportedError("an InstanceNorm with tracked statistics")
    channels = a["input"].shape[1]
    weight = torch.ones(channels) if a["weight"] is None else a["weight"]
    bias = torch.zeros(channels) if a["bias"] is None else a["bias"]
    name = builder.add("InstanceNormalization", a["input"], weight, bias, epsilon=float(a["eps"]))
    builder.set(step.results[0], name)


def pixel_shuffle(builder: Builder, step: Step, a: Arguments) -> None:
    """Channels become pixels (Shi et al. 2016)."""
    name = builder.add("DepthToSpace", a["self"], blocksize=int(a["upscale_factor"]), mode="CRD")
    builder.set(step.results[0], name)


def resize(builder: Builder, step: Step, a: Arguments) -> None:
    """Nearest and bilinear resizing."""
    x, shape = next(iter(a.values())), step.results[0].shape
    if step.name == "upsample_nearest2d":
        how = {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
    else:
        kind = "align_corners" if a["align_corners"] else "pytorch_half_pixel"
        how = {"mode": "linear", "coordinate_transformation_mode": kind}
    sizes = builder.add("Concat", builder.batch(), builder.constant(np.array(shape[1:], np.int64)), axis=0)
    builder.set(step.results[0], builder.add("Resize", x, "", "", sizes, **how))


def _means(size: int, cells: int) -> npt.NDArray[np.float32]:
    """`[cells, size]`: row i takes the mean from floor(i size / cells) to ceil((i + 1) size / cells)."""
    matrix = np.zeros((cells, size), np.float32)
    for i in range(cells):
        low, high = i * size // cells, -(-(i + 1) * size // cells)
        matrix[i, low:high] = 1 / (high - low)
    return matrix


def matmul(builder: Builder, step: Step, a: Arguments) -> None:
    """A product of two tensors."""
    builder.set(step.results[0], builder.add("MatMul", *list(a.values())[:2]))
