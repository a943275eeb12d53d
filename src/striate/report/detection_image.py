"""Draw the matches of detections and ground truth into one image."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
from PIL import ImageDraw

from striate.metrics.detection.explain import Matched
from striate.sections import Array
from striate.transforms.decode import open_image

COLOURS = {"right": (30, 160, 60), "wrong": (210, 40, 40), "missed": (240, 160, 20)}


def draw_matches(path: str | os.PathLike[str], m: Matched, image: int, score: float) -> Array:
    """Draw true positives (green), false positives (red) and missed objects (orange) into an image.

    Args:
        path: the image file.
        m: detections matched with ground truth.
        image: index of the image in the ground truth's `image_ids`.
        score: lowest score of a detection to draw.

    Returns:
        uint8 `[height, width, 3]`.

    Raises:
        DataError: the file cannot be read as an image.
    """
    picture = open_image(path)
    draw = ImageDraw.Draw(picture)
    names = m.truth.category_names
    sure = (m.detections.image == image) & (m.detections.score >= score)
    hit = np.zeros(len(m.truth), np.bool_)
    hit[m.taken[sure & m.right]] = True
    for row in np.flatnonzero(m.counts & (m.truth.image == image) & ~hit):
        _box(draw, m.truth.box[row], COLOURS["missed"], names[m.truth.category[row]])
    for side, rows in (("wrong", sure & m.wrong), ("right", sure & m.right)):
        for row in np.flatnonzero(rows):
            label = f"{names[m.detections.category[row]]} {m.detections.score[row]:.2f}"
            _box(draw, m.detections.box[row], COLOURS[side], label)
    return np.asarray(picture)


def _box(draw: ImageDraw.ImageDraw, box: Any, colour: tuple[int, int, int], label: str) -> None:
    x, y, w, h = (float(v) for v in box)
    draw.rectangle((x, y, max(x, x + w), max(y, y + h)), outline=colour, width=2)
    corner = (x + 3, max(0.0, y + 2))
    draw.rectangle(draw.textbbox(corner, label), fill=colour)
    draw.text(corner, label, fill="white")
