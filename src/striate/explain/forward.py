"""What methods of explanation need from one pass of images through a network: scores, maps and gradients."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Protocol

import torch
from torch import Tensor

# For each image, constant weights of some classes: what is explained is the weighted sum of their scores.
Weights = Sequence[Mapping[int, float]]


class Forward(Protocol):
    """What one pass of images through a network left behind.

    Its tensors can be inference tensors: clone them to change them or to compute gradients.
    """

    @property
    def maps(self) -> Tensor:
        """The last feature maps, `[batch, channels, rows, columns]`."""

    @property
    def scores(self) -> Tensor:
        """`[batch, classes]`."""

    def gradients(self, weights: Weights) -> Tensor:
        """The gradients of the weighted sums of scores with respect to the maps, the shape of the maps."""

    def mean_gradients(self, weights: Weights) -> Tensor:
        """Their means over the units of each map, `[batch, channels]`."""


class Split(Protocol):
    """A network, seen from its last feature maps. Images are `[batch, channels, height, width]`."""

    def __call__(self, images: Tensor) -> Forward:
        """One pass; to be called with gradients enabled."""

    def scores(self, images: Tensor) -> Tensor:
        """The scores alone; to be called without gradients."""


def weighted_gradient(outputs: Tensor, weights: Tensor, inputs: Tensor) -> Tensor:
    """The gradient of the weighted sum of outputs with respect to the inputs."""
    # Not `grad_outputs=weights`, with which torch imports SymPy: half a second.
    total = torch.dot(outputs.flatten(), weights.flatten())
    (gradient,) = torch.autograd.grad(total, inputs, retain_graph=True)
    return gradient


def weighted_rows(rows: Tensor, weights: Weights, factor: float = 1.0) -> Tensor:
    """For each image the weighted sum of some rows `[classes, features]`, times a factor."""
    sums = [
        functools.reduce(torch.add, [factor * weight * rows[i] for i, weight in one.items()])
        for one in weights
    ]
    return torch.stack(sums) if len(sums) > 1 else sums[0][None]
