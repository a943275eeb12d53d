"""Weights of a trained Transformer in the memory layout of oneDNN, for inference on a CPU."""

from __future__ import annotations

import copy
from typing import cast

import torch
from torch import Tensor, nn

from striate.kernels import Network
from striate.kernels.linear import has_onednn, onednn
from striate.models.transformer import FeedForward, MultiHeadAttention

ROWS = 32  # rows that a decoding step multiplies with a matrix; other numbers are correct, but slower


def prepack(network: Network) -> Network:
    """Copy a network with prepacked weights in its linear layers and attentions, for inference only.

    Args:
        network: in evaluation mode, on any device; it does not change, and shares with the copy whatever
            is not prepacked.

    Returns:
        A module with the same function; the network itself if oneDNN is not available: on other devices
        than a CPU, or for other types than float32.
    """
    return cast(Network, _prepacked(network)) if has_onednn(next(network.parameters())) else network


def _prepacked(module: nn.Module) -> nn.Module:
    if isinstance(module, nn.Linear):
        return _PrepackedLinear(module.weight, module.bias)
    if isinstance(module, FeedForward) and isinstance(module[1], nn.ReLU):
        first, second = module[0], module[3]
        relu = _PrepackedLinear(first.get_parameter("weight"), first.get_parameter("bias"), "relu")
        return nn.Sequential(relu, _prepacked(second))
    module = copy.copy(module)
    module._modules = {
        name: None if child is None else _prepacked(child) for name, child in module._modules.items()
    }
    if isinstance(module, MultiHeadAttention):
        module.__class__ = _PrepackedAttention
    return module


class _PrepackedLinear(nn.Module):
    """A linear layer and its activation.

    Args:
        weight: `[out, in]`.
        bias: `[out]` or None.
        activation: oneDNN's name of the activation.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None, activation: str = "none") -> None:
        super().__init__()
        self.activation = activation
        self.weight = torch.ops.mkldnn._reorder_linear_weight(weight.detach(), ROWS)
        self.bias = None if bias is None else bias.detach()

    def forward(self, x: Tensor) -> Tensor:
        """`[..., in]` -> `[..., out]`."""
        return onednn(x, self.weight, self.bias, self.activation)


class _PrepackedAttention(MultiHeadAttention):
    """Attention that prepacks each projection when it is first used."""

    def project(self, x: Tensor, first: int, last: int) -> Tensor:
        """`[..., width]` -> `[..., (last - first) * width]`: queries (0), keys (1) and values (2)."""
        name = f"_projection_{first}_{last}"
        if name not in self._modules:
            rows = slice(first * x.shape[-1], last * x.shape[-1])
            self._modules[name] = _PrepackedLinear(self.in_proj_weight[rows], self.in_proj_bias[rows])
        return self.get_submodule(name)(x)
