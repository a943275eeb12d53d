"""Compare an exported sequence model with the original: one way for every format."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from striate.data.text.tokens import BOS, EOS
from striate.errors import WriteError
from striate.exporters.records import Exported, Parity
from striate.exporters.verification import ALONE, REPORT
from striate.inference.generation import greedy, log_probabilities
from striate.models.seq2seq import SequenceToSequence
from striate.transforms.decode import Uint8Array

TOLERANCE = 1e-3  # nats; rounding alone causes up to about 1e-4

Text = list[int]  # token numbers, with END if it was reached


@dataclass(frozen=True)
class Sources:
    """Sources as the network reads them.

    Attributes:
        inputs: tokens `[n, tokens]`, or images `[n, channel, height, width]`.
        widths: widths of images before padding, int64 `[n]`, if the encoder takes them.
        limit: maximum number of tokens of an answer, END included.
        source: what they are, for messages.
        pixels: of images, before they were normalized: uint8 `[n, height, width, channels]`.
    """

    inputs: Tensor
    widths: Tensor | None
    limit: int
    source: str = ""
    pixels: Uint8Array | None = None

    def __len__(self) -> int:
        return len(self.inputs)

    def __getitem__(self, i: int) -> Sources:
        """One source, as a batch."""
        widths = None if self.widths is None else self.widths[i : i + 1]
        pixels = None if self.pixels is None else self.pixels[i : i + 1]
        return Sources(self.inputs[i : i + 1], widths, self.limit, pixels=pixels)

    @property
    def arguments(self) -> list[Tensor]:
        """The inputs, and the widths if there are any."""
        return [self.inputs] if self.widths is None else [self.inputs, self.widths]


class TextEngine(Protocol):
    """What runs a sequence model."""

    def generate(self, sources: Sources) -> list[Text]:
        """The text for each source, by greedy search."""

    def score(self, sources: Sources, texts: Sequence[Text]) -> list[Tensor]:
        """The log-probability of each token of given texts."""


@dataclass(frozen=True)
class TorchEngine:
    """The network itself."""

    network: SequenceToSequence

    def generate(self, sources: Sources) -> list[Text]:
        """As `TextEngine`."""
        memory, mask = self._encode(sources)
        found = greedy(self.network.decoder, memory, mask, sources.limit, begin=BOS, end=EOS)
        return [[*best.tokens, *([EOS] if best.ended else [])] for best, *_ in found]

    def score(self, sources: Sources, texts: Sequence[Text]) -> list[Tensor]:
        """As `TextEngine`."""
        return [
            rows.gather(1, torch.tensor(text, dtype=torch.int64)[:, None])[:, 0]
            for rows, text in zip(self.rows(sources, texts), texts, strict=True)
        ]

    def rows(self, sources: Sources, texts: Sequence[Text]) -> list[Tensor]:
        """The log-probabilities of all tokens at each place of given texts, `[tokens, vocabulary]`."""
        memory, mask = self._encode(sources)
        found = []
        for i, text in enumerate(texts):
            target = torch.tensor([[BOS, *text[:-1]]])
            logits = self.network.decoder(target, memory[i : i + 1], mask[i : i + 1])[0]
            found.append(log_probabilities(logits)[: len(text)])
        return found

    def _encode(self, sources: Sources) -> tuple[Tensor, Tensor]:
        more = {} if sources.widths is None else {"widths": sources.widths}
        memory, mask = self.network.encode(sources.inputs, **more)
        return memory, mask


@torch.inference_mode()
def compare_texts(network: SequenceToSequence, exported: Exported, sources: Sources, out: Path) -> Parity:
    """Compare the texts of a network and of its export, and how both score the texts of the network.

    Args:
        network: in evaluation mode, on the CPU.
        exported: with `texts`.
        sources: at least one.
        out: what the user called the export, for errors.

    Raises:
        WriteError: the log-probabilities differ by more than rounding, or a text differs although its tokens
            are not equally probable.
    """
    engine, original = exported.texts, TorchEngine(network)
    assert engine is not None
    what = f"cannot write {str(out)!r}"
    ours, theirs = original.generate(sources), engine.generate(sources)
    rows = original.rows(sources, ours)
    difference = 0.0
    for text, row, scores in zip(ours, rows, engine.score(sources, ours), strict=True):
        own = row.gather(1, torch.tensor(text, dtype=torch.int64)[:, None])[:, 0]
        difference = max(difference, *(own - scores).abs().tolist(), 0.0)
    if not difference <= TOLERANCE:
        why = f"log-probabilities of its tokens differ by {difference:.1e} nats"
        raise WriteError(what, why, REPORT)
    for text, other, row in zip(ours, theirs, rows, strict=True):
        if text != other and not _is_tie(text, other, row):
            why = "it generates another text than the original, and not because of rounding"
            raise WriteError(what, why, REPORT)
    equal = sum(text == other for text, other in zip(ours, theirs, strict=True))
    times = _latency(original, sources), _latency(engine, sources)
    return Parity(
        len(ours), equal, difference, inputs=sources.source, milliseconds=times, notes=exported.notes
    )


def _is_tie(text: Text, other: Text, rows: Tensor) -> bool:
    """Whether two texts differ first at a place where rounding can decide between their tokens."""
    for i, (one, two) in enumerate(zip(text, other, strict=False)):
        if one != two:
            return bool((rows[i, one] - rows[i, two]).abs() <= 2 * TOLERANCE)
    return False  # one of them goes on after the end of the other


def _latency(engine: TextEngine, sources: Sources) -> float:
    """Median milliseconds for one text."""
    times = []
    for i in range(min(len(sources), ALONE)):
        started = time.perf_counter()
        engine.generate(sources[i])
        times.append(time.perf_counter() - started)
    return 1000 * statistics.median(times)
