"""Pack the predictions of a classifier for a page: names, five best classes, thumbnails, binned scores.

Numbers are little-endian arrays in base64, and each path is given by what it shares with the path before it,
so that 50,000 predictions among 1,000 classes take about 3 MB. Few predictions have all their
probabilities as float32; of many, those of the best classes are rounded, and the others counted in bins.
"""

from __future__ import annotations

import base64
from typing import Any

import numpy as np
from PIL import Image

from striate.charts import Array, Predictions
from striate.report.encoding import encoded
from striate.transforms.thumbnails import jpeg

TOP = 5
SCALE = 65535  # of probabilities
PATH_BYTES = 1_500_000  # for the paths of all images
MAX_IMAGES = 60_000
THUMBNAILS, THUMBNAIL_BYTES = 300, 1_200_000  # unless the page shows all
_MAPS_OF_ERRORS, _MAPS_OF_UNCERTAIN, _MAP_SIDE = 24, 12, 28
_ROWS = 4096  # of probabilities that are sorted at once
_BINS, _BIN_NUMBERS = 100, 50_000  # of each class, and bins of all classes together
_EXACT, _EXACT_IMAGES = 50_000, 4000  # probabilities and images of a page with all probabilities


def pack(predictions: Predictions, *, full: bool = False, base: str = "") -> dict[str, Any]:
    """The predictions as JSON values.

    Args:
        predictions: of at least one image.
        full: a thumbnail of each image, instead of at most 300 within 1.2 MB.
        base: URL of the folder that relative paths refer to.
    """
    top, chances = _best(predictions)
    interesting = _by_interest(predictions, chances)
    which, names = _within_size(predictions.paths, interesting if full else interesting[:MAX_IMAGES], full)
    thumbnails = _thumbnails(predictions, interesting, which, full)
    kind = np.uint16 if len(predictions.classes) < SCALE else np.uint32
    exact = predictions.probabilities.size <= _EXACT and len(predictions.labels) <= _EXACT_IMAGES
    scaled = _single if exact else _scaled
    return {
        "classes": list(predictions.classes),
        "count": len(predictions.labels),
        "names": names,
        "base": base if predictions.are_files else None,
        "labels": encoded(predictions.labels[which].astype(kind)),
        "top": encoded(top[which].astype(kind)),
        "chances": encoded(scaled(chances[which])),
        "own": encoded(scaled(predictions.probabilities[which, predictions.labels[which]])),
        "best": top.shape[1],
        "bins": binned(predictions),
        "exact": _all_probabilities(predictions) if exact else None,
        "thumbnails": thumbnails,
        "maps": _maps(predictions, np.array(thumbnails["of"], np.int64), which, chances),
    }


