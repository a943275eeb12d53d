"""Where the answers of a model of sequences are wrong: by length and by token."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from striate.charts import Array
from striate.inference.text_evaluation import TextEvaluation
from striate.metrics.text import alignment, edit_distance

_GROUPS = 8  # of lengths, at most
_MAX_CELLS = 2_000_000  # of all alignments together, so that they take about a second at most


def error_rates(evaluation: TextEvaluation) -> Array:
    """Character error rate of each answer against its nearest reference, float `[n]`."""
    return np.array([
        min(edit_distance(answer, text) / max(1, len(text)) for text in references)
        for answer, references in zip(evaluation.answers, evaluation.references, strict=True)
    ])  # fmt: skip


def errors_by_length(references: Sequence[Sequence[str]], rates: Array) -> list[tuple[str, float, int]]:
    """Share of wrong answers by the length of the first reference in characters.

    The groups have similar numbers of answers; equal lengths are in one group.

    Args:
        references: the correct answers for each source.
        rates: error rates; an answer is wrong if its rate is above 0.

    Returns:
        Lengths, such as `3 – 5`; share of wrong answers; number of answers.
    """
    lengths = np.array([len(texts[0]) for texts in references])
    ends = np.unique(np.quantile(lengths, np.linspace(0, 1, _GROUPS + 1)[1:], method="higher"))
    group = np.searchsorted(ends, lengths)
    found = []
    for k in range(len(ends)):
        inside = lengths[group == k]
        low, high = int(inside.min()), int(inside.max())
        name = str(low) if low == high else f"{low} – {high}"
        found.append((name, float(np.mean(rates[group == k] > 0)), len(inside)))
    return found


def errors_by_token(
    answers: Sequence[Sequence[str]], references: Sequence[Sequence[str]]
) -> tuple[list[tuple[str, int, int, str]], int]:
    """Which tokens of the references are answered wrongly, and what is answered instead.

    Args:
        answers: tokens of the wrong answers.
        references: tokens of the correct answers.

    Returns:
        Token, how often it occurs in these references, how often the answer has something else, and what it
        has most often, empty if it leaves the token out; the token with the most errors first. And the number
        of answers that were compared, which is limited by their lengths.
    """
    occurs: Counter[str] = Counter()
    wrong: dict[str, Counter[str]] = {}
    cells = compared = 0
    for answer, reference in zip(answers, references, strict=True):
        cells += len(answer) * len(reference)
        if cells > _MAX_CELLS and compared:
            break
        compared += 1
        for said, meant in alignment(answer, reference):
            if meant is not None:
                occurs[meant] += 1
                if said != meant:
                    wrong.setdefault(meant, Counter())[said or ""] += 1
    rows = [
        (token, occurs[token], sum(instead.values()), instead.most_common(1)[0][0])
        for token, instead in wrong.items()
    ]
    return sorted(rows, key=lambda row: (-row[2], row[0])), compared


class LineImages:
    """The images of lines of text as a model reads them, `images[i]`.

    Args:
        preprocess: of the model.
        sources: paths.
    """

    def __init__(self, preprocess: Any, sources: Sequence[str]) -> None:
        self._preprocess, self._sources = preprocess, sources

    def __getitem__(self, i: int) -> Array:
        image: Array = self._preprocess.read(self._sources[i])
        return image
