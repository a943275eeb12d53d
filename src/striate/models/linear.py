"""Linear layers in less time on processors for which MKL was not made.

On a CPU torch multiplies matrices of float32 with MKL, which uses Intel's processors well and others less: on
an AMD EPYC (Zen 5) it takes 1.6 to 2.3 times as long as oneDNN, with which torch computes convolutions
(`benchmarks/bench_cpu.py`). Here a matrix product is oneDNN's too, where that pays. Elsewhere all is torch's.
"""

from __future__ import annotations

import platform
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

LEAST = 2**22  # multiplications, below which what a call costs by itself outweighs the gain


class Linear(nn.Linear):
    """`nn.Linear`, computed by `linear`."""

    def forward(self, x: Tensor) -> Tensor:
        """`[..., in]` to `[..., out]`."""
        return linear(x, self.weight, self.bias)


def linear(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """`F.linear`: `x @ weight.T + bias`, in float32 on a CPU equal to it but for rounding.

    Args:
        x: `[..., in]`.
        weight: `[out, in]`.
        bias: `[out]`.

    Returns:
        `[..., out]`; through oneDNN it can be differentiated once.
    """
    if not torch.jit.is_scripting():  # noqa: SIM102 - TorchScript leaves it out in this form alone
        if pays(x, weight):
            return _by_onednn(x, weight, bias)
    return F.linear(x, weight, bias)


def _by_onednn(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    y: Tensor = _Linear.apply(x, weight, bias)  # type: ignore[no-untyped-call]  # torch's omission
    return y


def product(a: Tensor, b: Tensor) -> Tensor:
    """`a @ b.T` of `[n, k]` and `[m, k]`, whichever way they lie in memory; not to be differentiated."""
    if not pays(a, b):
        return a @ b.t()
    return onednn(a, b, None)


def onednn(x: Tensor, weight: Tensor, bias: Tensor | None, activation: str = "none") -> Tensor:
    """A linear layer and the activation after it, by oneDNN; not to be differentiated.

    Args:
        x: float32 `[..., in]` on the CPU.
        weight: `[out, in]`, however it lies in memory, or arranged by oneDNN.
        bias: `[out]` or None.
        activation: oneDNN's name for what comes after it.
    """
    y: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, activation, [], "")
    return y


def pays(x: Tensor, weight: Tensor) -> bool:
    """Whether to give the product of `[..., in]` and `[out, in]` to oneDNN."""
    return (
        MKL_IS_SLOW
        and not torch.compiler.is_compiling()
        and x.device.type == "cpu"
        and x.dtype == weight.dtype == torch.float32
        and x.numel() * len(weight) >= LEAST
        and not torch.is_autocast_enabled("cpu")
    )


def _mkl_is_slow() -> bool:
    """Whether torch has MKL and oneDNN, and the processor is not Intel's."""
    has_mkl: bool = torch.backends.mkl.is_available()  # type: ignore[no-untyped-call]  # torch's omission
    if not has_mkl or not hasattr(torch.ops.mkldnn, "_linear_pointwise"):
        return False
    try:
        with Path("/proc/cpuinfo").open() as file:
            processor = file.read(1000)  # the first of many, which take long to list
    except OSError:  # not Linux
        processor = platform.processor()
    return "Intel" not in processor


MKL_IS_SLOW = _mkl_is_slow()


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
