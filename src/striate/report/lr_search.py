"""Write and draw the result of a learning rate search."""

from __future__ import annotations

from pathlib import Path

from striate.csv_file import csv_bytes
from striate.files import write_atomic
from striate.report.drawing import Figure
from striate.report.figures import BLUE, GRAY, ORANGE, one_plot, png, style
from striate.training.lr_finder import LRSearch


def write_lr_search(found: LRSearch) -> Path:
    """Write `lr.csv` and `lr.png`; returns the path of the figure.

    Raises:
        DataError: the folder cannot be written to.
    """
    rows = zip(found.lrs.tolist(), found.losses.tolist(), found.smooth.tolist(), strict=True)
    write_atomic(found.folder / "lr.csv", csv_bytes(("lr", "loss", "smooth"), rows))
    path = found.folder / "lr.png"
    write_atomic(path, png(plot(found)))
    return path


def plot(found: LRSearch) -> Figure:
    """Plot loss against learning rate, with the suggested rate marked."""
    with style():
        figure, axes = one_plot(6, 3.4)
        axes.plot(found.lrs, found.losses, color=GRAY, lw=0.8, alpha=0.6, label="batch")
        axes.plot(found.lrs, found.smooth, color=BLUE, lw=2, label="smoothed")
        axes.axvline(found.lr, color=ORANGE, lw=1.5, label=f"suggested: {found.lr:.2g}")
        axes.axvline(found.lowest, color=ORANGE, lw=1, ls=":", label=f"lowest loss: {found.lowest:.2g}")
        low, first = found.losses.min(), found.smooth[0]
        axes.set(xscale="log", xlabel="learning rate", ylabel="loss (nats)")
        axes.set(ylim=(0.9 * low, first + 0.6 * (first - 0.9 * low)))
        axes.set_title(f"{found.model}: loss against learning rate")
        axes.grid(alpha=0.25)
        axes.legend(frameon=False, loc="best")
    return figure
