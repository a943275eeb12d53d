"""Figures of a run on pairs: curves, and where the decoder looked."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter
from PIL import Image

from striate.inference.translator import Answer
from striate.report.figures import BLUE, GRAY, ORANGE, style
from striate.training.seq2seq.job import SeqRow
from striate.transforms.decode import Uint8Array

MOST_TOKENS = 40  # of a side in a picture of attention
MOST_LOOKS = 12  # tokens of an answer that are shown over an image


def curves(rows: Sequence[SeqRow], best_epoch: int) -> Figure:
    """Loss, and errors of the answers, over the epochs; the best epoch marked."""
    with style():
        figure = Figure(figsize=(9, 3.2), layout="constrained")
        left, right = figure.subplots(1, 2)
        x = [row.epoch for row in rows]
        marker = "o" if len(x) < 3 else None
        for name, label, color in (
            ("train_loss", "train (with label smoothing)", GRAY), ("val_loss", "val", BLUE)
        ):  # fmt: skip
            left.plot(x, [getattr(row, name) for row in rows], color=color, marker=marker, label=label)
        for name, label, color in (
            ("val_error", "error rate in tokens", BLUE), ("val_exact", "exact answers", ORANGE)
        ):  # fmt: skip
            right.plot(x, [getattr(row, name) for row in rows], color=color, marker=marker, label=label)
        left.set(title="Loss (nats a token)", xlabel="epoch")
        right.set(title="Answers on val", xlabel="epoch")
        right.yaxis.set_major_formatter(PercentFormatter(1))
        for axes in (left, right):
            axes.axvline(best_epoch, color=GRAY, lw=1, ls=":")
            axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
            axes.set_ylim(bottom=0)
            axes.grid(axis="y", alpha=0.25)
            axes.legend(frameon=False, loc="best")
    return figure


def attention(source: Sequence[str], answer: Answer) -> Figure:
    """A row for each token of the answer, a column for each of the source; dark is where it looked."""
    assert answer.attention is not None
    weights = answer.attention.numpy()[:MOST_TOKENS, : min(len(source), MOST_TOKENS)]  # without padding
    rows, columns = weights.shape
    with style():
        figure = Figure(figsize=(0.3 * columns + 1.6, 0.27 * rows + 1.2), layout="constrained")
        axes = figure.add_subplot()
        axes.imshow(weights, cmap="Blues", vmin=0, aspect="auto")
        axes.set_xticks(range(columns), [_plain(token) for token in source[:columns]], rotation=90)
        axes.set_yticks(range(rows), [_plain(token) for token in answer.tokens[:rows]])
        axes.xaxis.tick_top()
        axes.spines[:].set_visible(False)
        axes.tick_params(length=0)
    return figure


def attention_over(image: Uint8Array, answer: Answer, grid: tuple[int, int]) -> Figure:
    """The image once for each token of the answer, with a light where the decoder looked.

    Args:
        image: uint8 `[height, width, channels]`, as the network saw it.
        answer: with attention.
        grid: rows and columns of the places that the decoder sees.
    """
    assert answer.attention is not None
    weights = answer.attention.numpy()[:MOST_LOOKS]
    height, width = image.shape[:2]
    with style():
        size = (3.2 * min(4.0, max(1.0, width / height / 3)), 0.75 * len(weights) + 0.3)
        figure = Figure(figsize=size, layout="constrained")
        cells = np.atleast_1d(figure.subplots(len(weights), 1)).flat
        for axes, look, token in zip(cells, weights, answer.tokens, strict=False):
            axes.imshow(image.squeeze(), cmap="gray", vmin=0, vmax=255, interpolation="nearest")
            light = _enlarged(look[: grid[0] * grid[1]].reshape(grid), height, width)
            axes.imshow(light, cmap="Oranges", alpha=0.75 * light / max(float(light.max()), 1e-9))
            axes.set_ylabel(_plain(token), rotation=0, ha="right", va="center", color=BLUE)
            axes.set(xticks=[], yticks=[])
            axes.spines[:].set_visible(False)
    return figure


def _enlarged(grid: npt.NDArray[np.float32], height: int, width: int) -> npt.NDArray[np.float32]:
    picture = Image.fromarray(grid.astype(np.float32))
    return np.asarray(picture.resize((width, height), Image.Resampling.BILINEAR))


def _plain(token: str) -> str:
    return {" ": "␣"}.get(token, token).replace("$", r"\$")
