"""Synchronized BatchNorm: the statistics are those of the whole batch, over all processes.

torch's SyncBatchNorm runs on GPUs only; this one also runs on CPUs, with the same result.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn


class SyncBatchNorm2d(nn.BatchNorm2d):
    """BatchNorm over all processes (Ioffe, Szegedy 2015, algorithm 1, over the global batch).

    Each process sums values and squares in float64. One collective adds them up, and another one adds up the
    gradients in the backward pass. A process may have no images at all.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Normalize `[batch, channels, height, width]`; in evaluation mode as plain BatchNorm."""
        if not self.training:
            return super().forward(x)
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        assert self.momentum is not None
        count = x.numel() // x.shape[1]
        if count:
            var, mean = (value.double() for value in torch.var_mean(x, (0, 2, 3), correction=0))
            sums = torch.cat([mean * count, (var + mean * mean) * count])
        else:
            sums = torch.cat([x.sum((0, 2, 3)), x.sum((0, 2, 3))]).double()  # zeros that have a gradient
        total: Tensor = _Sum.apply(torch.cat([sums, sums.new_tensor([count])]))  # type: ignore[no-untyped-call]
        n = total[-1].detach()
        mean, square = (total[:-1] / n).chunk(2)
        var = (square - mean * mean).clamp(min=0)
        with torch.no_grad():
            self.num_batches_tracked += 1
            unbiased = var * n / (n - 1).clamp(min=1)
            self.running_mean.lerp_(mean.to(self.running_mean.dtype), self.momentum)
            self.running_var.lerp_(unbiased.to(self.running_var.dtype), self.momentum)
        scale = self.weight * torch.rsqrt(var + self.eps)
        shift = self.bias - mean * scale
        scale, shift = (value.to(x.dtype)[:, None, None] for value in (scale, shift))
        return x * scale + shift


class _Sum(torch.autograd.Function):
    """The sum over the processes; its gradient is the sum of their gradients."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        values = values.clone()
        dist.all_reduce(values)
        return values

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        gradient = gradient.clone()
        dist.all_reduce(gradient)
        return gradient


def convert_sync_batchnorm(network: nn.Module) -> nn.Module:
    """The network with synchronized BatchNorm; parameters and buffers stay the same objects."""
    first = next(network.parameters(), None)
    if first is not None and first.device.type == "cuda":
        return nn.SyncBatchNorm.convert_sync_batchnorm(network)  # type: ignore[no-any-return, no-untyped-call]
    for module in network.modules():
        if type(module) is nn.BatchNorm2d and module.affine and module.track_running_stats:
            module.__class__ = SyncBatchNorm2d
    return network
