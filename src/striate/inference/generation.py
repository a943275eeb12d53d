"""Writing text from a memory: greedily, or with a beam.

Both see a decoder and `(memory, mask)`, whatever was encoded. Sentences that have ended leave the batch, so
that no more is computed for them; what is written for a sentence does not depend on its neighbours.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from striate.models.text_decoder import TextDecoder

BLOCK = 64  # scores of which only the largest is looked at first
LEAVE = 0.25  # of a batch that has ended, before it is made smaller


@dataclass(frozen=True)
class Hypothesis:
    """A text that was written.

    Attributes:
        tokens: without BEGIN and END.
        log_probability: of the tokens and END, in nats.
        score: what hypotheses are ranked by: the log-probability over the length penalty.
        ended: whether END was written, or the text was cut at its limit.
        attention: where the last layer looked for each token and END, the heads averaged: float32
            `[tokens, source tokens]` on the CPU; None where it was not asked for.
    """

    tokens: tuple[int, ...]
    log_probability: float
    score: float
    ended: bool
    attention: Tensor | None = None


@dataclass(frozen=True)
class Generation:
    """What was written for a batch.

    Attributes:
        hypotheses: for each sentence the best ones, best first.
        tokens: in the best one of each, END included.
        seconds: that it took, the encoder not included.
    """

    hypotheses: tuple[tuple[Hypothesis, ...], ...]
    tokens: int
    seconds: float

    @property
    def tokens_per_second(self) -> float:
        """Of the best hypotheses."""
        return self.tokens / self.seconds


def length_penalty(length: int, alpha: float) -> float:
    """((5 + length) / 6)^alpha, END counted (Wu et al. 2016, arXiv:1609.08144, equation 14)."""
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
) -> Generation:
    """Write the likeliest token after those before it, again and again.

    Args:
        decoder: in evaluation mode.
        memory: `[sentences, source tokens, width]`.
        mask: bool `[sentences, source tokens]`, True = attend; at least one in each row.
        limits: how many tokens each sentence gets at most, END among them; at least 1.
        begin: the number of BEGIN.
        end: the number of END.
        attention: whether the hypotheses shall have it.

    Returns:
        One hypothesis for each sentence, its score the log-probability.
    """
    started = time.perf_counter()
    most = _limits(limits, len(memory))
    state = decoder.start(memory, mask)
    rows = list(range(len(most)))  # the sentence of each row of the batch
    texts: list[list[int]] = [[] for _ in rows]
    looked: list[list[Tensor]] = [[] for _ in rows]
    total, done = [0.0] * len(rows), [False] * len(rows)
    last = torch.full((len(rows), 1), begin, device=memory.device)
    while rows:
        weights: list[tuple[Tensor, Tensor]] | None = [] if attention else None
        logits = decoder.step(last, state, weights)[:, 0].float()
        value, last = top(logits.log_softmax(dim=1), 1)
        for row, token, log_p in zip(rows, last[:, 0].tolist(), value[:, 0].tolist(), strict=True):
            if not done[row]:
                texts[row].append(token)
                total[row] += log_p
                done[row] = token == end or len(texts[row]) >= most[row]
        if weights:
            for row, seen in zip(rows, weights[-1][1][:, :, 0].mean(dim=1).float().cpu(), strict=True):
                looked[row].append(seen)
        kept = [i for i, row in enumerate(rows) if not done[row]]
        if len(kept) <= (1 - LEAVE) * len(rows):
            rows = [rows[i] for i in kept]
            index = torch.tensor(kept, dtype=torch.int64, device=memory.device)
            state.select(index)
            last = last[index]
    return _generation(
        [
            (_hypothesis(text, log_p, log_p, end, torch.stack(seen[: len(text)]) if seen else None),)
            for text, log_p, seen in zip(texts, total, looked, strict=True)
        ],
        started,
    )


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
) -> Generation:
    """Follow the likeliest texts in parallel, and rank those that end by their penalised log-probability.

    In each step the `2 * beams` likeliest continuations of a sentence's beams are looked at. Those among the
    first `beams` that are END are hypotheses; the first `beams` others are the new beams. A sentence is done
    once it has `beams` hypotheses, or no beam can become better than the best ones.

    Args:
        decoder: in evaluation mode.
        memory: `[sentences, source tokens, width]`.
        mask: bool `[sentences, source tokens]`, True = attend; at least one in each row.
        limits: how many tokens each sentence gets at most, END among them; at least 1.
        beams: how many texts are followed; at least 1 and fewer than the vocabulary.
        best: how many hypotheses are wanted for each sentence, at most `beams`.
        alpha: exponent of the length penalty; 0 for none.
        begin: the number of BEGIN.
        end: the number of END.
        attention: whether the hypotheses shall have it.

    Returns:
        Up to `best` hypotheses for each sentence, best first; those cut at the limit come after those that
        ended.
    """
    started = time.perf_counter()
    most = _limits(limits, len(memory))
    search = _Search(decoder, memory, mask, most, beams, best, alpha, end, attention)
    last = search.sentences.new_full((len(memory), beams), begin)
    while len(search.sentences):
        last = search.step(last)
    return _generation([tuple(found) for found in search.found], started)


class _Search:
    """A beam search in progress.

    Attributes:
        found: the hypotheses of each sentence.
        sentences: those that are still in the batch, their numbers `[rows]`.
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
        self.decoder, self.beams, self.best, self.alpha, self.end = decoder, beams, best, alpha, end
        self.state = decoder.start(memory, mask, beams)
        self.sentences = torch.arange(n, device=memory.device)
        self.limits = limits
        self.done = [False] * n
        self.found: list[list[Hypothesis]] = [[] for _ in range(n)]
        self.text = self.sentences.new_zeros(n, beams, 0)  # tokens so far
        self.total = memory.new_full((n, beams), -torch.inf, dtype=torch.float32)
        self.total[:, 0] = 0  # all beams are the same text yet: only one of them counts
        self.looked = memory.new_zeros(n, beams, 0, memory.shape[1]) if attention else None

    def step(self, last: Tensor) -> Tensor:
        """Lengthen each beam by a token; from the last tokens `[rows, beams]` to the next."""
        beams = self.beams
        weights: list[tuple[Tensor, Tensor]] | None = None if self.looked is None else []
        log_p = self.decoder.step(last, self.state, weights).float().log_softmax(dim=2)
        vocab = log_p.shape[2]
        value, place = top(log_p.add_(self.total[:, :, None]).flatten(1), min(2 * beams, beams * vocab))
        parent = place.div(vocab, rounding_mode="floor")
        token = place - vocab * parent
        if weights:
            seen = weights[-1][1].mean(dim=1)[:, :, None]  # [rows, beams, 1, source tokens]
            assert self.looked is not None
            self.looked = torch.cat([self.looked, seen.to(self.looked)], dim=2)
        ends = token == self.end
        self._finish(value, token, parent, ends)
        # The first beams that do not end: a stable sort puts them first, in their order.
        goes_on = ends.to(torch.uint8).argsort(dim=1, stable=True)[:, :beams]
        self.total, token, parent = (t.gather(1, goes_on) for t in (value, token, parent))
        self.state.reorder(parent)
        self.text = torch.cat([_reordered(self.text, parent), token[:, :, None]], dim=2)
        if self.looked is not None:
            self.looked = _reordered(self.looked, parent)
        return self._leave(token)

    def _finish(self, value: Tensor, token: Tensor, parent: Tensor, ends: Tensor) -> None:
        """Note the hypotheses that this step ends."""
        length = self.text.shape[2] + 1
        for row, rank in ends[:, : self.beams].nonzero().tolist():
            log_p = float(value[row, rank])
            sentence = int(self.sentences[row])
            if not self.done[sentence] and log_p > -torch.inf:
                self._add(sentence, row, int(parent[row, rank]), [self.end], log_p, length)

    def _add(self, sentence: int, row: int, beam: int, more: list[int], log_p: float, length: int) -> None:
        text = self.text[row, beam].tolist() + more
        seen = None if self.looked is None else self.looked[row, beam].float().cpu()
        score = log_p / length_penalty(length, self.alpha)
        self.found[sentence].append(_hypothesis(text, log_p, score, self.end, seen))

    def _leave(self, last: Tensor) -> Tensor:
        """Take out the sentences that are done, once they are many; returns the last tokens of the others."""
        length = self.text.shape[2]
        sentences, leading = self.sentences.tolist(), self.total[:, 0].tolist()
        for row, sentence in enumerate(sentences):
            if not self.done[sentence]:
                self.done[sentence] = self._is_done(sentence, row, leading[row], length)
        kept = [row for row, sentence in enumerate(sentences) if not self.done[sentence]]
        if len(kept) <= (1 - LEAVE) * len(sentences):
            index = torch.tensor(kept, device=last.device, dtype=torch.int64)
            if kept:
                self.state.select(index)
            self.sentences, self.total, self.text = self.sentences[index], self.total[index], self.text[index]
            self.looked = None if self.looked is None else self.looked[index]
            last = last[index]
        return last

    def _is_done(self, sentence: int, row: int, leading: float, length: int) -> bool:
        """Whether a sentence needs no further step; its hypotheses are put in order then."""
        found = self.found[sentence]
        if length >= self.limits[sentence]:
            missing = max(0, self.best - len(found))
            for beam, log_p in enumerate(self.total[row].tolist()[:missing]):
                if log_p > -torch.inf:
                    self._add(sentence, row, beam, [], log_p, length)
        elif len(found) < self.beams:
            # The best that a beam can still become: no less likely, and as long as it may be.
            hope = leading / length_penalty(self.limits[sentence] if self.alpha > 0 else length, self.alpha)
            if len(found) < self.best or sorted(h.score for h in found)[-self.best] < hope:
                return False
        found.sort(key=lambda hypothesis: (not hypothesis.ended, -hypothesis.score))
        del found[self.best :]
        return True


