"""The Transformer: multi-head attention, encoder and decoder.

Vaswani, Shazeer, Parmar, Uszkoreit, Jones, Gomez, Kaiser, Polosukhin 2017, "Attention Is All You Need", NIPS,
arXiv:1706.03762, section 3. Layers are pre-norm (Xiong et al. 2020, arXiv:2002.04745): normalization comes
before each sublayer, not after the sum. Nothing here knows the position of a token; add positions to the
tokens first. A mask is boolean; True marks a token to attend to. `striate.kernels.prepare` makes these layers
fast.
"""

from __future__ import annotations

from collections import OrderedDict

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from striate.models.layers import ResidualBlock

NORM_EPSILON = 1e-6  # of each LayerNorm, as in the first ViT implementation

ACTIVATIONS: dict[str, type[nn.Module]] = {"gelu": nn.GELU, "relu": nn.ReLU}


class MultiHeadAttention(nn.Module):
    """Attention in several subspaces at once (section 3.2.2).

    Args:
        width: length of a token's vector.
        heads: number of subspaces; divides the width.
        dropout: rate on the attention weights, in training.
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

    def forward(
        self, x: Tensor, memory: Tensor | None = None, mask: Tensor | None = None, causal: bool = False
    ) -> Tensor:
        """Attend from each token of `x` to the tokens of `x`, or to those of `memory`.

        Args:
            x: `[batch, tokens, width]`.
            memory: `[batch, source tokens, width]`, the sequence to attend to; `x` itself by default.
            mask: True = attend; broadcasts to `[batch, heads, tokens, attended tokens]`.
            causal: each token attends only to itself and earlier tokens; without `mask`.

        Returns:
            The shape of `x`.
        """
        if memory is None:
            query, key, value = self.split_heads(self.project(x, 0, 3), 3).unbind(0)
        else:
            query = self.split_heads(self.project(x, 0, 1), 1)[0]
            key, value = self.split_heads(self.project(memory, 1, 3), 2).unbind(0)
        dropout = self.dropout if self.training else 0.0
        x = F.scaled_dot_product_attention(query, key, value, mask, dropout, causal)
        return self.out_proj(x.transpose(1, 2).flatten(2))  # [batch, tokens, width]

    def project(self, x: Tensor, first: int, last: int) -> Tensor:
        """Compute queries (0), keys (1) and values (2): `[..., width]` -> `[..., (last - first) * width]`."""
        first, last = first * x.shape[-1], last * x.shape[-1]
        return F.linear(x, self.in_proj_weight[first:last], self.in_proj_bias[first:last])

    def split_heads(self, x: Tensor, parts: int) -> Tensor:
        """`[batch, tokens, parts * width]` -> `[parts, batch, heads, tokens, width / heads]`."""
        batch, tokens, width = x.shape
        x = x.view(batch, tokens, parts, self.heads, width // (parts * self.heads))
        return x.permute(2, 0, 3, 1, 4)


class FeedForward(nn.Sequential):
    """Two linear layers that process each token separately (section 3.3).

    Args:
        width: length of a token's vector.
        hidden: width between the two layers.
        dropout: rate after each layer.
        activation: a key of `ACTIVATIONS`: ReLU as in the paper, or GELU as in ViT.
    """

    def __init__(self, width: int, hidden: int, dropout: float, activation: str = "gelu") -> None:
        first, second = nn.Linear(width, hidden), nn.Linear(hidden, width)
        super().__init__(first, ACTIVATIONS[activation](), nn.Dropout(dropout), second, nn.Dropout(dropout))
        for layer in (first, second):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.normal_(layer.bias, std=1e-6)


class EncoderLayer(ResidualBlock):
    """Self-attention, then the feed-forward layers.

    Args:
        width: length of a token's vector.
        heads: of the attention.
        hidden: width between the feed-forward layers.
        dropout: rate on the output of each sublayer, and between the feed-forward layers.
        activation: a key of `ACTIVATIONS`.
    """

    def __init__(
        self, width: int, heads: int, hidden: int, dropout: float = 0.0, activation: str = "gelu"
    ) -> None:
        super().__init__()
        self.ln_1 = nn.LayerNorm(width, eps=NORM_EPSILON)
        self.self_attention = MultiHeadAttention(width, heads)
        self.dropout = nn.Dropout(dropout)
        self.ln_2 = nn.LayerNorm(width, eps=NORM_EPSILON)
        self.mlp = FeedForward(width, hidden, dropout, activation)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """`[batch, tokens, width]` -> the same shape; `mask` as in `MultiHeadAttention`."""
        x = x + self.drop_path(self.dropout(self.self_attention(self.ln_1(x), mask=mask)))
        return x + self.drop_path(self.mlp(self.ln_2(x)))


class Encoder(nn.Module):
    """A stack of encoder layers with a final normalization.

    Args:
        depth: number of layers.
        width, heads, hidden, dropout, activation: as in `EncoderLayer`.
    """

    def __init__(
        self, depth: int, width: int, heads: int, hidden: int, dropout: float = 0.0, activation: str = "gelu"
    ) -> None:
        super().__init__()
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        for index in range(depth):
            layers[f"encoder_layer_{index}"] = EncoderLayer(width, heads, hidden, dropout, activation)
        self.layers = nn.Sequential(layers)
        self.ln = nn.LayerNorm(width, eps=NORM_EPSILON)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """`[batch, tokens, width]` -> the same shape; `mask` as in `MultiHeadAttention`."""
        for layer in self.layers:
            x = layer(x, mask)
        return self.ln(x)


class DecoderLayer(nn.Module):
    """Self-attention to earlier tokens, attention to the source, then the feed-forward layers.

    Args:
        width: length of a token's vector.
        heads: of both attentions.
        hidden: width between the feed-forward layers.
        dropout: rate on the output of each sublayer, and between the feed-forward layers.
        activation: a key of `ACTIVATIONS`.
    """

    def __init__(
        self, width: int, heads: int, hidden: int, dropout: float = 0.0, activation: str = "gelu"
    ) -> None:
        super().__init__()
        self.ln_1 = nn.LayerNorm(width, eps=NORM_EPSILON)
        self.self_attention = MultiHeadAttention(width, heads)
        self.ln_2 = nn.LayerNorm(width, eps=NORM_EPSILON)
        self.cross_attention = MultiHeadAttention(width, heads)
        self.dropout = nn.Dropout(dropout)
        self.ln_3 = nn.LayerNorm(width, eps=NORM_EPSILON)
        self.mlp = FeedForward(width, hidden, dropout, activation)

    def forward(self, x: Tensor, memory: Tensor, memory_mask: Tensor | None = None) -> Tensor:
        """`[batch, tokens, width]` -> the same shape; arguments as in `Decoder.forward`."""
        x = x + self.dropout(self.self_attention(self.ln_1(x), causal=True))
        x = x + self.dropout(self.cross_attention(self.ln_2(x), memory, memory_mask))
        return x + self.mlp(self.ln_3(x))


class Decoder(nn.Module):
    """A stack of decoder layers with a final normalization.

    Args:
        depth: number of layers.
        width, heads, hidden, dropout, activation: as in `DecoderLayer`.
    """

    def __init__(
        self, depth: int, width: int, heads: int, hidden: int, dropout: float = 0.0, activation: str = "gelu"
    ) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            DecoderLayer(width, heads, hidden, dropout, activation) for _ in range(depth)
        )
        self.ln = nn.LayerNorm(width, eps=NORM_EPSILON)

    def forward(self, x: Tensor, memory: Tensor, memory_mask: Tensor | None = None) -> Tensor:
        """Let each token attend to itself, to earlier tokens and to the source.

        Args:
            x: `[batch, tokens, width]`. Padding comes last, where no real token attends to it.
            memory: the encoded source, `[batch, source tokens, width]`.
            memory_mask: True = attend; broadcasts to `[batch, heads, tokens, source tokens]`.

        Returns:
            The shape of `x`.
        """
        for layer in self.layers:
            x = layer(x, memory, memory_mask)
        return self.ln(x)
