"""Writing text token by token, with cached keys and values."""

from __future__ import annotations

import torch
from torch import Tensor

from striate.kernels.attention import Cache
from striate.kernels.packing import Packing
from striate.kernels.sequence import decode, memories
from striate.models.text_decoder import TextDecoder


class IncrementalDecoder:
    """A text decoder that takes one token per step, for several beams of each sentence.

    The beams of a sentence are the tokens of one attention: all write their keys and values into one cache,
    and each sees only what its own ancestors wrote. So beams change places without copying the cache.

    Args:
        decoder: in evaluation mode.
        memory: the encoded source, `[sentences, source tokens, width]`.
        mask: bool `[sentences, source tokens]`, True = attend; at least one per row.
        beams: number of texts per sentence.
        capacity: number of steps before the caches grow.

    Attributes:
        length: number of steps so far.
    """

    def __init__(
        self, decoder: TextDecoder, memory: Tensor, mask: Tensor, beams: int = 1, capacity: int = 32
    ) -> None:
        packing = Packing.of(mask)
        self.decoder, self.beams, self.length = decoder, beams, 0
        self._caches = [Cache(capacity * beams) for _ in decoder.layers.layers]
        # Every step reads them: contiguous, so that no step copies them.
        self._memories = [
            (keys.contiguous(), values.contiguous())
            for keys, values in memories(decoder.layers, packing.pack(memory), packing)
        ]
        self._memory_mask = packing.attention_mask
        # bool [sentences, 1, beams, steps * beams]: the cache entries that each beam sees; None for one beam.
        self._ancestors = None if beams == 1 else mask.new_zeros(len(mask), 1, beams, 0)

    def step(self, tokens: Tensor, weights: list[tuple[Tensor, Tensor]] | None = None) -> Tensor:
        """Score the next token.

        Args:
            tokens: the last token of each beam, int64 `[sentences, beams]`; BEGIN in the first step.
            weights: as in `striate.kernels.sequence.decode`, with beams in place of tokens.

        Returns:
            Logits `[sentences, beams, vocab]`.

        Raises:
            LayoutError: more steps than the decoder has positions.
        """
        decoder = self.decoder
        decoder.embed.positions.check(self.length + 1)
        x = decoder.embed(tokens, torch.full((1,), self.length, device=tokens.device))
        if self._ancestors is not None:
            itself = torch.eye(self.beams, dtype=torch.bool, device=x.device).expand(len(x), 1, -1, -1)
            self._ancestors = torch.cat([self._ancestors, itself], dim=3)
        x = decode(
            decoder.layers, x, self._memories, self._memory_mask,
            caches=self._caches, mask=self._ancestors, weights=weights,
        )  # fmt: skip
        self.length += 1
        return decoder.output(x)

    def reorder(self, parents: Tensor) -> None:
        """Let beam j of a sentence continue what was beam parents[sentence, j]: `[sentences, beams]`."""
        if self._ancestors is not None:
            index = parents[:, None, :, None].expand(-1, 1, -1, self._ancestors.shape[3])
            self._ancestors = self._ancestors.gather(2, index)

    def select(self, sentences: Tensor) -> None:
        """Keep only these sentences, int64 indices in any order."""
        for cache in self._caches:
            cache.select(sentences)
        self._memories = [
            (keys.index_select(0, sentences), values.index_select(0, sentences))
            for keys, values in self._memories
        ]
        if self._memory_mask is not None:
            self._memory_mask = self._memory_mask.index_select(0, sentences)
        if self._ancestors is not None:
            self._ancestors = self._ancestors.index_select(0, sentences)
