"""Loss and metrics of sequence to sequence: the training loss, and the row of an epoch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from striate.data.text.batches import batch_boundaries
from striate.data.text.dataset import Seq2SeqDataset
from striate.data.text.pairs import Pairs
from striate.data.text.tokens import PAD, Tokenizer
from striate.errors import UsageError
from striate.inference.translator import Translator
from striate.metrics.text import bleu_score, error_rate_and_similarity, exact_match, has_sacrebleu
from striate.models.seq2seq import SequenceToSequence
from striate.training.distributed import SINGLE, Distributed
from striate.training.state import EpochMetrics

HAVE_WORDS = ("words", "sentencepiece")  # tokenizers of texts that BLEU can score


@dataclass(frozen=True)
class Seq2SeqMetrics(EpochMetrics):
    """One row of results.csv.

    Attributes:
        val_loss: cross-entropy without label smoothing on the validation pairs, in nats per token.
        val_accuracy: share of their tokens that are predicted correctly, given the correct ones before.
        val_error: token error rate of the greedy translations, against the nearest reference.
        val_exact: share of the translations that equal a reference.
        val_bleu: of the translations, 0 to 1; None for characters and bytes, and without sacrebleu.
        seconds: duration of the epoch, with validation.
        tokens_per_second: target tokens in training, without validation.
        val_similarity: mean similarity of a greedy translation to its nearest reference, 0 to 1; None in runs
            of earlier versions.
    """

    MONITORS: ClassVar[Mapping[str, tuple[str, int]]] = {
        "bleu": ("val_bleu", 1), "similarity": ("val_similarity", 1), "exact": ("val_exact", 1),
        "accuracy": ("val_accuracy", 1), "error": ("val_error", -1), "loss": ("val_loss", -1),
    }  # fmt: skip

    val_loss: float
    val_accuracy: float
    val_error: float
    val_exact: float
    val_bleu: float | None
    seconds: float
    tokens_per_second: float
    val_similarity: float | None = None

    @property
    def log_line(self) -> tuple[str, str]:
        """Metrics and speed in words."""
        bleu = "" if self.val_bleu is None else f"  BLEU {100 * self.val_bleu:.1f}"
        similar = "" if self.val_similarity is None else f"  similarity {self.val_similarity:.4f}"
        metrics = (
            f"loss {self.train_loss:.4f}  val loss {self.val_loss:.4f}  "
            f"error {self.val_error:.4f}  exact {self.val_exact:.4f}{similar}{bleu}"
        )
        return metrics, f"{self.tokens_per_second:,.0f} tokens/s"


class NextTokenLoss(nn.Module):
    """A network and its loss as one module, so that DistributedDataParallel sees one forward pass.

    Args:
        network: whose parameters these are.
        label_smoothing: share of each label that is spread over all tokens.
    """

    def __init__(self, network: SequenceToSequence, label_smoothing: float) -> None:
        super().__init__()
        self.network, self.label_smoothing = network, label_smoothing

    def forward(
        self, source: Tensor, decoder_input: Tensor, target: Tensor, widths: Tensor | None = None
    ) -> Tensor:
        """The mean cross-entropy of the next token, given the correct ones before it."""
        more = {} if widths is None else {"widths": widths}
        return self.network.loss(source, decoder_input, target, self.label_smoothing, **more)


@torch.inference_mode()
def next_token_metrics(
    network: SequenceToSequence,
    examples: Seq2SeqDataset,
    tokens: int,
    device: torch.device,
    distributed: Distributed = SINGLE,
) -> dict[str, float]:
    """Cross-entropy in nats per token, and accuracy of the next token given the correct ones before it.

    Args:
        network: in evaluation mode.
        examples: of which each process evaluates some.
        tokens: per batch.
        device: of the network.
        distributed: the processes.
    """
    order = np.lexsort((examples.lengths[:, 0], examples.lengths[:, 1]))
    batches = np.split(order, batch_boundaries(examples.lengths[order], tokens))
    sums = torch.zeros(3, dtype=torch.float64)
    for batch in examples.stream(batches[distributed.rank :: distributed.size], device):
        scores = network(batch.source, batch.decoder_input, **batch.encoder_kwargs).float().flatten(0, 1)
        target = batch.target.flatten()
        sums[0] += float(F.cross_entropy(scores, target, ignore_index=PAD, reduction="sum"))
        correct = (scores.argmax(dim=1) == target) & (target != PAD) & scores.isfinite().all(dim=1)
        sums[1] += float(correct.sum())
        sums[2] += batch.terms
    distributed.all_reduce(sums)
    loss, right, count = sums.tolist()
    return {"val_loss": loss / count, "val_accuracy": right / count}


def translate_together(translator: Translator, pairs: Pairs, distributed: Distributed) -> list[str]:
    """Greedy translations of all sources; each process translates some of them."""
    mine = pairs.sources[distributed.rank :: distributed.size]
    texts = [result.text for result in translator.translate(mine).results] if mine else []
    answers = [""] * len(pairs)
    for rank, part in enumerate(distributed.all_gather_object(texts)):
        answers[rank :: distributed.size] = part
    return answers


def translation_metrics(
    answers: Sequence[str], references: Sequence[Sequence[str]], target: Tokenizer
) -> dict[str, Any]:
    """Token error rate, similarity, exact match, and BLEU of texts with words if sacrebleu is installed."""
    ids = [[target.encode(text) for text in texts] for texts in references]
    error, similarity = error_rate_and_similarity([target.encode(answer) for answer in answers], ids)
    has_bleu = target.kind in HAVE_WORDS and has_sacrebleu()
    return {
        "val_error": error,
        "val_similarity": similarity,
        "val_exact": exact_match(answers, references),
        "val_bleu": bleu_score(answers, references)[0] if has_bleu else None,
    }


def choose_monitor(monitor: str | None, target: Tokenizer) -> str:
    """The metric that selects the best epoch.

    By default BLEU for sentences (sentence pieces), if sacrebleu is installed, and otherwise the similarity:
    in neither can an answer that never ends outweigh many good ones as it does in the error rate.

    Args:
        monitor: as the user chose it; None for the default.
        target: the tokenizer of the target.

    Raises:
        UsageError: BLEU of text without words, or without sacrebleu.
    """
    if monitor == "bleu" and target.kind not in HAVE_WORDS:
        raise UsageError(
            "--monitor bleu", f"the target consists of {target.kind}, and BLEU counts words", "Use similarity"
        )
    if monitor == "bleu" and not has_sacrebleu():
        raise UsageError(
            "--monitor bleu", "sacrebleu is not installed", "pip install 'striate[text]', or use similarity"
        )
    default = "bleu" if target.kind == "sentencepiece" and has_sacrebleu() else "similarity"
    return monitor or default
