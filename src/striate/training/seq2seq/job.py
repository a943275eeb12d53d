"""What a batch of pairs is, what its loss is, and how an epoch is measured."""

from __future__ import annotations

import csv
import dataclasses
import io
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save

from striate.data.images.base import Indices
from striate.data.text.batches import TextBatch, batch_boundaries, bucket_by_length
from striate.data.text.dataset import Seq2SeqDataset
from striate.data.text.pairs import Pairs
from striate.data.text.tokens import PAD
from striate.device import autocast, mixed_precision
from striate.files import write_atomic
from striate.inference.translator import Translator
from striate.metrics.text import bleu_score, error_rate, exact_match, has_sacrebleu
from striate.models.seq2seq import SequenceToSequence
from striate.progress import SILENT, Progress
from striate.training.distributed import ALONE, World
from striate.training.loop import PartLoss
from striate.training.profile import UNWATCHED, Stopwatch
from striate.training.schedule import Pace
from striate.training.seq2seq.config import SeqConfig
from striate.training.state import TrainState

CHECKPOINTS, SAMPLES = "checkpoints", "samples.csv"
MOST_ANSWERED = 500  # validation pairs that are answered after an epoch; all of them have a loss


@dataclass(frozen=True)
class SeqRow:
    """One row of `results.csv`.

    Attributes:
        epoch: counts from 1.
        step: optimizer steps so far.
        lr: learning rate of the last step.
        train_loss: cross-entropy with label smoothing, in nats a token, mean over the epoch.
        val_loss: cross-entropy without smoothing on the validation pairs, in nats a token.
        val_accuracy: share of their tokens that is right, given the right ones before.
        val_error: edits of the greedy answers to the nearest reference, over its length, in target tokens.
        val_exact: share of the answers that equal a reference.
        val_bleu: of the answers, 0 to 1; None for characters and bytes, and where sacrebleu is not installed.
        seconds: the epoch took, validation included.
        tokens_per_second: target tokens of training, validation not included.
    """

    epoch: int
    step: int
    lr: float
    train_loss: float
    val_loss: float
    val_accuracy: float
    val_error: float
    val_exact: float
    val_bleu: float | None
    seconds: float
    tokens_per_second: float

    @property
    def merit(self) -> tuple[float, float]:
        """What the best epoch has most of: few errors, then a low loss."""
        return -self.val_error, -self.val_loss

    @property
    def told(self) -> tuple[str, str]:
        """The row in words: what was learnt, and how fast."""
        bleu = "" if self.val_bleu is None else f"  BLEU {100 * self.val_bleu:.1f}"
        learnt = (
            f"loss {self.train_loss:.4f}  val loss {self.val_loss:.4f}  "
            f"error {self.val_error:.4f}  exact {self.val_exact:.4f}{bleu}"
        )
        return learnt, f"{self.tokens_per_second:,.0f} tokens/s"


