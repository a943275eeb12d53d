"""Rules for operators that compute each element by itself."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from striate.exporters.onnx.builder import Arguments, Builder, Rule
from striate.exporters.onnx.file import Node
from striate.exporters.onnx.recorder import Step, UnsupportedError


def unary(op: str, **attributes: Any) -> Rule:
    """An operator of one tensor."""

    def translate(builder: Builder, step: Step, a: Arguments) -> None:
        builder.set(step.results[0], builder.add(op, a["self"], **attributes))

    return translate


def binary(op: str) -> Rule:
    """An operator of two tensors, or of a tensor and a number."""

    def translate(builder: Builder, step: Step, a: Arguments) -> None:
        other = a["other"]
        if a.get("alpha", 1) != 1:
            other = builder.add("Mul", other, float(a["alpha"]))
        if a.get("rounding_mode") is not None:
            raise UnsupportedError("a division that rounds")
        builder.set(step.results[0], builder.add(op, a["self"], other))

    return translate


def softmax(op: str) -> Rule:
    """Softmax along one axis, or its logarithm."""

    def translate(builder: Builder, step: Step, a: Arguments) -> None:
        builder.set(step.results[0], builder.add(op, a["self"], axis=int(a["dim"])))

    return translate


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
    """A power of a tensor or of a number."""
    base, exponent = (float(x) if isinstance(x, (int, float)) else x for x in (a["self"], a["exponent"]))
    builder.set(step.results[0], builder.add("Pow", base, exponent))


def product_and_sum(builder: Builder, step: Step, a: Arguments) -> None:
    """`self + value * tensor1 * tensor2`."""
    product = builder.add("Mul", a["tensor1"], a["tensor2"])
    product = product if a["value"] == 1 else builder.add("Mul", product, float(a["value"]))
    builder.set(step.results[0], builder.add("Add", a["self"], product))


def reverse_subtraction(builder: Builder, step: Step, a: Arguments) -> None:
    """`other - alpha * self`."""
    subtracted = a["self"] if a["alpha"] == 1 else builder.add("Mul", a["self"], float(a["alpha"]))
    builder.set(step.results[0], builder.add("Sub", a["other"], subtracted))


def convert(builder: Builder, step: Step, a: Arguments) -> None:
    """A conversion to the type that a tensor has already; the graph has no other."""
    if a.get("dtype") not in (None, torch.float32):
        raise UnsupportedError(f"a conversion to {a['dtype']}")
    builder.set(step.results[0], builder.name(a["self"]))


def inverse_root(builder: Builder, step: Step, a: Arguments) -> None:
    """`1 / sqrt(x)`."""
    builder.set(step.results[0], builder.add("Reciprocal", builder.add("Sqrt", a["self"])))


def leaky_relu(builder: Builder, step: Step, a: Arguments) -> None:
    """`x` above 0, else `slope x`."""
    builder.set(step.results[0], builder.add("LeakyRelu", a["self"], alpha=float(a["negative_slope"])))


def exponential_unit(op: str) -> Rule:
    """ELU (Clevert et al. 2016) and CELU (Barron 2017)."""

    def translate(builder: Builder, step: Step, a: Arguments) -> None:
        if a.get("scale", 1) != 1 or a.get("input_scale", 1) != 1:
            raise UnsupportedError("an ELU with another scale")
        builder.set(step.results[0], builder.add(op, a["self"], alpha=float(a["alpha"])))

    return translate


def prelu(builder: Builder, step: Step, a: Arguments) -> None:
    """`x` above 0, else `slope x` with a learned slope for all channels or for each."""
    slopes = a["weight"].detach().float().numpy()
    slopes = slopes.reshape(-1, *[1] * (len(a["self"].shape) - 2))
    builder.set(step.results[0], builder.add("PRelu", a["self"], builder.constant(slopes)))


def softplus(builder: Builder, step: Step, a: Arguments) -> None:
    """`log(1 + exp(x))`."""
    if a["beta"] != 1:
        raise UnsupportedError("a softplus with another beta")
    builder.set(step.results[0], builder.add("Softplus", a["self"]))


def mish(builder: Builder, step: Step, a: Arguments) -> None:
    """`x tanh(softplus(x))` (Misra 2020)."""
    inner = builder.add("Tanh", builder.add("Softplus", a["self"]))
    builder.set(step.results[0], builder.add("Mul", a["self"], inner))


def log_sigmoid(builder: Builder, step: Step, a: Arguments) -> None:
    """`-softplus(-x)`."""
    inner = builder.add("Softplus", builder.add("Neg", a["self"]))
    builder.set(step.results[0], builder.add("Neg", inner))


def glu(builder: Builder, step: Step, a: Arguments) -> None:
    """One half of an axis, scaled by the sigmoid of the other (Dauphin et al. 2017)."""
    one, other = f"{step.results[0].number}_a", f"{step.results[0].number}_b"
    builder.nodes.append(Node("Split", (builder.name(a["self"]),), (one, other), {"axis": int(a["dim"])}))
    builder.set(step.results[0], builder.add("Mul", one, builder.add("Sigmoid", other)))


def masked_fill(builder: Builder, step: Step, a: Arguments) -> None:
    """A number where a constant mask is true."""
    builder.set(step.results[0], builder.add("Where", _mask(builder, a["mask"]), a["value"], a["self"]))


def where(builder: Builder, step: Step, a: Arguments) -> None:
    """One of two tensors at each place, by a constant mask."""
    mask = _mask(builder, a["condition"])
    builder.set(step.results[0], builder.add("Where", mask, a["self"], a["other"]))


def _mask(builder: Builder, mask: Any) -> str:
    if not isinstance(mask, Tensor):
        raise UnsupportedError("a mask that depends on the images")
    return builder.constant(mask.detach().bool().numpy())


def square(builder: Builder, step: Step, a: Arguments) -> None:
    """The square."""
    builder.set(step.results[0], builder.add("Mul", a["self"], a["self"]))


def same(builder: Builder, step: Step, a: Arguments) -> None:
    """An operator that changes no value in inference."""
    first = next(iter(a.values()))
    builder.set(step.results[0], builder.name(first))
