"""Choose the images of a detector that a page shows, with what was found and missed in them."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from striate.charts import Array, DetectedBox, DetectedImage, DetectionImages
from striate.errors import DataError
from striate.metrics.detection import Detections, GroundTruth
from striate.metrics.detection.effects import SUSPICIONS, Effects, Suspicion
from striate.metrics.detection.explain import Matched, pairs
from striate.metrics.detection.overlaps import mask_module
from striate.transforms.decode import SUFFIXES, open_image
from striate.transforms.thumbnails import thumbnail

MAX_IMAGES, MAX_BOXES, MAX_PER_IMAGE = 200, 12_000, 200
PICTURE_BYTES, PICTURE_SIDE, MASK_SIDE = 2_600_000, 512, 128


def pictures_in(folder: str | os.PathLike[str]) -> dict[str, Path]:
    """The image files of a folder and those below it, by path in it, by name and by name without suffix."""
    found: dict[str, Path] = {}
    for path in sorted(Path(folder).rglob("*")):
        if path.suffix.lower() in SUFFIXES:
            found[path.relative_to(folder).as_posix()] = path
            found.setdefault(path.name, path)
            found.setdefault(path.stem, path)
    return found


def detection_images(
    m: Matched,
    effects: Effects,
    suspicions: Sequence[Suspicion],
    score: float,
    *,
    names: Sequence[str] = (),
    files: Mapping[str, Path] = {},
) -> DetectionImages:
    """The images whose mistakes cost the most, and at least one for each kind of confusion.

    Args:
        m: the matches.
        effects: what each mistake costs.
        suspicions: mistakes that may be those of the annotations.
        score: the score threshold.
        names: of the images; empty for their ids.
        files: image files, by name; images without a file are drawn as empty frames.
    """
    shown_names = list(names) or [str(value) for value in m.truth.image_ids.tolist()]
    pair = pairs(m, score)
    side = _Sides(m, effects, pair, {s.detection: s.kind for s in suspicions})
    images: list[DetectedImage] = []
    boxes, room = 0, PICTURE_BYTES
    for i in _chosen(m, effects, pair, [s.detection for s in suspicions]):
        found = side.of(i)
        boxes += len(found)
        if images and boxes > MAX_BOXES:
            break
        picture = _picture(files, shown_names[i]) if room > 0 else ""
        room -= len(picture)
        size = _size(m.truth, i, found)
        images.append(DetectedImage(shown_names[i], size, float(effects.image[i]), found, picture))
    return DetectionImages(
        m.truth.category_names, tuple(images), tuple(shown_names), score,
        alt="Images with true positives, false positives and missed objects",
    )  # fmt: skip


def _chosen(m: Matched, effects: Effects, pair: Array, suspicious: list[int]) -> list[int]:
    """Images by falling effect; those that alone show a confusion or a suspicion follow the first ones."""
    by_effect = np.argsort(-effects.image, kind="stable")
    rank = np.empty(len(by_effect), np.int64)
    rank[by_effect] = np.arange(len(by_effect))
    images, cells = _confusions(m, pair)
    order = np.lexsort((rank[images], cells))
    first = order[np.unique(cells[order], return_index=True)[1]]
    best = by_effect[effects.image[by_effect] > 0][:MAX_IMAGES].tolist()
    more = [*m.detections.image[suspicious[:MAX_IMAGES]].tolist(), *images[first].tolist()]
    return list(dict.fromkeys([*best, *more]))[: 2 * MAX_IMAGES]


def _confusions(m: Matched, pair: Array) -> tuple[Array, Array]:
    """The image and the cell of the confusion matrix of each detection and of each object without one."""
    K = m.truth.category_ids.size
    rows = np.flatnonzero((pair >= -1) & (m.detections.image >= 0))
    free = m.counts.copy()
    free[pair[pair >= 0]] = False
    true_class = np.where(pair[rows] >= 0, m.truth.category[pair[rows]] if len(m.truth) else K, K)
    cells = true_class.astype(np.int64) * (K + 1) + m.detections.category[rows]
    missed = m.truth.category[free].astype(np.int64) * (K + 1) + K
    images = np.concatenate((m.detections.image[rows], m.truth.image[free]))
    return images, np.concatenate((cells, missed))


class _Sides:
    """The boxes of each image."""

    def __init__(self, m: Matched, effects: Effects, pair: Array, suspected: Mapping[int, str]) -> None:
        self._m, self._effects, self._pair, self._suspected = m, effects, pair, suspected
        self._score_of = np.full(len(m.truth), np.nan)
        self._score_of[m.taken[m.right]] = m.detections.score[m.right]
        self._paired = np.full(len(m.truth), -1, np.int64)
        self._paired[pair[pair >= 0]] = np.flatnonzero(pair >= 0)

    def of(self, image: int) -> tuple[DetectedBox, ...]:
        """Objects, then detections, the most confident ones."""
        m = self._m
        objects = np.flatnonzero(m.counts & (m.truth.image == image))
        found = np.flatnonzero((m.detections.image == image) & (m.right | m.wrong))
        found = found[np.argsort(-m.detections.score[found], kind="stable")][:MAX_PER_IMAGE]
        return (*map(self._object, objects.tolist()), *map(self._detection, found.tolist()))

    def _object(self, row: int) -> DetectedBox:
        m, K = self._m, self._m.truth.category_ids.size
        other, score = self._paired[row], self._score_of[row]
        return DetectedBox(
            "object", int(m.truth.category[row]), int(m.detections.category[other]) if other >= 0 else K,
            None if np.isnan(score) else float(score), _corners(m.truth.box[row]),
            float(self._effects.truth[row]), **_shape(m.truth, row),
        )  # fmt: skip

    def _detection(self, row: int) -> DetectedBox:
        m, K = self._m, self._m.truth.category_ids.size
        pair = self._pair[row]
        return DetectedBox(
            "right" if m.right[row] else "wrong", int(m.detections.category[row]),
            int(m.truth.category[pair]) if pair >= 0 else K, float(m.detections.score[row]),
            _corners(m.detections.box[row]), float(self._effects.detection[row]),
            suspicion=SUSPICIONS.get(self._suspected.get(row, ""), ""), **_shape(m.detections, row),
        )  # fmt: skip


def _corners(box: Array) -> tuple[float, float, float, float]:
    x, y, width, height = box.tolist()
    return x, y, width, height


def _shape(side: GroundTruth | Detections, row: int) -> dict[str, Any]:
    """The mask or the key points of a row."""
    if side.masks is not None:
        pixels = mask_module().decode(side.masks[row])
        picture = Image.fromarray(pixels * 255)
        picture.thumbnail((MASK_SIDE, MASK_SIDE), Image.Resampling.BILINEAR)
        inside = np.asarray(picture).ravel() > 127
        changes = np.flatnonzero(np.diff(inside, prepend=False))
        runs = np.diff(np.concatenate(([0], changes, [inside.size])))
        return {"runs": tuple(runs.tolist()), "mask_size": picture.size}
    if side.keypoints is not None:
        points = side.keypoints[row]
        labelled = points[points[:, 2] > 0] if isinstance(side, GroundTruth) else points
        return {"points": tuple((x, y) for x, y, _ in labelled.tolist())}
    return {}


def _size(truth: GroundTruth, image: int, boxes: Sequence[DetectedBox]) -> tuple[float, float]:
    """The size of an image; where it is unknown, that of the area with boxes."""
    if truth.image_size is not None and np.isfinite(truth.image_size[image]).all():
        width, height = truth.image_size[image].tolist()
        return width, height
    rights = [box.box[0] + box.box[2] for box in boxes]
    bottoms = [box.box[1] + box.box[3] for box in boxes]
    return max([1.0, *rights]) * 1.04, max([1.0, *bottoms]) * 1.04


def _picture(files: Mapping[str, Path], name: str) -> str:
    """The URL of an image's reduced copy; empty if there is no such file or it cannot be read."""
    path = files.get(name) or files.get(Path(name).name) or files.get(Path(name).stem)
    if path is None:
        return ""
    try:
        return thumbnail(np.asarray(open_image(path)), PICTURE_SIDE)
    except DataError:
        return ""
