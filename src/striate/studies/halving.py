"""Asynchronous successive halving (ASHA) with one worker: which trial to train next, and for how long.

Li et al. 2020, "A System for Massively Parallel Hyperparameter Tuning", algorithm 2. All trials start on the
lowest rung, with few epochs. The best third of a rung is promoted to the next one, with three times as many.
The choice follows from the results so far, so a search that was killed goes on as if nothing had happened.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

ETA = 3  # one of so many trials is promoted, with so many times the epochs

Score = tuple[float, ...]  # larger is better
WORST: Score = (float("-inf"),)  # of a trial that failed


def rungs(epochs: int) -> tuple[int, ...]:
    """The numbers of epochs of the rungs, from the lowest to the highest: a ninth, a third, and all of them.

    Args:
        epochs: of the highest rung.
    """
    return tuple(sorted({max(1, round(epochs / ETA**k)) for k in range(3)}))


def next_job(results: Mapping[tuple[int, int], Score], top: int, first: int) -> tuple[int, int]:
    """The next trial to train, and its rung.

    Args:
        results: the score of each pair of trial and rung that has been trained.
        top: the highest rung.
        first: the number of the first trial that takes part.

    Returns:
        The best trial that may be promoted, from the highest rung on, and its next rung; if there is none, a
        new trial and rung 0.
    """
    for rung in reversed(range(top)):
        scores = {trial: score for (trial, at), score in results.items() if at == rung and trial >= first}
        best = sorted(scores, key=lambda trial: (scores[trial], -trial), reverse=True)[: len(scores) // ETA]
        for trial in best:
            if (trial, rung + 1) not in results and scores[trial] != WORST:
                return trial, rung + 1
    return max(_trials(results, first), default=first - 1) + 1, 0


def _trials(results: Iterable[tuple[int, int]], first: int) -> Iterable[int]:
    return (trial for trial, _ in results if trial >= first)
