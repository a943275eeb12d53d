"""Format an `Anatomy` as text, CSV, Markdown or JSON, and compare several."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from fractions import Fraction
from typing import TYPE_CHECKING, Any

from striate import markup
from striate.csv_file import csv_bytes
from striate.printable import escaped

if TYPE_CHECKING:
    from striate.anatomy.records import Anatomy, Layer

    Column = tuple[str, Callable[[Layer], str], int]

CONVENTION = "one MAC is a multiply-add; only convolutions and matrix products are counted"


def collapse(anatomy: Anatomy, depth: int | None) -> list[Layer]:
    """Merge layers that are more than `depth` modules deep into the module that contains them.

    Args:
        anatomy: of a network.
        depth: levels of modules to keep; None for all.
    """
    rows: list[Layer] = []
    group = ""
    for layer in anatomy.layers:
        parts = layer.name.split(".")
        if depth is None or len(parts) <= depth:
            rows.append(layer)
            group = ""
            continue
        name = ".".join(parts[:depth])
        if name == group:
            before = rows.pop()
        else:
            before = replace(layer, params=0, macs=0, activation=0)
            group = name
        merged: dict[str, Any] = {"name": name, "type": anatomy.modules.get(name, ""), "shared": False}
        merged |= dict.fromkeys(("kernel", "stride", "padding", "dilation", "groups"))
        for key in ("params", "macs", "activation"):
            merged[key] = getattr(before, key) + getattr(layer, key)
        rows.append(replace(layer, inputs=before.inputs, **merged))
    return rows


def plain(values: Sequence[Any] | None) -> Any:
    """One number if all axes have the same, otherwise a list; None for no values.

    Fractions become integers or floats.
    """
    if not values:
        return None
    numbers = [
        (int(value) if value.denominator == 1 else float(value)) if isinstance(value, Fraction) else value
        for value in values
    ]
    return numbers[0] if all(number == numbers[0] for number in numbers) else numbers


def to_dict(anatomy: Anatomy, depth: int | None = None) -> dict[str, Any]:
    """The JSON object of `striate anatomy --json`.

    Returns:
        `model`, `input`, `params` (used ones), `total_params`, `trainable`, `buffers`, `macs`,
        `activation_bytes`, `unused`, `uncounted`, `untracked`, and `layers`: `name`, `type`, `output` (batch
        included), `kernel`, `stride`, `padding`, `dilation`, `groups`, `rf`, `whole_image` (whether a global
        path extends the receptive field to the whole image), `jump`, `start`, `params`, `macs`,
        `activation_bytes`, `inputs` (indices of layers; -1 is the network's input), `shared`. Values are
        lists if they differ between the image axes, otherwise one number.
    """
    return {
        "model": anatomy.model, "input": [list(shape) for shape in anatomy.input], "params": anatomy.params,
        "total_params": anatomy.total_params, "trainable": anatomy.trainable, "buffers": anatomy.buffers,
        "macs": anatomy.macs, "activation_bytes": anatomy.activation, "unused": anatomy.unused,
        "uncounted": anatomy.uncounted, "untracked": anatomy.untracked,
        "layers": [_layer(layer, depth is None) for layer in collapse(anatomy, depth)],
    }  # fmt: skip


def _layer(layer: Layer, inputs: bool) -> dict[str, Any]:
    """One layer of `to_dict`; its inputs are indices, which are wrong for merged layers."""
    return {
        "name": layer.name, "type": layer.type, "output": list(layer.output), "kernel": plain(layer.kernel),
        "stride": plain(layer.stride), "padding": plain(layer.padding), "dilation": plain(layer.dilation),
        "groups": layer.groups, "rf": plain(layer.rf), "whole_image": layer.whole_image,
        "jump": plain(layer.jump), "start": plain(layer.start), "params": layer.params, "macs": layer.macs,
        "activation_bytes": layer.activation, "inputs": list(layer.inputs) if inputs else [],
        "shared": layer.shared,
    }  # fmt: skip


def _each(value: Any) -> str:
    """A value of `plain` as text: 3, or 3x5."""
    if value is None:
        return ""
    if isinstance(value, list):
        return "x".join("?" if item is None else f"{item:g}" for item in value)
    return f"{value:g}" if isinstance(value, (int, float)) else str(value)


def short(number: float) -> str:
    """A large number with up to four digits: 25.6 M."""
    for unit, size in (("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if number >= size:
            return f"{number / size:.4g} {unit}"
    return f"{number:g}"


def size_in_bytes(count: int) -> str:
    """A number of bytes with up to four digits: 480 B, 98.1 MB."""
    return f"{short(count)}B" if count >= 1000 else f"{count} B"


def times(ratio: float) -> str:
    """A ratio with at least three digits: 0.0478x, 2,136x."""
    return f"{ratio:,.0f}x" if ratio >= 1000 else f"{ratio:.3g}x"


def _field(layer: Layer) -> str:
    if not layer.fields:
        return ""
    local = "?" if None in layer.rf else _each(plain(layer.rf))
    return f"{local} *" if layer.whole_image else local


# Heading, cell text, and priority: a narrow terminal drops the columns with the lowest priority.
COLUMNS: tuple[Column, ...] = (
    ("layer", lambda layer: escaped(layer.name) or "(itself)", 99),
    ("type", lambda layer: layer.type, 7),
    ("output", lambda layer: " x ".join(map(str, layer.output[1:] or layer.output)), 10),
    ("kernel", lambda layer: _each(plain(layer.kernel)), 6),
    ("stride", lambda layer: _each(plain(layer.stride)), 4),
    ("pad", lambda layer: _each(plain(layer.padding)), 3),
    ("dil", lambda layer: _each(plain(layer.dilation)), 0),
    ("rf", _field, 9),
    ("jump", lambda layer: _each(plain(layer.jump)), 5),
    ("start", lambda layer: _each(plain(layer.start)), 2),
    ("params", lambda layer: "shared" if layer.shared and not layer.params else f"{layer.params:,}", 11),
    ("MACs", lambda layer: f"{layer.macs:,}" if layer.macs else "", 8),
    ("memory", lambda layer: size_in_bytes(layer.activation) if layer.activation else "", 1),
)
LEFT = {"layer", "type"}


def _cells(layers: Iterable[Layer], columns: Sequence[Column]) -> list[list[str]]:
    return [[show(layer) for _, show, _ in columns] for layer in layers]


def to_text(anatomy: Anatomy, width: int = 120, depth: int | None = None) -> str:
    """A table of at most `width` characters per line; columns of low priority are dropped if necessary."""
    layers = collapse(anatomy, depth)
    columns = [c for c in COLUMNS if c[0] != "dil" or any(set(x.dilation or (1,)) != {1} for x in layers)]
    if not any(layer.fields for layer in layers):
        columns = [column for column in columns if column[0] not in ("rf", "jump", "start")]
    while True:
        rows = [[heading for heading, _, _ in columns], *_cells(layers, columns)]
        sizes = [max(map(len, column)) for column in zip(*rows, strict=True)]
        spare = width - sum(sizes) - 2 * (len(columns) - 1)
        # Shorten the names, if 24 characters remain, instead of dropping another column.
        if spare >= 0 or len(columns) <= 3 or sizes[0] + spare >= 24:
            break
        columns.remove(min(columns, key=lambda column: column[2]))
    if spare < 0:
        sizes[0] = max(8, sizes[0] + spare)
    heading, *lines = _align(rows, sizes, [name in LEFT for name in rows[0]])
    rule = "─" * min(width, len(heading))
    notes = [part for line in totals(anatomy) for part in textwrap.wrap(line, width, subsequent_indent="  ")]
    return "\n".join([heading, rule, *lines, rule, *notes])


def _align(rows: Sequence[Sequence[str]], sizes: Sequence[int], left: Sequence[bool]) -> list[str]:
    """Pad or shorten the cells of each row to the sizes of the columns."""
    lines = []
    for row in rows:
        cells = []
        for cell, size, to_left in zip(row, sizes, left, strict=True):
            if len(cell) > size:  # keep the end of the path, which is more specific
                cell = "…" + cell[len(cell) - size + 1 :]
            cells.append(cell.ljust(size) if to_left else cell.rjust(size))
        lines.append("  ".join(cells).rstrip())
    return lines


def totals(anatomy: Anatomy) -> list[str]:
    """The lines below the table: totals, and what they exclude."""
    shape = ", ".join(" x ".join(map(str, size)) for size in anatomy.input)
    lines = [
        f"{escaped(anatomy.model)}, input {shape}",
        f"parameters {anatomy.params:,}"
        + ("" if anatomy.trainable == anatomy.total_params else f", {anatomy.trainable:,} of them trainable")
        + f" ({size_in_bytes(anatomy.params * 4)} as float32)",
        f"MACs {anatomy.macs:,} ({short(anatomy.macs)}): {CONVENTION}",
        f"activations {size_in_bytes(anatomy.activation)} written in one forward pass",
    ]
    if any(layer.whole_image for layer in anatomy.layers):
        lines.append("* plus the whole image, through pooling, attention or squeeze-and-excitation")
    for path, count in anatomy.unused.items():
        lines.append(f"unused: {count:,} parameters of {path or 'the network'}")
    for name, count in anatomy.uncounted.items():
        lines.append(f"MACs not counted: {name}, {count} times")
    for name, count in anatomy.untracked.items():
        lines.append(f"receptive field unknown after: {name}, {count} times")
    return lines


def to_csv(anatomy: Anatomy, depth: int | None = None) -> str:
    """CSV with one line per layer and the keys of `to_dict`; lists are written as 3x5."""
    layers = to_dict(anatomy, depth)["layers"]
    keys = [key for key in (layers[0] if layers else {}) if key != "inputs"]
    cells = (
        ["x".join(map(str, layer[key])) if isinstance(layer[key], list) else layer[key] for key in keys]
        for layer in layers
    )
    return csv_bytes(keys, cells).decode()


def to_markdown(anatomy: Anatomy, depth: int | None = None) -> str:
    """A Markdown table."""
    columns = [column for column in COLUMNS if column[0] != "dil"]
    lines = [
        "| " + " | ".join(heading for heading, _, _ in columns) + " |",
        "|" + "|".join("---" if heading in LEFT else "---:" for heading, _, _ in columns) + "|",
    ]
    for row in _cells(collapse(anatomy, depth), columns):
        lines.append("| " + " | ".join(cell.replace("*", r"\*").replace("_", r"\_") for cell in row) + " |")
    return "\n".join([*lines, "", *(f"- {line}".replace("- *", r"- \*") for line in totals(anatomy))])


_HTML_ROWS = 40  # of networks with more layers, notebooks show modules


def to_html(anatomy: Anatomy) -> str:
    """A table for notebooks, with modules instead of layers if there are many."""
    levels = sorted({len(layer.name.split(".")) for layer in anatomy.layers}, reverse=True)
    depth = next((n for n in levels if len(collapse(anatomy, n)) <= _HTML_ROWS), 1)
    layers = collapse(anatomy, depth)
    unused = {"dil", "start", *(set() if any(x.fields for x in layers) else {"rf", "jump"})}
    columns = [column for column in COLUMNS if column[0] not in unused]
    size = max((layer.macs for layer in layers), default=0) or 1
    rows = [
        [*cells, markup.bar(layer.macs / size, 60)]
        for layer, cells in zip(layers, _cells(layers, columns), strict=True)
    ]
    headings = [*(heading for heading, _, _ in columns), "share of MACs"]
    notes = totals(anatomy)
    if len(layers) < len(anatomy.layers):
        notes.append(f"{len(anatomy.layers)} layers, merged into the modules that contain them")
    return markup.panel(markup.table(headings, rows, left=2), *map(markup.note, notes))


def to_line(anatomy: Anatomy) -> str:
    """The network and its totals in one line."""
    shape = ", ".join(" x ".join(map(str, size)) for size in anatomy.input)
    totals = f"{anatomy.params:,} parameters, {anatomy.macs:,} MACs"
    return f"Anatomy({escaped(anatomy.model)}, input {shape}, {len(anatomy.layers)} layers, {totals})"


# What `compare` compares: label and value by JSON key.
MEASURES: dict[str, tuple[str, Callable[[Anatomy], int]]] = {
    "params": ("parameters", lambda a: a.params),
    "macs": ("MACs", lambda a: a.macs),
    "activation_bytes": ("activations, bytes", lambda a: a.activation),
    "weighted_layers": ("layers with weights", lambda a: sum(1 for x in a.layers if x.macs and x.params)),
    "rf": (
        "receptive field, pixels",
        lambda a: max((r for x in a.layers for r in x.rf if r is not None), default=0),
    ),
}


def compare(networks: Sequence[Anatomy]) -> dict[str, Any]:
    """Compare networks.

    Returns:
        `models`, and each network's value and its ratio to the first network for: `params` (used ones),
        `macs`, `activation_bytes`, `weighted_layers` (convolutions and linear layers with parameters), `rf`
        (the largest receptive field, without global paths).
    """
    out: dict[str, Any] = {"models": [a.model for a in networks]}
    for name, (_, measure) in MEASURES.items():
        first, *_ = values = [measure(anatomy) for anatomy in networks]
        out[name] = {"values": values, "ratios": [value / first if first else None for value in values]}
    return out


def compare_text(networks: Sequence[Anatomy]) -> str:
    """The comparison as text, with ratios to the first network."""
    compared = compare(networks)
    names = list(map(escaped, compared["models"]))
    rows = [["", *names]]
    for key, (label, _) in MEASURES.items():
        pairs = zip(compared[key]["values"], compared[key]["ratios"], strict=True)
        cells = [
            f"{value:,}" + (f" ({times(ratio)})" if index and ratio is not None else "")
            for index, (value, ratio) in enumerate(pairs)
        ]
        rows.append([label, *cells])
    sizes = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = _align(rows, sizes, [True, *[False] * len(networks)])
    return "\n".join([*lines, "", f"Ratios are to {names[0]}. MACs: {CONVENTION}."])
