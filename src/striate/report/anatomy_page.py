"""The anatomy of a network as one HTML file that works offline: table, drawing and receptive fields."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image

from striate.anatomy import Anatomy, Layer, table
from striate.report.templates import template

# What the page can work out again for another input size; behind anything else sizes stay as they are.
FOLLOWED = {"window", "fixed", "scale", "slice", "pad", "same"}


def render(anatomy: Anatomy, image: np.ndarray[Any, Any] | None = None) -> str:
    """The page.

    Args:
        anatomy: of a network that reads images (two axes).
        image: uint8 RGB `[height, width, 3]` to show fields on; None for a drawn pattern.

    Returns:
        The HTML, which refers to nothing outside itself.
    """
    data = {
        "image": list(anatomy.image),
        "layers": [_layer(layer) for layer in anatomy.layers],
        "lanes": lanes(anatomy.layers),
        "resizable": resizable(anatomy),
    }
    return template("anatomy.html").render(
        anatomy=anatomy,
        totals=table.totals(anatomy),
        data=data,
        picture=None if image is None else _data_url(image),
    )


def resizable(anatomy: Anatomy) -> bool:
    """Whether every size follows from that of the input by rules that the page knows."""
    if len(anatomy.image) != 2 or not anatomy.layers:
        return False
    for layer in anatomy.layers:
        spatial = len(layer.output) == 4 and any(layer.moves)
        if spatial and not all(rule["kind"] in FOLLOWED for rule in layer.rule):
            return False
        if any(layer.moves) and not spatial:  # a sequence of patches
            return False
    return True


def _layer(layer: Layer) -> dict[str, Any]:
    """What the page has to know of a layer."""
    return {
        "name": layer.name,
        "type": layer.type,
        "output": list(layer.output),
        "kernel": table.plain(layer.kernel),
        "stride": table.plain(layer.stride),
        "padding": table.plain(layer.padding),
        "reach": [
            None
            if reach is None
            else {"advance": reach.advance, "spans": [list(span) for span in reach.spans]}
            for reach in layer.reach
        ],
        "rf": table.plain(layer.rf),
        "spatial": len(layer.output) == 4 and any(layer.moves),
        "whole": layer.whole,
        "params": layer.params,
        "macs": layer.macs,
        "inputs": list(layer.inputs),
        "rules": [dict(rule) for rule in layer.rule],
    }


def lanes(layers: Sequence[Layer]) -> list[int]:
    """A column for each layer, so that lines from layers to their readers do not run through others.

    A result keeps its lane until the last layer that reads it.
    """
    last = {index: index for index in range(-1, len(layers))}
    for index, layer in enumerate(layers):
        for source in layer.inputs:
            last[source] = index
    taken: dict[int, int] = {0: -1}  # lane -> the layer whose result runs in it
    places: list[int] = []
    for index, layer in enumerate(layers):
        taken = {lane: owner for lane, owner in taken.items() if last[owner] >= index}
        ending = [lane for lane, owner in taken.items() if owner in layer.inputs and last[owner] == index]
        free = (lane for lane in range(len(taken) + 1) if lane not in taken)
        lane = min(ending) if ending else next(free)
        taken[lane] = index
        places.append(lane)
    return places


def _data_url(image: np.ndarray[Any, Any]) -> str:
    out = io.BytesIO()
    Image.fromarray(image).save(out, "JPEG", quality=85)
    return "data:image/jpeg;base64," + base64.b64encode(out.getvalue()).decode()
