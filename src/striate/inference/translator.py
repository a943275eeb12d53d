"""Translate texts, or read the text in images, with a trained sequence-to-sequence model."""

from __future__ import annotations

import copy
import math
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import Any, cast

import numpy as np
import torch
from PIL import Image

from striate import bundle
from striate.bundle import Description
from striate.data.text.batches import batch_boundaries, pad_sequences
from striate.data.text.dataset import PIXELS_PER_TOKEN, max_target_length
from striate.data.text.lines import collate_images
from striate.data.text.reader import clean_text
from striate.data.text.tokens import UNK, Tokenizer, check_tokenizers, shown_unknown
from striate.device import allow_forks, standard_settings
from striate.device import choose as choose_device
from striate.errors import BundleError, DataError, DecodeError, UsageError, translated_errors
from striate.inference.generation import Hypothesis, beam, greedy
from striate.inference.prediction import NOT_FINITE, read_image
from striate.kernels import prepare
from striate.kernels.prepacking import prepack
from striate.models.seq2seq import SequenceToSequence, TextToText, build
from striate.progress import AUTO, Progress
from striate.transforms.decode import ImageSource, Uint8Array

Source = str | ImageSource
_ONE = (str, os.PathLike, bytes, bytearray, memoryview, Image.Image, np.ndarray)  # and file objects
_MAX_ALPHA = 10  # scores of the longest texts still differ and do not overflow
_TOKENS = 4096  # of a batch, padding with it
_FEW_BEAMS = 8  # more of them have smaller batches
TASK = "seq2seq"


@dataclass(frozen=True)
class Answer:
    """A text that the model generated.

    Attributes:
        text: the decoded tokens.
        score: log-probability in nats; in beam search divided by the length penalty.
        ended: False if the text was cut off at its maximum length.
        tokens: each token as text, including `<end>`, if attention was requested.
        attention: float32 `[tokens, source tokens]`, attention weights of the decoder; None unless requested.
    """

    text: str
    score: float
    ended: bool
    tokens: tuple[str, ...] = field(repr=False, default=())
    attention: torch.Tensor | None = field(repr=False, default=None)


@dataclass(frozen=True)
class Translation:
    """The answers for one source.

    Attributes:
        source: the text, or the path of the image; `array` for an image in memory.
        answers: best first; empty if there is an error.
        error: why the source cannot be read or has no answer, in one line; None if it has one.
        unknown: characters (or words) of the source that the model does not know.
        empty: whether the source has no text; then the answer has none either.
    """

    source: str
    answers: tuple[Answer, ...]
    error: str | None = None
    unknown: tuple[str, ...] = ()
    empty: bool = False

    @property
    def text(self) -> str:
        """The best answer; empty if there is an error."""
        return self.answers[0].text if self.answers else ""

    @property
    def cut(self) -> bool:
        """Whether the best answer was cut off at its maximum length."""
        return bool(self.answers) and not self.answers[0].ended


@dataclass(frozen=True)
class Translations:
    """The answers for several sources.

    Attributes:
        results: one for each source, in their order.
        tokens: number of tokens in the best answers, including END.
        seconds: of encoder and decoder.
    """

    results: tuple[Translation, ...]
    tokens: int
    seconds: float

    @property
    def tokens_per_second(self) -> float:
        """Decoding speed, from the best answers."""
        return self.tokens / max(self.seconds, 1e-9)


