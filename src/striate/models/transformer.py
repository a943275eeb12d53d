"""The Transformer: multi-head attention and the encoder, without anything that knows where a token stands.

Vaswani, Shazeer, Parmar, Uszkoreit, Jones, Gomez, Kaiser, Polosukhin 2017, "Attention Is All You Need", NIPS,
arXiv:1706.03762, section 3; normalisation comes before each part instead of after the sum (pre-norm, Xiong
et al. 2020, arXiv:2002.04745). Positions are added to the tokens by whoever makes them.
"""

from __future__ import annotations

from collections import OrderedDict

import torch
import torch.nn.functional as F
from torch import Tensor, nn

NORM_EPSILON = 1e-6  # of the LayerNorms, as ViT's first implementation has it


class MultiHeadAttention(nn.Module):
    """Attention of all tokens to all tokens, in several subspaces at once (section 3.2.2).

    Args:
        width: of a token.
        heads: into how many subspaces it is split; divides the width.
        dropout: of the attention weights, in training.
    """

    def __init__(self, width: int, heads: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.heads = heads
        self.dropout = dropout
        self.in_proj_weight = nn.Parameter(torch.empty(3 * width, width))  # queries, keys, values
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * width))
        self.out_proj = nn.Linear(width, width)
        nn.init.xavier_uniform_(self.in_proj_weight)
        nn.init.zeros_(self.out_proj.bias)

    def forward(self, x: Tensor) -> Tensor:
        """`[batch, tokens, width]`, the shape unchanged."""
        batch, tokens, width = x.shape
        x = F.linear(x, self.in_proj_weight, self.in_proj_bias)
        x = x.view(batch, tokens, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        query, key, value = x.unbind(0)  # each [batch, heads, tokens, width / heads]
        dropout = self.dropout if self.training else 0.0
        x = F.scaled_dot_product_attention(query, key, value, dropout_p=dropout)
        x = x.transpose(1, 2).reshape(batch, tokens, width)
        return self.out_proj(x)


def feed_forward(width: int, hidden: int, dropout: float) -> nn.Sequential:
    """The two layers that each token passes on its own (section 3.3), with GELU as in ViT."""
    layers = nn.Sequential(
        nn.Linear(width, hidden),
        nn.GELU(),
        nn.Dropout(dropout),
        nn.Linear(hidden, width),
        nn.Dropout(dropout),
    )
    for layer in layers:
        if isinstance(layer, nn.Linear):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.normal_(layer.bias, std=1e-6)
    return layers


class EncoderLayer(nn.Module):
    """Self-attention and the feed-forward layers, each normalised before and added after.

    Args:
        width: of a token.
        heads: of the attention.
        hidden: width between the feed-forward layers.
        dropout: on what each part adds, and between the feed-forward layers.
        attention_dropout: of the attention weights.
    """

    def __init__(
        self, width: int, heads: int, hidden: int, dropout: float = 0.0, attention_dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.ln_1 = nn.LayerNorm(width, eps=NORM_EPSILON)
        self.self_attention = MultiHeadAttention(width, heads, attention_dropout)
        self.dropout = nn.Dropout(dropout)
        self.ln_2 = nn.LayerNorm(width, eps=NORM_EPSILON)
        self.mlp = feed_forward(width, hidden, dropout)

    def forward(self, x: Tensor) -> Tensor:
        """`[batch, tokens, width]`, the shape unchanged."""
        x = x + self.dropout(self.self_attention(self.ln_1(x)))
        return x + self.mlp(self.ln_2(x))


class Encoder(nn.Module):
    """A stack of encoder layers, normalised at the end.

    Args:
        depth: how many layers.
        width: of a token.
        heads: of the attention.
        hidden: width between the feed-forward layers.
        dropout: of each layer's parts.
        attention_dropout: of the attention weights.
    """

    def __init__(
        self,
        depth: int,
        width: int,
        heads: int,
        hidden: int,
        dropout: float = 0.0,
        attention_dropout: float = 0.0,
    ) -> None:
        super().__init__()
        layers = [EncoderLayer(width, heads, hidden, dropout, attention_dropout) for _ in range(depth)]
        names = [f"encoder_layer_{index}" for index in range(depth)]
        self.layers = nn.Sequential(OrderedDict(zip(names, layers, strict=True)))
        self.ln = nn.LayerNorm(width, eps=NORM_EPSILON)

    def forward(self, x: Tensor) -> Tensor:
        """`[batch, tokens, width]`, the shape unchanged."""
        return self.ln(self.layers(x))
