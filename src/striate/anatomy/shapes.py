"""Shapes of results, from those of the arguments, for operators that are recorded whole in inference mode.

`SHAPES` is the table. A function takes the arguments by name; it returns None if its formula does not hold
for them, and then torch's meta kernel decides, or says what is wrong.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

Bound = dict[str, Any]
Shape = tuple[int, ...]


def convolution(bound: Bound) -> Shape | None:
    """Dumoulin and Visin 2016 (arXiv:1603.07285), relationship 14."""
    x, weight, padding = bound["input"], bound["weight"], bound["padding"]
    axes = weight.ndim - 2
    if (
        isinstance(padding, str)
        or bound.get("transposed")
        or x.ndim != axes + 2
        or x.shape[1] != weight.shape[1] * bound["groups"]
    ):
        return None
    sizes = _windows(x, weight.shape[2:], bound["stride"], padding, bound["dilation"], ceil=False)
    return (x.shape[0], weight.shape[0], *sizes) if min(sizes) > 0 else None


def pool(bound: Bound) -> Shape | None:
    """As for a convolution; with `ceil_mode` the last window may end outside, but not begin there."""
    x, kernel = bound["self"], bound["kernel_size"]
    if x.ndim != len(kernel) + 2:
        return None
    stride, dilation = bound["stride"] or kernel, bound.get("dilation", [1])
    sizes = _windows(x, kernel, stride, bound["padding"], dilation, ceil=bound["ceil_mode"])
    return (*x.shape[:2], *sizes) if min(sizes) > 0 else None


def adaptive_pool(bound: Bound) -> Shape | None:
    """The size that is asked for."""
    x = bound["self"]
    return (*x.shape[:2], *bound["output_size"]) if x.ndim == 4 else None


def linear(bound: Bound) -> Shape | None:
    """The last axis gets the rows of the weights."""
    x, weight = bound["input"], bound["weight"]
    fits = weight.ndim == 2 and x.ndim > 0 and x.shape[-1] == weight.shape[1]
    return (*x.shape[:-1], weight.shape[0]) if fits else None


def product(bound: Bound) -> Shape | None:
    """A sum and a product of matrices, as `linear` with gradients."""
    added, left, right = bound["self"], bound["mat1"], bound["mat2"]
    if left.ndim != 2 or right.ndim != 2 or left.shape[1] != right.shape[0] or added.ndim > 2:
        return None
    shape = (left.shape[0], right.shape[1])
    fits = all(size in (1, wanted) for size, wanted in zip(added.shape[::-1], shape[::-1], strict=False))
    return shape if fits else None


def products(bound: Bound) -> Shape | None:
    """A product of matrices for each sample."""
    left, right = bound["self"], bound["mat2"]
    if left.ndim != 3 or right.ndim != 3 or left.shape[::2] != right.shape[:2]:
        return None
    return (*left.shape[:2], right.shape[2])


def batch_norm(bound: Bound) -> Shape | None:
    """That of the input, in evaluation mode."""
    x = bound["input"]
    parts = [bound[name] for name in ("weight", "bias", "running_mean", "running_var")]
    fits = not bound["training"] and bound["running_mean"] is not None
    return tuple(x.shape) if fits and all(p is None or p.shape == x.shape[1:2] for p in parts) else None


def layer_norm(bound: Bound) -> Shape | None:
    """That of the input."""
    x, normalized = bound["input"], tuple(bound["normalized_shape"])
    parts = [part for part in (bound["weight"], bound["bias"]) if part is not None]
    fits = tuple(x.shape[-len(normalized) :]) == normalized
    return tuple(x.shape) if fits and all(tuple(part.shape) == normalized for part in parts) else None


def concatenation(bound: Bound) -> Shape | None:
    """The sum of the sizes along one axis; the others are equal."""
    tensors, axis = bound["tensors"], bound["dim"]
    first = list(tensors[0].shape)
    if not -len(first) <= axis < len(first):
        return None
    total = sum(tensor.shape[axis] if tensor.ndim == len(first) else 0 for tensor in tensors)
    shapes = [[*tensor.shape] for tensor in tensors if tensor.ndim == len(first)]
    for shape in (first, *shapes):
        shape[axis] = total
    return tuple(first) if len(shapes) == len(tensors) and all(s == first for s in shapes) else None


def reduction(bound: Bound) -> Shape | None:
    """Without some axes, or with the size 1 there."""
    x, axes = bound["self"], bound.get("dim")
    if not isinstance(axes, (list, tuple)) or not axes or bound.get("dtype") is not None:
        return None
    gone = {axis % x.ndim for axis in axes if -x.ndim <= axis < x.ndim}
    if len(gone) < len(axes):
        return None
    sizes = enumerate(x.shape)
    return tuple(1 if i in gone else size for i, size in sizes if bound["keepdim"] or i not in gone)


def attention(bound: Bound) -> Shape | None:
    """That of the queries, with the width of the values."""
    query, key, value = bound["query"], bound["key"], bound["value"]
    same = query.shape[:-2] == key.shape[:-2] == value.shape[:-2] and key.shape[-2] == value.shape[-2]
    fits = same and query.shape[-1] == key.shape[-1] and bound.get("attn_mask") is None
    return (*query.shape[:-1], value.shape[-1]) if fits else None


def broadcast(bound: Bound) -> Shape | None:
    """Each axis has the size of the operand that does not have 1 there."""
    tensors = [value for value in bound.values() if isinstance(value, Tensor)]
    rank = max(tensor.ndim for tensor in tensors)
    padded = [(1,) * (rank - tensor.ndim) + tuple(tensor.shape) for tensor in tensors]
    shape = tuple(max(sizes, key=lambda size: (size != 1, size)) for sizes in zip(*padded, strict=True))
    fits = all(size in (1, wanted) for own in padded for size, wanted in zip(own, shape, strict=True))
    return shape if fits else None


def _windows(x: Tensor, kernel: Any, stride: Any, padding: Any, dilation: Any, *, ceil: bool) -> list[int]:
    axes = x.ndim - 2
    numbers = ([*value] * axes if len(value) == 1 else value for value in (kernel, stride, padding, dilation))
    sizes = []
    for size, length, step, pad, gap in zip(x.shape[2:], *numbers, strict=True):
        room = size + 2 * pad - gap * (length - 1) - 1
        count = (-(-room // step) if ceil else room // step) + 1
        sizes.append(count - (ceil and (count - 1) * step >= size + pad))
    return sizes


SHAPES: dict[str, Callable[[Bound], Shape | None]] = {
    **dict.fromkeys(("conv1d", "conv2d", "conv3d", "convolution"), convolution),
    **dict.fromkeys(("add", "div", "mul", "neg", "pow", "sqrt", "square", "sub"), broadcast),
    **dict.fromkeys(("avg_pool2d", "avg_pool3d", "max_pool2d"), pool),
    **dict.fromkeys(("mean", "sum"), reduction),
    **dict.fromkeys(("_adaptive_avg_pool2d", "adaptive_avg_pool2d"), adaptive_pool),
    "addmm": product,
    "batch_norm": batch_norm,
    "bmm": products,
    "cat": concatenation,
    "layer_norm": layer_norm,
    "linear": linear,
    "scaled_dot_product_attention": attention,
}
