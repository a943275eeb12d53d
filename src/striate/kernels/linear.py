"""Linear layers by oneDNN, on processors where MKL is slow.

On a CPU torch multiplies float32 matrices with MKL, which is fast on Intel processors and slower on others:
on an AMD EPYC (Zen 5) MKL takes 1.6 to 2.3 times as long as oneDNN, which torch uses for convolutions
(`benchmarks/bench_cpu.py`).
"""

from __future__ import annotations

import functools
import platform
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

LEAST = 2**22  # multiplications; below that, the overhead of a call exceeds the gain


class Linear(nn.Linear):
    """`nn.Linear` computed by `linear`."""

    def forward(self, x: Tensor) -> Tensor:
        """`[..., in]` -> `[..., out]`."""
        return linear(x, self.weight, self.bias)


def linear(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """`F.linear`: `x @ weight.T + bias`, by oneDNN where that is faster; the same up to rounding.

    Args:
        x: `[..., in]`.
        weight: `[out, in]`.
        bias: `[out]`.

    Returns:
        `[..., out]`; can be differentiated once if oneDNN computes it.
    """
    if not torch.jit.is_scripting():  # noqa: SIM102 - TorchScript skips the branch only in this form
        if pays(x, weight):
            return _by_onednn(x, weight, bias)
    return F.linear(x, weight, bias)


def _by_onednn(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return _Linear.apply(x, weight, bias)  # type: ignore[no-untyped-call]  # torch's omission


def product(a: Tensor, b: Tensor) -> Tensor:
    """`a @ b.T` of `[n, k]` and `[m, k]` in any memory layout; not differentiable."""
    if not pays(a, b):
        return a @ b.t()
    return onednn(a, b, None)


def onednn(x: Tensor, weight: Tensor, bias: Tensor | None, activation: str = "none") -> Tensor:
    """A linear layer and its activation, by oneDNN; not differentiable.

    Args:
        x: float32 `[..., in]` on the CPU.
        weight: `[out, in]` in any memory layout, or prepacked by oneDNN.
        bias: `[out]` or None.
        activation: oneDNN's name of the activation.
    """
    return torch.ops.mkldnn._linear_pointwise(x, weight, bias, activation, [], "")


def pays(x: Tensor, weight: Tensor) -> bool:
    """Whether oneDNN computes the product of `[..., in]` and `[out, in]` faster than torch's default."""
    return (
        not torch.compiler.is_compiling()
        and x.device.type == "cpu"
        and x.dtype == weight.dtype == torch.float32
        and x.numel() * len(weight) >= LEAST
        and mkl_is_slow()
        and not torch.is_autocast_enabled("cpu")
    )


def has_onednn(weight: Tensor) -> bool:
    """Whether oneDNN's fused operators are available for this weight."""
    return (
        weight.device.type == "cpu"
        and weight.dtype == torch.float32
        and torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]  # torch's omission
        and hasattr(torch.ops.mkldnn, "_linear_pointwise")
    )


@functools.cache
def mkl_is_slow() -> bool:
    """Whether torch has both MKL and oneDNN, and the processor is not Intel's."""
    has_mkl = torch.backends.mkl.is_available()  # type: ignore[no-untyped-call]  # torch's omission
    if not has_mkl or not hasattr(torch.ops.mkldnn, "_linear_pointwise"):
        return False
    try:
        with Path("/proc/cpuinfo").open() as file:
            processor = file.read(1000)  # the first processor; listing all of them takes long
    except OSError:  # not Linux
        processor = platform.processor()
    return "Intel" not in processor


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        return onednn(x, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        rows = gradient.flatten(0, -2)
        dx = product(rows, weight.t()).view(x.shape) if ctx.needs_input_grad[0] else None
        dweight = product(rows.t(), x.flatten(0, -2).t()) if ctx.needs_input_grad[1] else None
        dbias = rows.sum(dim=0) if ctx.needs_input_grad[2] else None
        return dx, dweight, dbias
