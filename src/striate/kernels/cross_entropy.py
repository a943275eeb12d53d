"""Cross-entropy of a linear layer, without holding the scores of all tokens."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from striate.kernels.linear import linear, product

CHUNK = 2**21  # scores at a time: few enough to stay in a processor's cache


def linear_cross_entropy(
    x: Tensor, weight: Tensor, bias: Tensor, expected: Tensor, smoothing: float = 0.0
) -> Tensor:
    """`F.cross_entropy(F.linear(x, weight, bias), expected, label_smoothing=smoothing)`.

    With a large vocabulary, training reads and writes mostly scores. This function computes the scores and
    their gradient for a chunk of tokens at a time (as in Wijmans et al. 2025, arXiv:2411.09009). Without
    gradients, on other devices than a CPU, and under autocast, it is the expression above.

    Args:
        x: `[n, width]`.
        weight: `[vocab, width]`.
        bias: `[vocab]`.
        expected: int64 `[n]`, each below `vocab`.
        smoothing: weight of the uniform distribution in the expected one.

    Returns:
        The mean over the tokens, in nats; a scalar that can be differentiated once.
    """
    trains = torch.is_grad_enabled() and x.requires_grad
    if not trains or x.device.type != "cpu" or torch.is_autocast_enabled("cpu"):
        return F.cross_entropy(linear(x, weight, bias), expected, label_smoothing=smoothing)
    return _LinearCrossEntropy.apply(  # type: ignore[no-untyped-call]  # torch's omission
        x, weight, bias, expected, smoothing
    )


class _LinearCrossEntropy(torch.autograd.Function):
    """The gradient of a chunk follows from its scores: softmax minus the expected distribution, over n."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, expected: Tensor, smoothing: float
    ) -> Tensor:
        n, vocab = len(x), len(weight)
        dx, dweight, dbias = torch.empty_like(x), torch.zeros_like(weight), torch.zeros_like(bias)
        total = x.new_zeros((), dtype=torch.float64)
        uniform = smoothing / vocab
        for rows, labels, dx_rows in zip(
            *(torch.split(t, max(1, CHUNK // vocab)) for t in (x, expected[:, None], dx)), strict=True
        ):
            log = linear(rows, weight, bias).log_softmax(dim=1)
            picked = log.gather(1, labels)
            total -= (1 - smoothing) * picked.sum(dtype=torch.float64)
            if smoothing:  # sum each row first: a float64 sum of all scores would copy them
                total -= uniform * log.sum(dim=1).sum(dtype=torch.float64)
            grad = log.exp_()
            if smoothing:
                grad -= uniform
            grad.scatter_add_(1, labels, torch.full_like(picked, smoothing - 1))
            dx_rows.copy_(product(grad, weight.t()))
            dweight += product(grad.t(), rows.t())
            dbias += grad.sum(dim=0)
        ctx.save_for_backward(dx, dweight, dbias)
        ctx.n = max(1, n)  # without tokens the mean is NaN and its gradient zero, as of F.cross_entropy
        return (total / n).to(x.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        dx, dweight, dbias = ctx.saved_tensors
        factor = gradient / ctx.n
        return dx * factor, dweight * factor, dbias * factor, None, None
