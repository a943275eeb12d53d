"""The kernel in NumPy, for systems without the native one; the tests compare both.

`evaluate`, `places` and their arguments are those of the native module, described in `native/matching.hpp`;
both give the same bits. The rules are those of pycocotools 2.0.11, `COCOeval.evaluateImg` and `accumulate`
(Lin et al., "Microsoft COCO: Common Objects in Context", 2014).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Places = NDArray[np.int32]
Bools = NDArray[np.bool_]
Rows = NDArray[np.intp]


class TruthColumns(NamedTuple):
    """Columns of G ground truths; rows with a negative image or category are skipped."""

    image: Places
    category: Places
    box: Floats  # [G, 4] x, y, width, height
    area: Floats
    crowd: Bools  # may match any number of detections
    ignore: Bools  # counts neither for nor against
    void: Bools  # a match with it counts as no match: id 0 in pycocotools


class DetectionColumns(NamedTuple):
    """Columns of D detections."""

    image: Places
    category: Places
    box: Floats
    score: Floats
    area: Floats | None  # None: width times height
    meek: Bools | None  # leaves its match free for other detections: ids below 1 in pycocotools
    excused: Bools | None = None  # counts for nothing if it matches nothing


class Settings(NamedTuple):
    """Settings: T thresholds, R recall levels, A area ranges [A, 2], M ascending limits.

    `first` is the first limit that has curves, so P = M - first limits have them.
    """

    thresholds: Floats
    recalls: Floats
    areas: Floats
    limits: NDArray[np.int64]
    first: int = 0


class Curves(NamedTuple):
    """Outputs: precision and scores [K, A, P, T, R], recall [K, A, M, T]; -1 without ground truth."""

    precision: Floats
    scores: Floats | None  # None: not wanted
    recall: Floats


class MatchRecord(NamedTuple):
    """The matches, for A area ranges, T thresholds, D detections and G ground truths.

    In mode "strict", ground truths that share an id are replaced first (`without_repeated_ids`), and the rows
    are those of the result.
    """

    truth_of: Places  # [A, T, D], the ground truth that a detection matches, or -1
    detection_of: Places  # [A, T, G], the last detection that matches a ground truth, or -1
    ignored: Bools  # [A, T, D], detections that count neither for nor against
    rank: Places  # [D], position by score in its image and class; -1 beyond the last limit


NO_MATCHES = (None, None, None, None)  # where no `MatchRecord` is needed


def places(ids: NDArray[np.int64], known: NDArray[np.int64], out: Places) -> None:
    """Index in `known` of each id (the last one if it occurs repeatedly), or -1."""
    order = np.argsort(known, kind="stable")
    at = np.searchsorted(known[order], ids, side="right") - 1
    out[:] = -1
    hit = at >= 0
    hit[hit] = known[order][at[hit]] == ids[hit]
    out[hit] = order[at[hit]]


class Groups(NamedTuple):
    """The N (category, image) groups that have a ground truth or a detection, by category, then image."""

    category: Rows  # [N]
    image: Rows  # [N]
    truths: Rows  # rows of the ground truths, group by group
    g_cut: Rows  # [N + 1], where each group begins in `truths`
    detections: Rows  # rows of the detections within the limit, group by group, by falling score
    d_cut: Rows  # [N + 1], where each group begins in `detections`

    def pair_counts(self) -> Rows:
        """Number of pairs of a detection and a ground truth in each group, [N]."""
        return np.diff(self.d_cut) * np.diff(self.g_cut)

    def pairs(self) -> tuple[Rows, Rows]:
        """Positions in `detections` and in `truths` of all pairs, group by group, detection by detection."""
        counts = self.pair_counts()
        group = np.repeat(np.arange(counts.size), counts)
        nth = np.arange(group.size) - np.repeat(np.cumsum(counts) - counts, counts)
        width = np.diff(self.g_cut)[group]
        return self.d_cut[group] + nth // width, self.g_cut[group] + nth % width


def group_rows(truths: Any, detections: Any, most: int) -> Groups:
    """Group the rows of ground truths and detections by category and image.

    Args:
        truths: anything with the columns `image` and `category`.
        detections: anything with the columns `image`, `category` and `score`.
        most: number of detections to keep in a group, those with the highest scores.
    """
    g = np.flatnonzero((truths.image >= 0) & (truths.category >= 0))
    g = g[np.lexsort((g, truths.image[g], truths.category[g]))]
    d = np.flatnonzero((detections.image >= 0) & (detections.category >= 0))
    d = d[np.lexsort((d, -detections.score[d], detections.image[d], detections.category[d]))]
    images = 1 + max(truths.image.max(initial=0), detections.image.max(initial=0))
    g_key = truths.category[g].astype(np.int64) * images + truths.image[g]
    d_key = detections.category[d].astype(np.int64) * images + detections.image[d]
    keys = np.union1d(g_key, d_key)
    rank = np.arange(d.size) - np.searchsorted(d_key, d_key)
    d, d_key = d[rank < most], d_key[rank < most]
    g_cut, d_cut = (np.append(np.searchsorted(key, keys), key.size) for key in (g_key, d_key))
    return Groups(keys // images, keys % images, g, g_cut, d, d_cut)


def groups(truths: Any, detections: Any, most: int) -> Iterator[tuple[int, Rows, Rows]]:
    """For each group of `group_rows`: its category, the rows of its ground truths and of its detections."""
    all_ = group_rows(truths, detections, most)
    g, d = all_.g_cut.tolist(), all_.d_cut.tolist()
    for i, category in enumerate(all_.category.tolist()):
        yield category, all_.truths[g[i] : g[i + 1]], all_.detections[d[i] : d[i + 1]]


def box_overlaps(detections: Floats, truths: Floats, crowd: Bools) -> Floats:
    """IoU [D, G] of boxes (x, y, width, height); for a crowd, the fraction of the detection inside it."""
    return box_overlaps_of_pairs(detections[:, None, :], truths[None, :, :], crowd[None, :])


def box_overlaps_of_pairs(d: Floats, g: Floats, crowd: Bools) -> Floats:
    """IoU [...] of pairs of a detection [..., 4] and a ground truth [..., 4]."""
    with np.errstate(all="ignore"):
        w = np.fmin(d[..., 2] + d[..., 0], g[..., 2] + g[..., 0]) - np.fmax(d[..., 0], g[..., 0])
        h = np.fmin(d[..., 3] + d[..., 1], g[..., 3] + g[..., 1]) - np.fmax(d[..., 1], g[..., 1])
        inter = w * h
        own = d[..., 2] * d[..., 3]
        union = np.where(crowd, own, own + g[..., 2] * g[..., 3] - inter)
        return np.where((w <= 0) | (h <= 0), 0.0, inter / union)


def _outside(area: Floats, ranges: Floats) -> Bools:
    """Whether each area lies outside each range, [A, N]."""
    return np.asarray((area[None, :] < ranges[:, :1]) | (area[None, :] > ranges[:, 1:]))


def match(iou: Floats, bar: Floats, ignored: Bools, crowd: Bools, takes: Bools) -> Places:
    """Match the detections of an image and class to its ground truths, [A, T, D], -1 for none.

    A detection matches the free ground truth that it overlaps most: first among those that count, then among
    ignored ones; the later one if two overlap equally. A crowd stays free.

    Args:
        iou: [D, G], detections by falling score.
        bar: [T] IoU thresholds, below 1.
        ignored: bool [A, G], ground truths that count neither for nor against.
        crowd: bool [G].
        takes: bool [D], False for detections that leave their match free.
    """
    D, G = iou.shape
    A, T = ignored.shape[0], bar.size
    out = np.full((A, T, D), -1, np.int32)
    taken = np.zeros((A, T, G), np.bool_)
    near = ~(iou < bar.min(initial=np.inf))
    near |= np.isnan(iou).any(axis=1, keepdims=True)  # after NaN, any overlap passes for a better one
    for d in np.flatnonzero(near.any(axis=1)):
        best = np.broadcast_to(bar, (A, T)).copy()
        choice = np.full((A, T), -1, np.int32)
        settled = np.zeros((A, T), np.bool_)
        for turn in (False, True):
            for g in np.flatnonzero(near[d]):
                can = (ignored[:, g] == turn)[:, None] & ~settled & ~(iou[d, g] < best)
                if not crowd[g]:
                    can &= ~taken[:, :, g]
                best[can], choice[can] = iou[d, g], g
            settled = choice >= 0
        out[:, :, d] = choice
        if takes[d]:
            a, t = np.nonzero(settled)
            taken[a, t, choice[a, t]] = True
    return out


def curve(
    tp: Bools, fp: Bools, scores: Floats, positives: int, recalls: Floats
) -> tuple[Floats, Floats, float]:
    """Precision and score at the recall levels, and the final recall, of detections by falling score.

    Args:
        tp: bool [N], whether each detection is a true positive.
        fp: bool [N], whether it is a false positive.
        scores: float64 [N], falling.
        positives: number of ground truths that count.
        recalls: [R] recall levels.
    """
    precision, score = np.zeros(recalls.size), np.zeros(recalls.size)
    if not tp.size:
        return precision, score, 0.0
    hits, misses = np.cumsum(tp).astype(float), np.cumsum(fp).astype(float)
    recall = hits / positives
    envelope = np.maximum.accumulate((hits / (misses + hits + np.spacing(1)))[::-1])[::-1]
    at = np.searchsorted(recall, recalls, side="left")
    reached = at.size if (at < tp.size).all() else int(np.argmax(at >= tp.size))
    precision[:reached] = envelope[at[:reached]]
    score[:reached] = scores[at[:reached]]
    return precision, score, float(recall[-1])


def evaluate(
    images: int,
    categories: int,
    truths: TruthColumns,
    detections: DetectionColumns,
    overlaps: Floats | None,
    settings: Settings,
    curves: Curves,
    matches: MatchRecord | tuple[None, ...],
    threads: int,
) -> int:
    """Match the detections and fill `curves` and the `MatchRecord`, if there is one.

    Returns:
        How many detections of known images and classes lie beyond the last limit.
    """
    for values in curves:
        if values is not None:
            values.fill(-1)
    areas = settings.areas.reshape(-1, 2)
    most = int(settings.limits[-1]) if settings.limits.size else 0
    bar = np.minimum(settings.thresholds, 1 - 1e-10)
    with np.errstate(all="ignore"):
        own_area = detections.box[:, 2] * detections.box[:, 3] if detections.area is None else detections.area
    D = detections.score.size
    excused = np.zeros(D, np.bool_) if detections.excused is None else detections.excused
    takes = np.ones(D, np.bool_) if detections.meek is None else ~detections.meek
    collected: dict[int, list[tuple[Any, ...]]] = {}
    used = kept = 0
    for category, g, d in groups(truths, detections, most):
        kept += d.size
        ignored = _outside(truths.area[g], areas) | truths.ignore[g]
        if overlaps is None:
            iou = box_overlaps(detections.box[d], truths.box[g], truths.crowd[g])
        else:
            iou = overlaps[used : used + d.size * g.size].reshape(d.size, g.size)
            used += d.size * g.size
        choice = match(iou, bar, ignored, truths.crowd[g], takes[d])
        hit = choice >= 0
        row = np.where(hit, g[choice] if g.size else -1, -1)
        matched = hit & ~truths.void[row] if g.size else hit
        skip = hit & np.take_along_axis(ignored[:, None, :], choice, 2) if g.size else hit
        skip = skip | (~matched & (_outside(own_area[d], areas) | excused[d])[:, None, :])
        collected.setdefault(category, []).append((d, matched & ~skip, ~matched & ~skip, ~ignored))
        if isinstance(matches, MatchRecord):
            matches.truth_of[:, :, d], matches.ignored[:, :, d] = row, skip
            matches.rank[d] = np.arange(d.size)
            for i in range(d.size):
                a, t = np.nonzero(hit[:, :, i])
                matches.detection_of[a, t, row[a, t, i]] = d[i]
    if overlaps is not None and used != overlaps.size:
        raise ValueError("overlaps: not as many values as the groups need")
    for category, parts in collected.items():
        _accumulate(category, parts, detections.score, settings, curves)
    return int(((detections.image >= 0) & (detections.category >= 0)).sum()) - kept


def _accumulate(
    category: int, parts: list[tuple[Any, ...]], all_scores: Floats, settings: Settings, curves: Curves
) -> None:
    rows = np.concatenate([part[0] for part in parts])
    rank = np.concatenate([np.arange(part[0].size) for part in parts])
    tp, fp = (np.concatenate([part[i] for part in parts], axis=2) for i in (1, 2))
    positives = np.concatenate([part[3] for part in parts], axis=1).sum(axis=1)
    scores = all_scores[rows]
    order = np.argsort(-scores, kind="stable")
    for m, limit in enumerate(settings.limits):
        kept = order[rank[order] < limit]
        for a in np.flatnonzero(positives):
            for t in range(settings.thresholds.size):
                precision, score, recall = curve(
                    tp[a, t, kept], fp[a, t, kept], scores[kept], int(positives[a]), settings.recalls
                )
                curves.recall[category, a, m, t] = recall
                if m < settings.first:
                    continue
                cell = category, a, m - settings.first, t
                curves.precision[cell] = precision
                if curves.scores is not None:
                    curves.scores[cell] = score
