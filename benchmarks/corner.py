"""A network that costs next to nothing, to measure everything but the network."""

from __future__ import annotations

import torch
from torch import nn

from striate.bundle import Description
from striate.inference.classifier import Classifier
from striate.transforms.preprocess import Preprocess


class Corner(nn.Module):
    """A classifier of the first pixel."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(3, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """`[batch, 3, height, width]` to `[batch, 3]`."""
        return self.fc(x[:, :, 0, 0])  # type: ignore[no-any-return]


def corner_classifier(preprocess: Preprocess) -> Classifier:
    """A classifier of three classes, on the CPU."""
    description = Description("classification", "corner", {}, ("a", "b", "c"), preprocess)
    return Classifier(Corner().eval(), description, torch.device("cpu"))
