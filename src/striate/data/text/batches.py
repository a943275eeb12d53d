"""Batches of about equally many tokens, from pairs of about equal length.

A batch costs what its padded arrays hold, so pairs are sorted by length before they are cut into batches;
the order within a length, and that of the batches, are functions of the seed and the epoch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import torch

from striate.data.images.base import Indices
from striate.data.text.tokens import PAD

TokenIds = npt.NDArray[np.int32]


def bucket_by_length(lengths: Indices, tokens: int, *, seed: int, epoch: int) -> list[Indices]:
    """The batches of one epoch; a function of the arguments alone, their number of the first two.

    Args:
        lengths: int64 `[n, 2]`, of each pair's source and target.
        tokens: most that the padded source and target of a batch hold together; a longer pair has a batch
            of its own.
        seed: of the run.
        epoch: counts from 0.

    Returns:
        Arrays of indices that together hold each of 0 to `n - 1` once.
    """
    generator = np.random.Generator(np.random.Philox(key=[seed, epoch]))
    shuffled = generator.permutation(len(lengths))
    order = shuffled[
        np.lexsort((lengths[shuffled, 0], lengths[shuffled, 1]))
    ]  # stable: shuffled within equals
    cuts = batch_boundaries(lengths[order], tokens)
    found = np.split(order, cuts)
    return [found[i] for i in generator.permutation(len(found))]


def batch_boundaries(lengths: Indices, tokens: int) -> list[int]:
    """Where to cut a sequence of pairs so that each part's padded arrays hold at most `tokens`.

    Args:
        lengths: int64 `[n, 2]`, in the order of the sequence.
        tokens: as for `bucketed`.

    Returns:
        The first index of each part but the first.
    """
    cuts, start, most = [], 0, (0, 0)
    for i, (source, target) in enumerate(lengths.tolist()):
        grown = max(most[0], source), max(most[1], target)
        if i > start and sum(grown) * (i - start + 1) > tokens:
            cuts.append(i)
            start, grown = i, (source, target)
        most = grown
    return cuts


@dataclass(frozen=True, eq=False)
class TextBatch:
    """What a step learns from.

    Attributes:
        source: what the encoder reads: int64 `[batch, S]`, padded with PAD; of images float32
            `[batch, channel, height, width]`, padded on the right.
        widths: of images that are not all equally wide, int64 `[batch]`, before the padding; else None.
        given: int64 `[batch, T]`, what the decoder reads: BEGIN and the target without its END.
        wanted: int64 `[batch, T]`, what it is to say: the target with END, padded with PAD.
        samples: int64 `[batch]`, the position of each pair.
        asked: how many pairs the batch was to have.
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
    def weight(self) -> int:
        """Over how many terms the mean loss is taken: one for each token that is not padding."""
        return int((self.target != PAD).sum())

    @property
    def encoder_kwargs(self) -> dict[str, torch.Tensor]:
        """What the encoder wants to know beside the source."""
        return {} if self.widths is None else {"widths": self.widths}

    def part(self, rows: slice) -> TextBatch:
        """Some of its pairs, padded as all of them are."""
        widths = None if self.widths is None else self.widths[rows]
        samples = self.samples[rows]
        return TextBatch(
            self.source[rows], widths, self.decoder_input[rows], self.target[rows], samples, len(samples)
        )


def pad_sequences(rows: Sequence[TokenIds | Sequence[int]], least: int = 1) -> torch.Tensor:
    """Rows of ids as int64 `[rows, longest]`, filled up with PAD.

    Args:
        rows: of any lengths.
        least: length that the result has at least.
    """
    longest = max([least, *map(len, rows)])
    out = np.full((len(rows), longest), PAD, np.int64)
    for line, row in zip(out, rows, strict=True):
        line[: len(row)] = row
    return torch.from_numpy(out)
