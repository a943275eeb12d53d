"""Where the tokens of a padded batch stand."""

from __future__ import annotations

from dataclasses import dataclass

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
        return x if self.places is None else x.index_select(0, self.places)

    def unpack(self, x: Tensor) -> Tensor:
        """`[n, ...]` to `[batch, tokens, ...]`, zeros where there is padding."""
        batch, tokens = self.mask.shape
        if self.places is not None:
            x = x.new_zeros(batch * tokens, *x.shape[1:]).index_copy(0, self.places, x)
        return x.view(batch, tokens, *x.shape[1:])
