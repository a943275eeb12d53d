"""Figures of a run, drawn without a display and without touching matplotlib's global state."""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import fontManager
from matplotlib.ticker import MaxNLocator, PercentFormatter

from striate.inference.evaluation import Evaluation
from striate.training.tally import EpochResult

BLUE, ORANGE, GRAY, INK = "#2563eb", "#ea580c", "#6b7280", "#1f2937"
MOST_CLASSES = 40  # a confusion matrix of more has no room for names

# Class names are in any script; matplotlib takes each letter from the first of these that has it.
_FONTS = (
    "DejaVu Sans", "Noto Sans CJK SC", "Noto Sans CJK JP", "PingFang SC", "Hiragino Sans GB",
    "Microsoft YaHei", "WenQuanYi Micro Hei", "Arial Unicode MS",
)  # fmt: skip


def png(figure: Figure) -> bytes:
    """The figure as PNG bytes."""
    buffer = io.BytesIO()
    with style(), warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of a letter that no font here has: a box shows it
        figure.savefig(buffer, format="png", dpi=130, bbox_inches="tight", facecolor="white")
    return buffer.getvalue()


def curves(epochs: Sequence[EpochResult], best_epoch: int) -> Figure:
    """Loss and accuracy over the epochs, training beside validation, the best epoch marked."""
    with style():
        figure = Figure(figsize=(9, 3.2), layout="constrained")
        left, right = figure.subplots(1, 2)
        x = [row.epoch for row in epochs]
        marker = "o" if len(x) < 3 else None
        panels = ((left, "loss", "Loss (cross-entropy, nats)"), (right, "top1", "Accuracy (top-1)"))
        for axes, what, title in panels:
            for part, color in (("train", GRAY), ("val", BLUE)):
                y = [getattr(row, f"{part}_{what}") for row in epochs]
                axes.plot(x, y, color=color, marker=marker, label=part)
            axes.axvline(best_epoch, color=ORANGE, lw=1, ls=":", label=f"best: epoch {best_epoch}")
            axes.set(title=title, xlabel="epoch")
            axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
            axes.margins(y=0.1)
            axes.grid(axis="y", alpha=0.25)
        right.yaxis.set_major_formatter(PercentFormatter(1))
        if len(x) == 1:  # a range to stand in
            left.set(xlim=(0, 2), ylim=(0, 1.1 * max(epochs[0].train_loss, epochs[0].val_loss)))
            right.set(xlim=(0, 2), ylim=(0, 1.02))
        left.set_ylim(bottom=0)
        right.legend(frameon=False, loc="best")
    return figure


def confusion(evaluation: Evaluation) -> Figure:
    """The confusion matrix: a row for each true class, shares of the row as colour, counts as text."""
    counts = evaluation.confusion
    names = [_short(name) for name in evaluation.classes]
    side = min(12.0, max(3.6, 0.45 * len(names) + 1.6))
    with style():
        figure = Figure(figsize=(side, side), layout="constrained")
        axes = figure.add_subplot()
        shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
        axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
        axes.set(title="Confusion matrix", xlabel="predicted", ylabel="true")
        axes.spines[:].set_visible(False)
        if len(names) > MOST_CLASSES:
            return figure
        axes.set_xticks(range(len(names)), names, rotation=45, ha="right", rotation_mode="anchor")
        axes.set_yticks(range(len(names)), names)
        for row, column in np.argwhere(counts > 0):
            color = "white" if shares[row, column] > 0.55 else INK
            axes.text(
                column, row, str(counts[row, column]), ha="center", va="center", color=color, fontsize=9
            )
    return figure


def calibration(evaluation: Evaluation, bins: int = 10) -> Figure:
    """Reliability diagram (Guo et al. 2017, figure 1): accuracy of the images of each confidence."""
    confidence = evaluation.probabilities.max(axis=1)
    right = evaluation.predicted == evaluation.labels
    which = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
    with style():
        figure = Figure(figsize=(3.6, 3.6), layout="constrained")
        axes = figure.add_subplot()
        axes.plot([0, 1], [0, 1], color=GRAY, lw=1, ls=":")
        for i in range(bins):
            mine = which == i
            if mine.any():
                strength = 0.35 + 0.6 * mine.mean()  # fuller where there are more images
                axes.bar((i + 0.5) / bins, right[mine].mean(), width=0.9 / bins, color=BLUE, alpha=strength)
        axes.set(title=f"Calibration (ECE {evaluation.ece:.3f})", xlabel="confidence", ylabel="accuracy")
        axes.set(xlim=(0, 1), ylim=(0, 1))
    return figure


def worst_mistakes(evaluation: Evaluation, most: int = 24) -> Figure | None:
    """The wrong predictions that the model was surest of, each with what it said and what is true.

    Returns:
        None where there is no mistake.
    """
    predicted = evaluation.predicted
    confidence = evaluation.probabilities.max(axis=1)
    wrong = np.flatnonzero(predicted != evaluation.labels)
    wrong = wrong[np.argsort(-confidence[wrong], kind="stable")][:most]
    if not len(wrong):
        return None
    columns = min(6, len(wrong))
    rows = -(-len(wrong) // columns)
    with style():
        figure = Figure(figsize=(1.75 * columns, 2.15 * rows), layout="constrained")
        cells: list[Axes] = list(np.atleast_1d(figure.subplots(rows, columns)).flat)
        for axes in cells:
            axes.axis("off")
        for axes, i in zip(cells, wrong, strict=False):
            image = evaluation.images[i].squeeze()  # grayscale has one axis too many for imshow
            axes.imshow(image, cmap="gray", vmin=0, vmax=255, interpolation="nearest")
            said, true = evaluation.classes[predicted[i]], evaluation.classes[evaluation.labels[i]]
            title = f"{_short(said)} {confidence[i]:.0%}\nis {_short(true)}"
            axes.set_title(title, fontsize=9, loc="center", color=INK)
    return figure


def style() -> contextlib.AbstractContextManager[None]:
    """What all figures look like."""
    installed = set(fontManager.get_font_names())
    style: dict[Any, Any] = {
        "font.size": 10,
        "font.family": "sans-serif",
        "font.sans-serif": [name for name in _FONTS if name in installed],
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.edgecolor": GRAY,
        "axes.titlesize": 11,
        "axes.titlelocation": "left",
    }
    return rc_context(style)


def _short(name: str, most: int = 18) -> str:
    text = name if len(name) <= most else f"{name[: most - 1]}…"
    return text.replace("$", r"\$")  # matplotlib would take dollar signs for a formula
