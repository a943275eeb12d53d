"""HTML of results in notebooks: tables, bars, small curves and pictures.

Every text that a caller gives is escaped. Styles are attributes of the elements, because notebooks on the web
remove style sheets. Colors suit a light and a dark page: text keeps the page's color, and the others are of
medium lightness, or nearly transparent.
"""

from __future__ import annotations

import html
import math
from collections.abc import Mapping, Sequence
from typing import Any

from striate.printable import escaped

COLORS = ("#4a8fd9", "#d9822b")  # of curves and bars: about 3:1 against white and against black
RULE = "rgba(128,128,128,0.35)"
_WIDTH, _HEIGHT, _LEFT, _BOTTOM, _TOP = 300, 130, 44, 20, 8  # of a chart and its margins


class Markup(str):
    """HTML that is already escaped."""

    __slots__ = ()


def text(value: object) -> Markup:
    """A value as text; control characters are shown as escapes."""
    return value if isinstance(value, Markup) else Markup(html.escape(escaped(value)))


def shown(value: Any) -> Markup:
    """The HTML of a value that has some, otherwise its `repr`."""
    own = getattr(value, "_repr_html_", None)
    return Markup(own()) if own else Markup(f"<pre>{text(repr(value))}</pre>")


def panel(*parts: str) -> Markup:
    """The parts below each other."""
    return Markup(f'<div style="font-size:13px;line-height:1.4;max-width:900px">{"".join(parts)}</div>')


def title(words: object) -> Markup:
    """A heading."""
    return Markup(f'<div style="font-weight:600;margin:8px 0 4px">{text(words)}</div>')


def note(words: object) -> Markup:
    """A small paragraph."""
    return Markup(f'<div style="font-size:12px;opacity:0.8;margin:2px 0">{text(words)}</div>')


def side_by_side(*parts: str) -> Markup:
    """The parts next to each other, on several lines if the page is narrow."""
    inner = "".join(f"<div>{part}</div>" for part in parts)
    return Markup(f'<div style="display:flex;flex-wrap:wrap;gap:12px;align-items:flex-start">{inner}</div>')


def facts(values: Mapping[str, object]) -> Markup:
    """Names and their values."""
    return table((), [(Markup(f'<span style="opacity:0.75">{text(n)}</span>'), v) for n, v in values.items()],
                 left=2)  # fmt: skip


def table(titles: Sequence[object], rows: Sequence[Sequence[object]], left: int = 1) -> Markup:
    """A table; the first `left` columns hold texts, the others numbers."""

    def cells(row: Sequence[object], tag: str) -> str:
        style = f"padding:2px 8px;border:0;border-bottom:1px solid {RULE};background:transparent"
        return "".join(
            f'<{tag} style="{style};text-align:{"left" if i < left else "right"}">{text(value)}</{tag}>'
            for i, value in enumerate(row)
        )

    head = f"<thead><tr>{cells(titles, 'th')}</tr></thead>" if titles else ""
    body = "".join(f"<tr>{cells(row, 'td')}</tr>" for row in rows)
    style = "border-collapse:collapse;margin:4px 0;font-size:12px;color:inherit"
    return Markup(f'<table style="{style}">{head}<tbody>{body}</tbody></table>')


def bar(share: float, width: int = 120) -> Markup:
    """A horizontal bar for a share from 0 to 1."""
    pixels = round(width * min(1.0, max(0.0, share))) if math.isfinite(share) else 0
    style = f"display:inline-block;height:9px;width:{pixels}px;background:{COLORS[0]};border-radius:2px"
    return Markup(f'<span style="display:inline-block;width:{width}px"><span style="{style}"></span></span>')


