"""Draw effective receptive fields, and accuracy against parameters and MACs."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np

from striate.anatomy.receptive_fields import Interval
from striate.errors import UsageError
from striate.files import write_atomic
from striate.report.drawing import defaults, new_figure  # before matplotlib: imports it in any environment

# isort: split
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle


@defaults()
def effective_field(
    image: np.ndarray[Any, Any], heat: np.ndarray[Any, Any], box: tuple[Interval, Interval], title: str
) -> Figure:
    """Draw the theoretical receptive field as a box and the effective one as heat over the image.

    Args:
        image: uint8 RGB `[height, width, 3]`.
        heat: float `[height, width]` that sums to 1 (`striate.anatomy.effective_field`).
        box: first and last pixel of the receptive field, on rows and on columns; may lie outside the image.
        title: of the figure.
    """
    (top, bottom), (left, right) = box
    height, width = heat.shape
    figure = new_figure(6.4, 6.4)
    axes = figure.subplots()
    axes.imshow(image.mean(axis=2), cmap="gray", vmin=0, vmax=255)
    # A linear scale would show a single point, because the heat falls off like a Gaussian.
    shown = np.sqrt(heat / heat.max()) if heat.max() > 0 else heat
    axes.imshow(shown, cmap="inferno", alpha=np.clip(shown * 1.6, 0, 0.85), vmin=0, vmax=1)
    corner, columns, rows = (left - 0.5, top - 0.5), right - left + 1, bottom - top + 1
    axes.add_patch(Rectangle(corner, columns, rows, fill=False, edgecolor="#22d3ee", lw=2))
    margin = 0.04 * max(height, width)
    axes.set_xlim(min(left, 0) - margin, max(right, width) + margin)
    axes.set_ylim(max(bottom, height) + margin, min(top, 0) - margin)
    axes.set_title(title.replace("$", r"\$"), fontsize=10)  # not a formula
    axes.set_xlabel(
        f"box: theoretical receptive field, {rows} x {columns} pixels; heat: square "
        f"root of the gradient\n{concentration(heat):.1%} of the pixels hold 95 % of the gradient",
        fontsize=9,
    )
    axes.set(xticks=[], yticks=[])
    return figure


def concentration(heat: np.ndarray[Any, Any], share: float = 0.95) -> float:
    """Return the smallest fraction of the pixels that holds `share` of the heat."""
    ranked = np.sort(heat, axis=None)[::-1].cumsum()
    return float((np.searchsorted(ranked, share * ranked[-1]) + 1) / heat.size)


@defaults()
def accuracy_against_cost(points: list[tuple[str, float, int, int]]) -> Figure:
    """Plot published accuracy against parameters and against multiply-accumulates.

    Args:
        points: name, top-1 accuracy in percent, parameters, MACs.
    """
    figure = new_figure(11, 5)
    families = sorted({_family(name) for name, *_ in points})
    labels = ("parameters", "multiply-accumulates")
    values = ([params for *_, params, _ in points], [macs for *_, macs in points])
    for axes, costs, label in zip(figure.subplots(1, 2, sharey=True), values, labels, strict=True):
        for (name, accuracy, *_), cost in zip(points, costs, strict=True):
            # The left one of two close points gets its label on the left.
            right = any(
                abs(other[1] - accuracy) < 0.6 and cost < further < 4 * cost
                for other, further in zip(points, costs, strict=True)
            )
            axes.plot(cost, accuracy, "o", color=f"C{families.index(_family(name)) % 10}")
            offset, side = (-6, "right") if right else (6, "left")
            axes.annotate(
                name, (cost, accuracy), xytext=(offset, 0), textcoords="offset points", fontsize=7,
                ha=side, va="center",
            )  # fmt: skip
        axes.set_xscale("log")
        axes.margins(x=0.2)
        axes.set_xlabel(label)
        axes.grid(alpha=0.3)
    figure.axes[0].set_ylabel("ImageNet top-1 accuracy, percent (torchvision's V1 weights)")
    return figure


def _family(name: str) -> str:
    return name.split("_")[0].rstrip("0123456789")


@defaults()
def save(figure: Figure, path: Path) -> None:
    """Write a figure atomically, in the format of the suffix.

    Raises:
        UsageError: no format has this suffix.
        DataError: the file cannot be written.
    """
    content = io.BytesIO()
    try:
        figure.savefig(content, dpi=130, format=path.suffix.lstrip(".") or "png")
    except ValueError as error:
        raise UsageError(
            f"cannot write {path}", str(error).split("(")[0].strip(), "Use .png or .svg"
        ) from error
    write_atomic(path, content.getvalue())
