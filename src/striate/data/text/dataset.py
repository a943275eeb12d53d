"""Pairs as a network learns them: ids or pixels on the one side, ids on the other."""

from __future__ import annotations

from collections.abc import Generator, Sequence

import numpy as np
import torch

from striate.data.images.base import Indices
from striate.data.text.batches import TextBatch, TokenIds, pad_sequences
from striate.data.text.lines import TextLineImages, collate_images
from striate.data.text.pairs import Pairs
from striate.data.text.tokens import Tokenizer

PIXELS_PER_TOKEN = 8  # of an image's width that count as one token of a batch


class Seq2SeqDataset:
    """A source and one right answer each: a pair with several references is as many examples.

    Attributes:
        names: where each stands, for messages.
        lengths: int64 `[n, 2]`, tokens of source and target, END among them; of images, `PIXELS` columns
            count as one token.
        pair: int64 `[n]`, the position of its pair.
    """

    def __init__(
        self,
        pairs: Pairs,
        source: Tokenizer | TextLineImages,
        target: Tokenizer,
        *,
        all_references: bool = True,
    ) -> None:
        """Turn text into ids.

        Args:
            pairs: to learn.
            source: what turns sources into ids; or the images, `len(pairs)` of them, of which those that
                cannot be read are left out.
            target: what turns targets into ids.
            all_references: rather than the first of each pair only.
        """
        which, targets = [], []
        for i, references in enumerate(pairs.references):
            if isinstance(source, TextLineImages) and not source.widths[i]:
                continue
            for reference in references if all_references else references[:1]:
                which.append(i)
                targets.append(np.array(target.target(reference), np.int32))
        self.pair_index = np.array(which, np.int64)
        self.names = tuple(pairs.places[i] for i in which)
        self._targets: list[TokenIds] = targets
        self._lines = source if isinstance(source, TextLineImages) else None
        self._sources: list[TokenIds] = []
        if isinstance(source, TextLineImages):
            long = -(-source.widths[self.pair_index] // PIXELS_PER_TOKEN)
        else:
            self._sources = [np.array(source.source(text), np.int32) for text in pairs.sources]
            long = np.array([len(self._sources[i]) for i in which], np.int64)
        answers = np.array([len(row) - 1 for row in targets], np.int64)
        self.lengths = np.stack([long, answers], axis=1) if which else np.empty((0, 2), np.int64)

    def __len__(self) -> int:
        return len(self.pair_index)

    def batch(self, which: Indices, device: torch.device) -> TextBatch:
        """The examples at these positions as one batch on the device."""
        targets = pad_sequences([self._targets[i] for i in which]).to(device)
        source, widths = self._source(which, device)
        return TextBatch(source, widths, targets[:, :-1], targets[:, 1:], which, len(which))

    def stream(self, order: Sequence[Indices], device: torch.device) -> Generator[TextBatch, None, None]:
        """Batch after batch."""
        for which in order:
            yield self.batch(which, device)

    def _source(self, which: Indices, device: torch.device) -> tuple[torch.Tensor, torch.Tensor | None]:
        pairs = self.pair_index[which]
        if self._lines is not None:
            return collate_images(self._lines.read(pairs), self._lines.contract, device)
        return pad_sequences([self._sources[i] for i in pairs]).to(device), None


def max_target_length(source: int, ratio: float, most: int) -> int:
    """Tokens that an answer may have, END among them.

    Args:
        source: length of the source.
        ratio: the largest of target to source in training.
        most: the longest target in training.

    Returns:
        A fifth more than the ratio gives, and no more than twice the longest; at least 8.
    """
    return max(8, min(2 * most, int(1.2 * ratio * source) + 2))
