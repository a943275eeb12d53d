"""Metrics of generated text: BLEU, chrF, exact match, and error rates by edit distance.

sacrebleu (Post 2018) computes BLEU (Papineni et al. 2002) and chrF (Popović 2015); its signatures name the
variant. All values are fractions from 0 to 1; error rates may exceed 1.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from striate.errors import LayoutError, UsageError
from striate.metrics.classification import wilson_interval
from striate.metrics.text_intervals import bleu_interval, chrf_interval, rate_interval


@dataclass(frozen=True)
class TextScores:
    """Metrics of a list of answers.

    Attributes:
        bleu: corpus BLEU, 0 to 1; None if sacrebleu is not installed.
        chrf: corpus chrF2, 0 to 1; None if sacrebleu is not installed.
        exact: fraction of answers that equal one of their references.
        cer: character error rate: edits to the nearest references divided by their characters.
        wer: the same for parts separated by spaces: words of a sentence, phonemes of a pronunciation.
        n: number of answers.
        signatures: sacrebleu's signatures of the two.
        intervals: 95 % confidence intervals of the metrics by name: Wilson's of exact matches, else BCa.
    """

    bleu: float | None
    chrf: float | None
    exact: float
    cer: float
    wer: float
    n: int
    signatures: dict[str, str]
    intervals: dict[str, tuple[float, float]] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        values = asdict(self)
        return values | {f"{name}_ci": list(ends) for name, ends in values.pop("intervals").items()}


def measure(answers: Sequence[str], references: Sequence[Sequence[str]]) -> TextScores:
    """Compute all metrics.

    Args:
        answers: one text per source.
        references: the correct texts of each source, at least one.

    Raises:
        LayoutError: the lengths differ, or a source has no reference.
    """
    _require_lists(answers, references)
    exact, rates = exact_match(answers, references), {}
    intervals = {"exact": wilson_interval(exact, len(answers))}
    for name, mine, theirs in (
        ("cer", answers, references),
        ("wer", words(answers), [words(texts) for texts in references]),
    ):
        edits, lengths = zip(*map(_nearest, mine, theirs), strict=True)
        rates[name] = sum(edits) / max(1, sum(lengths))
        intervals[name] = rate_interval(edits, lengths)
    bleu = chrf = None
    signatures: dict[str, str] = {}
    if has_sacrebleu():
        bleu, signatures["bleu"] = _sacrebleu("BLEU", answers, references)
        chrf, signatures["chrf"] = _sacrebleu("CHRF", answers, references)
        intervals["bleu"] = bleu_interval(answers, references)
        intervals["chrf"] = chrf_interval(answers, references)
    return TextScores(bleu, chrf, exact, rates["cer"], rates["wer"], len(answers), signatures, intervals)


def words(texts: Sequence[str]) -> list[list[str]]:
    """Split each text at spaces."""
    return [text.split() for text in texts]


def exact_match(answers: Sequence[Any], references: Sequence[Sequence[Any]]) -> float:
    """Fraction of answers that equal one of their references."""
    _require_lists(answers, references)
    return sum(answer in these for answer, these in zip(answers, references, strict=True)) / len(answers)


def error_rate(answers: Sequence[Sequence[Any]], references: Sequence[Sequence[Sequence[Any]]]) -> float:
    """Number of edits divided by the length of the references, summed over all answers.

    Each answer is compared with the reference that needs the fewest edits for its length. The distance to an
    empty reference is the length of the answer.

    Args:
        answers: sequences of symbols: text for characters, or lists of words or phonemes.
        references: the correct sequences of each answer.

    Raises:
        LayoutError: as `measure`.
    """
    return error_rate_and_similarity(answers, references)[0]


def error_rate_and_similarity(
    answers: Sequence[Sequence[Any]], references: Sequence[Sequence[Sequence[Any]]]
) -> tuple[float, float]:
    """The error rate, and the mean similarity of an answer to its nearest reference.

    The similarity is 1 - edits / length of the longer of the two, from 0 to 1 (rapidfuzz's
    `Levenshtein.normalized_similarity`; 1 - N.E.D. in competitions of text recognition). So an answer that
    never ends counts as one wrong answer, while it can outweigh all others in the error rate.

    Args:
        answers: as for `error_rate`.
        references: as for `error_rate`.

    Raises:
        LayoutError: as `measure`.
    """
    _require_lists(answers, references)
    edits, length, similarity = 0, 0, 0.0
    for answer, these in zip(answers, references, strict=True):
        found = _distances(answer, these)
        nearest = min(found, key=_rate)
        edits, length = edits + nearest[0], length + nearest[1]
        similarity += max(1 - distance / max(1, size, len(answer)) for distance, size in found)
    return edits / max(1, length), similarity / len(answers)


def _distances(answer: Sequence[Any], references: Sequence[Sequence[Any]]) -> list[tuple[int, int]]:
    """The edits to each reference, and its length."""
    return [(edit_distance(answer, reference), len(reference)) for reference in references]


def _rate(pair: tuple[int, int]) -> tuple[float, int]:
    """Edits in relation to a length: the nearest reference has the lowest rate, and is the shortest such."""
    return pair[0] / max(1, pair[1]), pair[1]


def _nearest(answer: Sequence[Any], references: Sequence[Sequence[Any]]) -> tuple[int, int]:
    """The edits to the nearest reference, and its length."""
    return min(_distances(answer, references), key=_rate)


def edit_distance(left: Sequence[Any], right: Sequence[Any]) -> int:
    """Levenshtein distance: fewest insertions, deletions and replacements that turn one into the other."""
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


def alignment(answer: Sequence[Any], reference: Sequence[Any]) -> list[tuple[Any, Any]]:
    """The symbols of both sides in pairs, with as few edits as `edit_distance` counts.

    Returns:
        (of the answer, of the reference), where None stands for a symbol that is missing on that side.
        Of several ways with as few edits, the one that pairs symbols as late as possible.
    """
    distances = [np.arange(len(reference) + 1)]
    names: dict[Any, int] = {}
    rows, columns = (
        np.array([names.setdefault(symbol, len(names)) for symbol in side], np.int64)
        for side in (answer, reference)
    )
    at = distances[0].copy()
    for symbol in rows:
        row = distances[-1] + 1
        row[1:] = np.minimum(row[1:], distances[-1][:-1] + (columns != symbol))
        distances.append(np.minimum.accumulate(row - at) + at)
    pairs: list[tuple[Any, Any]] = []
    i, j = len(answer), len(reference)
    while i or j:
        here = distances[i][j]
        if i and j and here == distances[i - 1][j - 1] + (rows[i - 1] != columns[j - 1]):
            i, j = i - 1, j - 1
            pairs.append((answer[i], reference[j]))
        elif i and here == distances[i - 1][j] + 1:
            i -= 1
            pairs.append((answer[i], None))
        else:
            j -= 1
            pairs.append((None, reference[j]))
    return pairs[::-1]


def bleu_score(answers: Sequence[str], references: Sequence[Sequence[str]]) -> tuple[float, str]:
    """Corpus BLEU, 0 to 1, and sacrebleu's signature; raises UsageError if sacrebleu is not installed."""
    return _sacrebleu("BLEU", answers, references)


