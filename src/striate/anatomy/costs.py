"""What operators cost, in multiply-accumulates (MACs).

The conventions, here and nowhere else:

- A multiply and the add that follows count as one MAC. Twice as many FLOPs, if every operation counts.
- Counted are convolutions, linear layers and other matrix products, both products of attention included.
  These are the figures that torchvision publishes for its models (as "GFLOPS").
- Biases, norms, activations, pooling, resizing, softmax and elementwise arithmetic count zero.
- An operator of which this project does not know whether it multiplies is listed as not counted.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

Arguments = dict[str, Any]


def convolution(args: Arguments, out: Sequence[int]) -> int:
    """Every output value, or input value where it is transposed, meets the kernel's part for its group.

    A weight is `[out, in / groups, ...]`, or `[in, out / groups, ...]` where transposed: in both cases what
    one value meets is the product of all but the first dimension.
    """
    points = args["input"].shape if args["transposed"] else out
    return int(prod(points) * prod(args["weight"].shape[1:]))


def matrix_product(args: Arguments, out: Sequence[int]) -> int:
    """Every output value is a dot product along the inner dimension, the last of the left factor."""
    left = next(args[name] for name in ("mat1", "batch1", "self", "input", "tensor") if name in args)
    return prod(out) * int(left.shape[-1])


def attention(args: Arguments, out: Sequence[int]) -> int:
    """Scores (queries x keys x width) and their sum over the values (queries x keys x value width)."""
    query, key, value = args["query"].shape, args["key"].shape, args["value"].shape
    return int(prod(query[:-1]) * key[-2] * (query[-1] + value[-1]))


COSTS = {
    "convolution": convolution,
    "convolution_overrideable": convolution,
    **dict.fromkeys(["mm", "addmm", "bmm", "baddbmm", "mv", "dot", "vdot", "linear"], matrix_product),
    **dict.fromkeys(
        [
            "scaled_dot_product_attention",
            "_scaled_dot_product_flash_attention",
            "_scaled_dot_product_flash_attention_for_cpu",
            "_scaled_dot_product_efficient_attention",
            "_scaled_dot_product_cudnn_attention",
            "_scaled_dot_product_fused_attention_overrideable",
        ],
        attention,
    ),
}
