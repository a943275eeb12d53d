"""Count the mistakes of a detector by kind, and how much AP each kind costs.

Source: Bolya et al., "TIDE: A General Toolbox for Identifying Object Detection Errors", ECCV 2020, section 2.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from striate.metrics.detection.explain import Matched, by_score, rows_by_image
from striate.metrics.detection.records import Bools, Floats
from striate.metrics.detection.resampling import weighted_ap

KINDS = ("classification", "localisation", "both", "duplicate", "background", "missed")
LEVELS = np.linspace(0, 1, 101)


@dataclass(frozen=True, eq=False)
class Breakdown:
    """Number of mistakes of each kind, and how much AP rises if one kind is corrected.

    Args:
        ap: AP at the matching's IoU threshold, over 101 recall levels.
        count: kind -> mistakes.
        gain: kind -> rise of AP.
        kind: int8 [D], index in `KINDS` of each wrong detection, -1 for the others.
        missed: bool [G], ground truths of the kind `missed`.
        about: int64 [D], row of the object that each wrong detection concerns; -1 if it is on the background,
            and for the others.
    """

    ap: float
    count: dict[str, int]
    gain: dict[str, float]
    kind: NDArray[np.int8]
    missed: Bools
    about: NDArray[np.int64]


def breakdown(m: Matched, near: float = 0.1) -> Breakdown:
    """Classify the wrong detections into the paper's six kinds.

    F is the IoU threshold of the matches and B is `near`. A wrong detection is

    - *classification* if it overlaps an object of another class by F or more,
    - *localisation* if it overlaps an object of its class by B to F,
    - *duplicate* if it overlaps by F or more an object of its class that is already matched,
    - *both* if it overlaps an object of another class by B to F,
    - *background* if it overlaps no object by B.

    An object is *missed* if it has no match and no mistake of the first two kinds concerns it.

    Args:
        m: the matches.
        near: smallest overlap that is not a coincidence.
    """
    kind = np.full(len(m.detections), -1, np.int8)
    about = np.full(len(m.detections), -1, np.int64)  # the object that a mistake concerns
    kind[m.wrong] = KINDS.index("background")
    used = np.zeros(len(m.truth), np.bool_)
    used[m.taken[m.right]] = True
    for d, g in rows_by_image(m, m.wrong, m.counts):
        if g.size:
            iou = m.overlaps(d, g)
            same = m.detections.category[d][:, None] == m.truth.category[g][None, :]
            kind[d], at = _kinds(iou, same, used[g], m.iou, near)
            about[d] = g[at]
    fixable = (kind == KINDS.index("classification")) | (kind == KINDS.index("localisation"))
    missed = m.counts & ~used
    missed[about[fixable]] = False
    concerns = np.where(kind == KINDS.index("background"), -1, about)
    about[~fixable] = -1  # correcting the others removes them
    count = {name: int((kind == i).sum()) for i, name in enumerate(KINDS)} | {"missed": int(missed.sum())}
    ap = _mean_ap(m, m.right, m.wrong, m.detections.category, m.counts)
    gain = {name: _corrected_ap(m, kind == i, about, used) - ap for i, name in enumerate(KINDS[:-1])}
    gain["missed"] = _mean_ap(m, m.right, m.wrong, m.detections.category, m.counts & ~missed) - ap
    return Breakdown(ap, count, gain, kind, missed, concerns)


def _kinds(iou: Floats, same: Bools, used: Bools, far: float, near: float) -> tuple[NDArray[np.int8], Floats]:
    """Kind [D] and object [D] of the wrong detections of one image, in the paper's order of precedence."""
    own, other = np.where(same, iou, -1.0), np.where(same, -1.0, iou)
    own_used = np.where(used[None, :], own, -1.0)
    tests = (
        ("localisation", own, (own.max(1) >= near) & (own.max(1) < far)),
        ("classification", other, other.max(1) >= far),
        ("duplicate", own_used, own_used.max(1) >= far),
        ("background", iou, iou.max(1) < near),
    )
    kind = np.full(len(iou), KINDS.index("both"), np.int8)
    at = np.argmax(other, axis=1)
    for name, overlap, holds in reversed(tests):
        kind[holds] = KINDS.index(name)
        at[holds] = np.argmax(overlap, axis=1)[holds]
    return kind, at


def _corrected_ap(m: Matched, chosen: Bools, about: NDArray[np.int64], used: Bools) -> float:
    """AP after correcting the chosen mistakes.

    A mistake of classification or localisation becomes a true positive if its object has no other match; of
    several, the one with the highest score. All other mistakes are removed.
    """
    right, wrong, category = m.right.copy(), m.wrong & ~chosen, m.detections.category.copy()
    rows = np.flatnonzero(chosen & (about >= 0))
    rows = rows[np.argsort(-m.detections.score[rows], kind="stable")]
    rows = rows[~used[about[rows]]]
    rows = rows[np.unique(about[rows], return_index=True)[1]]
    right[rows] = True
    category[rows] = m.truth.category[about[rows]]
    return _mean_ap(m, right, wrong, category, m.counts)


def _mean_ap(m: Matched, right: Bools, wrong: Bools, category: NDArray[np.int32], counts: Bools) -> float:
    """AP over 101 recall levels, averaged over the classes with ground truth; 0 if there are none."""
    order = by_score(m.detections)
    order = order[right[order] | wrong[order]]
    out = []
    for k in range(m.truth.category_ids.size):
        positives = int((counts & (m.truth.category == k)).sum())
        if not positives:
            continue
        rows = order[category[order] == k]
        once = np.ones((1, rows.size), np.int64)
        out.append(weighted_ap(once, right[rows], wrong[rows], np.array([positives]), LEVELS)[0])
    return float(np.mean(out)) if out else 0.0
