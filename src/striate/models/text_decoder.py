"""Positions, token embeddings, and the decoder that writes text from an encoded source.

Vaswani et al. 2017, arXiv:1706.03762, section 3; the layers come from `transformer.py`. To decode token by
token with cached keys and values, use `striate.kernels.decoding`.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from striate.errors import LayoutError, unknown_name
from striate.models.transformer import Decoder

POSITIONS = ("sinusoidal", "learned", "none")
_ROWS = 16  # positions that are computed together


class Positions(nn.Module):
    """Adds to each token the vector of its position.

    Args:
        kind: `sinusoidal` as in section 3.5 of the paper, sines in the even components and cosines in the odd
            ones; `learned`, a table of parameters; or `none`, which adds nothing.
        width: length of a vector.
        length: maximum number of positions.

    Raises:
        UsageError: unknown kind.
    """

    table: Tensor

    def __init__(self, kind: str, width: int, length: int) -> None:
        super().__init__()
        if kind not in POSITIONS:
            raise unknown_name("kind of positions", kind, POSITIONS)
        self.kind, self.width, self.length = kind, width, length
        if kind == "learned":
            self.register_parameter("table", nn.Parameter(0.02 * torch.randn(length, width)))
        for name, table in self.constants().items():
            self.register_buffer(name, table, persistent=False)

    def constants(self) -> dict[str, Tensor]:
        """Buffers that are not saved."""
        return {"table": sinusoids(self.length, self.width)} if self.kind == "sinusoidal" else {}

    def forward(self, x: Tensor, places: Tensor) -> Tensor:
        """`[..., width]` -> the same shape; `places`, int64, broadcasts to `[...]`."""
        return x if self.kind == "none" else x + F.embedding(places, self.table)

    def check(self, length: int) -> None:
        """Reject a sequence that is too long.

        Raises:
            LayoutError: it has more tokens than there are positions.
        """
        if self.kind != "none" and length > self.length:
            raise LayoutError(
                f"a sequence of {length} tokens",
                f"this network has positions for {self.length}",
                f"Cut it, or build the network with max_length={length} or more",
            )


def sinusoids(length: int, width: int) -> Tensor:
    """Row p: sine and cosine of p / 10000^(2i / width) in components 2i and 2i + 1; `[length, width]`."""
    table = torch.empty(length, width, dtype=torch.float32)
    if table.is_meta:  # it has no values, and torch would load its compiler to compute them
        return table
    scale = 10000 ** (torch.arange(0, width, 2, dtype=torch.float64) / width)
    # In small pieces, for which torch starts no threads: after that, a forked process could not compute.
    for first in range(0, length, _ROWS):
        rows = table[first : first + _ROWS]
        places = torch.arange(first, first + len(rows), dtype=torch.float64)[:, None]
        angles = places / scale
        rows[:, 0::2] = angles.sin()
        rows[:, 1::2] = angles.cos()[:, : width // 2]
    return table


class TokenEmbedding(nn.Module):
    """Tokens to vectors: an embedding times sqrt(width) (section 3.4), plus positions, then dropout.

    Args:
        vocab: number of different tokens.
        width: length of a vector.
        positions: a kind of `POSITIONS`.
        max_length: maximum number of tokens in a sequence.
        dropout: rate on the sum of embedding and position.
    """

    def __init__(self, vocab: int, width: int, positions: str, max_length: int, dropout: float) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocab, width)
        nn.init.normal_(self.embedding.weight, std=width**-0.5)
        self.positions = Positions(positions, width, max_length)
        self.dropout = nn.Dropout(dropout)

    def forward(self, tokens: Tensor, places: Tensor | None = None) -> Tensor:
        """`[batch, tokens]` int64 -> `[batch, tokens, width]`.

        Args:
            tokens: numbers below `vocab`.
            places: position of each token, int64, broadcasts to `tokens`; 0, 1, 2, ... by default.

        Raises:
            LayoutError: more than `max_length` tokens.
        """
        if places is None:
            self.positions.check(tokens.shape[1])
            places = torch.arange(tokens.shape[1], device=tokens.device)
        x = self.embedding(tokens) * math.sqrt(self.embedding.embedding_dim)
        return self.dropout(self.positions(x, places))


class TextDecoder(nn.Module):
    """Earlier tokens and an encoded source to scores for the next token.

    Args:
        vocab: number of different tokens.
        width: length of a token's vector.
        depth: number of layers.
        heads: of the attentions.
        hidden: width between the feed-forward layers.
        dropout: rate on the embedded tokens and in the layers; none on attention weights, as in the paper.
        positions: a kind of `POSITIONS`.
        max_length: maximum number of tokens in a sequence.
        tied: the output layer shares the weights of the embedding (section 3.4).
    """

    def __init__(
        self,
        vocab: int,
        width: int,
        depth: int,
        heads: int,
        hidden: int,
        dropout: float,
        positions: str,
        max_length: int,
        tied: bool,
    ) -> None:
        super().__init__()
        self.embed = TokenEmbedding(vocab, width, positions, max_length, dropout)
        self.layers = Decoder(depth, width, heads, hidden, dropout, activation="relu")
        self.output = nn.Linear(width, vocab)
        nn.init.zeros_(self.output.bias)
        if tied:
            self.output.weight = self.embed.embedding.weight
        else:
            nn.init.normal_(self.output.weight, std=width**-0.5)

    def forward(self, tokens: Tensor, memory: Tensor, mask: Tensor) -> Tensor:
        """Score the next token after each token (teacher forcing).

        Args:
            tokens: `[batch, tokens]` int64, starting with BEGIN; padding comes last.
            memory: the encoded source, `[batch, source tokens, width]`.
            mask: bool `[batch, source tokens]`, True = attend.

        Returns:
            Logits `[batch, tokens, vocab]`.
        """
        x = self.layers(self.embed(tokens), memory, mask[:, None, None, :])  # [batch, tokens, width]
        return self.output(x)
