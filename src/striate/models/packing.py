"""Where the tokens of a padded batch stand."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Packing:
    """Where the tokens of a batch stand: what is done to each token on its own is done to no padding.

    Attributes:
        mask: `[batch, tokens]`, True for a token, False for padding.
        places: `[n]`, the tokens' places in the flattened mask; None where all places are kept.
        attend: the mask for attention `[batch, 1, 1, tokens]`; None where there is no padding.
    """

    mask: Tensor
    places: Tensor | None
    attend: Tensor | None

    @classmethod
    def of(cls, mask: Tensor) -> Packing:
        """The packing of a mask; in export padding is kept and masked, as shapes may not depend on values."""
        if torch.compiler.is_exporting():
            return cls(mask, None, mask[:, None, None, :])
        places = mask.flatten().nonzero().squeeze(1)
        if len(places) == mask.numel():
            return cls(mask, None, None)
        return cls(mask, places, mask[:, None, None, :])

    def pack(self, x: Tensor) -> Tensor:
        """`[batch, tokens, ...]` to `[n, ...]`."""
        x = x.flatten(0, 1)
        if self.places is None:
            return x
        packed: Tensor = _Take.apply(x, self.places)  # type: ignore[no-untyped-call]  # torch's omission
        return packed

    def unpack(self, x: Tensor) -> Tensor:
        """`[n, ...]` to `[batch, tokens, ...]`, zeros where there is padding."""
        batch, tokens = self.mask.shape
        if self.places is not None:
            x = _Put.apply(x, self.places, batch * tokens)  # type: ignore[no-untyped-call]  # torch's omission
        return x.view(batch, tokens, *x.shape[1:])


class _Take(torch.autograd.Function):
    """Some rows, each once; torch's own gradient adds the rows up, one after the other."""

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
    """The rows in their places, zeros elsewhere."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, places: Tensor, rows: int) -> Tensor:
        ctx.save_for_backward(places)
        return x.new_zeros(rows, *x.shape[1:]).index_copy_(0, places, x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        (places,) = ctx.saved_tensors
        return gradient.index_select(0, places), None, None
