"""Which mistakes a detector makes, and what each kind costs in AP.

Bolya et al., "TIDE: A General Toolbox for Identifying Object Detection Errors", ECCV 2020, section 2.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from striate.metrics.detection.explain import Matched, by_score, rows_by_image
from striate.metrics.detection.records import Bools, Floats
from striate.metrics.detection.reference import box_overlaps

KINDS = ("classification", "localisation", "both", "duplicate", "background", "missed")
LEVELS = np.linspace(0, 1, 101)


@dataclass(frozen=True, eq=False)
class Breakdown:
    """How often each kind of mistake was made, and how much AP would rise if it were mended alone.

    Args:
        ap: AP at the matching's IoU threshold, over 101 recall levels.
        count: kind -> mistakes.
        gain: kind -> rise of AP.
        kind: int8 [D], place in `KINDS` of each wrong detection, -1 for the others.
        missed: bool [G], ground truths that nothing came near to.
    """

    ap: float
    count: dict[str, int]
    gain: dict[str, float]
    kind: NDArray[np.int8]
    missed: Bools


def breakdown(m: Matched, near: float = 0.1) -> Breakdown:
    """Sort the wrong detections into the paper's six kinds.

    With F the matching's IoU threshold and B = `near`, a wrong detection is a mistake of *classification*
    where it overlaps an object of another class by F or more; of *localisation* where it overlaps one of its
    class by B to F; a *duplicate* where it overlaps by F or more one of its class that a surer detection has
    found; of *both* where it overlaps one of another class by B to F; and *background* where it overlaps none
    by B. An object is *missed* where nothing found it and no mistake of the first two kinds was about it.

    Args:
        m: a matching.
        near: the smallest overlap that is no coincidence.
    """
    kind = np.full(len(m.found), -1, np.int8)
    about = np.full(len(m.found), -1, np.int64)  # the object that a mistake was about
    kind[m.wrong] = KINDS.index("background")
    used = np.zeros(len(m.truth), np.bool_)
    used[m.taken[m.right]] = True
    for d, g in rows_by_image(m, m.wrong, m.counts):
        if g.size:
            iou = box_overlaps(m.found.box[d], m.truth.box[g], np.zeros(g.size, np.bool_))
            same = m.found.category[d][:, None] == m.truth.category[g][None, :]
            kind[d], at = _kinds(iou, same, used[g], m.iou, near)
            about[d] = g[at]
    fixable = (kind == KINDS.index("classification")) | (kind == KINDS.index("localisation"))
    missed = m.counts & ~used
    missed[about[fixable]] = False
    about[~fixable] = -1  # mending the others takes them away
    count = {name: int((kind == i).sum()) for i, name in enumerate(KINDS)} | {"missed": int(missed.sum())}
    ap = _mean_ap(m, m.right, m.wrong, m.found.category, m.counts)
    gain = {name: _mended(m, kind == i, about, used) - ap for i, name in enumerate(KINDS[:-1])}
    gain["missed"] = _mean_ap(m, m.right, m.wrong, m.found.category, m.counts & ~missed) - ap
    return Breakdown(ap, count, gain, kind, missed)


def _kinds(iou: Floats, same: Bools, used: Bools, far: float, near: float) -> tuple[NDArray[np.int8], Floats]:
    """Kind [D] and object [D] of the wrong detections of one image; the paper's order of precedence."""
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


def _mended(m: Matched, chosen: Bools, about: NDArray[np.int64], used: Bools) -> float:
    """AP once the chosen mistakes are mended.

    A mistake of classification or localisation becomes a hit of its object where that is not found otherwise,
    the surest first; all others go away.
    """
    right, wrong, category = m.right.copy(), m.wrong & ~chosen, m.found.category.copy()
    rows = np.flatnonzero(chosen & (about >= 0))
    rows = rows[np.argsort(-m.found.score[rows], kind="stable")]
    rows = rows[~used[about[rows]]]
    rows = rows[np.unique(about[rows], return_index=True)[1]]
    right[rows] = True
    category[rows] = m.truth.category[about[rows]]
    return _mean_ap(m, right, wrong, category, m.counts)


def _mean_ap(m: Matched, right: Bools, wrong: Bools, category: NDArray[np.int32], counts: Bools) -> float:
    """AP over 101 recall levels, averaged over the classes with ground truth; 0 where there are none."""
    order = by_score(m.found)
    order = order[right[order] | wrong[order]]
    out = []
    for k in range(m.truth.category_ids.size):
        positives = int((counts & (m.truth.category == k)).sum())
        if not positives:
            continue
        tp = right[order[category[order] == k]]
        hits = np.cumsum(tp)
        envelope = np.maximum.accumulate((hits / np.arange(1, tp.size + 1))[::-1])[::-1]
        at = np.searchsorted(hits / positives, LEVELS, side="left")
        out.append(float(np.mean(np.append(envelope, 0.0)[at])))
    return float(np.mean(out)) if out else 0.0
