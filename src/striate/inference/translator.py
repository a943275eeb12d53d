"""Use a trained sequence-to-sequence model: text or images in, text out."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, cast

import numpy as np
import torch
from PIL import Image

from striate import bundle
from striate.bundle import Description
from striate.data.text.batches import batch_boundaries, pad_sequences
from striate.data.text.dataset import PIXELS_PER_TOKEN, max_target_length
from striate.data.text.lines import collate_images
from striate.data.text.pairs import PairSet, open_pairs
from striate.data.text.tokens import Tokenizer, check_tokenizers
from striate.device import choose as choose_device
from striate.errors import BundleError, DataError, DecodeError, UsageError
from striate.inference.generation import Hypothesis, beam, greedy
from striate.kernels.folding import arrange
from striate.metrics.text import TextScores, measure
from striate.models.seq2seq import SequenceToSequence, TextToText, build
from striate.progress import SILENT, Progress
from striate.transforms.decode import Uint8Array

Source = str | os.PathLike[str] | Uint8Array | Image.Image
_TOKENS = 4096  # of a batch, padding with it
TASK = "seq2seq"


@dataclass(frozen=True)
class Answer:
    """A text that was written, and how likely it is.

    Attributes:
        text: the tokens as text.
        score: log-probability in nats; of a beam search over its length penalty.
        ended: False where the text was cut at its limit.
        tokens: each token as it is shown in pictures, `<end>` among them.
        attention: float32 `[tokens, source tokens]`, where the decoder looked; None where it was not asked.
    """

    text: str
    score: float
    ended: bool
    tokens: tuple[str, ...] = field(repr=False, default=())
    attention: torch.Tensor | None = field(repr=False, default=None)


@dataclass(frozen=True)
class Translation:
    """What a model writes for one source.

    Attributes:
        source: the text, or the path of the image; `array` for pixels in memory.
        answers: the best ones, best first; empty if there is an error.
        error: why the source could not be read, in one line; None if it could.
    """

    source: str
    answers: tuple[Answer, ...]
    error: str | None = None

    @property
    def text(self) -> str:
        """The best answer; empty if there is an error."""
        return self.answers[0].text if self.answers else ""


@dataclass(frozen=True)
class Translations:
    """What a model writes for several sources.

    Attributes:
        results: one for each source, in their order.
        tokens: in the best answers, END among them.
        seconds: that it took, encoder and decoder.
    """

    results: tuple[Translation, ...]
    tokens: int
    seconds: float

    @property
    def tokens_per_second(self) -> float:
        """Of the best answers."""
        return self.tokens / max(self.seconds, 1e-9)


@dataclass(frozen=True)
class Translator:
    """A network with all that is needed to use it.

    Attributes:
        network: in evaluation mode, on `device`.
        description: tokenizers, preprocessing, figures, origin.
        source: what turns text into the encoder's ids; None where it reads images.
        target: what turns the decoder's ids into text.
        device: where it runs.
        path: the file it came from, empty if from none.
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

    def translate(
        self,
        sources: Source | Sequence[Source],
        *,
        beams: int = 1,
        best: int = 1,
        alpha: float = 0.6,
        attention: bool = False,
        progress: Progress = SILENT,
    ) -> Translations:
        """Write an answer to each source.

        Args:
            sources: texts; or images as paths, PIL images or uint8 arrays. One of them, or a list.
            beams: how many answers are followed at once; 1 for greedy.
            best: how many are wanted, at most `beams`.
            alpha: exponent of the length penalty of a beam search.
            attention: whether the answers shall have it.
            progress: is told of each batch; whoever calls begins and ends the stage.

        Raises:
            UsageError: more answers than beams, or as many beams as there are ids.
        """
        if not 1 <= best <= beams < len(self.target):
            raise UsageError(
                f"{best} answers of {beams} beams",
                f"beams are from 1 to {len(self.target) - 1}, answers no more than beams",
                "Raise --beam or lower --n-best",
            )
        if isinstance(sources, (str, os.PathLike, Image.Image, np.ndarray)):
            sources = [sources]
        started, written = time.perf_counter(), 0
        rows = [self._read(source) for source in sources]
        results = [Translation(shown, (), row if isinstance(row, str) else None) for shown, row in rows]
        good = np.array([i for i, (_, row) in enumerate(rows) if not isinstance(row, str)], np.int64)
        lengths = np.array([self._length(cast(Any, rows[i][1])) for i in good], np.int64)
        order = np.argsort(lengths, kind="stable")
        both = np.stack([lengths[order], lengths[order]], axis=1)
        for which in np.split(good[order], batch_boundaries(both, _TOKENS)):
            if not len(which):
                continue
            batch = [cast(Any, rows[i][1]) for i in which]
            for i, hypotheses in zip(which, self._write(batch, beams, best, alpha, attention), strict=True):
                answers = tuple(self._answer(hypothesis, attention) for hypothesis in hypotheses)
                results[i] = Translation(rows[i][0], answers)
                written += len(hypotheses[0].tokens) + hypotheses[0].ended
            progress.advance(len(which))
        return Translations(tuple(results), written, time.perf_counter() - started)

    @cached_property
    def _arranged(self) -> SequenceToSequence:
        """The network with its weights laid out for the processor."""
        return arrange(self.network)

    @torch.inference_mode()
    def _write(
        self, batch: list[Any], beams: int, best: int, alpha: float, attention: bool
    ) -> Sequence[Sequence[Hypothesis]]:
        says, network = self.description.text or {}, self._arranged
        limits = [max_target_length(self._length(row), says["ratio"], says["longest"]) for row in batch]
        limits = [min(most, network.decoder.embed.positions.length) for most in limits]
        if self.source is None:
            pixels, widths = collate_images(batch, self.description.contract, self.device)
            more = {} if widths is None else {"widths": widths}
            memory, mask = network.encode(pixels, **more)
        else:
            memory, mask = network.encode(pad_sequences(batch).to(self.device))
        if beams == 1:
            return greedy(network.decoder, memory, mask, limits, attention=attention).hypotheses
        return beam(
            network.decoder, memory, mask, limits, beams=beams, best=best, alpha=alpha,
            attention=attention,
        ).hypotheses  # fmt: skip

    def _read(self, source: Source) -> tuple[str, list[int] | Uint8Array | str]:
        """How a source is shown, and what the network reads of it; or why it cannot."""
        if self.source is not None:
            text = str(source)
            ids = self.source.source(text)
            most = self.network.decoder.embed.positions.length
            if len(ids) > most:
                return text, f"it has {len(ids):,} tokens, more than the {most:,} that this model reads"
            return text, ids
        contract = self.description.contract
        if isinstance(source, Image.Image):
            source = np.asarray(source.convert("RGB"))
        if isinstance(source, np.ndarray):
            return "array", contract.fit(source)
        try:
            return os.fspath(source), contract.read(source)
        except DecodeError as error:
            return os.fspath(source), error.why

    def grid(self, image: Source) -> tuple[int, int]:
        """Rows and columns of the places that the decoder sees of an image."""
        _, row = self._read(image)
        assert isinstance(row, np.ndarray)
        pixels, widths = collate_images([row], self.description.contract, self.device)
        with torch.inference_mode():
            x, _ = self.network.get_submodule("front")(pixels, widths)
        return x.shape[1], x.shape[2]

    def _length(self, row: list[int] | Uint8Array) -> int:
        return len(row) if isinstance(row, list) else -(-row.shape[1] // PIXELS_PER_TOKEN)

    def _answer(self, hypothesis: Hypothesis, attention: bool) -> Answer:
        ids = hypothesis.tokens
        shown = tuple(map(self.target.id_to_token, ids)) + (("<end>",) if hypothesis.ended else ())
        return Answer(
            self.target.decode(ids),
            hypothesis.score,
            hypothesis.ended,
            shown if attention else (),
            hypothesis.attention,
        )


@dataclass(frozen=True)
class TextEvaluation:
    """What a model is worth on pairs that it did not learn.

    Attributes:
        scores: BLEU, chrF, exact match, error rates.
        data: what was measured on.
        split: which part of it.
        sources: text, or paths of images.
        references: the right answers of each.
        answers: what the model wrote.
        tokens_per_second: that were written.
        notes: what else should be known.
    """

    scores: TextScores
    data: str
    split: str
    sources: tuple[str, ...] = field(repr=False)
    references: tuple[tuple[str, ...], ...] = field(repr=False)
    answers: tuple[str, ...] = field(repr=False)
    tokens_per_second: float
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """What `striate seq2seq evaluate --json` prints."""
        return {
            **self.scores.to_json(),
            "data": self.data,
            "split": self.split,
            "tokens_per_second": self.tokens_per_second,
            "notes": list(self.notes),
        }


def load_translator(path: str | os.PathLike[str], device: str = "auto") -> Translator:
    """Open a sequence-to-sequence bundle on any device; executes no code of the file.

    Args:
        path: a bundle, or a run's folder, whose `best.safetensors` is taken.
        device: `auto`, `cpu`, `cuda`, `cuda:1`, `mps`.

    Raises:
        BundleError: no such file, damaged, a model of another task, or with another vocabulary than its
            weights learnt.
        UsageError: the device is not there.
    """
    path = bundle.path_of(path)
    place = choose_device(device)
    description, state = bundle.read(path, place)
    if description.task != TASK or description.text is None:
        raise BundleError(
            f"{str(path)!r} writes no text",
            f"it was trained for {description.task}",
            "Use `striate predict` with it, or give a model of `striate seq2seq train`",
        )
    try:
        says = description.text
        source = None if says["source"] is None else Tokenizer.from_json(says["source"])
        target = Tokenizer.from_json(says["target"])
        network = build(description.architecture, **description.arguments)
        network.load_state_dict(state)
    except (KeyError, TypeError, RuntimeError, UsageError) as error:
        reason = " ".join(str(error).split())
        raise BundleError(
            f"{str(path)!r} does not fit {description.architecture}",
            reason,
            "It was written by another version",
        ) from error
    assert isinstance(network, SequenceToSequence)
    check_tokenizers(source, target, _rows(network), says["digests"], str(path))
    return Translator(network.to(place).eval(), description, source, target, place, str(path))


def evaluate_seq2seq(
    model: str | os.PathLike[str] | Translator,
    *data: str | os.PathLike[str],
    split: str = "auto",
    languages: tuple[str, str] | None = None,
    beams: int = 1,
    shuffled: bool = False,
    device: str = "auto",
    progress: Progress = SILENT,
) -> TextEvaluation:
    """Measure a model on pairs with their right answers.

    Args:
        model: a bundle, a run's folder, or a translator.
        data: as for `striate.data.text.pairs.open_pairs`.
        split: `test`, `val`, `train` or `all`; `auto` takes test, else val, else all.
        languages: as for `open_pairs`.
        beams: as for `Translator.translate`.
        shuffled: compare each answer with the right ones of another source: what a model is worth that does
            not look at its source.
        device: where.
        progress: is told of each batch.

    Raises:
        BundleError, DataError, UsageError: as `load_translator` and `open_pairs`; or there is no such split.
    """
    translator = model if isinstance(model, Translator) else load_translator(model, device)
    found = open_pairs(*data, languages=languages)
    return measure_on(translator, found, split, beams, progress, shuffled=shuffled)


def measure_on(
    translator: Translator,
    found: PairSet,
    split: str,
    beams: int = 1,
    progress: Progress = SILENT,
    *,
    shuffled: bool = False,
) -> TextEvaluation:
    """Measure a model on a split of pairs.

    Raises:
        DataError: there is no such split, it has other sources than the model reads, or none can be read.
    """
    if (found.kind == "images") != translator.reads_images:
        reads = "images" if translator.reads_images else "text"
        raise DataError(
            f"cannot measure on {found.source!r}", f"the model reads {reads}, the sources are not"
        )
    names = ("test", "val", "all", "train") if split == "auto" else (split,)
    name = next((name for name in names if name in found.splits), None)
    if name is None:
        raise DataError(f"cannot measure on {split} of {found.source!r}", f"it has {', '.join(found.splits)}")
    pairs = found.splits[name]
    progress.begin("reading images" if translator.reads_images else "translating", len(pairs), "pairs")
    done = translator.translate(pairs.sources, beams=beams, progress=progress)
    progress.end()
    readable = [i for i, result in enumerate(done.results) if result.error is None]
    notes = [f"{r.source}: {r.error}" for r in done.results if r.error is not None]
    if not readable:
        raise DataError(f"cannot measure on {found.source!r}", f"no source can be read: {notes[0]}")
    pairs = pairs.take(readable)
    answers = tuple(done.results[i].text for i in readable)
    references = pairs.references
    if shuffled:
        half = len(references) // 2
        references = (*references[half:], *references[:half])
        notes.append("control: each answer is compared with the right ones of another source")
    scores = measure(answers, references)
    return TextEvaluation(
        scores, found.source, name, pairs.sources, references, answers, done.tokens_per_second,
        tuple(notes),
    )  # fmt: skip


def _rows(network: SequenceToSequence) -> dict[str, int]:
    """Rows of the embeddings."""
    rows = {"target": network.decoder.embed.embedding.num_embeddings}
    if isinstance(network, TextToText):
        rows["source"] = network.embed.embedding.num_embeddings
    return rows