@dataclass(frozen=True)
class SeqJob:
    """What stays as it is while a run on pairs goes on.

    Attributes:
        train: examples to learn.
        val: examples that measure an epoch, one for each pair.
        pairs: the validation pairs.
        translator: with the network that learns.
        config: how to train, filled in.
        device: where.
        pace: how large the steps are, and when it is over.
        folder: of the run.
        progress: is told some of an epoch's answers.
        watch: told what the time goes into.
        world: the processes that share the work; this one alone.
    """

    train: Seq2SeqDataset
    val: Seq2SeqDataset
    pairs: Pairs
    translator: Translator
    config: SeqConfig
    device: torch.device
    pace: Pace
    folder: Path
    progress: Progress = SILENT
    watch: Stopwatch = UNWATCHED
    world: World = ALONE

    unit: ClassVar[str] = "pairs"
    smaller: ClassVar[str] = "Use a smaller --batch or --width, or end what else uses that memory"

    def order(self, epoch: int) -> list[Indices]:
        """The examples of each batch of an epoch, which counts from 0."""
        return bucket_by_length(self.train.lengths, self.config.batch, seed=self.config.seed, epoch=epoch)

    def batches(self, epoch: int, order: list[Indices]) -> Generator[TextBatch, None, None]:
        """The batches of that order, on the device."""
        return self.train.stream(order, self.device)

    def losses(self, state: TrainState, batch: TextBatch, parts: list[slice]) -> Iterator[PartLoss]:
        """Cross-entropy of the next token, given the right ones before it."""
        network: Any = state.network
        for rows in parts:
            part = batch.part(rows) if len(parts) > 1 else batch
            with self.watch.phase("forward"), autocast(self.device, self.precision):
                loss = network.loss(
                    part.source,
                    part.decoder_input,
                    part.target,
                    self.config.label_smoothing,
                    **part.encoder_kwargs,
                )
            yield PartLoss(loss, None, part.weight)

    def measure(self, state: TrainState) -> SeqRow:
        """The row of what was learnt since the last one; leaves samples and a checkpoint in the folder."""
        seconds = state.tally.seconds
        with self.watch.phase("validation"):
            figures = self.figures(self.translator.network, state.epoch + 1)
        if self.config.average > 1:
            self._keep_checkpoint(state)
        return SeqRow(
            epoch=state.epoch + 1,
            step=state.step,
            lr=state.rate,
            train_loss=state.tally.loss,
            **figures,
            seconds=state.tally.seconds,
            tokens_per_second=state.tally.count / seconds,
        )

    @property
    def precision(self) -> torch.dtype | None:
        """The type for mixed precision, None for plain float32."""
        return mixed_precision(self.device, self.config.amp)

    def figures(self, network: SequenceToSequence, epoch: int | None = None) -> dict[str, Any]:
        """What the network is worth on the validation pairs; of an epoch some answers are noted."""
        network.eval()
        loss, accuracy = next_token(network, self.val, self._val_order, self.device)
        # A fresh one: what a translator lays out of the weights for its first answer, it keeps.
        translator = dataclasses.replace(self.translator, network=network)
        answers = [result.text for result in translator.translate(self._asked.sources).results]
        if epoch is not None:
            self._note_samples(epoch, answers)
        encode = self.translator.target.encode
        wanted = self._asked.references
        bleu = None
        if has_sacrebleu() and self.translator.target.kind in ("words", "sentencepiece"):
            bleu, _ = bleu_score(answers, wanted)
        return {
            "val_loss": loss,
            "val_accuracy": accuracy,
            "val_error": error_rate(
                [encode(answer) for answer in answers], [[encode(text) for text in these] for these in wanted]
            ),
            "val_exact": exact_match(answers, wanted),
            "val_bleu": bleu,
        }

    @cached_property
    def _asked(self) -> Pairs:
        """The validation pairs that are answered: as many, evenly spaced."""
        known = np.unique(self.val.pair_index)
        count = min(MOST_ANSWERED, len(known))
        return self.pairs.take(known[np.linspace(0, len(known) - 1, count).astype(int)].tolist())

    @cached_property
    def _val_order(self) -> list[Indices]:
        order = np.lexsort((self.val.lengths[:, 0], self.val.lengths[:, 1]))
        return np.split(order, batch_boundaries(self.val.lengths[order], self.config.batch))

    def _note_samples(self, epoch: int, answers: list[str]) -> None:
        """Write down the first answers of an epoch, in the place of what later epochs had written."""
        path = self.folder / SAMPLES
        before = [row for row in read_samples(self.folder) if int(row[0]) < epoch]
        shown = min(self.config.samples, len(answers))
        rows = [
            (str(epoch), self._asked.sources[i], self._asked.references[i][0], answers[i])
            for i in range(shown)
        ]
        for _, source, reference, answer in rows:
            verdict = "right" if answer == reference else f"not {reference!r}"
            self.progress.info(f"  {source!r} -> {answer!r}, {verdict}")
        text = io.StringIO(newline="")
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(("epoch", "source", "reference", "answer"))
        writer.writerows([*before, *rows])
        write_atomic(path, text.getvalue().encode("utf-8", "surrogateescape"))

    def _keep_checkpoint(self, state: TrainState) -> None:
        """Keep the weights of this epoch, and let go of those that will not be averaged."""
        folder = self.folder / CHECKPOINTS
        weights = {name: value.detach().cpu().contiguous() for name, value in unshared(state).items()}
        write_atomic(folder / f"{state.epoch + 1:06}.safetensors", save(weights))
        for old in checkpoints(self.folder)[: -self.config.average]:
            old.unlink()


def unshared(state: TrainState) -> dict[str, torch.Tensor]:
    """The weights by name, each with memory of its own."""
    return {name: value.clone() for name, value in state.network.state_dict().items()}


def checkpoints(folder: Path) -> list[Path]:
    """Those of a run, oldest first."""
    return sorted((folder / CHECKPOINTS).glob("[0-9]*.safetensors"))


def averaged(paths: list[Path]) -> dict[str, torch.Tensor]:
    """The mean of several epochs' weights (Vaswani et al. 2017, section 6.1); counters are the last one's."""
    states = [load_file(path) for path in paths]
    return {
        name: torch.stack([state[name].double() for state in states]).mean(dim=0).to(last.dtype)
        if last.is_floating_point()
        else last
        for name, last in states[-1].items()
    }


def read_samples(folder: Path) -> list[list[str]]:
    """The answers that a run has noted: epoch, source, reference, answer."""
    try:
        text = (folder / SAMPLES).read_text("utf-8", "surrogateescape")
    except FileNotFoundError:
        return []
    return list(csv.reader(io.StringIO(text, newline="")))[1:]


@torch.inference_mode()
def next_token(
    network: SequenceToSequence, examples: Seq2SeqDataset, order: list[Indices], device: torch.device
) -> tuple[float, float]:
    """Cross-entropy in nats and share of right ones, a mean over the tokens of examples."""
    loss = hits = count = 0.0
    for batch in examples.stream(order, device):
        scores = network(batch.source, batch.decoder_input, **batch.encoder_kwargs).float().flatten(0, 1)
        wanted = batch.target.flatten()
        loss += float(F.cross_entropy(scores, wanted, ignore_index=PAD, reduction="sum"))
        hits += float(((scores.argmax(dim=1) == wanted) & (wanted != PAD)).sum())
        count += batch.weight
    return loss / count, hits / count
