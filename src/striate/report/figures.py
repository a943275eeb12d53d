"""Draw the figures of a report with matplotlib, without a display and without its global state.

`draw` takes the records of `striate.charts` that may name a file.
"""

from __future__ import annotations

import contextlib
import functools
import io
import warnings
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from striate import charts
from striate.report.drawing import defaults, new_figure  # before matplotlib: imports it in any environment

# isort: split
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import fontManager
from matplotlib.ticker import MaxNLocator, PercentFormatter

BLUE, ORANGE, GRAY, INK = "#2563eb", "#ea580c", "#6b7280", "#1f2937"
MAX_CLASS_NAMES = 40  # more do not fit next to a confusion matrix
MAX_CURVE_NAMES = 10  # more do not fit in the legend of precision-recall curves
MAX_ATTENTION_TOKENS = 40  # of source and of answer
MAX_ATTENTION_IMAGES = 12

# Class names can be in any script; matplotlib takes each letter from the first of these fonts that has it.
_FONTS = (
    "DejaVu Sans", "Noto Sans CJK SC", "Noto Sans CJK JP", "PingFang SC", "Hiragino Sans GB",
    "Microsoft YaHei", "WenQuanYi Micro Hei", "Arial Unicode MS",
)  # fmt: skip


def png(figure: Figure) -> bytes:
    """Encode a figure as PNG."""
    buffer = io.BytesIO()
    with style(), warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # a letter that no installed font has becomes a box
        figure.savefig(buffer, format="png", dpi=130, bbox_inches="tight", facecolor="white")
    return buffer.getvalue()


def style() -> contextlib.AbstractContextManager[None]:
    """Return the context in which all figures of reports are drawn: fonts, colors, spines."""
    installed = set(fontManager.get_font_names())
    values: dict[Any, Any] = {
        "font.size": 10,
        "font.family": "sans-serif",
        "font.sans-serif": [name for name in _FONTS if name in installed],
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.edgecolor": GRAY,
        "axes.titlesize": 11,
        "axes.titlelocation": "left",
    }
    return defaults(values)


def one_plot(width: float, height: float) -> tuple[Figure, Axes]:
    """Create a figure of this size in inches, with one pair of axes."""
    figure = new_figure(width, height)
    return figure, figure.add_subplot()


def draw(block: charts.Figure) -> Figure:
    """Draw a figure record.

    Raises:
        NotImplementedError: a record that this renderer does not know.
    """
    with style():
        return _draw(block)


@functools.singledispatch
def _draw(block: charts.Figure) -> Figure:
    raise NotImplementedError(f"no drawing for {type(block).__name__}")


@_draw.register
def _curves(block: charts.Curves) -> Figure:
    figure = new_figure(4.5 * len(block.panels), 3.2)
    marker = "o" if len(block.epochs) < 3 else None
    panels = list(np.atleast_1d(figure.subplots(1, len(block.panels))))
    for axes, panel in zip(panels, block.panels, strict=True):
        colors = iter((BLUE, ORANGE, INK))
        for line in panel.lines:
            color = GRAY if line.label.startswith("train") else next(colors)
            axes.plot(block.epochs, line.values, color=color, marker=marker, label=line.label)
        if block.best_epoch is not None:
            label = f"best: epoch {block.best_epoch}"
            axes.axvline(block.best_epoch, color=ORANGE, lw=1, ls=":", label=label)
        axes.set(title=panel.title, xlabel="epoch")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        axes.margins(y=0.1)
        if panel.share:
            axes.yaxis.set_major_formatter(PercentFormatter(1))
        else:
            axes.set_ylim(bottom=0)
        if len(block.epochs) == 1:
            axes.set_xlim(block.epochs[0] - 1, block.epochs[0] + 1)
        axes.grid(axis="y", alpha=0.25)
        axes.legend(frameon=False, loc="best")
    return figure


@_draw.register
def _confusion_matrix(block: charts.ConfusionMatrix) -> Figure:
    """Color shows shares of the row, text shows counts."""
    counts, names = block.counts, [_label(name) for name in block.names]
    side = min(12.0, max(3.6, 0.45 * len(names) + 1.6))
    figure, axes = one_plot(side, side)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    axes.set(title="Confusion matrix", xlabel="predicted", ylabel="true")
    axes.spines[:].set_visible(False)
    if len(names) > MAX_CLASS_NAMES:
        return figure
    axes.set_xticks(range(len(names)), names, rotation=45, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(len(names)), names)
    for row, column in np.argwhere(counts > 0):
        color = "white" if shares[row, column] > 0.55 else INK
        axes.text(column, row, str(counts[row, column]), ha="center", va="center", color=color, fontsize=9)
    return figure


