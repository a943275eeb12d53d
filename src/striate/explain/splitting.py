"""Split a network at its last feature maps: a trunk, which needs no gradients, and a head, which is small.

The gradient of a score with respect to the maps then costs one pass backward through the head. For a network
that ends in global pooling and one linear layer this is the closed form weight / number of units, and the
trunk can be folded for inference (`striate.kernels.folding`), which has no gradients.
"""

from __future__ import annotations

import copy
from typing import Any, Protocol

import torch
from torch import Tensor, fx, nn

from striate.anatomy.layers import result_of
from striate.anatomy.tracing import record
from striate.explain.location import Location
from striate.kernels.folding import Tracer, fold

Shape = tuple[int, int, int]
_TOLERANCE = 1e-4  # of the largest value


class Split(Protocol):
    """A network, seen from its last feature maps. Images are `[batch, channels, height, width]`."""

    def __call__(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """The layer's result, which requires a gradient, and the scores, which depend on it."""

    def scores(self, images: Tensor) -> Tensor:
        """The scores alone; to be called without gradients."""


def split(network: nn.Module, images: Tensor, location: Location, result: Tensor, folded: bool) -> Split:
    """Split a network, or record each pass of one that cannot be traced symbolically.

    Args:
        network: in evaluation mode, while it is split and whenever the result is called.
        images: float `[1, channels, height, width]`.
        location: of the maps.
        result: of that layer for the images.
        folded: fold the trunk; later changes of the network may then have no effect.
    """
    base = copy.copy(network)  # the tracer adds constants to it
    try:
        module = fx.GraphModule(base, Tracer().trace(base))
        node = _node_of(module, images, result)
    except Exception:  # a forward may do anything with its input, and a proxy supports little of it
        node = None
    return _Recorded(network, location) if node is None else _Halves(module, node, images, folded)


def _node_of(module: fx.GraphModule, images: Tensor, result: Tensor) -> fx.Node | None:
    """The last step with this result."""
    interpreter = fx.Interpreter(module, garbage_collect_values=False)
    with torch.no_grad():
        interpreter.run(images)
    found = None
    for node, value in interpreter.env.items():
        same = isinstance(value, Tensor) and value.shape == result.shape and _close(value, result)
        found = node if same else found
    return found


def _close(a: Tensor, b: Tensor) -> bool:
    """Whether two results are equal up to rounding: attention with gradients may use another kernel."""
    return bool((a - b).abs().max() <= _TOLERANCE * b.abs().max())


class _Halves:
    """Trunk and head as two modules.

    Args:
        module: the traced network.
        node: the step that returns the maps.
        images: for folding.
        folded: whether to fold the trunk.
    """

    def __init__(self, module: fx.GraphModule, node: fx.Node, images: Tensor, folded: bool) -> None:
        nodes = list(module.graph.nodes)
        after = nodes[nodes.index(node) + 1 :]
        before = [other for other in nodes[: nodes.index(node) + 1] if other.op != "get_attr"]
        carried = [
            other for other in before if other is not node and any(user in after for user in other.users)
        ]
        constants = [other for other in nodes if other.op == "get_attr"]
        self.trunk: nn.Module = _part(module, [], [*constants, *before], [node, *carried])
        self.head = _part(module, [node, *carried], [*constants, *after], [])
        if folded and not carried:
            self.trunk = fold(self.trunk, (images.shape[1], images.shape[2], images.shape[3]))

    def __call__(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """The maps, as a leaf, and the scores."""
        with torch.no_grad():
            found = self.trunk(images)
        result, *carried = found if isinstance(found, tuple) else (found,)
        result = result.detach().requires_grad_()
        return result, self.head(result.clone(), *carried)  # a layer in place must not change a leaf

    def scores(self, images: Tensor) -> Tensor:
        """The scores."""
        found = self.trunk(images)
        scores: Tensor = self.head(*(found if isinstance(found, tuple) else (found,)))
        return scores


def _part(
    module: fx.GraphModule, inputs: list[fx.Node], nodes: list[fx.Node], outputs: list[fx.Node]
) -> fx.GraphModule:
    """A module of some steps; without `outputs` the steps include the network's own output."""
    graph, copies = fx.Graph(), dict[fx.Node, fx.Node]()
    for place, node in enumerate(inputs):
        copies[node] = graph.placeholder(f"input_{place}")
    for node in nodes:
        if node.op == "output":
            graph.output(fx.node.map_arg(node.args[0], copies.__getitem__))
        else:
            copies[node] = graph.node_copy(node, copies.__getitem__)
    if outputs:
        found = tuple(copies[node] for node in outputs)
        graph.output(found if len(found) > 1 else found[0])
    return fx.GraphModule(module, graph).eval()


class _Recorded:
    """One recorded pass with gradients for each call: slower by some microseconds per operator."""

    def __init__(self, network: nn.Module, location: Location) -> None:
        self.network, self.location = network, location

    def __call__(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """The maps and the scores, which depend on the images with gradients."""
        x = images.detach().clone().requires_grad_()
        recorder, scores = record(self.network, type(self.network).__name__, (x,), compute=True)
        result: Any = result_of(recorder, self.location.index)
        assert isinstance(result, Tensor)
        return result, scores

    def scores(self, images: Tensor) -> Tensor:
        """The scores."""
        scores: Tensor = self.network(images)
        return scores
