"""Baselines for pronunciation: letters to phonemes without a network.

EM aligns letters and phonemes: each letter stands for zero, one or two phonemes in order (Bisani, Ney 2008,
call such pairs graphones). Each letter then gets its most frequent pronunciation: regardless of its
neighbors (`unigram`), or given those of its neighbors that occurred in training (`neighbours`).
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence

Word = tuple[str, Sequence[str]]  # spelling, phonemes
MOST = 2  # phonemes of a letter
Chunk = tuple[str, ...]
Alignment = list[tuple[str, Chunk]]


def aligned(words: Sequence[Word], rounds: int = 6) -> list[Alignment]:
    """The letters of each word with their phonemes; words with too many phonemes are left out."""
    weights: dict[str, dict[Chunk, float]] = defaultdict(lambda: defaultdict(lambda: 1.0))
    words = [word for word in words if len(word[1]) <= MOST * len(word[0])]
    best: list[Alignment] = []
    for _ in range(rounds):
        best = [_best(word, weights) for word in words]
        counts: dict[str, Counter[Chunk]] = defaultdict(Counter)
        for alignment in best:
            for letter, chunk in alignment:
                counts[letter][chunk] += 1
        weights = defaultdict(lambda: defaultdict(lambda: 1e-4))
        for letter, counter in counts.items():
            total = sum(counter.values())
            for chunk, count in counter.items():
                weights[letter][chunk] = count / total
    return best


def _best(word: Word, weights: dict[str, dict[Chunk, float]]) -> Alignment:
    """The most probable alignment (Viterbi)."""
    spelling, phonemes = word
    sounds = tuple(phonemes)
    scores: list[dict[int, tuple[float, Chunk]]] = [{0: (0.0, ())}]
    for letter in spelling:
        row: dict[int, tuple[float, Chunk]] = {}
        for at, (score, _) in scores[-1].items():
            for length in range(MOST + 1):
                if (end := at + length) > len(sounds):
                    break
                chunk = sounds[at:end]
                new = score + math.log(weights[letter][chunk]) - 0.5 * abs(length - 1)
                if end not in row or new > row[end][0]:
                    row[end] = new, chunk
        scores.append(row)
    found: Alignment = []
    at = len(sounds)
    for letter, row in zip(reversed(spelling), reversed(scores[1:]), strict=True):
        chunk = row[at][1]
        found.append((letter, chunk))
        at -= len(chunk)
    return found[::-1]


def unigram(words: Sequence[Word]) -> Callable[[str], list[str]]:
    """The most frequent pronunciation of each letter."""
    return _speaker(words, [()])


def neighbours(words: Sequence[Word]) -> Callable[[str], list[str]]:
    """The most frequent pronunciation given two letters on each side, one on each, the next one, or none."""
    return _speaker(words, [(-2, -1, 1, 2), (-1, 1, 2), (-1, 1), (1,), ()])


def _speaker(words: Sequence[Word], contexts: list[tuple[int, ...]]) -> Callable[[str], list[str]]:
    counts: dict[tuple[object, ...], Counter[Chunk]] = defaultdict(Counter)
    for alignment in aligned(words):
        spelling = "".join(letter for letter, _ in alignment)
        for i, (_, chunk) in enumerate(alignment):
            for context in contexts:
                counts[_key(spelling, i, context)][chunk] += 1

    def speak(spelling: str) -> list[str]:
        said: list[str] = []
        for i in range(len(spelling)):
            for context in contexts:
                if counter := counts.get(_key(spelling, i, context)):
                    said += min(counter.items(), key=lambda item: (-item[1], item[0]))[0]
                    break
        return said

    return speak


def _key(spelling: str, i: int, context: tuple[int, ...]) -> tuple[object, ...]:
    nearby = tuple(spelling[i + k] if 0 <= i + k < len(spelling) else "#" for k in context)
    return (spelling[i], context, nearby)
