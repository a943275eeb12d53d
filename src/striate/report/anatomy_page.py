"""Render the anatomy of a network as one interactive HTML page: layers, graph, receptive fields."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image

from striate.anatomy import Anatomy, Layer, table
from striate.report import templates
from striate.sections import Phrase
from striate.transforms.thumbnails import data_url

# Kinds of operators whose output size the page can compute for another input size.
RESIZABLE_KINDS = {"window", "fixed", "scale", "slice", "pad", "same"}


def render(anatomy: Anatomy, image: np.ndarray[Any, Any] | None = None) -> str:
    """Render the page.

    Args:
        anatomy: of a network that reads images (two axes).
        image: uint8 RGB `[height, width, 3]` below the receptive fields; None for a drawn pattern.

    Returns:
        The HTML, which refers to nothing outside itself.
    """
    data = {
        "image": list(anatomy.image), "layers": [_layer(layer) for layer in anatomy.layers],
        "lanes": lanes(anatomy.layers), "resizable": resizable(anatomy),
    }  # fmt: skip
    url = None if image is None else _jpeg_url(image)
    return templates.render(
        "anatomy.html", title=Phrase("{model}: anatomy", model=anatomy.model), full_width=True,
        totals=table.totals(anatomy), data=data, image=url, scripts=("anatomy.js",),
    )  # fmt: skip


def resizable(anatomy: Anatomy) -> bool:
    """Return whether the page can compute all sizes for another input size."""
    if len(anatomy.image) != 2 or not anatomy.layers:
        return False
    return all(
        layer.is_map
        and layer.dims == ((2,), (3,))
        and all(rule["kind"] in RESIZABLE_KINDS for rule in layer.geometry)
        for layer in anatomy.layers
        if any(layer.spatial)
    )


def _layer(layer: Layer) -> dict[str, Any]:
    """Return the facts that the page needs about a layer."""
    fields = [
        field and {"advance": field.shift, "spans": list(map(list, field.intervals))}
        for field in layer.fields
    ]
    return {
        "name": layer.name, "type": layer.type, "output": list(layer.output),
        "kernel": table.plain(layer.kernel), "stride": table.plain(layer.stride),
        "padding": table.plain(layer.padding), "reach": fields, "rf": table.plain(layer.rf),
        "map": list(layer.map_size) if layer.is_map else None, "whole": layer.whole_image,
        "params": layer.params, "macs": layer.macs,
        "inputs": list(layer.inputs), "rules": [dict(rule) for rule in layer.geometry],
    }  # fmt: skip


def lanes(layers: Sequence[Layer]) -> list[int]:
    """Assign a column of the drawing to each layer, so that no line crosses the box of another layer.

    The output of a layer keeps its lane until the last layer that reads it.
    """
    last = {index: index for index in range(-1, len(layers))}
    for index, layer in enumerate(layers):
        for source in layer.inputs:
            last[source] = index
    taken: dict[int, int] = {0: -1}  # lane -> the layer whose output it carries
    places: list[int] = []
    for index, layer in enumerate(layers):
        taken = {lane: owner for lane, owner in taken.items() if last[owner] >= index}
        ending = [lane for lane, owner in taken.items() if owner in layer.inputs and last[owner] == index]
        free = (lane for lane in range(len(taken) + 1) if lane not in taken)
        lane = min(ending) if ending else next(free)
        taken[lane] = index
        places.append(lane)
    return places


def _jpeg_url(image: np.ndarray[Any, Any]) -> str:
    out = io.BytesIO()
    Image.fromarray(image).save(out, "JPEG", quality=85)
    return data_url(out.getvalue(), "jpeg")
