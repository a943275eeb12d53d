"""Shapes of results without running torch's kernels for it.

On meta tensors nothing is computed, yet torch's shape functions take most of the time of a trace. For the
operators that networks are made of the shape is a formula; for all others torch answers once for each
combination of argument shapes, and the answer is remembered.

The formulas hold for contiguous arguments, but for those of `ANY_LAYOUT`, whose results are always
contiguous; the caller asks torch for others.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor

Arguments = Sequence[Any]
Shape = Sequence[int]


def window_size(
    size: int, kernel: int, stride: int = 1, padding: int = 0, dilation: int = 1, ceil: bool = False
) -> int:
    """N = floor((W - F + 2 P) / S) + 1, with F the extent of the dilated kernel.

    With `ceil`, a last window that begins inside the image or its left padding counts though it ends
    outside: torch.nn.MaxPool2d, `ceil_mode`.
    """
    span = size + 2 * padding - dilation * (kernel - 1) - 1
    if not ceil:
        return span // stride + 1
    count = -(-span // stride) + 1
    return count - 1 if (count - 1) * stride >= size + padding else count


def transposed_size(
    size: int, kernel: int, stride: int = 1, padding: int = 0, dilation: int = 1, output_padding: int = 0
) -> int:
    """(N - 1) S - 2 P + D (F - 1) + output padding + 1 (torch.nn.ConvTranspose2d)."""
    return (size - 1) * stride - 2 * padding + dilation * (kernel - 1) + output_padding + 1


def _convolution(args: Arguments) -> list[Shape] | None:
    x, weight, _, stride, padding, dilation, transposed, _, groups = args
    count = weight.ndim - 2
    if x.ndim != weight.ndim or len(stride) != count or transposed:
        return None
    if x.shape[1] != weight.shape[1] * groups or 0 in x.shape:
        return None  # torch words the complaint
    if len(padding) != count or len(dilation) != count:
        return None
    sizes = [
        window_size(*item)
        for item in zip(x.shape[2:], weight.shape[2:], stride, padding, dilation, strict=True)
    ]
    return None if min(sizes) < 1 else [(x.shape[0], weight.shape[0], *sizes)]


def _batch_norm(args: Arguments) -> list[Shape] | None:
    x, weight, training = args[0], args[1], args[5]
    if training or weight is None or x.ndim < 2 or x.shape[1] != weight.shape[0]:
        return None
    return [x.shape, (0,), (0,)]


def _max_pool(args: Arguments) -> list[Shape] | None:
    rest: tuple[Any, ...] = ([], [0, 0], [1, 1], False)
    x, kernel, stride, padding, dilation, ceil = (*args, *rest[len(args) - 2 :])
    size = _pooled(x, kernel, stride or kernel, padding, dilation, ceil)
    return None if size is None else [size, size]


def _avg_pool(args: Arguments) -> list[Shape] | None:
    kernel = args[1]
    rest: tuple[Any, ...] = ([], [0] * len(kernel), False)
    x, kernel, stride, padding, ceil = (*args, *rest[len(args) - 2 :])[:5]
    size = _pooled(x, kernel, stride or kernel, padding, [1] * len(kernel), ceil)
    return None if size is None else [size]


def _pooled(
    x: Tensor,
    kernel: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    ceil: bool,
) -> Shape | None:
    count = x.ndim - 2
    if any(len(value) != count for value in (kernel, stride, padding, dilation)) or 0 in x.shape:
        return None
    if any(2 * p > k for p, k in zip(padding, kernel, strict=True)):
        return None
    sizes = [
        window_size(*item, ceil) for item in zip(x.shape[2:], kernel, stride, padding, dilation, strict=True)
    ]
    return None if min(sizes) < 1 else (*x.shape[:2], *sizes)


def _adaptive_pool(args: Arguments) -> list[Shape] | None:
    x, size = args
    return [(*x.shape[:2], *size)] if x.ndim == 4 and 0 not in x.shape else None


def _unary(args: Arguments) -> list[Shape] | None:
    return [args[0].shape]


def _binary(args: Arguments) -> list[Shape] | None:
    a, b = args[0], args[1]
    if not isinstance(b, Tensor):
        return [a.shape]
    if b.ndim == 0 and a.ndim > 0 and not b.is_complex():
        return [a.shape]  # a number that Python code wrote: it takes the other's type
    if a.dtype != b.dtype:
        return None
    if a.shape == b.shape:
        return [a.shape]
    long, short = (a.shape, b.shape) if a.ndim >= b.ndim else (b.shape, a.shape)
    shape = list(long)
    for place in range(1, len(short) + 1):
        n, m = long[-place], short[-place]
        if n != m and 1 not in (n, m):
            return None
        shape[-place] = m if n == 1 else n
    return [shape]


def _mean(args: Arguments) -> list[Shape] | None:
    if len(args) < 3 or args[1] is None or not args[2]:
        return None
    x = args[0]
    dims = {d % x.ndim for d in args[1]}
    return [tuple(1 if d in dims else n for d, n in enumerate(x.shape))]


def _cat(args: Arguments) -> list[Shape] | None:
    tensors, dim = args[0], args[1] if len(args) > 1 else 0
    first = tensors[0]
    shape = list(first.shape)
    dim %= first.ndim
    for other in tensors[1:]:
        if other.dtype != first.dtype or other.ndim != first.ndim:
            return None
        if any(n != m for d, (n, m) in enumerate(zip(shape, other.shape, strict=True)) if d != dim):
            return None
        shape[dim] += other.shape[dim]
    return [shape]


def _addmm(args: Arguments) -> list[Shape] | None:
    bias, a, b = args
    if (
        a.shape[1] != b.shape[0]
        or bias.dtype != a.dtype
        or bias.shape not in (b.shape[1:], (1, *b.shape[1:]))
    ):
        return None
    return [(a.shape[0], b.shape[1])]


def _mm(args: Arguments) -> list[Shape] | None:
    a, b = args
    if a.ndim < 2 or a.shape[:-2] != b.shape[:-2] or a.shape[-1] != b.shape[-2] or a.dtype != b.dtype:
        return None
    return [(*a.shape[:-1], b.shape[-1])]


UNARY = (
    "relu",
    "hardswish",
    "gelu",
    "silu",
    "sigmoid",
    "hardsigmoid",
    "tanh",
    "hardtanh",
    "leaky_relu",
    "elu",
    "neg",
    "abs",
    "exp",
    "sqrt",
    "rsqrt",
)

# Every result has the type of the first tensor, but for the indices of a max-pool.
FORMULAS: dict[str, Callable[[Arguments], list[Shape] | None]] = {
    "convolution.default": _convolution,
    "native_batch_norm.default": _batch_norm,
    "max_pool2d_with_indices.default": _max_pool,
    "avg_pool2d.default": _avg_pool,
    "avg_pool3d.default": _avg_pool,
    "_adaptive_avg_pool2d.default": _adaptive_pool,
    **{f"{name}.Tensor": _binary for name in ("add", "sub", "mul", "div")},
    "pow.Tensor_Scalar": _unary,
    "mean.dim": _mean,
    "cat.default": _cat,
    "addmm.default": _addmm,
    "mm.default": _mm,
    "bmm.default": _mm,
    **{f"{name}.default": _unary for name in UNARY},
}
ANY_LAYOUT = {_addmm, _mm}