def heat_map(titles: Sequence[object], counts: Sequence[Sequence[int]]) -> Markup:
    """A matrix of counts; the darker a cell, the larger its share of its row."""
    cell = f"padding:2px 5px;min-width:22px;text-align:center;border:1px solid {RULE}"
    head = "".join(f'<th style="{cell};font-weight:400">{text(name)}</th>' for name in titles)
    body = ""
    for name, row in zip(titles, counts, strict=True):
        total = max(1, sum(row))
        shares = (
            f'<td style="{cell};background:rgba(74,143,217,{0.75 * count / total:.2f})">{count or ""}</td>'
            for count in row
        )
        body += f'<tr><th style="{cell};font-weight:400;text-align:right">{text(name)}</th>'
        body += f"{''.join(shares)}</tr>"
    style = "border-collapse:collapse;margin:4px 0;font-size:11px;color:inherit"
    return Markup(f'<table style="{style}"><tr><th style="{cell}"></th>{head}</tr>{body}</table>')


def picture(url: str, caption: object, pixels: int = 64) -> Markup:
    """An image and a caption below it; small images are enlarged without blurring.

    Args:
        url: a data URL.
        caption: one line of text.
        pixels: width and height of the square that the image fits into.
    """
    image = f"width:{pixels}px;height:{pixels}px;object-fit:contain;image-rendering:pixelated"
    return Markup(
        '<figure style="margin:0;font-size:11px;text-align:center;max-width:110px">'
        f'<img src="{text(url)}" alt="" style="{image}">'
        f'<figcaption style="overflow-wrap:anywhere">{text(caption)}</figcaption></figure>'
    )


def curves(label: str, steps: Sequence[int], series: Mapping[str, Sequence[float | None]]) -> Markup:
    """A line chart of one or two series as SVG; values that are None or not finite leave gaps.

    Args:
        label: its heading.
        steps: the numbers of the horizontal axis, such as epochs, at least one.
        series: a value for each step, by the name of the series.
    """
    finite = [v for values in series.values() for v in values if v is not None and math.isfinite(v)]
    if not finite:
        return Markup("")
    low, high = min(finite), max(finite)
    span = (high - low) or 1.0
    across = (steps[-1] - steps[0]) or 1
    lines = ""
    for color, values in zip(COLORS, series.values(), strict=False):
        command, path = "M", ""
        for step, value in zip(steps, values, strict=True):
            if value is None or not math.isfinite(value):
                command = "M"
                continue
            x = _LEFT + (_WIDTH - _LEFT - 8) * (step - steps[0]) / across
            y = _TOP + (_HEIGHT - _TOP - _BOTTOM) * (high - value) / span
            path += f"{command}{x:.1f} {y:.1f}" + ("h0" if command == "M" else "")  # a single value is a dot
            command = "L"
        lines += f'<path d="{path}" fill="none" stroke="{color}" stroke-width="2" stroke-linecap="round"/>'
    floor = _HEIGHT - _BOTTOM
    words = "".join(
        f'<text x="{x}" y="{y}" text-anchor="{anchor}" fill="currentColor" font-size="10">{word}</text>'
        for x, y, anchor, word in (
            (_LEFT - 4, _TOP + 8, "end", f"{high:.3g}"), (_LEFT - 4, floor, "end", f"{low:.3g}"),
            (_LEFT, _HEIGHT - 6, "start", steps[0]), (_WIDTH - 8, _HEIGHT - 6, "end", steps[-1]),
        )
    )  # fmt: skip
    axes = f'<path d="M{_LEFT} {_TOP}V{floor}H{_WIDTH - 8}" fill="none" stroke="currentColor" opacity="0.4"/>'
    key = "".join(
        f' <span style="color:{color}">&#9632;</span> {text(name.replace("_", " "))}'
        for color, name in zip(COLORS, series, strict=False)
    )
    size = f'width="{_WIDTH}" height="{_HEIGHT}"'
    return Markup(
        f'<div style="font-size:12px">{text(label)}{key if len(series) > 1 else ""}</div>'
        f'<svg {size} role="img" aria-label="{text(label)}">{axes}{lines}{words}</svg>'
    )
