"""The features of a network: the input of its last layer."""

from __future__ import annotations

import threading
from typing import Any

import torch
from torch import Tensor, nn

from striate.errors import UsageError


class Penultimate(nn.Module):
    """A network that returns the input of its last layer in place of its scores.

    Features with spatial axes `[batch, channel, height, width]`, or of tokens `[batch, token, channel]`, are
    averaged over these.

    Args:
        network: in evaluation mode; gets a hook, so give it a copy.
        layer: name of the last layer with weights.

    Raises:
        UsageError: the layer is not known.
    """

    def __init__(self, network: nn.Module, layer: str) -> None:
        super().__init__()
        if not layer:
            why = "the network's last layer is not known"
            raise UsageError("cannot embed images", why, "Train it with --classifier NAME")
        self.network = network
        self._seen = threading.local()  # several threads may use the network
        network.get_submodule(layer).register_forward_pre_hook(self._keep)

    def forward(self, x: Tensor) -> Tensor:
        """`[batch, channel, height, width]` -> `[batch, features]`."""
        return self.with_scores(x)[1]

    def with_scores(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The scores of the network and the features, from one pass."""
        self._seen.features = None
        scores = self.network(x)
        features: Tensor | None = self._seen.features
        if features is None or len(features) != len(x):
            raise UsageError("cannot embed images", "the network's last layer does not run once per image")
        if features.ndim == 4:
            return scores, features.mean(dim=(2, 3))
        return scores, features.mean(dim=1) if features.ndim == 3 else features.flatten(1)

    def joined(self) -> nn.Module:
        """A network that returns scores and features in one tensor, `[batch, classes + features]`."""
        return _Joined(self)

    def _keep(self, layer: nn.Module, inputs: tuple[Any, ...]) -> None:
        self._seen.features = inputs[0]


class _Joined(nn.Module):
    def __init__(self, penultimate: Penultimate) -> None:
        super().__init__()
        self.penultimate = penultimate

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat(self.penultimate.with_scores(x), dim=1)
