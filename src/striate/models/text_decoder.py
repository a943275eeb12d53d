"""Positions, embedded tokens, and the decoder that writes text from a memory, all at once or step by step.

Vaswani et al. 2017, arXiv:1706.03762, section 3; its layers are those of `transformer.py`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from striate.errors import LayoutError, unknown_name
from striate.models.cross_entropy import linear_cross_entropy
from striate.models.linear import Linear
from striate.models.packing import Packing
from striate.models.transformer import Cache, Decoder, Dropout

POSITIONS = ("sinusoidal", "learned", "none")


class Positions(nn.Module):
    """A vector for each place of a sequence, to be added to the token that stands there.

    Args:
        kind: `sinusoidal` as in section 3.5 of the paper, sines in the even components and cosines in the odd
            ones; `learned`, a table of parameters; or `none`, zeros.
        width: of a vector.
        length: how many places there are at most.

    Raises:
        UsageError: another kind.
    """

    table: Tensor

    def __init__(self, kind: str, width: int, length: int) -> None:
        super().__init__()
        if kind not in POSITIONS:
            raise unknown_name("kind of positions", kind, POSITIONS)
        self.kind, self.width, self.length = kind, width, length
        if kind == "learned":
            self.register_parameter("table", nn.Parameter(0.02 * torch.randn(length, width)))
        elif kind == "sinusoidal":
            self.register_buffer("table", sinusoids(length, width), persistent=False)

    def forward(self, x: Tensor, places: Tensor | int) -> Tensor:
        """Add to `[..., width]` the vectors of its places, int64, broadcast to `[...]`; or one place's."""
        if self.kind == "none":
            return x
        return x + (self.table[places] if isinstance(places, int) else F.embedding(places, self.table))

    def check(self, length: int) -> None:
        """Refuse a sequence that is too long.

        Raises:
            LayoutError: it has more than `length` tokens.
        """
        if self.kind != "none" and length > self.length:
            raise LayoutError(
                f"a sequence of {length} tokens",
                f"this network has positions for {self.length}",
                f"Cut it, or build the network with max_length={length} or more",
            )


def sinusoids(length: int, width: int) -> Tensor:
    """Row p: sine and cosine of p / 10000^(2i / width) in components 2i and 2i + 1; `[length, width]`."""
    places = torch.arange(length, dtype=torch.float64)[:, None]
    angles = places / 10000 ** (torch.arange(0, width, 2, dtype=torch.float64) / width)
    table = torch.empty(length, width)
    table[:, 0::2] = angles.sin()
    table[:, 1::2] = angles.cos()[:, : width // 2]
    return table


class TokenEmbedding(nn.Module):
    """Tokens to vectors: an embedding times sqrt(width) (section 3.4), positions, dropout.

    Args:
        vocab: how many different tokens there are.
        width: of a vector.
        positions: a key of `POSITIONS`.
        max_length: tokens of a sequence at most.
        dropout: on the sum of embedding and position.
    """

    def __init__(self, vocab: int, width: int, positions: str, max_length: int, dropout: float) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocab, width)
        nn.init.normal_(self.embedding.weight, std=width**-0.5)
        self.positions = Positions(positions, width, max_length)
        self.dropout = Dropout(dropout)

    def forward(
        self, tokens: Tensor, packing: Packing | None = None, place: int | Tensor | None = None
    ) -> Tensor:
        """`[batch, tokens]` int64 to `[batch, tokens, width]`, or to `[n, width]` packed.

        Args:
            tokens: numbers below `vocab`.
            packing: of the tokens, where the result shall be packed; without `place`.
            place: where all of them stand, in place of 0, 1, 2 and so on; a tensor is not checked.

        Raises:
            LayoutError: more than `max_length` tokens.
        """
        places: Tensor | int
        if place is None:
            self.positions.check(tokens.shape[1])
            places = torch.arange(tokens.shape[1], device=tokens.device)
            if packing is not None:
                tokens, places = packing.pack(tokens), packing.pack(places.expand(packing.mask.shape))
        else:
            if isinstance(place, int):
                self.positions.check(place + 1)
            places = place
        x = self.embedding(tokens) * math.sqrt(self.embedding.embedding_dim)
        return self.dropout(self.positions(x, places))


