"""The figures of a detection report, as PNG bytes, and the picture of one image's matches."""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from PIL import Image, ImageDraw

from striate.errors import DataError
from striate.metrics.detection.breakdown import KINDS, Breakdown
from striate.metrics.detection.explain import Counts, Curve, Matched

MOST_CLASSES = 40  # beyond, a confusion matrix shows the classes with the most mistakes
MOST_NAMED = 10  # curves beyond are drawn without a name
COLOURS = {"right": (30, 160, 60), "wrong": (210, 40, 40), "missed": (240, 160, 20)}


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110, bbox_inches="tight")
    return buffer.getvalue()


def precision_recall(curves: Sequence[Curve]) -> bytes:
    """Precision over recall: one line for each class with ground truth."""
    figure = Figure(figsize=(6, 4.5))
    axes = figure.add_subplot()
    drawn = [c for c in curves if c.positives]
    for curve in drawn:
        named = {"label": curve.name, "linewidth": 1.5} if len(drawn) <= MOST_NAMED else {"color": "0.5"}
        axes.plot(curve.recall, curve.precision, **({"linewidth": 0.6, "alpha": 0.7} | named))
    axes.set(xlabel="recall", ylabel="precision", xlim=(0, 1), ylim=(0, 1.02))
    if 0 < len(drawn) <= MOST_NAMED:
        axes.legend(fontsize=8)
    return _png(figure)


def confusion_matrix(matrix: Counts, names: Sequence[str]) -> bytes:
    """True classes down, detected classes across, each row as shares of its sum; background last."""
    K = len(names)
    mistakes = matrix.sum(0)[:K] + matrix.sum(1)[:K] - 2 * np.diag(matrix)[:K]
    shown = np.sort(np.argsort(-mistakes, kind="stable")[:MOST_CLASSES])
    at = [*shown.tolist(), K]
    part = matrix[np.ix_(at, at)].astype(float)
    part /= np.maximum(part.sum(axis=1, keepdims=True), 1)
    labels = [*(names[i] for i in shown), "background"]
    side = 2.5 + 0.22 * len(labels)
    figure = Figure(figsize=(side, side))
    axes = figure.add_subplot()
    axes.imshow(part, cmap="Blues", vmin=0, vmax=1)
    axes.set(xlabel="detected as", ylabel="really")
    axes.set_xticks(range(len(labels)), labels, rotation=90, fontsize=7)
    axes.set_yticks(range(len(labels)), labels, fontsize=7)
    if len(labels) <= 12:
        for i, j in np.ndindex(part.shape):
            colour = "white" if part[i, j] > 0.5 else "black"
            axes.text(j, i, str(matrix[at[i], at[j]]), ha="center", va="center", fontsize=7, color=colour)
    return _png(figure)


def mistakes(b: Breakdown) -> bytes:
    """How much AP would rise with each kind of mistake mended."""
    figure = Figure(figsize=(6, 2.6))
    axes = figure.add_subplot()
    values = [b.gain[kind] for kind in KINDS]
    axes.barh(KINDS, values, color="tab:red")
    axes.invert_yaxis()
    axes.set(xlabel="rise of AP if mended")
    for i, kind in enumerate(KINDS):
        axes.text(max(values[i], 0), i, f" {b.gain[kind]:.3f} ({b.count[kind]})", va="center", fontsize=8)
    axes.set_xlim(0, max([*values, 0.01]) * 1.3)
    return _png(figure)


def reliability(calibration: dict[str, Any]) -> bytes:
    """The share of right detections over their mean score."""
    figure = Figure(figsize=(4.5, 4))
    axes = figure.add_subplot()
    rows = [row for row in calibration["bins"] if row["count"]]
    axes.plot([0, 1], [0, 1], color="0.7", linestyle="--")
    axes.plot([r["score"] for r in rows], [r["precision"] for r in rows], marker="o")
    axes.set(xlabel="mean score", ylabel="share of right detections", xlim=(0, 1), ylim=(0, 1))
    return _png(figure)


def matches_picture(path: str | os.PathLike[str], m: Matched, image: int, score: float) -> Image.Image:
    """An image with its hits (green), false alarms (red) and missed objects (orange).

    Args:
        path: the image file.
        m: a matching.
        image: the image's place in the ground truth's `image_ids`.
        score: smallest score of a detection that is drawn.

    Raises:
        DataError: a file that is no image.
    """
    try:
        with Image.open(path) as file:
            picture = file.convert("RGB")
    except (OSError, ValueError) as error:
        raise DataError(f"cannot read {path}", str(error)) from None
    draw = ImageDraw.Draw(picture)
    names = m.truth.category_names
    sure = (m.found.image == image) & (m.found.score >= score)
    hit = np.zeros(len(m.truth), np.bool_)
    hit[m.taken[sure & m.right]] = True
    for row in np.flatnonzero(m.counts & (m.truth.image == image) & ~hit):
        _box(draw, m.truth.box[row], COLOURS["missed"], names[m.truth.category[row]])
    for side, rows in (("wrong", sure & m.wrong), ("right", sure & m.right)):
        for row in np.flatnonzero(rows):
            label = f"{names[m.found.category[row]]} {m.found.score[row]:.2f}"
            _box(draw, m.found.box[row], COLOURS[side], label)
    return picture


def _box(draw: ImageDraw.ImageDraw, box: Any, colour: tuple[int, int, int], label: str) -> None:
    x, y, w, h = (float(v) for v in box)
    draw.rectangle((x, y, max(x, x + w), max(y, y + h)), outline=colour, width=2)
    corner = (x + 3, max(0.0, y + 2))
    draw.rectangle(draw.textbbox(corner, label), fill=colour)
    draw.text(corner, label, fill="white")