@dataclass(frozen=True)
class Translator:
    """A sequence-to-sequence network with its tokenizers and preprocessing.

    Attributes:
        network: in evaluation mode, on `device`. Translations use a copy of it, as for `Classifier.network`.
        description: tokenizers, preprocessing, metrics, provenance.
        source: the tokenizer of the source; None if sources are images.
        target: the tokenizer of the target.
        device: where it runs.
        path: the file that it was loaded from, or empty.
    """

    network: SequenceToSequence = field(repr=False)
    description: Description = field(repr=False)
    source: Tokenizer | None = field(repr=False)
    target: Tokenizer = field(repr=False)
    device: torch.device
    path: str = ""

    @property
    def reads_images(self) -> bool:
        """Whether sources are images rather than text."""
        return self.source is None

    @translated_errors()
    def translate(
        self,
        sources: Source | Sequence[Source],
        *,
        beams: int = 1,
        best: int = 1,
        alpha: float = 0.6,
        attention: bool = False,
        progress: Progress = AUTO,
    ) -> Translations:
        """Translate texts, or read images.

        Args:
            sources: texts; or images in any form that `Classifier.predict` takes. One of them, or a list.
            beams: beam size; 1 for greedy decoding.
            best: number of answers per source, at most `beams`.
            alpha: exponent of the length penalty in beam search.
            attention: whether to return attention weights.
            progress: receives an update per batch; the caller begins and ends the stage.

        Raises:
            UsageError: more answers than beams, or as many beams as tokens in the vocabulary.
            ResourceError: the beams cannot fit into memory.
        """
        if not 1 <= best <= beams < len(self.target):
            raise UsageError(
                f"{best} answers of {beams} beams",
                f"beams are from 1 to {len(self.target) - 1}, answers no more than beams",
                "Raise --beam or lower --n-best",
            )
        if not abs(alpha) <= _MAX_ALPHA:
            why = f"the exponent of the length penalty must be from -{_MAX_ALPHA} to {_MAX_ALPHA}"
            raise UsageError(f"--alpha {alpha:g}", why, "Leave it out for 0.6")
        if isinstance(sources, _ONE) or hasattr(sources, "read"):
            sources = [cast(Source, sources)]
        started, written = time.perf_counter(), 0
        rows = [self.read(source) for source in sources]
        results = [self._unwritten(shown, row) for shown, row in rows]
        good = [i for i, r in enumerate(results) if r.error is None and not r.empty]
        batch = [cast(Any, rows[i][1]) for i in good]
        for place, found in self.generate(batch, beams, best, alpha, attention, progress):
            i, hypotheses = good[place], [h for h in found if math.isfinite(h.log_probability)]
            answers = tuple(self._answer(hypothesis, attention) for hypothesis in hypotheses)
            error = None if answers else NOT_FINITE
            results[i] = replace(results[i], answers=answers, error=error)
            written += sum(len(h.tokens) + h.ended for h in hypotheses[:1])
        return Translations(tuple(results), written, time.perf_counter() - started)

    def generate(
        self,
        rows: Sequence[list[int] | Uint8Array],
        beams: int = 1,
        best: int = 1,
        alpha: float = 0.6,
        attention: bool = False,
        progress: Progress = AUTO,
    ) -> Iterator[tuple[int, Sequence[Hypothesis]]]:
        """The hypotheses for sources that `read` has returned, each with the position of its source.

        Args:
            rows: what `read` returned; no text is empty.
            beams: as the other arguments, as for `translate`.
            best: as for `translate`.
            alpha: as for `translate`.
            attention: as for `translate`.
            progress: receives an update per batch.
        """
        lengths = np.array([self._length(row) for row in rows], np.int64)
        order = np.argsort(lengths, kind="stable")
        both = np.stack([lengths[order], lengths[order]], axis=1)
        most = _TOKENS * _FEW_BEAMS // max(beams, _FEW_BEAMS)
        for which in np.split(order, batch_boundaries(both, most)):
            if len(which):
                found = self._write([rows[i] for i in which], beams, best, alpha, attention)
                yield from zip(which.tolist(), found, strict=True)
                progress.advance(len(which))

    def limit(self, row: list[int] | Uint8Array) -> int:
        """The maximum number of tokens of the answer to a source that `read` has returned, END included."""
        text = self.description.text or {}
        most = max_target_length(self._length(row), text["ratio"], text["longest"])
        return min(most, self.network.decoder.embed.positions.length)

    @cached_property
    def _prepacked(self) -> SequenceToSequence:
        """A copy of the network, with prepacked weights."""
        allow_forks()
        with standard_settings():
            return prepack(copy.deepcopy(self.network))

    def __getstate__(self) -> dict[str, Any]:
        """Leave out the prepacked copy, whose weights no copy or other process can read."""
        return {name: value for name, value in vars(self).items() if name != "_prepacked"}

    def write(self, batch: list[list[int] | Uint8Array]) -> list[Hypothesis]:
        """The answer to each source that `read` has returned, by greedy search."""
        return [found[0] for found in self._write(batch, 1, 1, 0.0, False)]

    @standard_settings()
    @torch.inference_mode()
    def _write(
        self, batch: list[Any], beams: int, best: int, alpha: float, attention: bool
    ) -> Sequence[Sequence[Hypothesis]]:
        network, limits = self._prepacked, [self.limit(row) for row in batch]
        if self.source is None:
            pixels, widths = collate_images(batch, self.description.image_preprocess, self.device)
            more = {} if widths is None else {"widths": widths}
            memory, mask = network.encode(pixels, **more)
        else:
            memory, mask = network.encode(pad_sequences(batch).to(self.device))
        if beams == 1:
            return greedy(network.decoder, memory, mask, limits, attention=attention)
        return beam(
            network.decoder, memory, mask, limits, beams=beams, best=best, alpha=alpha,
            attention=attention,
        )  # fmt: skip

    def read(self, source: Source) -> tuple[str, list[int] | Uint8Array | str]:
        """The name of a source, and the network's input for it; or why it cannot be read."""
        if self.source is not None:
            text = str(source)
            try:
                ids = self.source.encode_source(clean_text(text))
            except DataError as error:
                return text, error.why
            most = self.network.decoder.embed.positions.length
            if len(ids) > most:
                return text, f"it has {len(ids):,} tokens, more than the {most:,} that this model reads"
            return text, ids
        name, pixels = read_image(source, self.description.image_preprocess)
        return name, pixels.why if isinstance(pixels, DecodeError) else pixels

    def _unwritten(self, shown: str, row: list[int] | Uint8Array | str) -> Translation:
        """What is known of a source before its answer is generated."""
        if isinstance(row, str):
            return Translation(shown, (), row)
        if self.source is None:
            return Translation(shown, ())
        if len(row) == 1:  # nothing but END
            return Translation(shown, (Answer("", 0.0, True),), empty=True)
        return Translation(shown, (), unknown=self.source.unknown(clean_text(shown)) if UNK in row else ())

    @standard_settings()
    def grid(self, image: Source) -> tuple[int, int]:
        """Rows and columns of an image's positions that the decoder attends to."""
        _, row = self.read(image)
        assert isinstance(row, np.ndarray)
        pixels, widths = collate_images([row], self.description.image_preprocess, self.device)
        with torch.inference_mode():
            x, _ = self.network.get_submodule("front")(pixels, widths)
        return x.shape[1], x.shape[2]

    def _length(self, row: list[int] | Uint8Array) -> int:
        return len(row) if isinstance(row, list) else -(-row.shape[1] // PIXELS_PER_TOKEN)

    def _answer(self, hypothesis: Hypothesis, attention: bool) -> Answer:
        ids = hypothesis.tokens
        shown = tuple(map(self.target.id_to_token, ids)) + (("<end>",) if hypothesis.ended else ())
        text, tokens = self.target.decode(ids), shown if attention else ()
        return Answer(text, hypothesis.score, hypothesis.ended, tokens, hypothesis.attention)


@translated_errors()
@standard_settings()
def load_translator(path: str | os.PathLike[str], device: str = "auto") -> Translator:
    """Open a sequence-to-sequence bundle on any device; executes no code from the file.

    Args:
        path: a bundle, or a run folder, whose `best.safetensors` is opened.
        device: `auto`, `cpu`, `cuda`, `cuda:1`, `mps`.

    Raises:
        BundleError: no such file, damaged, a model of another task, or a vocabulary that does not fit the
            weights.
        UsageError: the device is not available.
    """
    path = bundle.path_of(path)
    place = choose_device(device)
    description, network = bundle.load(path, place, partial(_network, str(path)))
    assert description.text is not None
    assert isinstance(network, SequenceToSequence)
    try:
        source, target = tokenizers_of(description)
        check_tokenizers(source, target, _rows(network), description.text["digests"], str(path))
    except UsageError as error:
        raise bundle.damaged(str(path), str(error)) from error
    network = prepare(network, place, training=False).eval()
    return Translator(network, description, source, target, place, str(path))


def _network(path: str, description: Description) -> SequenceToSequence:
    """The network of a bundle, which must generate text and read what its description says."""
    if description.task != TASK or description.text is None:
        raise BundleError(
            f"{path!r} does not generate text",
            f"it was trained for {description.task}",
            "Use `striate predict` with it, or give a model of `striate seq2seq train`",
        )
    if (description.architecture == "image_to_text") != (description.preprocess is not None):
        raise bundle.damaged(path, f"a {description.architecture} reads something else")
    return build(description.architecture, **description.arguments)


def warnings_of(results: Sequence[Translation], count: int | None = None) -> list[str]:
    """Sentences about unknown characters, empty sources and answers that were cut off.

    Args:
        results: of some sources.
        count: number of sources, if the results of some that need no warning are left out.
    """
    unknown = [result for result in results if result.unknown]
    empty, cut = sum(result.empty for result in results), sum(result.cut for result in results)
    warnings, n = [], f"of {len(results) if count is None else count:,}"
    if unknown:
        warnings.append(
            f"{len(unknown):,} {n} sources have characters or words that the model does not know: "
            f"{shown_unknown(part for result in unknown for part in result.unknown)}"
        )
    if empty:
        warnings.append(f"{empty:,} {n} sources are empty, so their answers are empty too")
    if cut:
        warnings.append(f"{cut:,} {n} answers were cut off at the maximum length")
    return warnings


def tokenizers_of(description: Description) -> tuple[Tokenizer | None, Tokenizer]:
    """The tokenizers of source (None for images) and target that a bundle holds; raises KeyError without."""
    text = description.text or {}
    source = None if text["source"] is None else Tokenizer.from_json(text["source"])
    return source, Tokenizer.from_json(text["target"])


def _rows(network: SequenceToSequence) -> dict[str, int]:
    """Sizes of the embeddings."""
    rows = {"target": network.decoder.embed.embedding.num_embeddings}
    if isinstance(network, TextToText):
        rows["source"] = network.embed.embedding.num_embeddings
    return rows
