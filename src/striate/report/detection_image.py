"""Draw the matches of detections and ground truth into one image."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from striate.charts import Array
from striate.errors import DataError
from striate.metrics.detection import Detections, GroundTruth
from striate.metrics.detection.explain import Matched
from striate.metrics.detection.overlaps import mask_module
from striate.metrics.detection.reference import Floats
from striate.transforms.decode import open_image

OPACITY = 0.5  # of masks
RADIUS = 3  # of key points, in pixels
COLOURS = {"right": (30, 160, 60), "wrong": (210, 40, 40), "missed": (240, 160, 20)}


def draw_matches(path: str | os.PathLike[str], m: Matched, image: int, score: float) -> Array:
    """Draw true positives (green), false positives (red) and missed objects (orange) into an image.

    Args:
        path: the image file.
        m: detections matched with ground truth: boxes; or masks, or key points with their boxes.
        image: index of the image in the ground truth's `image_ids`.
        score: lowest score of a detection to draw.

    Returns:
        uint8 `[height, width, 3]`.

    Raises:
        DataError: the file cannot be read as an image, or has another size than the masks.
    """
    picture = open_image(path)
    shown = _shown(m, image, score)
    if m.iou_type == "segm":
        picture = _with_masks(picture, shown, path)
    draw = ImageDraw.Draw(picture)
    for side, row, colour, label in shown:
        _box(draw, side.box[row], colour, label)
        if m.iou_type == "keypoints" and side.keypoints is not None:
            _points(draw, side.keypoints[row], colour)
    return np.asarray(picture)


# The ground truth or the detections, a row, a color and a label.
Shown = tuple[GroundTruth | Detections, int, tuple[int, int, int], str]


def _shown(m: Matched, image: int, score: float) -> list[Shown]:
    """What to draw: missed objects first, true positives last, on top."""
    names = m.truth.category_names
    sure = (m.detections.image == image) & (m.detections.score >= score)
    hit = np.zeros(len(m.truth), np.bool_)
    hit[m.taken[sure & m.right]] = True
    shown: list[Shown] = [
        (m.truth, row, COLOURS["missed"], names[m.truth.category[row]])
        for row in np.flatnonzero(m.counts & (m.truth.image == image) & ~hit).tolist()
    ]
    for kind, rows in (("wrong", sure & m.wrong), ("right", sure & m.right)):
        for row in np.flatnonzero(rows).tolist():
            label = f"{names[m.detections.category[row]]} {m.detections.score[row]:.2f}"
            shown.append((m.detections, row, COLOURS[kind], label))
    return shown


def _with_masks(picture: Image.Image, shown: list[Shown], path: str | os.PathLike[str]) -> Image.Image:
    pixels = np.array(picture)
    for side, row, colour, _ in shown:
        if side.masks is None:
            continue
        inside = mask_module().decode(side.masks[row]).astype(bool)
        if inside.shape != pixels.shape[:2]:
            why = "{1} x {0} pixels, but its masks {3} x {2}".format(*pixels.shape[:2], *inside.shape)
            raise DataError(f"{path}", f"it has {why}", "Give the image that was annotated")
        pixels[inside] = pixels[inside] * (1 - OPACITY) + np.array(colour) * OPACITY
    return Image.fromarray(pixels)


def _points(draw: ImageDraw.ImageDraw, points: Floats, colour: tuple[int, int, int]) -> None:
    """Draw the key points, without those that are not labeled."""
    for x, y, visible in points.tolist():
        if visible > 0:
            draw.ellipse((x - RADIUS, y - RADIUS, x + RADIUS, y + RADIUS), fill=colour, outline="white")


def _box(draw: ImageDraw.ImageDraw, box: Any, colour: tuple[int, int, int], label: str) -> None:
    x, y, w, h = (float(v) for v in box)
    draw.rectangle((x, y, max(x, x + w), max(y, y + h)), outline=colour, width=2)
    corner = (x + 3, max(0.0, y + 2))
    draw.rectangle(draw.textbbox(corner, label), fill=colour)
    draw.text(corner, label, fill="white")
