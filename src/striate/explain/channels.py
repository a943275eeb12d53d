"""What a layer computes: its filters, its feature maps, and the patches of the image that a unit sees."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from striate.anatomy import Layer, trace
from striate.errors import UsageError, unknown_name
from striate.explain.explainer import Explainer

Box = tuple[int, int, int, int]  # top, left, bottom, right in pixels; bottom and right are one past the last
_LIST = "`striate anatomy MODEL` lists them"


@dataclass(frozen=True)
class Activation:
    """The unit of a channel that one image activates most.

    Attributes:
        value: of the unit.
        unit: its row and column in the feature map.
        box: the pixels that it sees, within the image; the whole image if they are unknown.
    """

    value: float
    unit: tuple[int, int]
    box: Box


def filters(network: nn.Module, layer: str | None = None) -> tuple[str, npt.NDArray[np.float32]]:
    """The filters of a convolution, to be seen as images.

    Args:
        network: with its weights.
        layer: name of the convolution; the first one by default.

    Returns:
        The layer's name, and `[filters, height, width, 3]` if it reads colors, else each filter's slice for
        each input channel, `[filters * channels, height, width]`.

    Raises:
        UsageError: there is no such convolution.
    """
    found = {name: part for name, part in network.named_modules() if isinstance(part, nn.Conv2d)}
    if layer is not None and layer not in found:
        raise unknown_name("convolution", layer, found, _LIST)
    if not found:
        raise UsageError(f"no filters in {type(network).__name__}", "it has no 2-D convolutions")
    name = layer if layer is not None else next(iter(found))
    weight = found[name].weight.detach().float().cpu()
    if weight.shape[1] == 3:
        return name, weight.permute(0, 2, 3, 1).contiguous().numpy()
    return name, weight.flatten(0, 1).numpy()


def feature_maps(explainer: Explainer, image: Tensor, layer: str) -> npt.NDArray[np.float32]:
    """The feature maps of a layer for one image.

    Args:
        explainer: of the network.
        image: `[1, channels, height, width]`, as the network reads it.
        layer: name of a module.

    Returns:
        `[channels, rows, columns]`.

    Raises:
        UsageError: there is no such layer, or its output is no feature map.
    """
    with captured(explainer, layer) as kept:
        explainer.network(image)
    return kept[0][0].float().cpu().numpy()


@contextmanager
def captured(explainer: Explainer, layer: str) -> Iterator[list[Tensor]]:
    """A context in which a layer's feature maps `[batch, channels, rows, columns]` are kept in a list.

    Raises:
        UsageError: there is no such layer, its output is no feature map, or on exit if it has not run.
    """
    modules = dict(explainer.network.named_modules())
    if layer not in modules or not layer:
        raise unknown_name("layer", layer, [name for name in modules if name], _LIST)
    kept: list[Tensor] = []

    def keep(_: nn.Module, inputs: Any, output: Any) -> None:
        if not isinstance(output, Tensor) or output.ndim != 4:
            why = "its output is not [batch, channels, rows, columns]"
            raise UsageError(f"no feature maps in {layer}", why, "Choose a convolutional layer")
        kept.append(output.detach().clone())  # the next layer may work in place

    handle = modules[layer].register_forward_hook(keep)
    try:
        with explainer.unchanged(), torch.no_grad():
            yield kept
    finally:
        handle.remove()
    if not kept:  # such as a head that serves only for training
        why = "the network does not run it for an image"
        raise UsageError(f"no feature maps in {layer}", why, "Choose another layer")


def strongest(explainer: Explainer, images: Tensor, layer: str, channel: int) -> list[tuple[float, int, int]]:
    """The highest value of a channel in each image, and its row and column.

    Args:
        explainer: of the network.
        images: `[batch, channels, height, width]`, as the network reads them.
        layer: name of a module.
        channel: of its output.

    Raises:
        UsageError: there is no such layer or channel.
    """
    with captured(explainer, layer) as kept:
        explainer.network(images)
    maps = kept[0]
    if not 0 <= channel < maps.shape[1]:
        why = f"it has channels 0 to {maps.shape[1] - 1}"
        raise UsageError(f"no channel {channel} in {layer}", why, "Choose one of them")
    values, places = maps[:, channel].flatten(1).max(dim=1)
    columns = maps.shape[3]
    rows = zip(values.tolist(), places.tolist(), strict=True)
    return [(value, place // columns, place % columns) for value, place in rows]


def receptive_field(explainer: Explainer, layer: str) -> Layer | None:
    """The layer in the anatomy whose result a module returns; None if it is not among them.

    Raises:
        UsageError: the network cannot be traced.
    """
    found = trace(explainer.network, torch.empty((1, *explainer.shape), device="meta"))
    rows = [row for row in found.layers if row.name == layer or row.name.startswith(f"{layer}.")]
    return rows[-1] if rows and rows[-1].is_map else None


def box_of(layer: Layer | None, unit: tuple[int, int], size: tuple[int, int]) -> Box:
    """The pixels that a unit sees, within an image of this size."""
    spans = (None, None) if layer is None else layer.sees(unit)
    if None in spans:
        return (0, 0, *size)
    edges = [
        (max(0, span[0]), min(side, span[1] + 1)) for span, side in zip(spans, size, strict=True) if span
    ]
    (top, bottom), (left, right) = edges
    # A unit outside the image sees only padding: then the whole image is returned.
    return (top, left, bottom, right) if top < bottom and left < right else (0, 0, *size)
