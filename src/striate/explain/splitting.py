"""Split a network at its last feature maps: a trunk, which needs no gradients, and a head, which is small.

The gradient of a score with respect to the maps then costs one pass backward through the head. For a network
that ends in global pooling and one linear layer this is the closed form weight / number of units, and the
trunk can be folded for inference (`striate.kernels.folding`), which has no gradients.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
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


# For each image, constant weights of some classes: what is explained is the weighted sum of their scores.
Weights = Sequence[Mapping[int, float]]


class Forward(Protocol):
    """What one pass of images through a network left behind.

    Its tensors can be inference tensors: clone them to change them or to compute gradients.
    """

    @property
    def maps(self) -> Tensor:
        """The last feature maps, `[batch, channels, rows, columns]`."""

    @property
    def scores(self) -> Tensor:
        """`[batch, classes]`."""

    def gradients(self, weights: Weights) -> Tensor:
        """The gradients of the weighted sums of scores with respect to the maps, the shape of the maps."""

    def mean_gradients(self, weights: Weights) -> Tensor:
        """Their means over the units of each map, `[batch, channels]`."""


class Split(Protocol):
    """A network, seen from its last feature maps. Images are `[batch, channels, height, width]`."""

    def __call__(self, images: Tensor) -> Forward:
        """One pass; to be called with gradients enabled."""

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
    if node is None:
        return _Recorded(network, location)
    return _Halves(module, node, images, location, folded=folded)


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
    linear layer's weights, of the explained classes only. If nothing is between the two, nothing is recorded.

    Args:
        module: the traced network.
        node: the step that returns the maps.
        images: for folding.
        location: of the maps in the result of that step.
        folded: whether to fold the trunk.
    """

    def __init__(
        self, module: fx.GraphModule, node: fx.Node, images: Tensor, location: Location, *, folded: bool
    ) -> None:
        nodes = list(module.graph.nodes)
        before, after = nodes[: nodes.index(node) + 1], nodes[nodes.index(node) + 1 :]
        constants = [other for other in nodes if other.op == "get_attr"]
        carried = [
            other
            for other in before
            if other not in (node, *constants) and any(user in after for user in other.users)
        ]
        before = [other for other in before if other not in constants]
        self.carries = bool(carried)
        self.to_maps = location.to_maps
        self.trunk: nn.Module = _part(module, [], [*constants, *before], [node, *carried])
        if folded and not carried:
            self.trunk = fold(self.trunk, (images.shape[1], images.shape[2], images.shape[3]))
        pool, last = _global_pool(module, node, location), _linear_output(module)
        self.pool = None if pool is None else _pooling(pool)
        self.last = None if last is None else cast(nn.Linear, module.get_submodule(str(last.target)))
        inside = [other for other in (*constants, *after) if other not in (pool, last)]
        steps = [other for other in after if other not in (pool, last) and other.op != "output"]
        self.is_linear = bool(pool and last) and all(_only_reshapes(module, step) for step in steps)
        exit_ = after[-1].args[0] if last is None else last.args[0]
        self.head = _part(module, [pool or node, *carried], inside, [cast(fx.Node, exit_)])

    def __call__(self, images: Tensor) -> Forward:
        """One pass."""
        # Inference mode is faster, but its results cannot take part in gradients.
        with torch.no_grad() if self.carries else torch.inference_mode():
            result, carried = self._run(images)
            if self.is_linear:
                features = self._pooled(result).flatten(1)
                return _Halfway(result, self._scores(features), self, features, features)
        maps = self.to_maps(result)
        with torch.no_grad():
            entry = self._pooled(result)
            entry = (entry.clone() if entry.is_inference() else entry.detach()).requires_grad_()
        features = self.head(entry.clone(), *carried)  # a layer in place must not change a leaf
        return _Halfway(maps, self._scores(features.detach()), self, entry, features)

    def scores(self, images: Tensor) -> Tensor:
        """The scores."""
        result, carried = self._run(images)
        return self._scores(self.head(self._pooled(result), *carried))

    def _run(self, images: Tensor) -> tuple[Tensor, list[Tensor]]:
        """The result of the trunk, and what else the head reads."""
        found = self.trunk(images)
        result, *carried = found if isinstance(found, tuple) else (found,)
        return result, carried

    def _pooled(self, result: Tensor) -> Tensor:
        return result if self.pool is None else self.pool(result)

    def _scores(self, features: Tensor) -> Tensor:
        return (
            features if self.last is None else F.linear(features, self.last.weight, self.last.bias).detach()
        )


