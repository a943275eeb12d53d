"""Dropout on a CPU with 16 random bits per element."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Dropout(nn.Dropout):
    """`nn.Dropout` that draws 64 random bits at a time on a CPU and uses 16 per element.

    torch draws at least 32 bits per element, in a single thread; in a small Transformer that takes as long
    as the matrix products. The probability is exact to 2^-17.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Any shape; zero with probability `p`, otherwise multiplied by 1 / (1 - p)."""
        if torch.jit.is_scripting() or not self.training or not 0 < self.p < 1 or x.device.type != "cpu":
            return F.dropout(x, self.p, self.training)
        draws = torch.empty((x.numel() + 3) // 4, dtype=torch.int64).random_(-(2**63), None)
        dropped = draws.view(torch.int16)[: x.numel()].view(x.shape) < round(self.p * 2**16) - 2**15
        return x.mul(dropped.logical_not_().to(x.dtype).mul_(1 / (1 - self.p)))