def top(scores: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The `k` largest of each row and where they are, as `torch.topk`; for many scores in less time.

    The `k` largest are in the `k` blocks with the largest maxima; a maximum needs no order.

    Args:
        scores: `[rows, n]`.
        k: at most `n`.
    """
    rows, n = scores.shape
    blocks = n // BLOCK
    if blocks <= 4 * k:
        return scores.topk(k)
    parts = scores[:, : blocks * BLOCK].view(rows, blocks, BLOCK)
    chosen = parts.amax(dim=2).topk(k).indices[:, :, None]
    places = (chosen * BLOCK + torch.arange(BLOCK, device=scores.device)).flatten(1)
    rest = torch.arange(blocks * BLOCK, n, device=scores.device).expand(rows, -1)
    places = torch.cat([places, rest], dim=1)
    values, index = scores.gather(1, places).topk(k)
    return values, places.gather(1, index)


def _limits(limits: int | Sequence[int], sentences: int) -> list[int]:
    """One for each sentence."""
    return [limits] * sentences if isinstance(limits, int) else list(limits)


def _reordered(x: Tensor, parent: Tensor) -> Tensor:
    """`[rows, beams, ...]` with beam j what beam `parent[row, j]` was."""
    index = parent.view(*parent.shape, *(1,) * (x.ndim - 2)).expand(-1, -1, *x.shape[2:])
    return x.gather(1, index)


def _hypothesis(text: list[int], log_p: float, score: float, end: int, seen: Tensor | None) -> Hypothesis:
    ended = bool(text) and text[-1] == end
    return Hypothesis(tuple(text[:-1] if ended else text), log_p, score, ended, seen)


def _generation(hypotheses: list[tuple[Hypothesis, ...]], started: float) -> Generation:
    seconds = time.perf_counter() - started
    written = sum(len(found[0].tokens) + found[0].ended for found in hypotheses)
    return Generation(tuple(hypotheses), written, seconds)