@dataclass
class DecodingState:
    """What a decoder keeps between two steps, for each sentence with its beams.

    The beams of a sentence are the tokens of one attention: all write their keys and values into one cache,
    and each sees what its own ancestors wrote. So beams change places without copying the cache.

    Attributes:
        caches: of each layer; the step's beams stand after those of the steps before.
        memories: keys and values of the source for each layer, projected once.
        memory_mask: `[sentences, 1, 1, source tokens]`, or None where there is no padding.
        beams: of a sentence.
        ancestors: bool `[sentences, 1, beams, steps * beams]`, which entries of the cache each beam sees;
            None for one beam, which sees all.
        length: steps so far.
    """

    caches: list[Cache]
    memories: list[tuple[Tensor, Tensor]]
    memory_mask: Tensor | None
    beams: int
    ancestors: Tensor | None
    length: int = 0

    def reorder(self, parents: Tensor) -> None:
        """Let beam j of a sentence go on from what beam parents[sentence, j] was: `[sentences, beams]`."""
        if self.ancestors is not None:
            index = parents[:, None, :, None].expand(-1, 1, -1, self.ancestors.shape[3])
            self.ancestors = self.ancestors.gather(2, index)

    def select(self, sentences: Tensor) -> None:
        """Keep some sentences, by their indices, int64 in any order."""
        for cache in self.caches:
            cache.select(sentences)
        self.memories = [
            (k.index_select(0, sentences), v.index_select(0, sentences)) for k, v in self.memories
        ]
        if self.memory_mask is not None:
            self.memory_mask = self.memory_mask.index_select(0, sentences)
        if self.ancestors is not None:
            self.ancestors = self.ancestors.index_select(0, sentences)


class TextDecoder(nn.Module):
    """Tokens so far and a memory to scores for the next token.

    Args:
        vocab: how many different tokens there are.
        width: of a token's vector.
        depth: layers.
        heads: of the attentions.
        hidden: width between the feed-forward layers.
        dropout: on the embedded tokens and in the layers; the attention weights have none, as in the paper.
        positions: a key of `POSITIONS`.
        max_length: tokens of a sequence at most.
        tied: the output layer's weights are those of the embedding (section 3.4).
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
        self.output = Linear(width, vocab)
        nn.init.zeros_(self.output.bias)
        if tied:
            self.output.weight = self.embed.embedding.weight
        else:
            nn.init.normal_(self.output.weight, std=width**-0.5)

    def forward(
        self,
        tokens: Tensor,
        memory: Tensor,
        mask: Tensor,
        weights: list[tuple[Tensor, Tensor]] | None = None,
    ) -> Tensor:
        """Scores of the next token after each, all at once (teacher forcing).

        Args:
            tokens: `[batch, tokens]` int64, the first of them BEGIN; padding after the last.
            memory: `[batch, source tokens, width]`.
            mask: bool `[batch, source tokens]`, True = attend.
            weights: as in `Decoder.forward`.

        Returns:
            Logits `[batch, tokens, vocab]`.
        """
        source = Packing.of(mask)
        memories = self.layers.memories(source.pack(memory), source)
        return self.output(self.layers(self.embed(tokens), memories, source.attend, weights=weights))

    def loss(
        self, memory: Tensor, source: Packing, tokens: Tensor, expected: Tensor, pad: int, smoothing: float
    ) -> Tensor:
        """The mean cross-entropy of the tokens expected; nothing is computed for padding.

        Args:
            memory: `[n, width]` packed.
            source: its packing.
            tokens: as in `forward`.
            expected: the token after each, int64 `[batch, tokens]`, `pad` for none.
            pad: the number of padding.
            smoothing: weight of the uniform distribution in what is expected.
        """
        packing = Packing.of(expected != pad)
        x = self.embed(tokens, packing)
        memories = self.layers.memories(memory, source)
        x = self.layers(x, memories, source.attend, packing=packing)
        return linear_cross_entropy(
            x, self.output.weight, self.output.bias, packing.pack(expected), smoothing
        )

    def start(self, memory: Tensor, mask: Tensor, beams: int = 1, room: int = 32) -> DecodingState:
        """The state before the first step.

        Args:
            memory: `[sentences, source tokens, width]`.
            mask: bool `[sentences, source tokens]`, True = attend; at least one in each row.
            beams: how many outputs are written for each sentence at once.
            room: for how many steps the caches have room before they grow.
        """
        packing = Packing.of(mask)
        memories = self.layers.memories(packing.pack(memory), packing)
        return DecodingState(
            caches=[Cache(room * beams) for _ in self.layers.layers],
            # Read in each step: in one piece, so that no step has to copy them.
            memories=[(k.contiguous(), v.contiguous()) for k, v in memories],
            memory_mask=packing.attend,
            beams=beams,
            ancestors=None if beams == 1 else mask.new_zeros(len(mask), 1, beams, 0),
        )

    def step(
        self, tokens: Tensor, state: DecodingState, weights: list[tuple[Tensor, Tensor]] | None = None
    ) -> Tensor:
        """Scores of the next token.

        Args:
            tokens: the last token of each beam, int64 `[sentences, beams]`; BEGIN in the first step.
            state: what came before; it is brought up to date.
            weights: as in `Decoder.forward`, the beams in the place of the tokens.

        Returns:
            Logits `[sentences, beams, vocab]`.
        """
        x = self.embed(tokens, place=state.length)
        if state.ancestors is not None:
            itself = torch.eye(state.beams, dtype=torch.bool, device=x.device)
            itself = itself.expand(len(x), 1, -1, -1)
            state.ancestors = torch.cat([state.ancestors, itself], dim=3)
        x = self.layers(
            x, state.memories, state.memory_mask, caches=state.caches, mask=state.ancestors, weights=weights
        )
        state.length += 1
        return self.output(x)