@_draw.register
def _reliability(block: charts.Reliability) -> Figure:
    """A bar for each bin of confidences, more opaque for bins with more predictions."""
    figure, axes = one_plot(3.6, 3.6)
    axes.plot([0, 1], [0, 1], color=GRAY, lw=1, ls=":")
    total = max(1, sum(item.count for item in block.bins))
    for item in block.bins:
        if item.accuracy is not None:
            width, alpha = 0.9 * (item.high - item.low), 0.35 + 0.6 * item.count / total
            axes.bar((item.low + item.high) / 2, item.accuracy, width=width, color=BLUE, alpha=alpha)
    axes.set(title=f"Calibration (ECE {block.ece:.3f})", xlabel=block.confidence, ylabel=block.accuracy)
    axes.set(xlim=(0, 1), ylim=(0, 1))
    return figure


@_draw.register
def _image_grid(block: charts.ImageGrid) -> Figure:
    columns = min(block.columns, len(block.images))
    rows = -(-len(block.images) // columns)
    lines = max(map(len, block.captions))
    # Inches of a cell, points of a caption, characters of its lines.
    cell, font, longest = (1.75, 9, 18) if block.columns <= 6 else (9 / block.columns, 7, 14)
    size = (cell * columns, (cell + 0.2 * lines) * rows)
    figure = new_figure(*size)
    cells: list[Axes] = list(np.atleast_1d(figure.subplots(rows, columns)).flat)
    for axes in cells:
        axes.axis("off")
    for axes, image, caption in zip(cells, block.images, block.captions, strict=False):
        axes.imshow(image.squeeze(), cmap="gray", vmin=0, vmax=255, interpolation="nearest")
        text = "\n".join(_label(line, longest) for line in caption)
        axes.set_title(text, fontsize=font, loc="center", color=INK, pad=3)
    return figure


@_draw.register
def _gallery(block: charts.Gallery) -> Figure:
    if block.worst is None:
        return new_figure(1, 1)
    return _image_grid(block.worst)


@_draw.register
def _attention_map(block: charts.AttentionMap) -> Figure:
    """A row for each token of the answer, a column for each token of the source."""
    weights = block.weights[:MAX_ATTENTION_TOKENS, :MAX_ATTENTION_TOKENS]
    rows, columns = weights.shape
    figure, axes = one_plot(0.3 * columns + 1.6, 0.27 * rows + 1.2)
    axes.imshow(weights, cmap="Blues", vmin=0, aspect="auto")
    axes.set_xticks(range(columns), [_token(token) for token in block.source[:columns]], rotation=90)
    axes.set_yticks(range(rows), [_token(token) for token in block.target[:rows]])
    axes.xaxis.tick_top()
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    return figure


@_draw.register
def _image_attention(block: charts.ImageAttention) -> Figure:
    """The image once for each token of the answer, under its attention."""
    weights = block.weights[:MAX_ATTENTION_IMAGES]
    height, width = block.image.shape[:2]
    size = (3.2 * min(4.0, max(1.0, width / height / 3)), 0.75 * len(weights) + 0.3)
    figure = new_figure(*size)
    cells = np.atleast_1d(figure.subplots(len(weights), 1)).flat
    for axes, weight, token in zip(cells, weights, block.target, strict=False):
        axes.imshow(block.image.squeeze(), cmap="gray", vmin=0, vmax=255, interpolation="nearest")
        heat = _resized(weight, height, width)
        axes.imshow(heat, cmap="Oranges", alpha=0.75 * heat / max(float(heat.max()), 1e-9))
        axes.set_ylabel(_token(token), rotation=0, ha="right", va="center", color=BLUE)
        axes.set(xticks=[], yticks=[])
        axes.spines[:].set_visible(False)
    return figure


@_draw.register
def _precision_recall(block: charts.PrecisionRecall) -> Figure:
    figure, axes = one_plot(6, 4.5)
    named = 0 < len(block.curves) <= MAX_CURVE_NAMES
    for name, recall, precision in block.curves:
        line: dict[str, Any] = {"lw": 1.5, "label": _label(name)} if named else {"lw": 0.6, "color": GRAY}
        axes.plot(recall, precision, alpha=0.7, **line)
    axes.set(xlabel="recall", ylabel="precision", xlim=(0, 1), ylim=(0, 1.02))
    if named:
        axes.legend(fontsize=8)
    return figure


def _resized(weights: npt.NDArray[Any], height: int, width: int) -> npt.NDArray[np.float32]:
    image = Image.fromarray(weights.astype(np.float32))
    return np.asarray(image.resize((width, height), Image.Resampling.BILINEAR))


def _label(name: str, longest: int = 18) -> str:
    """Shorten a name, and escape dollar signs, which matplotlib would read as a formula."""
    text = name if len(name) <= longest else f"{name[: longest - 1]}…"
    return text.replace("$", r"\$")


def _token(token: str) -> str:
    return "␣" if token == " " else token.replace("$", r"\$")
