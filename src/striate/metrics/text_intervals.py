"""95 % confidence intervals of the metrics of generated text: the BCa bootstrap over answers.

BLEU and chrF of a draw come from the counts of each answer, as sacrebleu (Post 2018) computes them from those
of a corpus with its default settings.
"""

from __future__ import annotations

import importlib
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from striate.metrics.bootstrap import Counts, Ends, Floats, bca

_BLEU_ORDERS, _CHRF_ORDERS = 4, 6
_BETA2 = 4.0  # chrF2: recall counts twice


def rate_interval(edits: Sequence[int], lengths: Sequence[int]) -> Ends:
    """The interval of an error rate.

    Args:
        edits: of each answer.
        lengths: of the reference of each.
    """
    counts = np.column_stack([edits, lengths]).astype(np.float64)

    def metric(drawn: Counts) -> Floats:
        total = drawn @ counts
        return np.asarray(total[:, 0] / np.maximum(1, total[:, 1]))

    return bca(metric, np.arange(len(counts)))


def bleu_interval(answers: Sequence[str], references: Sequence[Sequence[str]]) -> Ends:
    """The interval of corpus BLEU; needs sacrebleu."""
    metric: Any = importlib.import_module("sacrebleu.metrics").BLEU(
        effective_order=True
    )  # says nothing of single sentences
    scores = [metric.sentence_score(*pair) for pair in zip(answers, references, strict=True)]
    counts = np.array([[*s.counts, *s.totals, s.sys_len, s.ref_len] for s in scores], np.float64)
    return bca(lambda drawn: bleu_of_counts(drawn @ counts), np.arange(len(counts)), most=1.0)


def bleu_of_counts(counts: Floats) -> Floats:
    """BLEU, 0 to 1, with exponential smoothing.

    Args:
        counts: `[draws, 10]`: matches and n-grams of orders 1 to 4, lengths of answer and reference.
    """
    matches, totals = counts[:, :_BLEU_ORDERS], counts[:, _BLEU_ORDERS : 2 * _BLEU_ORDERS]
    answer, reference = counts[:, -2], counts[:, -1]
    halves = np.cumsum(matches == 0, axis=1)
    precision = np.where(matches > 0, matches, 0.5**halves) / np.maximum(1, totals)
    brevity = np.exp(np.minimum(0.0, 1 - reference / np.maximum(1e-9, answer)))
    score = brevity * np.exp(np.log(precision).mean(axis=1))
    return np.where((totals > 0).all(axis=1) & matches.any(axis=1), score, 0.0)


def chrf_interval(answers: Sequence[str], references: Sequence[Sequence[str]]) -> Ends:
    """The interval of corpus chrF2."""
    counts = np.stack([chrf_counts(*pair) for pair in zip(answers, references, strict=True)])
    return bca(lambda drawn: chrf_of_counts(drawn @ counts), np.arange(len(counts)), most=1.0)


def chrf_counts(answer: str, references: Sequence[str]) -> NDArray[np.float64]:
    """Numbers of character n-grams of the answer, of its best reference, and of both: `[6 * 3]`."""
    mine = _ngrams(answer)
    best, score = np.zeros(3 * _CHRF_ORDERS), -1.0
    for reference in references:
        theirs = _ngrams(reference)
        rows = [
            (sum(a.values()) if b else 0, sum(b.values()), sum((a & b).values()))
            for a, b in zip(mine, theirs, strict=True)
        ]
        found = np.array(rows, np.float64).ravel()
        if (this := float(chrf_of_counts(found[None])[0])) > score:
            best, score = found, this
    return best


def chrf_of_counts(counts: Floats) -> Floats:
    """chrF2, 0 to 1, `[draws]`, of sums of `chrf_counts`, `[draws, 6 * 3]`."""
    answer, reference, both = np.moveaxis(counts.reshape(len(counts), _CHRF_ORDERS, 3), 2, 0)
    orders = (answer > 0) & (reference > 0)
    number = np.maximum(1, orders.sum(axis=1))
    precision = np.where(orders, both / np.maximum(1, answer), 0).sum(axis=1) / number
    recall = np.where(orders, both / np.maximum(1, reference), 0).sum(axis=1) / number
    below = _BETA2 * precision + recall
    score = (1 + _BETA2) * precision * recall / np.where(below > 0, below, 1)
    return np.asarray(score)


def _ngrams(text: str) -> list[Counter[str]]:
    """The character n-grams of a text without its white space, of each order."""
    text = "".join(text.split())
    return [
        Counter(text[i : i + order] for i in range(len(text) - order + 1))
        for order in range(1, _CHRF_ORDERS + 1)
    ]
