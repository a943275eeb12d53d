"""Attention in parts: projections, cached or packed keys and values, and few queries."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from striate.kernels.linear import linear
from striate.kernels.packing import Packing
from striate.models.transformer import MultiHeadAttention

# Numbers of queries for which explicit matrix products are faster on a CPU than torch's attention.
FEW = range(2, 9)


class Attention(MultiHeadAttention):
    """`MultiHeadAttention` with its projections computed by `linear`."""

    def project(self, x: Tensor, first: int, last: int) -> Tensor:
        """`[..., width]` -> `[..., (last - first) * width]`: queries (0), keys (1) and values (2)."""
        if first == 0 and last == 3:
            return linear(x, self.in_proj_weight, self.in_proj_bias)
        first, last = first * x.shape[-1], last * x.shape[-1]
        return linear(x, self.in_proj_weight[first:last], self.in_proj_bias[first:last])


class Cache:
    """Keys and values of earlier tokens in one decoder layer, in memory that grows by doubling.

    Attributes:
        keys, values: `[batch, heads, capacity, width / heads]`; the first `length` tokens are filled.

    Args:
        capacity: number of tokens before the memory grows.
    """

    def __init__(self, capacity: int) -> None:
        self.keys = self.values = torch.empty(0)
        self.length, self._capacity = 0, capacity

    def extend(self, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Append those of the next tokens, `[batch, heads, new, width / heads]`; return all so far."""
        end = self.length + keys.shape[2]
        if self.length == 0 or end > self.keys.shape[2]:
            self._grow(keys, max(end, self._capacity, 2 * self.length))
        self.keys[:, :, self.length : end] = keys
        self.values[:, :, self.length : end] = values
        self.length = end
        return self.keys[:, :, :end], self.values[:, :, :end]

    def select(self, rows: Tensor) -> None:
        """Keep only these rows of the batch, in the order of the indices."""
        self.keys, self.values = self.keys.index_select(0, rows), self.values.index_select(0, rows)

    def _grow(self, like: Tensor, capacity: int) -> None:
        batch, heads, _, width = like.shape
        old = self.keys, self.values
        self.keys, self.values = (like.new_empty(batch, heads, capacity, width) for _ in old)
        if self.length:
            self.keys[:, :, : self.length] = old[0][:, :, : self.length]
            self.values[:, :, : self.length] = old[1][:, :, : self.length]


def project(
    attention: MultiHeadAttention, x: Tensor, first: int, last: int, packing: Packing | None = None
) -> tuple[Tensor, ...]:
    """Compute some of queries (0), keys (1) and values (2).

    Args:
        attention: gives the weights.
        x: `[batch, tokens, width]`, or `[n, width]` packed.
        first: the first of them.
        last: one past the last of them.
        packing: of `x`, if it is packed.

    Returns:
        `last - first` tensors `[batch, heads, tokens, width / heads]`.
    """
    x = attention.project(x, first, last)
    if packing is not None:
        x = packing.unpack(x)
    return attention.split_heads(x, last - first).unbind(0)


def attend(
    attention: MultiHeadAttention,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None = None,
    *,
    causal: bool = False,
    packing: Packing | None = None,
    weights: list[Tensor] | None = None,
) -> Tensor:
    """Attend with projected queries, keys and values `[batch, heads, tokens, width / heads]`.

    Args:
        attention: gives the output projection and the dropout.
        query: of the tokens.
        key: of the tokens to attend to.
        value: of the tokens to attend to.
        mask: True = attend; bool, broadcasts to `[batch, heads, tokens, attended tokens]`.
        causal: each token attends only to itself and earlier tokens; without `mask`.
        packing: packs the result, if given.
        weights: a list that receives the attention weights `[batch, heads, tokens, attended tokens]`.

    Returns:
        `[batch, tokens, width]`, or `[n, width]` packed.
    """
    dropout = attention.dropout if attention.training else 0.0
    # torch.export would fix the number of queries in the program if this code read it.
    few = not torch.compiler.is_exporting() and query.device.type == "cpu" and query.shape[2] in FEW
    if weights is None and not few:
        x = F.scaled_dot_product_attention(query, key, value, mask, dropout, is_causal=causal)
    else:
        softmax = attention_weights(query, key, mask, causal)
        if weights is not None:
            weights.append(softmax)
        x = F.dropout(softmax, dropout) @ value
    x = x.transpose(1, 2).flatten(2)  # [batch, tokens, width]
    return attention.out_proj(x if packing is None else packing.pack(x))


def attention_weights(query: Tensor, key: Tensor, mask: Tensor | None, causal: bool = False) -> Tensor:
    """softmax(Q K^T / sqrt(d)) of equation 1, `[batch, heads, tokens, attended tokens]`."""
    scores = (query * query.shape[3] ** -0.5) @ key.transpose(2, 3)
    if causal:
        mask = torch.ones(scores.shape[2:], dtype=torch.bool, device=scores.device).tril()
    if mask is not None:
        scores.masked_fill_(~mask, -torch.inf)
    return scores.softmax(dim=3)
