"""The picture of a search for a learning rate."""

from __future__ import annotations

import csv
import io
from pathlib import Path

from matplotlib.figure import Figure

from striate.files import write_atomic
from striate.report.figures import BLUE, GRAY, ORANGE, png, style
from striate.training.finder import RateSearch


def write_rates(found: RateSearch) -> Path:
    """Write `lr.csv` and `lr.png`; returns the path of the picture.

    Raises:
        DataError: the folder cannot be written to.
    """
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["rate", "loss", "smooth"])
    writer.writerows(zip(found.rates.tolist(), found.losses.tolist(), found.smooth.tolist(), strict=True))
    write_atomic(found.folder / "lr.csv", text.getvalue().encode())
    path = found.folder / "lr.png"
    write_atomic(path, png(rates(found)))
    return path


def rates(found: RateSearch) -> Figure:
    """Loss against rate, with the suggestion marked."""
    with style():
        figure = Figure(figsize=(6, 3.4), layout="constrained")
        axes = figure.add_subplot()
        axes.plot(found.rates, found.losses, color=GRAY, lw=0.8, alpha=0.6, label="of each batch")
        axes.plot(found.rates, found.smooth, color=BLUE, lw=2, label="smooth")
        axes.axvline(found.rate, color=ORANGE, lw=1.5, label=f"suggested: {found.rate:.2g}")
        axes.axvline(found.lowest, color=ORANGE, lw=1, ls=":", label=f"lowest loss: {found.lowest:.2g}")
        low, first = found.losses.min(), found.smooth[0]
        axes.set(xscale="log", xlabel="learning rate", ylabel="loss (nats)")
        axes.set(
            title=f"{found.model}: the loss as the rate rises",
            ylim=(0.9 * low, first + 0.6 * (first - 0.9 * low)),
        )
        axes.grid(alpha=0.25)
        axes.legend(frameon=False, loc="best")
    return figure