@dataclass(frozen=True, eq=False)
class _Halfway:
    """A pass through a network that was split; its head has been recorded if that is not linear."""

    maps: Tensor
    scores: Tensor
    halves: _Halves
    entry: Tensor
    features: Tensor

    def gradients(self, weights: Weights) -> Tensor:
        """As `Forward`."""
        if self.halves.pool is None:
            return self.halves.to_maps(self._of_entry(weights))
        return self.mean_gradients(weights)[:, :, None, None].expand_as(self.maps)

    def mean_gradients(self, weights: Weights) -> Tensor:
        """As `Forward`."""
        if self.halves.pool is None:
            return self.gradients(weights).mean(dim=(2, 3))
        return self._of_entry(weights, 1 / self.maps[0, 0].numel()).flatten(1)

    def _of_entry(self, weights: Weights, factor: float = 1.0) -> Tensor:
        """The gradient with respect to what the head reads, times a factor."""
        last = self.halves.last
        if last is None:
            outer = factor * _dense(self.scores, weights)
        else:
            rows = last.weight.detach()
            sums = [_sum(rows, one, factor) for one in weights]
            outer = (torch.stack(sums) if len(sums) > 1 else sums[0]).view_as(self.features)
        if self.halves.is_linear:
            return outer
        return _weighted_gradient(self.features, outer, self.entry)


def _weighted_gradient(outputs: Tensor, weights: Tensor, inputs: Tensor) -> Tensor:
    """The gradient of the weighted sum of outputs with respect to the inputs."""
    # Not `grad_outputs=weights`, with which torch imports SymPy: half a second.
    total = torch.dot(outputs.flatten(), weights.flatten())
    (gradient,) = torch.autograd.grad(total, inputs, retain_graph=True)
    return gradient


def _sum(rows: Tensor, weights: Mapping[int, float], factor: float) -> Tensor:
    """The weighted sum of some rows."""
    return functools.reduce(torch.add, [factor * weight * rows[i] for i, weight in weights.items()])


def _dense(scores: Tensor, weights: Weights) -> Tensor:
    """The weights of all classes, the shape of the scores."""
    out = torch.zeros_like(scores)
    for row, one in zip(out, weights, strict=True):
        for number, weight in one.items():
            row[number] = weight
    return out


def _global_pool(module: fx.GraphModule, node: fx.Node, location: Location) -> fx.Node | None:
    """The step after the maps, if it is global average pooling and nothing else reads the maps."""
    if len(node.users) != 1 or location.dims != (2, 3):
        return None
    (user,) = node.users
    if user.op == "call_module":
        layer = module.get_submodule(str(user.target))
        return user if type(layer) is nn.AdaptiveAvgPool2d and layer.output_size in (1, (1, 1)) else None
    is_mean = user.target is torch.mean or (user.op == "call_method" and user.target == "mean")
    arguments = {**dict(zip(("dim", "keepdim"), user.args[1:], strict=False)), **user.kwargs}
    known = set(arguments) <= {"dim", "keepdim"} and arguments.get("dim") in (
        (2, 3),
        (-2, -1),
        [2, 3],
        [-2, -1],
    )
    return user if is_mean and known else None


def _only_reshapes(module: fx.GraphModule, node: fx.Node) -> bool:
    """Whether a step between a global pool and a linear layer changes no value in evaluation mode."""
    if node.op == "call_module":
        return type(module.get_submodule(str(node.target))) in (nn.Flatten, nn.Dropout, nn.Identity)
    return node.target in (torch.flatten, "flatten") and node.op != "get_attr"


def _pooling(pool: fx.Node) -> Callable[[Tensor], Tensor]:
    """Global average pooling as this step does it: with or without dimensions of size 1."""
    keepdim = pool.op == "call_module" or bool(
        pool.kwargs.get("keepdim", len(pool.args) > 2 and pool.args[2])
    )
    return functools.partial(torch.mean, dim=(2, 3), keepdim=keepdim)


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

    def __call__(self, images: Tensor) -> Forward:
        """One pass."""
        x = images.detach().clone().requires_grad_()
        recorder, scores = record(self.network, type(self.network).__name__, (x,), compute=True)
        result: Any = result_of(recorder, self.location.index)
        assert isinstance(result, Tensor)
        return _Graph(self.location.to_maps(result.detach()), scores.detach(), self.location, result, scores)

    def scores(self, images: Tensor) -> Tensor:
        """The scores."""
        scores: Tensor = self.network(images)
        return scores


@dataclass(frozen=True, eq=False)
class _Graph:
    """A pass whose steps have all been recorded."""

    maps: Tensor
    scores: Tensor
    location: Location
    result: Tensor
    output: Tensor

    def gradients(self, weights: Weights) -> Tensor:
        """As `Forward`."""
        gradient = _weighted_gradient(self.output, _dense(self.scores, weights), self.result)
        return self.location.to_maps(gradient)

    def mean_gradients(self, weights: Weights) -> Tensor:
        """As `Forward`."""
        return self.gradients(weights).mean(dim=(2, 3))
