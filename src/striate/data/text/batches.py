"""Batches of token sequences: bucketing by length, and padding."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt
import torch

from striate.data.images.base import Indices
from striate.data.text.tokens import NUM_SPECIALS, PAD, UNK
from striate.transforms.augment import uniform

TokenIds = npt.NDArray[np.int32]


def bucket_by_length(lengths: Indices, max_tokens: int, *, seed: int, epoch: int) -> list[Indices]:
    """Group pairs of similar length into batches of at most `max_tokens`, in random order.

    A function of the arguments only. The number of batches depends on `lengths` and `max_tokens` only.

    Args:
        lengths: int64 `[n, 2]`, source and target length of each pair.
        max_tokens: of a batch, padding included, source and target together; a longer pair is a batch of one.
        seed: of the run.
        epoch: counts from 0.

    Returns:
        Arrays of indices; together they contain each of 0 to `n - 1` once.
    """
    generator = np.random.Generator(np.random.Philox(key=[seed, epoch]))
    shuffled = generator.permutation(len(lengths))
    # A stable sort, so pairs of equal length stay shuffled.
    order = shuffled[np.lexsort((lengths[shuffled, 0], lengths[shuffled, 1]))]
    batches = np.split(order, batch_boundaries(lengths[order], max_tokens))
    return [batches[i] for i in generator.permutation(len(batches))]


def batch_boundaries(lengths: Indices, max_tokens: int) -> list[int]:
    """Return where to split a sequence of pairs into batches of at most `max_tokens`, padding included.

    Args:
        lengths: int64 `[n, 2]`, source and target length, in the order of the sequence.
        max_tokens: as for `bucket_by_length`.

    Returns:
        The first index of each batch except the first, as `np.split` expects.
    """
    boundaries, start, longest = [], 0, (0, 0)
    for i, (source, target) in enumerate(lengths.tolist()):
        grown = max(longest[0], source), max(longest[1], target)
        if i > start and sum(grown) * (i - start + 1) > max_tokens:
            boundaries.append(i)
            start, grown = i, (source, target)
        longest = grown
    return boundaries


@dataclass(frozen=True, eq=False)
class TextBatch:
    """A batch of pairs on the device.

    Attributes:
        source: encoder input: int64 `[batch, S]`, padded with PAD; for images float32
            `[batch, channels, height, width]`, padded on the right.
        widths: int64 `[batch]`, widths of images before padding; None for text and images of equal width.
        decoder_input: int64 `[batch, T]`: BOS and the target without EOS.
        target: int64 `[batch, T]`, the expected output: the target with EOS, padded with PAD.
        samples: int64 `[batch]`, index of each pair.
        requested: number of pairs in the order.
    """

    source: torch.Tensor
    widths: torch.Tensor | None
    decoder_input: torch.Tensor
    target: torch.Tensor
    samples: Indices
    requested: int

    def __len__(self) -> int:
        return len(self.samples)

    @cached_property
    def terms(self) -> int:
        """Number of terms in the mean loss: one per token that is not padding."""
        return int((self.target != PAD).sum())

    @property
    def encoder_kwargs(self) -> dict[str, torch.Tensor]:
        """Further arguments of the encoder."""
        return {} if self.widths is None else {"widths": self.widths}

    def part(self, rows: slice) -> TextBatch:
        """Return some of the pairs, with the padding of the whole batch."""
        widths, samples = None if self.widths is None else self.widths[rows], self.samples[rows]
        rest = (self.decoder_input[rows], self.target[rows], samples, len(samples))
        return TextBatch(self.source[rows], widths, *rest)


def drop_words(batch: TextBatch, rate: float, longest: int, *, seed: int, epoch: int) -> TextBatch:
    """Replace random tokens of the decoder input by UNK, so that the decoder relies on the source.

    Word dropout (Bowman et al. 2016, arXiv:1511.06349, section 3.1). The expected output stays. The choice of
    tokens is a function of seed, epoch and sample.

    Args:
        batch: as a dataset returns it.
        rate: share of the tokens that are replaced, 0 for none; BOS, EOS and PAD stay.
        longest: of all targets in the dataset, in tokens.
        seed: of the run.
        epoch: counts from 0.
    """
    if not rate:
        return batch
    tokens = batch.decoder_input
    random = uniform(seed, epoch, batch.samples, longest)[:, : tokens.shape[1]]
    dropped = torch.from_numpy(random < rate).to(tokens.device) & (tokens >= NUM_SPECIALS)
    return replace(batch, decoder_input=tokens.masked_fill(dropped, UNK))


def pad_sequences(rows: Sequence[TokenIds | Sequence[int]], min_length: int = 1) -> torch.Tensor:
    """Pad rows of ids with PAD to int64 `[rows, longest]`, at least `min_length` long."""
    longest = max([min_length, *map(len, rows)])
    out = np.full((len(rows), longest), PAD, np.int64)
    for line, row in zip(out, rows, strict=True):
        line[: len(row)] = row
    return torch.from_numpy(out)
