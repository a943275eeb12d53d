"""Find the last feature maps of a network before it pools them: the layer that CAM methods explain.

The network runs once under the recorder of `striate.anatomy`, which knows along which dimensions of each
result the rows and columns of the image run. So the search needs no names of layers and works for any
network: convolutional ones in either layout, and Transformers, whose patches become maps.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from striate.anatomy import Anatomy, Layer
from striate.anatomy.layers import result_of, to_anatomy
from striate.anatomy.recorder import Recorder
from striate.anatomy.tracing import record, restored
from striate.errors import UsageError

_NO_FEATURES = (
    "pool",
    "dropout",
    "identity",
    "flatten",
    "pad",
)  # types of layers that only reduce or pass on


@dataclass(frozen=True)
class Location:
    """Where the last feature maps are.

    Attributes:
        layer: name of the layer, as `striate anatomy` shows it.
        index: of the layer in the anatomy.
        grid: rows and columns of the maps.
        dims: dimensions of the layer's result along which rows and columns run; the same one for tokens.
        extra: number of tokens before those of the patches, such as the class token.
    """

    layer: str
    index: int
    grid: tuple[int, int]
    dims: tuple[int, int]
    extra: int = 0

    @property
    def has_tokens(self) -> bool:
        """Whether the layer returns a sequence of patches `[batch, tokens, channels]`."""
        return self.dims[0] == self.dims[1]

    def to_maps(self, result: Tensor) -> Tensor:
        """The result of the layer as maps `[batch, channels, rows, columns]`."""
        if self.has_tokens:
            return result[:, self.extra :].transpose(1, 2).reshape(len(result), -1, *self.grid)
        return result.movedim(self.dims, (2, 3))


def locate(network: nn.Module, images: Tensor, *, fine: bool = False) -> tuple[Location, Tensor]:
    """Find the last feature maps before pooling.

    These are the last maps that are larger than one unit, without the pools, dropouts and the like that
    follow them. In a Transformer they are the last normalized tokens of which the scores depend on more than
    the class token: the input of its last attention, or its last tokens if it averages them.

    Args:
        network: in evaluation mode; left unchanged.
        images: float `[1, channels, height, width]`; random values, so that units differ.
        fine: find the last maps that have at least twice as many rows and columns instead, if there are some.

    Returns:
        The location, and the layer's result for the images.

    Raises:
        UsageError: the network does not return scores `[batch, classes]`, or has no feature maps.
    """
    name = type(network).__name__
    with _without_zero_weights(network):
        x = images.detach().clone().requires_grad_()
        recorder, scores = record(network, name, (x,), compute=True)
    if not isinstance(scores, Tensor) or scores.ndim != 2:
        why = f"it returns {_shape_of(scores)}, not scores [batch, classes]"
        raise UsageError(f"cannot explain {name}", why, "Wrap it in a module that returns the scores")
    anatomy = to_anatomy(network, name, (x,), scores, recorder)
    found = _last_tokens(anatomy, recorder, scores) or _last_maps(anatomy)
    if fine and found is not None and not found.has_tokens:
        found = _last_maps(anatomy, 2 * min(found.grid), all_paths=True) or found
    result = None if found is None else result_of(recorder, found.index)
    if found is None or result is None:
        why = "no layer has feature maps with rows and columns"
        raise UsageError(f"cannot explain {name}", why, "Use occlusion or rise, which need none")
    return found, result.detach()


def _last_maps(anatomy: Anatomy, least: int = 1, *, all_paths: bool = False) -> Location | None:
    """The last maps larger than one unit.

    Args:
        anatomy: of the network.
        least: rows and columns that they have at least.
        all_paths: whether all paths to the scores must lead through them, so not those inside a block.
    """
    for index in reversed(range(len(anatomy.layers))):
        layer = anatomy.layers[index]
        large = layer.is_map and math.prod(layer.map_size) > 1 and min(layer.map_size) >= least
        if large and not _only_passes(layer) and not (all_paths and _is_bypassed(anatomy, index)):
            (row,), (column,) = layer.dims
            rows, columns = layer.map_size
            return Location(layer.name, index, (rows, columns), (row, column))
    return None


def _is_bypassed(anatomy: Anatomy, index: int) -> bool:
    """Whether a later layer reads an earlier result."""
    return any(source < index for later in anatomy.layers[index + 1 :] for source in later.inputs)


def _only_passes(layer: Layer) -> bool:
    return any(word in layer.type.lower() for word in _NO_FEATURES)


def _last_tokens(anatomy: Anatomy, recorder: Recorder, scores: Tensor) -> Location | None:
    """The last normalized tokens with a gradient at the patches; None if there are no tokens."""
    maps = [index for index, layer in enumerate(anatomy.layers) if layer.is_map]
    if not maps:
        return None
    rows, columns = anatomy.layers[maps[-1]].map_size
    candidates = [
        index
        for index, layer in enumerate(anatomy.layers)
        if index > maps[-1] and "norm" in layer.type.lower() and _tokens_of(layer) >= rows * columns
    ]
    for index in reversed(candidates):
        layer, tensor = anatomy.layers[index], result_of(recorder, index)
        extra = _tokens_of(layer) - rows * columns
        if tensor is not None and _has_gradient(scores, tensor, extra):
            return Location(layer.name, index, (rows, columns), (1, 1), extra)
    return None


def _tokens_of(layer: Layer) -> int:
    """The length of a sequence of patches; 0 if a layer returns none."""
    return layer.output[1] if len(layer.output) == 3 and layer.dims == ((1,), (1,)) else 0


def _has_gradient(scores: Tensor, tokens: Tensor, extra: int) -> bool:
    (gradient,) = torch.autograd.grad(scores.sum(), tokens, retain_graph=True, allow_unused=True)
    return gradient is not None and bool(gradient[:, extra:].any())


@contextlib.contextmanager
def _without_zero_weights(network: nn.Module) -> Iterator[None]:
    """Replace matrices of zeros until the context ends: a fresh ViT's classifier would pass no gradient."""
    with restored(network.modules()):
        for part in network.modules():
            for key, value in part._parameters.items():
                if value is not None and value.ndim == 2 and not value.any():
                    generator = torch.Generator().manual_seed(0)
                    noise = torch.randn(value.shape, generator=generator).to(value)
                    part._parameters[key] = nn.Parameter(noise, requires_grad=False)
        yield


def _shape_of(value: object) -> str:
    if isinstance(value, Tensor):
        return f"a tensor {list(value.shape)}"
    if isinstance(value, Sequence):
        return f"a {type(value).__name__} of {len(value)}"
    return f"a {type(value).__name__}"