def has_sacrebleu() -> bool:
    """Whether sacrebleu is installed, which computes BLEU and chrF."""
    return importlib.util.find_spec("sacrebleu") is not None


def _sacrebleu(name: str, answers: Sequence[str], references: Sequence[Sequence[str]]) -> tuple[float, str]:
    try:
        import sacrebleu.metrics
    except ImportError as error:
        raise UsageError(
            "sacrebleu is not installed", "BLEU and chrF come from it", "pip install 'striate[text]'"
        ) from error
    _require_lists(answers, references)
    most = max(map(len, references))
    # sacrebleu expects the first references of all answers, then the second ones, with None for missing ones.
    streams = [[these[i] if i < len(these) else None for these in references] for i in range(most)]
    metric = getattr(sacrebleu.metrics, name)()
    score = float(metric.corpus_score(list(answers), streams).score) / 100
    return score, str(metric.get_signature())


def _require_lists(answers: Sequence[Any], references: Sequence[Sequence[Any]]) -> None:
    if len(answers) != len(references) or not answers:
        raise LayoutError(
            f"{len(answers)} answers and {len(references)} lists of references",
            "every answer needs references, and there must be at least one answer",
        )
    if empty := [i for i, these in enumerate(references) if not these]:
        raise LayoutError(f"answer {empty[0]} has no reference", "there is nothing to compare it with")
