"""The training dataset of sequence to sequence: token ids or images as source, token ids as target."""

from __future__ import annotations

from collections.abc import Generator, Sequence

import numpy as np
import torch

from striate.data.images.base import Indices
from striate.data.text.batches import TextBatch, TokenIds, pad_sequences
from striate.data.text.lines import TextLineImages, collate_images
from striate.data.text.pairs import Pairs
from striate.data.text.tokens import Tokenizer

PIXELS_PER_TOKEN = 8  # image columns that count as one token of a batch


class Seq2SeqDataset:
    """Examples of one source and one target. A pair with several references gives several examples.

    Attributes:
        names: location of each example, for messages.
        lengths: int64 `[n, 2]`, tokens of source and target with EOS; for images, `PIXELS_PER_TOKEN` columns
            count as one token.
        pair_index: int64 `[n]`, index of the pair of each example.
    """

    def __init__(
        self,
        pairs: Pairs,
        source: Tokenizer | TextLineImages,
        target: Tokenizer,
        *,
        all_references: bool = True,
    ) -> None:
        """Convert text to ids.

        Args:
            pairs: sources and references.
            source: tokenizer of the sources; or their images, `len(pairs)` of them, of which unreadable
                ones are left out.
            target: tokenizer of the references.
            all_references: False for the first reference of each pair only.
        """
        self._images = source if isinstance(source, TextLineImages) else None
        self._sources: list[TokenIds] = []
        if isinstance(source, TextLineImages):
            source_lengths = -(-source.widths // PIXELS_PER_TOKEN)  # 0 for unreadable images
        else:
            self._sources = [np.array(source.encode_source(text), np.int32) for text in pairs.sources]
            source_lengths = np.array([len(ids) for ids in self._sources], np.int64)
        examples = [
            (i, np.array(target.encode_target(reference), np.int32))
            for i, references in enumerate(pairs.references)
            if source_lengths[i]
            for reference in (references if all_references else references[:1])
        ]
        self.pair_index = np.array([i for i, _ in examples], np.int64)
        self.names = tuple(pairs.places[i] for i, _ in examples)
        self._targets: list[TokenIds] = [ids for _, ids in examples]
        target_lengths = np.array([len(ids) - 1 for ids in self._targets], np.int64)  # without BOS
        self.lengths = np.stack([source_lengths[self.pair_index], target_lengths], axis=1)

    def __len__(self) -> int:
        return len(self.pair_index)

    def batch(self, which: Indices, device: torch.device) -> TextBatch:
        """Collate the examples at these indices to one batch on the device."""
        targets = pad_sequences([self._targets[i] for i in which]).to(device)
        pairs = self.pair_index[which]
        if self._images is not None:
            source, widths = collate_images(self._images.read(pairs), self._images.preprocess, device)
        else:
            source, widths = pad_sequences([self._sources[i] for i in pairs]).to(device), None
        return TextBatch(source, widths, targets[:, :-1], targets[:, 1:], which, len(which))

    def rewritten(self) -> list[str]:
        """Return the paths of images that have changed while they were read."""
        return [] if self._images is None else self._images.rewritten()

    def stream(self, order: Sequence[Indices], device: torch.device) -> Generator[TextBatch, None, None]:
        """Yield the batches of an order."""
        return (self.batch(which, device) for which in order)


def max_target_length(source_length: int, ratio: float, longest: int) -> int:
    """Return the length limit of a generated target, EOS included.

    Args:
        source_length: in tokens.
        ratio: high quantile of the ratio of target to source length in training.
        longest: high quantile of the target length in training.

    Returns:
        `ratio` times the source length plus 20 % plus 2, at most twice `longest`, at least 8.
    """
    return max(8, min(2 * longest, int(1.2 * ratio * source_length) + 2))
