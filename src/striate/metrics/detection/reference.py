"""The kernel in NumPy: used where the native one was not built, and its oracle in the tests.

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


class Truths(NamedTuple):
    """Columns of G ground truths; rows with a negative image or category are left out."""

    image: Places
    category: Places
    box: Floats  # [G, 4] x, y, width, height
    area: Floats
    crowd: Bools  # may match any number of detections
    ignore: Bools  # counts neither for nor against
    void: Bools  # its matches count as none: ids of 0 in pycocotools


class Found(NamedTuple):
    """Columns of D detections."""

    image: Places
    category: Places
    box: Floats
    score: Floats
    area: Floats | None  # None: width times height
    meek: Bools | None  # does not take what it matches: ids below 1 in pycocotools


class Settings(NamedTuple):
    """What is measured: T thresholds, R recall levels, A area ranges [A, 2], M ascending limits."""

    thresholds: Floats
    recalls: Floats
    areas: Floats
    limits: NDArray[np.int64]


class Curves(NamedTuple):
    """Outputs, filled with -1: precision and scores [K, A, M, T, R], recall [K, A, M, T]."""

    precision: Floats
    scores: Floats
    recall: Floats


class Matches(NamedTuple):
    """Who matched whom: [A, T, D], [A, T, G], [A, T, D] and [D]; all None where nobody asks.

    `found` holds rows of the ground truth and `truth` rows of the detections, both filled with -1;
    `rank` is a detection's place by score in its image and class, -1 beyond the last limit.
    """

    found: Places | None = None
    truth: Places | None = None
    ignored: Bools | None = None
    rank: Places | None = None


class Group(NamedTuple):
    """The rows of one category in one image, detections by falling score and cut at the last limit."""

    category: int
    truths: NDArray[np.intp]
    found: NDArray[np.intp]


def places(ids: NDArray[np.int64], known: NDArray[np.int64], out: Places) -> None:
    """For each id its place in `known` (the last of equals), or -1."""
    order = np.argsort(known, kind="stable")
    at = np.searchsorted(known[order], ids, side="right") - 1
    out[:] = -1
    hit = at >= 0
    hit[hit] = known[order][at[hit]] == ids[hit]
    out[hit] = order[at[hit]]


def groups(truths: Truths, found: Found, most: int) -> Iterator[Group]:
    """All (category, image) groups with a ground truth or a detection, by category, then image."""
    g = np.flatnonzero((truths.image >= 0) & (truths.category >= 0))
    g = g[np.lexsort((g, truths.image[g], truths.category[g]))]
    d = np.flatnonzero((found.image >= 0) & (found.category >= 0))
    d = d[np.lexsort((d, -found.score[d], found.image[d], found.category[d]))]
    images = 1 + max(truths.image.max(initial=0), found.image.max(initial=0))
    g_key = truths.category[g].astype(np.int64) * images + truths.image[g]
    d_key = found.category[d].astype(np.int64) * images + found.image[d]
    keys = np.union1d(g_key, d_key)
    g_cut = np.searchsorted(g_key, keys), np.searchsorted(g_key, keys, side="right")
    d_cut = np.searchsorted(d_key, keys), np.searchsorted(d_key, keys, side="right")
    for key, g0, g1, d0, d1 in zip(keys.tolist(), *g_cut, *d_cut, strict=True):
        yield Group(key // images, g[g0:g1], d[d0 : min(d1, d0 + most)])


def box_overlaps(found: Floats, truths: Floats, crowd: Bools) -> Floats:
    """IoU [D, G] of boxes (x, y, width, height); over a crowd, the share of the detection inside it."""
    d, g = found[:, None, :], truths[None, :, :]
    with np.errstate(all="ignore"):
        w = np.fmin(d[..., 2] + d[..., 0], g[..., 2] + g[..., 0]) - np.fmax(d[..., 0], g[..., 0])
        h = np.fmin(d[..., 3] + d[..., 1], g[..., 3] + g[..., 1]) - np.fmax(d[..., 1], g[..., 1])
        inter = w * h
        own = d[..., 2] * d[..., 3]
        union = np.where(crowd[None, :], own, own + g[..., 2] * g[..., 3] - inter)
        return np.where((w <= 0) | (h <= 0), 0.0, inter / union)


def _outside(area: Floats, ranges: Floats) -> Bools:
    """[A, N]: which areas lie outside which ranges."""
    return np.asarray((area[None, :] < ranges[:, :1]) | (area[None, :] > ranges[:, 1:]))


def _match(iou: Floats, bar: Floats, ignored: Bools, crowd: Bools, takes: Bools) -> Places:
    """Ground truth of each detection, [A, T, D], -1 for none; `ignored` is [A, G].

    A detection takes the ground truth that overlaps it most, those that count before ignored ones and the
    later of two equals; what a detection with a higher score has taken is gone, but for crowds.
    """
    D, G = iou.shape
    A, T = ignored.shape[0], bar.size
    out = np.full((A, T, D), -1, np.int32)
    taken = np.zeros((A, T, G), np.bool_)
    near = ~(iou < bar.min(initial=np.inf))
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


def _curve(
    tp: Bools, fp: Bools, scores: Floats, positives: int, recalls: Floats
) -> tuple[Floats, Floats, float]:
    """Precision and score at the recall levels, and the recall reached, of detections by falling score."""
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
    truths: Truths,
    found: Found,
    overlaps: Floats | None,
    settings: Settings,
    curves: Curves,
    matches: Matches,
    threads: int,
) -> None:
    """Match the detections and fill `curves` and, where it has arrays, `matches`."""
    areas = settings.areas.reshape(-1, 2)
    most = int(settings.limits[-1]) if settings.limits.size else 0
    bar = np.minimum(settings.thresholds, 1 - 1e-10)
    with np.errstate(all="ignore"):
        own_area = found.box[:, 2] * found.box[:, 3] if found.area is None else found.area
    takes = np.ones(found.score.size, np.bool_) if found.meek is None else ~found.meek
    collected: dict[int, list[tuple[Any, ...]]] = {}
    used = 0
    for category, g, d in groups(truths, found, most):
        ignored = _outside(truths.area[g], areas) | truths.ignore[g]
        if overlaps is None:
            iou = box_overlaps(found.box[d], truths.box[g], truths.crowd[g])
        else:
            iou = overlaps[used : used + d.size * g.size].reshape(d.size, g.size)
            used += d.size * g.size
        choice = _match(iou, bar, ignored, truths.crowd[g], takes[d])
        hit = choice >= 0
        row = np.where(hit, g[choice] if g.size else -1, -1)
        matched = hit & ~truths.void[row] if g.size else hit
        skip = hit & np.take_along_axis(ignored[:, None, :], choice, 2) if g.size else hit
        skip = skip | (~matched & _outside(own_area[d], areas)[:, None, :])
        collected.setdefault(category, []).append((d, matched & ~skip, ~matched & ~skip, ~ignored))
        if matches.found is not None:
            assert matches.truth is not None
            assert matches.ignored is not None
            assert matches.rank is not None
            matches.found[:, :, d], matches.ignored[:, :, d] = row, skip
            matches.rank[d] = np.arange(d.size)
            for i in range(d.size):
                a, t = np.nonzero(hit[:, :, i])
                matches.truth[a, t, row[a, t, i]] = d[i]
    if overlaps is not None and used != overlaps.size:
        raise ValueError("overlaps: not as many values as the groups need")
    for category, parts in collected.items():
        _accumulate(category, parts, found.score, settings, curves)


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
                cell = category, a, m, t
                curves.precision[cell], curves.scores[cell], curves.recall[cell] = _curve(
                    tp[a, t, kept], fp[a, t, kept], scores[kept], int(positives[a]), settings.recalls
                )
