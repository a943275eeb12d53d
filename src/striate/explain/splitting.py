"""Split a network at its last feature maps: a trunk, which needs no gradients, and a head, which is small.

The gradient of a score with respect to the maps then costs one pass backward through the head. For a network
that ends in global pooling and one linear layer this is the closed form weight / number of units, and the
trunk can be folded for inference (`striate.kernels.folding`), which has no gradients.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable
from typing import Any, Protocol, cast

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from striate.anatomy.layers import result_of
from striate.anatomy.tracing import record
from striate.explain.location import Location
from striate.kernels.folding import Tracer, fold

Shape = tuple[int, int, int]
_TOLERANCE = 1e-4  # of the largest value


# Scores `[batch, classes]` to constant weights of some classes: what is explained is their weighted sum.
Combination = Callable[[Tensor], dict[int, float]]


class Split(Protocol):
    """A network, seen from its last feature maps. Images are `[batch, channels, height, width]`."""

    def __call__(self, images: Tensor, combination: Combination) -> tuple[Tensor, Tensor, Tensor]:
        """The layer's result, the gradient of the weighted sum of scores with respect to it, the scores."""

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
    """Trunk and head as two modules; the head without a global pool before it and a linear layer after it.

    For these two the gradient has a closed form: it is equal in all units of a map, and the rows of the
    linear layer's weights, of the explained classes only.

    Args:
        module: the traced network.
        node: the step that returns the maps.
        images: for folding.
        folded: whether to fold the trunk.
    """

    def __init__(self, module: fx.GraphModule, node: fx.Node, images: Tensor, folded: bool) -> None:
        nodes = list(module.graph.nodes)
        before, after = nodes[: nodes.index(node) + 1], nodes[nodes.index(node) + 1 :]
        constants = [other for other in nodes if other.op == "get_attr"]
        carried = [
            other
            for other in before
            if other not in (node, *constants) and any(user in after for user in other.users)
        ]
        before = [other for other in before if other not in constants]
        self.trunk: nn.Module = _part(module, [], [*constants, *before], [node, *carried])
        if folded and not carried:
            self.trunk = fold(self.trunk, (images.shape[1], images.shape[2], images.shape[3]))
        pool, last = _global_pool(module, node), _linear_output(module)
        self.is_pooled = pool is not None
        self.last = None if last is None else cast(nn.Linear, module.get_submodule(str(last.target)))
        inside = [other for other in (*constants, *after) if other not in (pool, last)]
        exit_ = after[-1].args[0] if last is None else last.args[0]
        self.head = _part(module, [pool or node, *carried], inside, [cast(fx.Node, exit_)])

    def __call__(self, images: Tensor, combination: Combination) -> tuple[Tensor, Tensor, Tensor]:
        """The maps, the gradient with respect to them, and the scores."""
        with torch.no_grad():
            found = self.trunk(images)
        result, *carried = found if isinstance(found, tuple) else (found,)
        entry = self._pooled(result).detach().requires_grad_()
        features = self.head(entry.clone(), *carried)  # a layer in place must not change a leaf
        scores = self._scores(features.detach())
        weights = combination(scores)
        if self.last is None:
            outer = _weights(scores, weights)
        else:
            rows = [weight * self.last.weight.detach()[number] for number, weight in weights.items()]
            outer = functools.reduce(torch.add, rows).expand_as(features)
        (gradient,) = torch.autograd.grad(features, entry, outer)
        if self.is_pooled:
            gradient = (gradient / result[0, 0].numel()).expand_as(result)
        return result, gradient, scores

    def scores(self, images: Tensor) -> Tensor:
        """The scores."""
        found = self.trunk(images)
        result, *carried = found if isinstance(found, tuple) else (found,)
        return self._scores(self.head(self._pooled(result), *carried))

    def _pooled(self, result: Tensor) -> Tensor:
        return result.mean(dim=(2, 3), keepdim=True) if self.is_pooled else result

    def _scores(self, features: Tensor) -> Tensor:
        return (
            features if self.last is None else F.linear(features, self.last.weight, self.last.bias).detach()
        )


def _weights(scores: Tensor, weights: dict[int, float]) -> Tensor:
    """The weights of all classes, the shape of the scores."""
    out = torch.zeros_like(scores)
    for number, weight in weights.items():
        out[:, number] = weight
    return out


def _global_pool(module: fx.GraphModule, node: fx.Node) -> fx.Node | None:
    """The step after the maps, if it is global average pooling to 1x1 and nothing else reads the maps."""
    if len(node.users) != 1:
        return None
    (user,) = node.users
    layer = module.get_submodule(str(user.target)) if user.op == "call_module" else None
    is_pool = type(layer) is nn.AdaptiveAvgPool2d and layer.output_size in (1, (1, 1))
    return user if is_pool else None


def _linear_output(module: fx.GraphModule) -> fx.Node | None:
    """The last step, if it is a linear layer."""
    *_, output = module.graph.nodes
    node = output.args[0]
    is_module = isinstance(node, fx.Node) and node.op == "call_module" and len(node.users) == 1
    if is_module and type(module.get_submodule(str(cast(fx.Node, node).target))) is nn.Linear:
        return cast(fx.Node, node)
    return None


def _part(
    module: fx.GraphModule, inputs: list[fx.Node], nodes: list[fx.Node], outputs: list[fx.Node]
) -> fx.GraphModule:
    """A module of some steps of a traced network, except its output."""
    graph, copies = fx.Graph(), dict[fx.Node, fx.Node]()
    for place, node in enumerate(inputs):
        copies[node] = graph.placeholder(f"input_{place}")
    for node in nodes:
        if node.op != "output":
            copies[node] = graph.node_copy(node, copies.__getitem__)
    found = tuple(copies[node] for node in outputs)
    graph.output(found if len(found) > 1 else found[0])
    return fx.GraphModule(module, graph).eval()


class _Recorded:
    """One recorded pass with gradients for each call: slower by some microseconds per operator."""

    def __init__(self, network: nn.Module, location: Location) -> None:
        self.network, self.location = network, location

    def __call__(self, images: Tensor, combination: Combination) -> tuple[Tensor, Tensor, Tensor]:
        """The maps, the gradient with respect to them, and the scores."""
        x = images.detach().clone().requires_grad_()
        recorder, scores = record(self.network, type(self.network).__name__, (x,), compute=True)
        result: Any = result_of(recorder, self.location.index)
        assert isinstance(result, Tensor)
        weights = _weights(scores, combination(scores.detach()))
        (gradient,) = torch.autograd.grad(scores, result, weights)
        return result.detach(), gradient, scores.detach()

    def scores(self, images: Tensor) -> Tensor:
        """The scores."""
        scores: Tensor = self.network(images)
        return scores
