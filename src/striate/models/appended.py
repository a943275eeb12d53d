"""A whole network, its classifier included, with one more fully connected layer on top."""

from __future__ import annotations

from torch import Tensor, nn


class Appended(nn.Module):
    """Scores of the base, turned into scores for other classes.

    Args:
        base: gives `[batch, base_classes]`.
        base_classes: how many scores the base gives.
        num_classes: how many scores this network gives.
    """

    def __init__(self, base: nn.Module, base_classes: int, num_classes: int) -> None:
        super().__init__()
        self.base = base
        self.head = nn.Linear(base_classes, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Scores `[batch, num_classes]` for whatever the base reads."""
        return self.head(self.base(x))
