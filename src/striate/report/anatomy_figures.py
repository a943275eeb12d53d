"""Pictures of an anatomy: the effective receptive field, and accuracy against size and cost."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from striate.anatomy.field import Interval
from striate.errors import UsageError
from striate.files import write_atomic

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def effective_field(
    image: np.ndarray[Any, Any], heat: np.ndarray[Any, Any], box: tuple[Interval, Interval], title: str
) -> Figure:
    """The theoretical receptive field as a box, and what really counts as heat, over the image.

    Args:
        image: uint8 RGB `[height, width, 3]`.
        heat: float `[height, width]` that sums to 1 (`striate.anatomy.effective_field`).
        box: first and last pixel that the unit sees, on rows and on columns; may lie outside the image.
        title: above the picture.
    """
    from matplotlib.figure import Figure
    from matplotlib.patches import Rectangle

    (top, bottom), (left, right) = box
    height, width = heat.shape
    figure = Figure(figsize=(6.4, 6.4), layout="constrained")
    axes = figure.subplots()
    axes.imshow(image.mean(axis=2), cmap="gray", vmin=0, vmax=255)
    # The square root, as a linear scale would show one point: the heat falls off like a Gaussian.
    shown = np.sqrt(heat / heat.max()) if heat.max() > 0 else heat
    axes.imshow(shown, cmap="inferno", alpha=np.clip(shown * 1.6, 0, 0.85), vmin=0, vmax=1)
    axes.add_patch(
        Rectangle(
            (left - 0.5, top - 0.5), right - left + 1, bottom - top + 1, fill=False, edgecolor="#22d3ee", lw=2
        )
    )
    margin = 0.04 * max(height, width)
    axes.set_xlim(min(left, 0) - margin, max(right, width) + margin)
    axes.set_ylim(max(bottom, height) + margin, min(top, 0) - margin)
    axes.set_title(title, fontsize=10)
    axes.set_xlabel(
        f"box: the theoretical field, {bottom - top + 1} x {right - left + 1} pixels; heat: square root of "
        f"the gradient\n{concentration(heat):.1%} of the pixels hold 95 % of it",
        fontsize=9,
    )
    axes.set_xticks([])
    axes.set_yticks([])
    return figure


def concentration(heat: np.ndarray[Any, Any], share: float = 0.95) -> float:
    """The fraction of the pixels that, taken from the hottest down, hold `share` of the heat."""
    ranked = np.sort(heat, axis=None)[::-1].cumsum()
    return float((np.searchsorted(ranked, share * ranked[-1]) + 1) / heat.size)


def accuracy_against_cost(points: list[tuple[str, float, int, int]]) -> Figure:
    """Published accuracy against parameters and against multiply-accumulates.

    Args:
        points: name, top-1 accuracy in percent, parameters, MACs.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 5), layout="constrained")
    families = sorted({_family(name) for name, *_ in points})
    for axes, costs, label in zip(
        figure.subplots(1, 2, sharey=True),
        ([params for _, _, params, _ in points], [macs for *_, macs in points]),
        ("parameters", "multiply-accumulates"),
        strict=True,
    ):
        for (name, accuracy, *_), cost in zip(points, costs, strict=True):
            # Of two neighbours the left one has its label on the left.
            right = any(
                abs(other[1] - accuracy) < 0.6 and cost < further < 4 * cost
                for other, further in zip(points, costs, strict=True)
            )
            axes.plot(cost, accuracy, "o", color=f"C{families.index(_family(name)) % 10}")
            axes.annotate(
                name,
                (cost, accuracy),
                xytext=(-6 if right else 6, 0),
                textcoords="offset points",
                fontsize=7,
                ha="right" if right else "left",
                va="center",
            )
        axes.set_xscale("log")
        axes.margins(x=0.2)
        axes.set_xlabel(label)
        axes.grid(alpha=0.3)
    figure.axes[0].set_ylabel("ImageNet top-1 accuracy, percent (torchvision's V1 weights)")
    return figure


def _family(name: str) -> str:
    return name.split("_")[0].rstrip("0123456789")


def save(figure: Figure, path: Path) -> None:
    """Write a figure, whole or not at all; the suffix says the format.

    Raises:
        UsageError: a suffix of no format.
        DataError: no room or no permission.
    """
    content = io.BytesIO()
    try:
        figure.savefig(content, dpi=130, format=path.suffix.lstrip(".") or "png")
    except ValueError as error:
        raise UsageError(
            f"cannot write {path}", str(error).split("(")[0].strip(), "Use .png or .svg"
        ) from error
    write_atomic(path, content.getvalue())