def binned(predictions: Predictions) -> dict[str, Any]:
    """Counts of images by the probability of a class: `[class, is of the class, bin]`.

    Bin i of n contains the probabilities from i / n up to (i + 1) / n; the last one 1, too. Images whose
    scores are not finite are in none.
    """
    K = len(predictions.classes)
    n = int(np.clip(_BIN_NUMBERS // K, 10, _BINS))
    counts = np.zeros((K, 2, n), np.uint32)
    finite = predictions.predicted >= 0
    labels = predictions.labels[finite]
    for k in range(K):
        place = np.minimum((predictions.probabilities[finite, k] * n).astype(np.int64), n - 1)
        counts[k] = np.bincount((labels == k) * n + place, minlength=2 * n).reshape(2, n)
    small = counts.max(initial=0) < 1 << 16
    return {"n": n, "counts": encoded(counts.astype(np.uint16) if small else counts)}


def _all_probabilities(predictions: Predictions) -> dict[str, Any]:
    """The class of each image with finite scores, and its probabilities `[class, image]`."""
    finite = predictions.predicted >= 0
    labels = predictions.labels[finite].astype(np.uint32)
    return {"labels": encoded(labels), "chances": encoded(_single(predictions.probabilities[finite].T))}


def _by_interest(p: Predictions, chances: Array) -> Array:
    """All images: the wrong ones by falling confidence, then the correct ones by rising margin.

    The first image of each cell of the confusion matrix comes before the second of any, and so on, so that
    the first thumbnails show every kind of error.
    """
    confidence = np.where(p.predicted < 0, np.inf, chances[:, 0])
    wrong = p.predicted != p.labels
    place = np.lexsort((np.where(wrong, -confidence, _margin(chances)), ~wrong))
    cell = (p.labels * (len(p.classes) + 1) + p.predicted + 1)[place]
    by_cell = np.argsort(cell, kind="stable")
    starts = np.flatnonzero(np.r_[True, np.diff(cell[by_cell]) != 0])
    rank = np.empty(len(cell), np.int64)
    rank[by_cell] = np.arange(len(cell)) - np.repeat(starts, np.diff(np.r_[starts, len(cell)]))
    return place[np.lexsort((rank, ~wrong[place]))]


def _within_size(paths: tuple[str, ...], interesting: Array, full: bool) -> tuple[Array, dict[str, Any]]:
    """The images whose paths fit the page, in the order of their paths, and these paths."""
    while True:
        which = np.array(sorted(interesting.tolist(), key=paths.__getitem__), np.int64)
        names = front_coded([paths[i] for i in which.tolist()])
        size = sum(len(text.encode("utf-8", "replace")) + 6 for text in names["rest"])
        if full or size <= PATH_BYTES or len(interesting) < 2:
            return which, names
        interesting = interesting[: int(0.95 * len(interesting) * PATH_BYTES / size)]


def front_coded(names: list[str]) -> dict[str, Any]:
    """How much each name shares with the one before, in JavaScript's UTF-16 units, and the rest of it."""
    shared, rest, before = [], [], ""
    for name in names:
        count = next((i for i, (a, b) in enumerate(zip(before, name, strict=False)) if a != b), None)
        count = min(len(before), len(name)) if count is None else count
        shared.append(len(name[:count].encode("utf-16-le", "surrogatepass")) // 2)
        rest.append(name[count:])
        before = name
    return {"shared": shared, "rest": rest}


def _best(p: Predictions) -> tuple[Array, Array]:
    """The most probable classes of all images `[n, up to 5]`, and their probabilities.

    All classes are -1 where the scores are not finite.
    """
    count = min(TOP, len(p.classes))
    tops, values = [], []
    for start in range(0, len(p.labels), _ROWS):
        chances = p.probabilities[start : start + _ROWS]
        top = np.argpartition(-chances, count - 1, axis=1)[:, :count]
        best = np.take_along_axis(chances, top, 1)
        top = np.take_along_axis(top, np.lexsort((top, -best), axis=1), 1)
        # Equal ones stand by their index, as in `predictions`; the partition keeps any of them.
        least = best.min(axis=1, keepdims=True)
        tied = np.flatnonzero((chances >= least).sum(axis=1) > count)
        top[tied] = np.argsort(-chances[tied], axis=1, kind="stable")[:, :count]
        tops.append(top)
        values.append(np.take_along_axis(chances, top, 1))
    lost = (p.predicted < 0)[:, None]
    return np.where(lost, -1, np.concatenate(tops)), np.where(lost, 0.0, np.concatenate(values))


def _scaled(chances: Array) -> Array:
    scaled: Array = np.round(np.clip(np.nan_to_num(chances), 0, 1) * SCALE).astype(np.uint16)
    return scaled


def _single(chances: Array) -> Array:
    single: Array = np.clip(np.nan_to_num(chances), 0, 1).astype(np.float32)
    return single


def _thumbnails(p: Predictions, interesting: Array, which: Array, full: bool) -> dict[str, list[Any]]:
    """Index among the images of the page, and JPEG in base64, of the images that have a thumbnail."""
    place = {int(i): at for at, i in enumerate(which)}
    found: dict[str, list[Any]] = {"of": [], "jpeg": []}
    size = 0
    for i in interesting.tolist() if full else _to_show(p, interesting)[:THUMBNAILS]:
        content = base64.b64encode(jpeg(p.images[i])).decode()
        size += len(content)
        if size > THUMBNAIL_BYTES and not full:
            break
        if i in place:
            found["of"].append(place[i])
            found["jpeg"].append(content)
    return found


def _maps(p: Predictions, thumbnails: Array, which: Array, chances: Array) -> dict[str, Any] | None:
    """Heat maps of the images with thumbnails that the gallery shows first, as errors or as uncertain ones.

    Returns:
        Indexes among the images of the page, and maps as uint8 `[n, rows, columns]`, each up to 255.
    """
    shown = which[thumbnails]
    wrong = np.flatnonzero(p.predicted[shown] != p.labels[shown])
    wrong = wrong[np.argsort(-chances[shown[wrong], 0], kind="stable")][:_MAPS_OF_ERRORS]
    close = np.argsort(_margin(chances[shown]), kind="stable")[:_MAPS_OF_UNCERTAIN]
    chosen = np.unique(np.r_[wrong, close])
    chosen = chosen[p.predicted[shown[chosen]] >= 0]
    found = p.maps(shown[chosen].tolist()) if p.maps is not None and len(chosen) else None
    if found is None:
        return None
    small = np.stack([_reduced(one) for one in found])
    largest = small.max(axis=(1, 2), keepdims=True, initial=0)
    values = np.round(255 * small / np.where(largest > 0, largest, 1)).astype(np.uint8)
    height, width = p.images[int(shown[0])].shape[:2]
    return {
        "of": thumbnails[chosen].tolist(), "rows": small.shape[1], "columns": small.shape[2],
        "values": encoded(values), "ratio": width / height,
    }  # fmt: skip


def _reduced(values: Array) -> Array:
    """A map with at most `_MAP_SIDE` rows and columns."""
    longest = max(values.shape)
    if longest <= _MAP_SIDE:
        return values
    rows, columns = (max(1, round(side * _MAP_SIDE / longest)) for side in values.shape)
    image = Image.fromarray(values.astype(np.float32))
    return np.asarray(image.resize((columns, rows), Image.Resampling.BOX))


def _margin(chances: Array) -> Array:
    """The difference of the two largest probabilities."""
    margin: Array = chances[:, 0] - chances[:, 1] if chances.shape[1] > 1 else chances[:, 0]
    return margin


def _to_show(p: Predictions, interesting: Array) -> list[int]:
    """Images in the order in which they get a thumbnail: always two errors, then a correct prediction."""
    is_wrong = (p.predicted != p.labels)[interesting]
    wrong, right = interesting[is_wrong].tolist(), interesting[~is_wrong].tolist()
    shown: list[int] = []
    while wrong or right:
        shown += wrong[:2] + right[:1]
        wrong, right = wrong[2:], right[1:]
        if len(shown) >= THUMBNAILS:
            break
    return shown
