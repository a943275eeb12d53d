"""The Transformer: multi-head attention, encoder, decoder, and nothing that knows where a token stands.

Vaswani, Shazeer, Parmar, Uszkoreit, Jones, Gomez, Kaiser, Polosukhin 2017, "Attention Is All You Need", NIPS,
arXiv:1706.03762, section 3; normalisation comes before each part instead of after the sum (pre-norm, Xiong
et al. 2020, arXiv:2002.04745). Positions are added to the tokens by whoever makes them. Masks are boolean and
mean one thing: True is a token that may be attended to.
"""

from __future__ import annotations

from collections import OrderedDict

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from striate.models.layers import ResidualBlock
from striate.models.linear import Linear, linear
from striate.models.packing import Packing

NORM_EPSILON = 1e-6  # of the LayerNorms, as ViT's first implementation has it
FEW = range(2, 9)  # queries, for which torch's attention on a CPU takes longer than its steps one by one

ACTIVATIONS: dict[str, type[nn.Module]] = {"gelu": nn.GELU, "relu": nn.ReLU}


class Cache:
    """Keys and values of the tokens that a decoder layer has seen, in memory that grows by doubling.

    Attributes:
        keys, values: `[batch, heads, room, width / heads]`, of which the first `length` are filled.
    """

    def __init__(self, room: int) -> None:
        self.keys = self.values = torch.empty(0)
        self.length, self._room = 0, room

    def extend(self, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Add those of the next tokens, `[batch, heads, new, width / heads]`; returns all so far."""
        end = self.length + keys.shape[2]
        if self.length == 0 or end > self.keys.shape[2]:
            self._grow(keys, max(end, self._room, 2 * self.length))
        self.keys[:, :, self.length : end] = keys
        self.values[:, :, self.length : end] = values
        self.length = end
        return self.keys[:, :, :end], self.values[:, :, :end]

    def select(self, rows: Tensor) -> None:
        """Keep some sequences of the batch, in the order of their indices."""
        self.keys, self.values = self.keys.index_select(0, rows), self.values.index_select(0, rows)

    def _grow(self, like: Tensor, room: int) -> None:
        batch, heads, _, width = like.shape
        old = self.keys, self.values
        self.keys, self.values = (like.new_empty(batch, heads, room, width) for _ in old)
        if self.length:
            self.keys[:, :, : self.length] = old[0][:, :, : self.length]
            self.values[:, :, : self.length] = old[1][:, :, : self.length]


class Dropout(nn.Dropout):
    """Dropout whose random bits on a CPU are drawn 64 at a time and used 16 for each number.

    torch draws a number of 32 bits or more for each element, on one thread, which in a small Transformer
    takes as long as its matrix products. The probability is exact to 2^-17.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Any shape; zero with probability `p`, else multiplied by 1 / (1 - p)."""
        if torch.jit.is_scripting() or not self.training or not 0 < self.p < 1 or x.device.type != "cpu":
            return F.dropout(x, self.p, self.training)
        draws = torch.empty((x.numel() + 3) // 4, dtype=torch.int64).random_(-(2**63), None)
        dropped = draws.view(torch.int16)[: x.numel()].view(x.shape) < round(self.p * 2**16) - 2**15
        return x.mul(dropped.logical_not_().to(x.dtype).mul_(1 / (1 - self.p)))


class MultiHeadAttention(nn.Module):
    """Attention of tokens to tokens, in several subspaces at once (section 3.2.2).

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
        self.out_proj = Linear(width, width)
        nn.init.xavier_uniform_(self.in_proj_weight)
        nn.init.zeros_(self.out_proj.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Let all tokens attend to all: `[batch, tokens, width]`, the shape unchanged."""
        query, key, value = self._heads(linear(x, self.in_proj_weight, self.in_proj_bias), 3).unbind(0)
        dropout = self.dropout if self.training else 0.0
        x = F.scaled_dot_product_attention(query, key, value, dropout_p=dropout)
        return self.out_proj(x.transpose(1, 2).flatten(2))

    def attend(
        self,
        x: Tensor,
        mask: Tensor | None = None,
        *,
        causal: bool = False,
        packing: Packing | None = None,
        memory: tuple[Tensor, Tensor] | None = None,
        cache: Cache | None = None,
        weights: list[Tensor] | None = None,
    ) -> Tensor:
        """Attend to the tokens themselves, to the ones before them, or to those of another sequence.

        Args:
            x: `[batch, tokens, width]`, or `[n, width]` packed.
            mask: True = attend; bool, broadcast to `[batch, heads, tokens, attended tokens]`.
            causal: each token attends to itself and those before it only; without `mask` and `cache`.
            packing: of `x`, where that is packed.
            memory: keys and values of another sequence, from `keys_values`.
            cache: gets the tokens' keys and values, and gives those of all tokens before.
            weights: the attention weights `[batch, heads, tokens, attended tokens]` are added to this list.

        Returns:
            The shape of `x`.
        """
        if memory is None:
            query, key, value = self._split(self._project(x, 0, 3), 3, packing)
            if cache is not None:
                key, value = cache.extend(key, value)
        else:
            (query,), (key, value) = self._split(self._project(x, 0, 1), 1, packing), memory
        dropout = self.dropout if self.training else 0.0
        # An export that asked for the number of queries would hold for that number alone.
        few = not torch.compiler.is_exporting() and x.device.type == "cpu" and query.shape[2] in FEW
        if weights is None and not few:
            x = F.scaled_dot_product_attention(query, key, value, mask, dropout, is_causal=causal)
        else:
            looked = attention_weights(query, key, mask, causal)
            if weights is not None:
                weights.append(looked)
            x = F.dropout(looked, dropout) @ value
        x = x.transpose(1, 2).flatten(2)  # [batch, tokens, width]
        return self.out_proj(x if packing is None else packing.pack(x))

    def keys_values(self, memory: Tensor, packing: Packing | None = None) -> tuple[Tensor, Tensor]:
        """Keys and values, each `[batch, heads, tokens, width / heads]`, of a sequence to be attended to.

        Args:
            memory: `[batch, tokens, width]`, or `[n, width]` packed.
            packing: of `memory`, where that is packed.
        """
        key, value = self._split(self._project(memory, 1, 3), 2, packing)
        return key, value

    def _project(self, x: Tensor, first: int, last: int) -> Tensor:
        """`[..., width]` to `[..., (last - first) * width]`: some of queries (0), keys (1) and values (2)."""
        if (first, last) == (0, 3):
            return linear(x, self.in_proj_weight, self.in_proj_bias)
        rows = slice(first * x.shape[-1], last * x.shape[-1])
        return linear(x, self.in_proj_weight[rows], self.in_proj_bias[rows])

    def _split(self, x: Tensor, parts: int, packing: Packing | None) -> tuple[Tensor, ...]:
        """`parts` tensors `[batch, heads, tokens, width / heads]`."""
        if packing is not None:
            x = packing.unpack(x)
        return self._heads(x, parts).unbind(0)

    def _heads(self, x: Tensor, parts: int) -> Tensor:
        """`[batch, tokens, parts * width]` as `[parts, batch, heads, tokens, width / heads]`."""
        batch, tokens, width = x.shape
        x = x.view(batch, tokens, parts, self.heads, width // (parts * self.heads))
        return x.permute(2, 0, 3, 1, 4)


def attention_weights(query: Tensor, key: Tensor, mask: Tensor | None, causal: bool = False) -> Tensor:
    """softmax(Q K^T / sqrt(d)) of equation 1, `[batch, heads, tokens, attended tokens]`."""
    scores = (query * query.shape[3] ** -0.5) @ key.transpose(2, 3)
    if causal:
        mask = torch.ones(scores.shape[2:], dtype=torch.bool, device=scores.device).tril()
    if mask is not None:
        scores.masked_fill_(~mask, -torch.inf)
    return scores.softmax(dim=3)


def feed_forward(width: int, hidden: int, dropout: float, activation: str = "gelu") -> nn.Sequential:
    """The two layers that each token passes on its own (section 3.3); GELU as in ViT, or the paper's ReLU."""
    layers = nn.Sequential(
        Linear(width, hidden),
        ACTIVATIONS[activation](),
        Dropout(dropout),
        Linear(hidden, width),
        Dropout(dropout),
    )
    for layer in layers:
        if isinstance(layer, Linear):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.normal_(layer.bias, std=1e-6)
    return layers


class EncoderLayer(ResidualBlock):
    """Self-attention and the feed-forward layers, each normalised before and added after.

    Args:
        width: of a token.
        heads: of the attention.
        hidden: width between the feed-forward layers.
        dropout: on what each part adds, and between the feed-forward layers.
        attention_dropout: of the attention weights.
        activation: a key of `ACTIVATIONS`.
    """

    def __init__(
        self,
        width: int,
        heads: int,
        hidden: int,
        dropout: float = 0.0,
        attention_dropout: float = 0.0,
        activation: str = "gelu",
    ) -> None:
        super().__init__()
        self.ln_1 = nn.LayerNorm(width, eps=NORM_EPSILON)
        self.self_attention = MultiHeadAttention(width, heads, attention_dropout)
        self.dropout = Dropout(dropout)
        self.ln_2 = nn.LayerNorm(width, eps=NORM_EPSILON)
        self.mlp = feed_forward(width, hidden, dropout, activation)

    def forward(self, x: Tensor) -> Tensor:
        """`[batch, tokens, width]`, the shape unchanged."""
        x = x + self.drop_path(self.dropout(self.self_attention(self.ln_1(x))))
        return x + self.drop_path(self.mlp(self.ln_2(x)))

    def read(self, x: Tensor, packing: Packing | None = None, weights: list[Tensor] | None = None) -> Tensor:
        """The same of sequences of several lengths; arguments as `Encoder.read`'s."""
        mask = None if packing is None else packing.attend
        y = self.self_attention.attend(self.ln_1(x), mask, packing=packing, weights=weights)
        x = x + self.drop_path(self.dropout(y))
        return x + self.drop_path(self.mlp(self.ln_2(x)))


class Encoder(nn.Module):
    """A stack of encoder layers, normalised at the end.

    Args:
        depth: how many layers.
        width: of a token.
        heads: of the attention.
        hidden: width between the feed-forward layers.
        dropout: of each layer's parts.
        attention_dropout: of the attention weights.
        activation: a key of `ACTIVATIONS`.
    """

    def __init__(
        self,
        depth: int,
        width: int,
        heads: int,
        hidden: int,
        dropout: float = 0.0,
        attention_dropout: float = 0.0,
        activation: str = "gelu",
    ) -> None:
        super().__init__()
        layers = [
            EncoderLayer(width, heads, hidden, dropout, attention_dropout, activation) for _ in range(depth)
        ]
        names = [f"encoder_layer_{index}" for index in range(depth)]
        self.layers = nn.Sequential(OrderedDict(zip(names, layers, strict=True)))
        self.ln = nn.LayerNorm(width, eps=NORM_EPSILON)

    def forward(self, x: Tensor) -> Tensor:
        """Let the tokens of each sequence see each other: `[batch, tokens, width]`, the shape unchanged."""
        return self.ln(self.layers(x))

    def read(self, x: Tensor, packing: Packing | None = None, weights: list[Tensor] | None = None) -> Tensor:
        """The same of sequences of several lengths, and with a look at the attention.

        TorchScript compiles `forward` alone, which knows neither.

        Args:
            x: `[batch, tokens, width]`, or `[n, width]` packed.
            packing: of `x`, where that is packed; padding is attended to by none.
            weights: each layer's attention weights `[batch, heads, tokens, tokens]` are added to this list.

        Returns:
            The shape of `x`.
        """
        for layer in self.layers:
            assert isinstance(layer, EncoderLayer)
            x = layer.read(x, packing, weights)
        return self.ln(x)


class DecoderLayer(nn.Module):
    """Self-attention to what came before, attention to the source, and the feed-forward layers.

    Args:
        width: of a token.
        heads: of both attentions.
        hidden: width between the feed-forward layers.
        dropout: on what each part adds, and between the feed-forward layers.
        attention_dropout: of the attention weights.
        activation: a key of `ACTIVATIONS`.
    """

    def __init__(
        self,
        width: int,
        heads: int,
        hidden: int,
        dropout: float = 0.0,
        attention_dropout: float = 0.0,
        activation: str = "gelu",
    ) -> None:
        super().__init__()
        self.ln_1 = nn.LayerNorm(width, eps=NORM_EPSILON)
        self.self_attention = MultiHeadAttention(width, heads, attention_dropout)
        self.ln_2 = nn.LayerNorm(width, eps=NORM_EPSILON)
        self.cross_attention = MultiHeadAttention(width, heads, attention_dropout)
        self.dropout = Dropout(dropout)
        self.ln_3 = nn.LayerNorm(width, eps=NORM_EPSILON)
        self.mlp = feed_forward(width, hidden, dropout, activation)

    def forward(
        self,
        x: Tensor,
        memory: tuple[Tensor, Tensor],
        memory_mask: Tensor | None = None,
        *,
        packing: Packing | None = None,
        cache: Cache | None = None,
        mask: Tensor | None = None,
        weights: list[tuple[Tensor, Tensor]] | None = None,
    ) -> Tensor:
        """`[batch, tokens, width]`, or `[n, width]` packed, the shape unchanged; arguments as `Decoder`'s."""
        seen: list[Tensor] | None = None if weights is None else []
        causal = cache is None
        y = self.self_attention.attend(
            self.ln_1(x), mask, causal=causal, packing=packing, cache=cache, weights=seen
        )
        x = x + self.dropout(y)
        y = self.cross_attention.attend(
            self.ln_2(x), memory_mask, memory=memory, packing=packing, weights=seen
        )
        x = x + self.dropout(y)
        if weights is not None and seen is not None:
            weights.append((seen[0], seen[1]))
        return x + self.mlp(self.ln_3(x))


class Decoder(nn.Module):
    """A stack of decoder layers, normalised at the end.

    Args:
        depth: how many layers.
        width: of a token.
        heads: of the attentions.
        hidden: width between the feed-forward layers.
        dropout: of each layer's parts.
        attention_dropout: of the attention weights.
        activation: a key of `ACTIVATIONS`.
    """

    def __init__(
        self,
        depth: int,
        width: int,
        heads: int,
        hidden: int,
        dropout: float = 0.0,
        attention_dropout: float = 0.0,
        activation: str = "gelu",
    ) -> None:
        super().__init__()
        layers = [
            DecoderLayer(width, heads, hidden, dropout, attention_dropout, activation) for _ in range(depth)
        ]
        self.layers = nn.ModuleList(layers)
        self.ln = nn.LayerNorm(width, eps=NORM_EPSILON)

    def memories(self, memory: Tensor, packing: Packing | None = None) -> list[tuple[Tensor, Tensor]]:
        """Each layer's keys and values of a source `[batch, tokens, width]`, or `[n, width]` packed."""
        memories = []
        for layer in self.layers:
            assert isinstance(layer, DecoderLayer)
            memories.append(layer.cross_attention.keys_values(memory, packing))
        return memories

    def forward(
        self,
        x: Tensor,
        memories: list[tuple[Tensor, Tensor]],
        memory_mask: Tensor | None = None,
        *,
        packing: Packing | None = None,
        caches: list[Cache] | None = None,
        mask: Tensor | None = None,
        weights: list[tuple[Tensor, Tensor]] | None = None,
    ) -> Tensor:
        """Let each token see those before it and the source.

        Args:
            x: `[batch, tokens, width]`, or `[n, width]` packed. Padding stands after the tokens, where
                nothing attends to it.
            memories: from `memories`.
            memory_mask: True = attend; bool, broadcast to `[batch, heads, tokens, source tokens]`.
            packing: of `x`, where that is packed.
            caches: of the layers, where tokens came before `x`; then `x` attends to all of them and to all
                of itself, as far as `mask` lets it.
            mask: True = attend; bool, broadcast to `[batch, heads, tokens, tokens so far]`; only with caches.
            weights: each layer's attention weights are added to this list: to the tokens so far
                `[batch, heads, tokens, tokens so far]`, and to the source `[..., source tokens]`.

        Returns:
            The shape of `x`.
        """
        for index, layer in enumerate(self.layers):
            cache = None if caches is None else caches[index]
            x = layer(
                x, memories[index], memory_mask, packing=packing, cache=cache, mask=mask, weights=weights
            )
        return self.ln(x)
