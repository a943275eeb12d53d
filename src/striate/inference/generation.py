"""Generate text from an encoded source: greedy search and beam search.

Both take a decoder and `(memory, mask)`, whatever the source is. Finished sentences leave the batch, so they
cost nothing more; the text of a sentence does not depend on the rest of the batch.

Padding, BEGIN and UNKNOWN are never generated: their probability is 0, and the other tokens share it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from striate.data.text.tokens import NEVER_GENERATED
from striate.kernels.decoding import IncrementalDecoder
from striate.memory import require
from striate.models.text_decoder import TextDecoder

BLOCK = 64  # scores whose maximum `top` compares first
LEAVE = 0.25  # fraction of a batch that has to finish before the batch is made smaller


@dataclass(frozen=True)
class Hypothesis:
    """A generated text.

    Attributes:
        tokens: without BEGIN and END.
        log_probability: of the tokens and END, in nats.
        score: the log-probability divided by the length penalty; hypotheses are ranked by it.
        ended: whether the text ends with END; False if it was cut at its limit.
        attention: attention of the last layer to the source for each token and END, averaged over the heads:
            float32 `[tokens, source tokens]` on the CPU; None unless requested.
    """

    tokens: tuple[int, ...]
    log_probability: float
    score: float
    ended: bool
    attention: Tensor | None = None


def length_penalty(length: int, alpha: float) -> float:
    """((5 + length) / 6)^alpha, where END counts (Wu et al. 2016, arXiv:1609.08144, equation 14)."""
    return float(((5 + length) / 6) ** alpha)


@torch.inference_mode()
def greedy(
    decoder: TextDecoder,
    memory: Tensor,
    mask: Tensor,
    limits: int | Sequence[int],
    *,
    begin: int = 1,
    end: int = 2,
    attention: bool = False,
) -> list[tuple[Hypothesis, ...]]:
    """Greedy search: append the most probable token until END.

    Args:
        decoder: in evaluation mode.
        memory: `[sentences, source tokens, width]`.
        mask: bool `[sentences, source tokens]`, True = attend; at least one per row.
        limits: maximum number of tokens of each sentence, including END; at least 1.
        begin: number of BEGIN.
        end: number of END.
        attention: whether to return the attention weights.

    Returns:
        For each sentence one hypothesis, whose score is the log-probability.
    """
    limits = _limits(limits, len(memory))
    incremental = IncrementalDecoder(decoder, memory, mask)
    rows = list(range(len(limits)))  # the sentence of each row of the batch
    texts: list[list[int]] = [[] for _ in rows]
    attended: list[list[Tensor]] = [[] for _ in rows]
    total, done = [0.0] * len(rows), [False] * len(rows)
    last = torch.full((len(rows), 1), begin, device=memory.device)
    while rows:
        weights: list[tuple[Tensor, Tensor]] | None = [] if attention else None
        value, last = top(log_probabilities(incremental.step(last, weights)[:, 0]), 1)
        for row, token, log_p in zip(rows, last[:, 0].tolist(), value[:, 0].tolist(), strict=True):
            if not done[row]:
                texts[row].append(token)
                total[row] += log_p
                done[row] = token == end or len(texts[row]) >= limits[row]
        if weights:
            for row, source in zip(rows, weights[-1][1][:, :, 0].mean(dim=1).float().cpu(), strict=True):
                attended[row].append(source)
        kept = [i for i, row in enumerate(rows) if not done[row]]
        if len(kept) <= (1 - LEAVE) * len(rows):
            rows = [rows[i] for i in kept]
            index = torch.tensor(kept, dtype=torch.int64, device=memory.device)
            incremental.select(index)
            last = last[index]
    return [
        (_hypothesis(text, log_p, log_p, end, torch.stack(sources[: len(text)]) if sources else None),)
        for text, log_p, sources in zip(texts, total, attended, strict=True)
    ]


@torch.inference_mode()
def beam(
    decoder: TextDecoder,
    memory: Tensor,
    mask: Tensor,
    limits: int | Sequence[int],
    *,
    beams: int = 5,
    best: int = 1,
    alpha: float = 0.6,
    begin: int = 1,
    end: int = 2,
    attention: bool = False,
) -> list[tuple[Hypothesis, ...]]:
    """Beam search: extend the most probable texts in parallel, and rank the finished ones by their score.

    Each step considers the `2 * beams` most probable continuations of a sentence's beams. Those of the first
    `beams` that are END become hypotheses; the first `beams` others become the new beams. A sentence is
    finished when it has `beams` hypotheses, or when no beam can beat the best ones.

    Args:
        decoder: in evaluation mode.
        memory: `[sentences, source tokens, width]`.
        mask: bool `[sentences, source tokens]`, True = attend; at least one per row.
        limits: maximum number of tokens of each sentence, including END; at least 1.
        beams: number of beams; at least 1 and smaller than the vocabulary.
        best: number of hypotheses to return for each sentence, at most `beams`.
        alpha: exponent of the length penalty; 0 for none.
        begin: number of BEGIN.
        end: number of END.
        attention: whether to return the attention weights.

    Returns:
        Up to `best` hypotheses for each sentence, best first; texts cut at the limit come last.

    Raises:
        ResourceError: the scores of all beams cannot fit into memory.
    """
    vocab = decoder.embed.embedding.num_embeddings
    require(4 * len(memory) * beams * vocab, f"{beams:,} beams of {vocab:,} scores", "Use a smaller --beam")
    limits = _limits(limits, len(memory))
    search = _Search(decoder, memory, mask, limits, beams, best, alpha, end, attention)
    last = search.sentences.new_full((len(memory), beams), begin)
    while len(search.sentences):
        last = search.step(last)
    return [tuple(hypotheses) for hypotheses in search.hypotheses]


class _Search:
    """A beam search in progress.

    Attributes:
        hypotheses: of each sentence, so far.
        sentences: the sentence of each row of the batch, `[rows]`.
    """

    def __init__(
        self,
        decoder: TextDecoder,
        memory: Tensor,
        mask: Tensor,
        limits: list[int],
        beams: int,
        best: int,
        alpha: float,
        end: int,
        attention: bool,
    ) -> None:
        n = len(memory)
        self.beams, self.best, self.alpha, self.end = beams, best, alpha, end
        self.incremental = IncrementalDecoder(decoder, memory, mask, beams)
        self.sentences = torch.arange(n, device=memory.device)
        self.limits = limits
        self.done = [False] * n
        self.hypotheses: list[list[Hypothesis]] = [[] for _ in range(n)]
        self.text = self.sentences.new_zeros(n, beams, 0)  # tokens so far
        self.total = memory.new_full((n, beams), -torch.inf, dtype=torch.float32)
        self.total[:, 0] = 0  # all beams still hold the same text: only one of them counts
        self.attended = memory.new_zeros(n, beams, 0, memory.shape[1]) if attention else None

    def step(self, last: Tensor) -> Tensor:
        """Extend each beam by a token: the last tokens `[rows, beams]` -> the next."""
        beams = self.beams
        weights: list[tuple[Tensor, Tensor]] | None = None if self.attended is None else []
        log_p = log_probabilities(self.incremental.step(last, weights))
        vocab = log_p.shape[2]
        value, place = top(log_p.add_(self.total[:, :, None]).flatten(1), min(2 * beams, beams * vocab))
        parent = place.div(vocab, rounding_mode="floor")
        token = place - vocab * parent
        if weights:
            source = weights[-1][1].mean(dim=1)[:, :, None]  # [rows, beams, 1, source tokens]
            assert self.attended is not None
            self.attended = torch.cat([self.attended, source.to(self.attended)], dim=2)
        ends = token == self.end
        self._finish(value, parent, ends)
        # The first beams that do not end: a stable sort puts them first, in order.
        unfinished = ends.to(torch.uint8).argsort(dim=1, stable=True)[:, :beams]
        self.total, token, parent = (t.gather(1, unfinished) for t in (value, token, parent))
        self.incremental.reorder(parent)
        self.text = torch.cat([_reorder(self.text, parent), token[:, :, None]], dim=2)
        if self.attended is not None:
            self.attended = _reorder(self.attended, parent)
        return self._shrink(token)

    def _finish(self, value: Tensor, parent: Tensor, ends: Tensor) -> None:
        """Add the hypotheses that end in this step."""
        length = self.text.shape[2] + 1
        for row, rank in ends[:, : self.beams].nonzero().tolist():
            log_p = float(value[row, rank])
            sentence = int(self.sentences[row])
            if not self.done[sentence] and log_p > -torch.inf:
                self._add(sentence, row, int(parent[row, rank]), [self.end], log_p, length)

    def _add(self, sentence: int, row: int, beam: int, more: list[int], log_p: float, length: int) -> None:
        text = self.text[row, beam].tolist() + more
        attention = None if self.attended is None else self.attended[row, beam].float().cpu()
        score = log_p / length_penalty(length, self.alpha)
        self.hypotheses[sentence].append(_hypothesis(text, log_p, score, self.end, attention))

    def _shrink(self, last: Tensor) -> Tensor:
        """Remove finished sentences once there are many; return the last tokens of the others."""
        length = self.text.shape[2]
        sentences, leading = self.sentences.tolist(), self.total[:, 0].tolist()
        for row, sentence in enumerate(sentences):
            if not self.done[sentence]:
                self.done[sentence] = self._is_done(sentence, row, leading[row], length)
        kept = [row for row, sentence in enumerate(sentences) if not self.done[sentence]]
        if len(kept) <= (1 - LEAVE) * len(sentences):
            index = torch.tensor(kept, device=last.device, dtype=torch.int64)
            if kept:
                self.incremental.select(index)
            self.sentences, self.total, self.text = self.sentences[index], self.total[index], self.text[index]
            self.attended = None if self.attended is None else self.attended[index]
            last = last[index]
        return last

    def _is_done(self, sentence: int, row: int, leading: float, length: int) -> bool:
        """Whether a sentence is finished; if so, sort its hypotheses."""
        found = self.hypotheses[sentence]
        if length >= self.limits[sentence]:
            missing = max(0, self.best - len(found))
            for beam, log_p in enumerate(self.total[row].tolist()[:missing]):
                if log_p > -torch.inf:
                    self._add(sentence, row, beam, [], log_p, length)
        elif len(found) < self.beams:
            # The best score that a beam can still reach: at the same probability, and as long as allowed.
            bound = leading / length_penalty(self.limits[sentence] if self.alpha > 0 else length, self.alpha)
            if len(found) < self.best or sorted(h.score for h in found)[-self.best] < bound:
                return False
        found.sort(key=lambda hypothesis: (not hypothesis.ended, -hypothesis.score))
        del found[self.best :]
        return True


def log_probabilities(logits: Tensor) -> Tensor:
    """Log-probabilities of the next token of a generated text, float32; see `exclude_specials`."""
    return exclude_specials(logits).float().log_softmax(dim=-1)


def exclude_specials(logits: Tensor) -> Tensor:
    """Set the logits `[..., vocab]` of the tokens that are never generated to -inf, in place; return them."""
    for token in NEVER_GENERATED:
        logits[..., token] = -torch.inf
    return logits


def top(scores: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The `k` largest scores of each row and their indices, as `torch.topk`, but faster for many scores.

    The `k` largest are in the `k` blocks with the largest maxima, and finding a maximum needs no sorting.

    Args:
        scores: `[rows, n]`.
        k: at most `n`.
    """
    rows, n = scores.shape
    blocks = n // BLOCK
    if blocks <= 4 * k:
        return scores.topk(k)
    maxima = scores[:, : blocks * BLOCK].view(rows, blocks, BLOCK).amax(dim=2)
    chosen = maxima.topk(k).indices[:, :, None]
    candidates = (chosen * BLOCK + torch.arange(BLOCK, device=scores.device)).flatten(1)
    rest = torch.arange(blocks * BLOCK, n, device=scores.device).expand(rows, -1)
    candidates = torch.cat([candidates, rest], dim=1)
    values, index = scores.gather(1, candidates).topk(k)
    return values, candidates.gather(1, index)


def _limits(limits: int | Sequence[int], sentences: int) -> list[int]:
    """One limit per sentence."""
    return [limits] * sentences if isinstance(limits, int) else list(limits)


def _reorder(x: Tensor, parent: Tensor) -> Tensor:
    """`[rows, beams, ...]` in which beam j is the former beam `parent[row, j]`."""
    index = parent.view(*parent.shape, *(1,) * (x.ndim - 2)).expand(-1, -1, *x.shape[2:])
    return x.gather(1, index)


def _hypothesis(
    text: list[int], log_p: float, score: float, end: int, attention: Tensor | None
) -> Hypothesis:
    ended = bool(text) and text[-1] == end
    return Hypothesis(tuple(text[:-1] if ended else text), log_p, score, ended, attention)
