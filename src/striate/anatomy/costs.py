"""Multiply-accumulates (MACs) of operators.

The conventions for the whole project:

- A multiply and the following add are one MAC, or two FLOPs.
- Convolutions, linear layers and other matrix products are counted, including both products of attention.
  torchvision publishes the same figures for its models (as "GFLOPS").
- Biases, norms, activations, pooling, resizing, softmax and elementwise arithmetic count zero.
- Other operators are reported as uncounted.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

Arguments = dict[str, Any]


def convolution(args: Arguments, out: Sequence[int]) -> int:
    """Each output value, or input value if transposed, is multiplied with the kernel of its group.

    A weight is `[out, in / groups, ...]`, or `[in, out / groups, ...]` if transposed. In both cases the
    number of multiplications per value is the product of all dimensions but the first.
    """
    points = args["input"].shape if args["transposed"] else out
    return int(prod(points) * prod(args["weight"].shape[1:]))


def matrix_product(args: Arguments, out: Sequence[int]) -> int:
    """Each output value is a dot product over the inner dimension, the last one of the left factor."""
    left = next(args[name] for name in ("mat1", "batch1", "self", "input", "tensor") if name in args)
    return prod(out) * int(left.shape[-1])


def attention(args: Arguments, out: Sequence[int]) -> int:
    """Scores (queries x keys x width) and weighted sums of values (queries x keys x value width)."""
    query, key, value = args["query"].shape, args["key"].shape, args["value"].shape
    return int(prod(query[:-1]) * key[-2] * (query[-1] + value[-1]))
