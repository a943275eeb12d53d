"""Max-pooling in LeNet, for training on a CPU: torch's takes a quarter of the time of a step."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from striate.models import lenet
from striate.models.layers import check_images

MOST = 2**20  # values, beyond which torch's threads are faster


class LeNet(lenet.LeNet):
    """`lenet.LeNet` whose pools are `max_pool`; the same numbers to the bit."""

    def forward(self, x: Tensor) -> Tensor:
        """Scores `[batch, num_classes]` for images `[batch, channel, height, width]`."""
        check_images(x, self.in_channels, self.input_size)
        x = max_pool(F.relu(self.conv1(x)))
        x = max_pool(F.relu(self.conv2(x)))
        x = x.flatten(1)
        x = F.relu(self.fc1(x))
        x = F.relu(self.fc2(x))
        return self.fc3(x)


def install(network: nn.Module) -> None:
    """Give each LeNet in a network, in place, the class of its fast counterpart."""
    for module in network.modules():
        if type(module) is lenet.LeNet:
            module.__class__ = LeNet


def max_pool(x: Tensor) -> Tensor:
    """`F.max_pool2d(x, 2)`, to the bit, also its gradient.

    Args:
        x: `[batch, channel, height, width]`.
    """
    if not torch.jit.is_scripting():  # noqa: SIM102 - TorchScript skips the branch only in this form
        if pays(x):
            return _MaxPool.apply(x)  # type: ignore[no-untyped-call]  # torch's omission
    return F.max_pool2d(x, 2)


def pays(x: Tensor) -> bool:
    """Whether `max_pool` has a faster way for these values."""
    return (
        isinstance(x, Tensor)  # not while a graph is recorded
        and not torch.compiler.is_compiling()
        and x.device.type == "cpu"
        and x.dtype == torch.float32
        and x.is_contiguous()
        and x.shape[2] % 2 == x.shape[3] % 2 == 0
        and x.numel() <= MOST
    )


class _MaxPool(torch.autograd.Function):
    """The maximum of each row's pairs, then of pairs of rows.

    Of equal values the first one in reading order receives the gradient, as torch has it: the upper row, and
    in it the left value.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        rows = torch.maximum(x[..., ::2], x[..., 1::2])
        ctx.save_for_backward(x, rows)
        return torch.maximum(rows[:, :, ::2], rows[:, :, 1::2])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        x, rows = ctx.saved_tensors
        d_rows, dx = torch.empty_like(rows), torch.empty_like(x)
        _route(gradient, rows[:, :, ::2] >= rows[:, :, 1::2], d_rows[:, :, ::2], d_rows[:, :, 1::2])
        _route(d_rows, x[..., ::2] >= x[..., 1::2], dx[..., ::2], dx[..., 1::2])
        return dx


def _route(gradient: Tensor, to_first: Tensor, first: Tensor, second: Tensor) -> None:
    """Write the gradient into `first` where it belongs there, else into `second`, and zeros elsewhere."""
    torch.mul(gradient, to_first, out=first)
    torch.sub(gradient, first, out=second)
