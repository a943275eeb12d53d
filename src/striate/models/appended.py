"""A network with an additional fully connected layer on top of its scores."""

from __future__ import annotations

from torch import Tensor, nn


class Appended(nn.Module):
    """A base network, and a layer that maps its scores to scores for other classes.

    Args:
        base: its output is `[batch, base_classes]`.
        base_classes: number of scores of the base.
        num_classes: number of scores of this network.
    """

    def __init__(self, base: nn.Module, base_classes: int, num_classes: int) -> None:
        super().__init__()
        self.base = base
        self.head = nn.Linear(base_classes, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Scores `[batch, num_classes]` for any input of the base."""
        return self.head(self.base(x))
