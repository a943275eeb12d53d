"""Text against its references: BLEU, chrF, exact match, error rates by edit distance.

BLEU (Papineni et al. 2002) and chrF (Popović 2015) are those of sacrebleu (Post 2018), whose signatures say
which variant was counted. All numbers here are fractions of one; error rates may exceed it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from striate.errors import LayoutError, UsageError


@dataclass(frozen=True)
class TextScores:
    """What a list of answers is worth.

    Attributes:
        n: how many there are.
        exact: share that equals one of its references.
        cer: character error rate: edits to the nearest reference over its characters, all answers together.
        wer: the same over what spaces separate: words of a sentence, phonemes of a pronunciation.
        bleu: sacrebleu's corpus BLEU, 0 to 1; None where sacrebleu is not installed.
        chrf: sacrebleu's chrF2, 0 to 1; None where sacrebleu is not installed.
        signatures: of the two, as sacrebleu writes them.
    """

    n: int
    exact: float
    cer: float
    wer: float
    bleu: float | None
    chrf: float | None
    signatures: dict[str, str]

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "bleu": self.bleu, "chrf": self.chrf, "exact": self.exact, "cer": self.cer, "wer": self.wer,
            "n": self.n, "signatures": self.signatures,
        }  # fmt: skip


def measure(answers: Sequence[str], references: Sequence[Sequence[str]]) -> TextScores:
    """All figures at once.

    Args:
        answers: a text for each source.
        references: for each source, the texts that would have been right, at least one.

    Raises:
        LayoutError: they are not of one length, or a source has no reference.
    """
    _require_lists(answers, references)
    bleu = chrf = None
    signatures: dict[str, str] = {}
    if has_sacrebleu():
        bleu, signatures["bleu"] = bleu_score(answers, references)
        chrf, signatures["chrf"] = chrf_score(answers, references)
    return TextScores(
        n=len(answers),
        exact=exact_match(answers, references),
        cer=error_rate(answers, references),
        wer=error_rate(words(answers), [words(texts) for texts in references]),
        bleu=bleu,
        chrf=chrf,
        signatures=signatures,
    )


def words(texts: Sequence[str]) -> list[list[str]]:
    """Each text as what spaces separate in it."""
    return [text.split() for text in texts]


def exact_match(answers: Sequence[Any], references: Sequence[Sequence[Any]]) -> float:
    """Share of answers that equal one of their references."""
    _require_lists(answers, references)
    return sum(answer in these for answer, these in zip(answers, references, strict=True)) / len(answers)


def error_rate(answers: Sequence[Sequence[Any]], references: Sequence[Sequence[Sequence[Any]]]) -> float:
    """Edits over the length of the references, all answers together.

    Of several references the one that counts is the nearest in edits for its length; one without symbols is
    as far as the answer is long.

    Args:
        answers: sequences of symbols: text for characters, lists of words or phonemes for those.
        references: for each answer, the sequences that would have been right.

    Raises:
        LayoutError: as `measure`.
    """
    _require_lists(answers, references)
    edits = length = 0
    for answer, these in zip(answers, references, strict=True):
        nearest = min(
            ((edit_distance(answer, reference), len(reference)) for reference in these),
            key=lambda pair: (pair[0] / max(1, pair[1]), pair[1]),
        )
        edits, length = edits + nearest[0], length + nearest[1]
    return edits / max(1, length)


def edit_distance(left: Sequence[Any], right: Sequence[Any]) -> int:
    """Fewest insertions, deletions and replacements of symbols that make one of the other (Levenshtein)."""
    if left == right:
        return 0
    names: dict[Any, int] = {}
    rows, columns = (
        np.array([names.setdefault(symbol, len(names)) for symbol in side], np.int64)
        for side in (left, right)
    )
    at = np.arange(len(columns) + 1)
    row = at.copy()
    for symbol in rows:
        replaced_or_deleted = row + 1
        replaced_or_deleted[1:] = np.minimum(replaced_or_deleted[1:], row[:-1] + (columns != symbol))
        row = np.minimum.accumulate(replaced_or_deleted - at) + at  # and then inserted, from the left
    return int(row[-1])


def bleu_score(answers: Sequence[str], references: Sequence[Sequence[str]]) -> tuple[float, str]:
    """Corpus BLEU, 0 to 1, and sacrebleu's signature; raises UsageError where it is not installed."""
    return _sacrebleu("BLEU", answers, references)


def chrf_score(answers: Sequence[str], references: Sequence[Sequence[str]]) -> tuple[float, str]:
    """Corpus chrF2, 0 to 1, and sacrebleu's signature; raises UsageError where it is not installed."""
    return _sacrebleu("CHRF", answers, references)


def has_sacrebleu() -> bool:
    """Whether BLEU and chrF can be measured."""
    try:
        import sacrebleu  # noqa: F401
    except ImportError:
        return False
    return True


def _sacrebleu(name: str, answers: Sequence[str], references: Sequence[Sequence[str]]) -> tuple[float, str]:
    try:
        import sacrebleu.metrics
    except ImportError as error:
        raise UsageError(
            "sacrebleu is not installed", "BLEU and chrF come from it", "pip install 'striate[text]'"
        ) from error
    _require_lists(answers, references)
    most = max(map(len, references))
    # sacrebleu wants the first reference of all, then the second: None where there are fewer.
    streams = [[these[i] if i < len(these) else None for these in references] for i in range(most)]
    metric = getattr(sacrebleu.metrics, name)()
    score = float(metric.corpus_score(list(answers), streams).score) / 100
    return score, str(metric.get_signature())


def _require_lists(answers: Sequence[Any], references: Sequence[Sequence[Any]]) -> None:
    if len(answers) != len(references) or not answers:
        raise LayoutError(
            f"{len(answers)} answers and {len(references)} lists of references",
            "each answer has its references, and there is at least one",
        )
    if empty := [i for i, these in enumerate(references) if not these]:
        raise LayoutError(f"answer {empty[0]} has no reference", "there is nothing to compare it with")
