"""Packed batches: the tokens of a padded batch, one after the other, without the padding."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Packing:
    """Where the tokens of a padded batch are, so that layers that treat tokens separately skip padding.

    Attributes:
        mask: `[batch, tokens]`, True for a token, False for padding.
        places: `[n]`, indices of the tokens in the flattened mask; None if there is no padding.
    """

    mask: Tensor
    places: Tensor | None

    @classmethod
    def of(cls, mask: Tensor) -> Packing:
        """The packing of a mask `[batch, tokens]`."""
        places = mask.flatten().nonzero().squeeze(1)
        return cls(mask, None if len(places) == mask.numel() else places)

    @property
    def attention_mask(self) -> Tensor | None:
        """The mask for attention to these tokens, `[batch, 1, 1, tokens]`; None if there is no padding."""
        return None if self.places is None else self.mask[:, None, None, :]

    def pack(self, x: Tensor) -> Tensor:
        """`[batch, tokens, ...]` -> `[n, ...]`."""
        x = x.flatten(0, 1)
        if self.places is None:
            return x
        return _Take.apply(x, self.places)  # type: ignore[no-untyped-call]  # torch's omission

    def unpack(self, x: Tensor) -> Tensor:
        """`[n, ...]` -> `[batch, tokens, ...]`, with zeros at padding."""
        batch, tokens = self.mask.shape
        if self.places is not None:
            x = _Put.apply(x, self.places, batch * tokens)  # type: ignore[no-untyped-call]  # torch's omission
        return x.view(batch, tokens, *x.shape[1:])


class _Take(torch.autograd.Function):
    """Select rows, none twice; torch's own gradient adds the rows up one by one, which is slow."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, places: Tensor) -> Tensor:
        ctx.save_for_backward(places)
        ctx.rows = len(x)
        return x.index_select(0, places)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (places,) = ctx.saved_tensors
        return gradient.new_zeros(ctx.rows, *gradient.shape[1:]).index_copy_(0, places, gradient), None


class _Put(torch.autograd.Function):
    """Put rows in their places, with zeros elsewhere."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, places: Tensor, rows: int) -> Tensor:
        ctx.save_for_backward(places)
        return x.new_zeros(rows, *x.shape[1:]).index_copy_(0, places, x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        (places,) = ctx.saved_tensors
        return gradient.index_select(0, places), None, None
