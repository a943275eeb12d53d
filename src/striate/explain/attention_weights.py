"""Record the attention weights of a forward pass, which fused attention does not return."""

from __future__ import annotations

import inspect
import math
import threading
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from striate.errors import UsageError

_lock = threading.Lock()  # while a function of torch is replaced


class AttentionRecorder(TorchFunctionMode):
    """Computes `scaled_dot_product_attention` step by step while it is active, and keeps the weights.

    Attributes:
        weights: softmax(Q K^T / sqrt(d)) of each call, `[batch, heads, tokens, attended tokens]`.
    """

    def __init__(self) -> None:
        super().__init__()
        self.weights: list[Tensor] = []

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Run one function of torch."""
        if func is F.scaled_dot_product_attention:
            return self._attend(*args, **(kwargs or {}))
        if func is F.multi_head_attention_forward:
            return self._attend_as_module(*args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))

    def _attend_as_module(self, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """The function of `nn.MultiheadAttention`; torch runs what it calls outside of this mode."""
        bound = inspect.signature(F.multi_head_attention_forward).bind(*args, **kwargs)
        bound.arguments["need_weights"] = False  # else it does not call the function that is replaced here
        with _lock:
            fused = F.scaled_dot_product_attention
            F.scaled_dot_product_attention = self._attend
            try:
                output, _ = F.multi_head_attention_forward(*bound.args, **bound.kwargs)
            finally:
                F.scaled_dot_product_attention = fused
        return output, self.weights[-1].mean(dim=1)

    def _attend(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attn_mask: Tensor | None = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        scale: float | None = None,
        enable_gqa: bool = False,
    ) -> Tensor:
        """As torch documents `scaled_dot_product_attention`; without dropout, which evaluation has not."""
        if enable_gqa:
            repeats = query.shape[-3] // key.shape[-3]
            key, value = (part.repeat_interleave(repeats, -3) for part in (key, value))
        scores = query @ key.transpose(-2, -1) * (1 / math.sqrt(query.shape[-1]) if scale is None else scale)
        if is_causal:
            attn_mask = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).tril()
        if attn_mask is not None and attn_mask.dtype == torch.bool:
            scores = scores.masked_fill(~attn_mask, -torch.inf)
        elif attn_mask is not None:
            scores = scores + attn_mask
        weights = scores.softmax(dim=-1)
        self.weights.append(weights)
        return weights @ value

    def self_attention(self, name: str) -> list[Tensor]:
        """The weights of all layers that attend to their own tokens, which must be equally many.

        Args:
            name: of the network, for the message.

        Raises:
            UsageError: there are none.
        """
        kept = [part for part in self.weights if part.ndim == 4 and part.shape[2] == part.shape[3]]
        if not kept or len({part.shape[2] for part in kept}) != 1:
            why = "it has no attention over one sequence of tokens (scaled_dot_product_attention)"
            raise UsageError(f"no attention weights of {name}", why, "Use grad-cam, or another method")
        return kept
