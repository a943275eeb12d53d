"""An `Anatomy` as text that fits a terminal, as CSV, Markdown and JSON, and beside another one."""

from __future__ import annotations

import csv
import io
import textwrap
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from fractions import Fraction
from typing import Any

from striate.anatomy.records import Anatomy, Layer

CONVENTION = "a multiply-add is one MAC; convolutions and matrix products count, nothing else does"


def collapse(anatomy: Anatomy, depth: int | None) -> list[Layer]:
    """The layers, with those deeper than `depth` modules summed up in the module that holds them.

    Args:
        anatomy: of a network.
        depth: levels to show; None for all.
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
        rows.append(
            replace(
                layer,
                name=name,
                type=anatomy.modules.get(name, ""),
                kernel=None,
                stride=None,
                padding=None,
                dilation=None,
                groups=None,
                params=before.params + layer.params,
                macs=before.macs + layer.macs,
                activation=before.activation + layer.activation,
                inputs=before.inputs,
                shared=False,
            )
        )
    return rows


def plain(values: Sequence[Any] | None) -> Any:
    """One value where all axes agree, a list where they do not, None where there is none.

    Fractions become whole numbers where they are.
    """
    if not values:
        return None
    numbers = [
        (int(value) if value.denominator == 1 else float(value)) if isinstance(value, Fraction) else value
        for value in values
    ]
    return numbers[0] if all(number == numbers[0] for number in numbers) else numbers


def to_dict(anatomy: Anatomy, depth: int | None = None) -> dict[str, Any]:
    """What `striate anatomy --json` prints.

    Returns:
        `model`, `input`, `params` (that take part), `total_params`, `trainable`, `buffers`, `macs`,
        `activation_bytes`, `unused`,
        `uncounted`, `untracked`, and `layers`: `name`, `type`, `output` (the batch first), `kernel`,
        `stride`, `padding`, `dilation`, `groups`, `rf` and `whole_image` (whether a global path sees
        beyond it), `jump`, `start`, `params`, `macs`, `activation_bytes`, `inputs` (indices of layers; -1
        is the input), `shared`. What differs between the axes of the image is a list, one number otherwise.
    """
    layers = collapse(anatomy, depth)
    return {
        "model": anatomy.model,
        "input": [list(shape) for shape in anatomy.input],
        "params": anatomy.params,
        "total_params": anatomy.total_params,
        "trainable": anatomy.trainable,
        "buffers": anatomy.buffers,
        "macs": anatomy.macs,
        "activation_bytes": anatomy.activation,
        "unused": anatomy.unused,
        "uncounted": anatomy.uncounted,
        "untracked": anatomy.untracked,
        "layers": [
            {
                "name": layer.name,
                "type": layer.type,
                "output": list(layer.output),
                "kernel": plain(layer.kernel),
                "stride": plain(layer.stride),
                "padding": plain(layer.padding),
                "dilation": plain(layer.dilation),
                "groups": layer.groups,
                "rf": plain(layer.rf),
                "whole_image": layer.whole,
                "jump": plain(layer.jump),
                "start": plain(layer.start),
                "params": layer.params,
                "macs": layer.macs,
                "activation_bytes": layer.activation,
                "inputs": list(layer.inputs) if depth is None else [],
                "shared": layer.shared,
            }
            for layer in layers
        ],
    }


def _each(value: Any) -> str:
    """A number, or one for each axis, for people."""
    if value is None:
        return ""
    if isinstance(value, list):
        return "x".join("?" if item is None else f"{item:g}" for item in value)
    return f"{value:g}" if isinstance(value, (int, float)) else str(value)


def short(number: float) -> str:
    """A large number in three or four digits: 25.6 M."""
    for unit, size in (("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if number >= size:
            return f"{number / size:.4g} {unit}"
    return f"{number:g}"


def size_in_bytes(count: int) -> str:
    """Bytes in three or four digits: 480 B, 98.1 MB."""
    return f"{short(count)}B" if count >= 1000 else f"{count} B"


def times(ratio: float) -> str:
    """A ratio in three digits or more: 0.0478x, 2,136x."""
    return f"{ratio:,.0f}x" if ratio >= 1000 else f"{ratio:.3g}x"


def _field(layer: Layer) -> str:
    if not layer.reach:
        return ""
    local = "?" if None in layer.rf else _each(plain(layer.rf))
    return f"{local} *" if layer.whole else local


# Heading, what it shows, and how late it is left out where the terminal is narrow.
Column = tuple[str, Callable[[Layer], str], int]
COLUMNS: tuple[Column, ...] = (
    ("layer", lambda layer: layer.name or "(itself)", 99),
    ("type", lambda layer: layer.type, 7),
    ("output", lambda layer: " x ".join(map(str, layer.output[1:] or layer.output)), 10),
    ("kernel", lambda layer: _each(plain(layer.kernel)), 6),
    ("stride", lambda layer: _each(plain(layer.stride)), 4),
    ("pad", lambda layer: _each(plain(layer.padding)), 3),
    ("dil", lambda layer: _each(plain(layer.dilation)), 0),
    ("field", _field, 9),
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
    """A table no wider than `width` characters, which leaves out the less telling columns where it must."""
    layers = collapse(anatomy, depth)
    columns = [c for c in COLUMNS if c[0] != "dil" or any(set(x.dilation or (1,)) != {1} for x in layers)]
    if not any(layer.reach for layer in layers):
        columns = [column for column in columns if column[0] not in ("field", "jump", "start")]
    while True:
        cells = _cells(layers, columns)
        sizes = [max(len(c[0]), *(len(row[i]) for row in cells)) for i, c in enumerate(columns)]
        spare = width - sum(sizes) - 2 * (len(columns) - 1)
        if spare >= 0 or len(columns) <= 3:
            break
        if sizes[0] + spare >= 24:
            break  # a shortened name is better than a lost column
        columns.remove(min(columns, key=lambda column: column[2]))
    if spare < 0:
        sizes[0] = max(8, sizes[0] + spare)
    lines = [_line([heading for heading, _, _ in columns], sizes, columns)]
    lines.append("─" * min(width, len(lines[0])))
    lines += [_line(row, sizes, columns) for row in cells]
    lines.append("─" * min(width, len(lines[0])))
    for line in totals(anatomy):
        lines += textwrap.wrap(line, width, subsequent_indent="  ")
    return "\n".join(lines)


def _line(cells: Sequence[str], sizes: Sequence[int], columns: Sequence[Column]) -> str:
    out = []
    for cell, size, (heading, _, _) in zip(cells, sizes, columns, strict=True):
        if len(cell) > size:  # the end of a path tells more than its beginning
            cell = "…" + cell[len(cell) - size + 1 :]
        out.append(cell.ljust(size) if heading in LEFT else cell.rjust(size))
    return "  ".join(out).rstrip()


def totals(anatomy: Anatomy) -> list[str]:
    """The sums below a table, and what they leave out."""
    shape = ", ".join(" x ".join(map(str, size)) for size in anatomy.input)
    lines = [
        f"{anatomy.model}, input {shape}",
        f"parameters {anatomy.params:,}"
        + ("" if anatomy.trainable == anatomy.total_params else f", {anatomy.trainable:,} of them train")
        + f" ({size_in_bytes(anatomy.params * 4)} as float32)",
        f"MACs {anatomy.macs:,} ({short(anatomy.macs)}): {CONVENTION}",
        f"activations {size_in_bytes(anatomy.activation)} written in one forward pass",
    ]
    if any(layer.whole for layer in anatomy.layers):
        lines.append("* a global path (pooling, attention, squeeze-and-excitation) sees the whole image")
    for path, count in anatomy.unused.items():
        lines.append(f"took no part: {count:,} parameters of {path or 'the network'}")
    for name, count in anatomy.uncounted.items():
        lines.append(f"not counted: {name}, {count} times")
    for name, count in anatomy.untracked.items():
        lines.append(f"receptive field not known behind: {name}, {count} times")
    return lines


def to_csv(anatomy: Anatomy, depth: int | None = None) -> str:
    """One line a layer, with the keys of `to_dict`; lists as 3x5."""
    out = io.StringIO()
    layers = to_dict(anatomy, depth)["layers"]
    keys = [key for key in (layers[0] if layers else {}) if key != "inputs"]
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(keys)
    for layer in layers:
        writer.writerow(
            ["x".join(map(str, layer[key])) if isinstance(layer[key], list) else layer[key] for key in keys]
        )
    return out.getvalue()


def to_markdown(anatomy: Anatomy, depth: int | None = None) -> str:
    """A table for a README."""
    columns = [column for column in COLUMNS if column[0] != "dil"]
    lines = [
        "| " + " | ".join(heading for heading, _, _ in columns) + " |",
        "|" + "|".join("---" if heading in LEFT else "---:" for heading, _, _ in columns) + "|",
    ]
    for row in _cells(collapse(anatomy, depth), columns):
        lines.append("| " + " | ".join(cell.replace("*", r"\*").replace("_", r"\_") for cell in row) + " |")
    return "\n".join([*lines, "", *(f"- {line}".replace("- *", r"- \*") for line in totals(anatomy))])


def compare(networks: Sequence[Anatomy]) -> dict[str, Any]:
    """Networks side by side.

    Returns:
        `models`, and for `params` (that take part), `macs`, `activation_bytes`, `weighted_layers`
        (convolutions and linear layers with parameters of their own) and `rf` (the largest field, global
        paths aside) the value of each network and its ratio to the first.
    """
    measures: dict[str, list[float]] = {
        "params": [a.params for a in networks],
        "macs": [a.macs for a in networks],
        "activation_bytes": [a.activation for a in networks],
        "weighted_layers": [sum(1 for x in a.layers if x.macs and x.params) for a in networks],
        "rf": [max((r for x in a.layers for r in x.rf if r is not None), default=0) for a in networks],
    }
    out: dict[str, Any] = {"models": [a.model for a in networks]}
    for name, values in measures.items():
        first = values[0]
        out[name] = {"values": values, "ratios": [value / first if first else None for value in values]}
    return out


def compare_text(networks: Sequence[Anatomy]) -> str:
    """The comparison for a terminal, with ratios to the first network."""
    found = compare(networks)
    names = {
        "params": "parameters",
        "macs": "MACs",
        "activation_bytes": "activations, bytes",
        "weighted_layers": "layers with weights",
        "rf": "receptive field, pixels",
    }
    rows = [["", *found["models"]]]
    for key, label in names.items():
        pairs = zip(found[key]["values"], found[key]["ratios"], strict=True)
        cells = [
            f"{value:,}" + (f" ({times(ratio)})" if index and ratio is not None else "")
            for index, (value, ratio) in enumerate(pairs)
        ]
        rows.append([label, *cells])
    sizes = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = [
        "  ".join(
            cell.rjust(size) if i else cell.ljust(size)
            for i, (cell, size) in enumerate(zip(row, sizes, strict=True))
        )
        for row in rows
    ]
    return "\n".join([*lines, "", f"Ratios are to {found['models'][0]}. MACs: {CONVENTION}."])
