"""Which mistakes cost the most average precision, and which are perhaps mistakes of the annotations."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from striate.metrics.detection.breakdown import KINDS, Breakdown
from striate.metrics.detection.explain import Matched, by_score
from striate.metrics.detection.records import Floats

SUSPICIONS = {
    "background": "not annotated",
    "classification": "another class",
    "localisation": "another box",
    "duplicate": "two objects in one annotation",
}


@dataclass(frozen=True, eq=False)
class Effects:
    """How much each mistake lowers the mean average precision without interpolation.

    All together are 1 minus that mean.

    Args:
        detection: float64 [D], of each false positive; 0 for the other detections.
        truth: float64 [G], of each object without a match; 0 for the others.
        image: float64 [I], of all mistakes in an image.
        ap: the mean average precision without interpolation, over the classes with objects.
    """

    detection: Floats
    truth: Floats
    image: Floats
    ap: float


def effects(m: Matched) -> Effects:
    """Share the loss of average precision among the mistakes.

    Without interpolation, the average precision of a class with P objects is the sum of the precisions at its
    true positives, divided by P. A missed object lacks a precision of 1. At a true positive with rank r, each
    false positive before it takes 1 / r. These shares add up to 1 minus the average precision. Detections
    with equal scores are ranked as in COCO's evaluation.

    Args:
        m: the matches.
    """
    lost, missed = np.zeros(len(m.detections)), np.zeros(len(m.truth))
    used = np.zeros(len(m.truth), np.bool_)
    used[m.taken[m.right]] = True
    positives = np.bincount(m.truth.category[m.counts], minlength=m.truth.category_ids.size)
    classes = max(1, int((positives > 0).sum()))
    order = by_score(m.detections)
    order = order[m.right[order] | m.wrong[order]]
    for k in np.flatnonzero(positives):
        rows = order[m.detections.category[order] == k]
        after = np.cumsum((m.right[rows] / np.arange(1, rows.size + 1))[::-1])[::-1]
        lost[rows] = np.where(m.wrong[rows], after, 0.0) / (positives[k] * classes)
    free = m.counts & ~used
    missed[free] = 1 / (positives[m.truth.category[free]] * classes)
    image = np.zeros(len(m.truth.image_ids))
    np.add.at(image, m.detections.image[lost > 0], lost[lost > 0])
    np.add.at(image, m.truth.image[free], missed[free])
    return Effects(lost, missed, image, 1.0 - float(lost.sum() + missed.sum()))


@dataclass(frozen=True)
class Suspicion:
    """A confident mistake of the detector that may be one of the annotations.

    Attributes:
        detection: its row.
        truth: row of the object that it concerns; -1 for none.
        kind: a key of `SUSPICIONS`.
        score: of the detection.
    """

    detection: int
    truth: int
    kind: str
    score: float


def suspicions(m: Matched, found: Breakdown, score: float) -> list[Suspicion]:
    """Mistakes with at least this score that the annotations may have made, the most confident first.

    Args:
        m: the matches.
        found: their kinds.
        score: the score threshold.
    """
    names = np.array([*KINDS, ""])
    rows = np.flatnonzero(m.wrong & (m.detections.score >= score))
    rows = rows[np.argsort(-m.detections.score[rows], kind="stable")]
    return [
        Suspicion(
            int(row), int(found.about[row]), str(names[found.kind[row]]), float(m.detections.score[row])
        )
        for row in rows
        if names[found.kind[row]] in SUSPICIONS
    ]
