"""Split a network at its last feature maps: a trunk, which needs no gradients, and a head, which is small.

The gradient of a score with respect to the maps then costs one pass backward through the head, in closed form
if it has only pools and linear layers (`striate.explain.linear_head`). The trunk can be folded for inference
(`striate.kernels.folding`), which has no gradients.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from striate.anatomy.layers import result_of
from striate.anatomy.tracing import record
from striate.explain.forward import Forward, Split, Weights, weighted_gradient, weighted_rows
from striate.explain.linear_head import LinearHead, LinearPass, global_mean, linear_head, part
from striate.explain.location import Location
from striate.kernels.folding import Tracer, fold

Shape = tuple[int, int, int]
_TOLERANCE = 1e-4  # of the largest value


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
    halves = _Halves(module, node, images, location, folded=folded)
    head = linear_head(module, node, result.shape[1], is_constant=folded) if location.dims == (2, 3) else None
    return halves if head is None else _LinearHalves(halves.trunk, head)


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


class _LinearHalves:
    """Trunk and head, whose gradients have a closed form."""

    def __init__(self, trunk: nn.Module, head: LinearHead) -> None:
        self.trunk, self.head = trunk, head

    @torch.inference_mode()
    def __call__(self, images: Tensor) -> LinearPass:
        """One pass."""
        return self.head(self.trunk(images))

    def scores(self, images: Tensor) -> Tensor:
        """The scores."""
        return self.head(self.trunk(images)).scores


class _Halves:
    """Trunk and head as two modules; the head without a global pool before it and a linear layer after it.

    For these two the gradient has a closed form: it is equal in all units of a map, and the rows of the
    linear layer's weights, of the explained classes only.

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
        self.trunk: nn.Module = part(module, [], [*constants, *before], [node, *carried])
        if folded and not carried:
            self.trunk = fold(self.trunk, (images.shape[1], images.shape[2], images.shape[3]))
        pool, last = _global_pool(module, node, location), _linear_output(module)
        self.pool = None if pool is None else _pooling(pool)
        self.last = None if last is None else cast(nn.Linear, module.get_submodule(str(last.target)))
        inside = [other for other in (*constants, *after) if other not in (pool, last)]
        exit_ = after[-1].args[0] if last is None else last.args[0]
        self.head = part(module, [pool or node, *carried], inside, [cast(fx.Node, exit_)])

    def __call__(self, images: Tensor) -> Forward:
        """One pass."""
        # Inference mode is faster, but its results cannot take part in gradients.
        with torch.no_grad() if self.carries else torch.inference_mode():
            result, carried = self._run(images)
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
    """A pass through a network that was split, whose head has been recorded."""

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
            outer = weighted_rows(last.weight.detach(), weights, factor).view_as(self.features)
        return weighted_gradient(self.features, outer, self.entry)


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
    return None if global_mean(user) is None else user


def _pooling(pool: fx.Node) -> Callable[[Tensor], Tensor]:
    """Global average pooling as this step does it: with or without dimensions of size 1."""
    keepdim = pool.op == "call_module" or bool(global_mean(pool))
    return functools.partial(torch.mean, dim=(2, 3), keepdim=keepdim)


def _linear_output(module: fx.GraphModule) -> fx.Node | None:
    """The last step, if it is a linear layer."""
    *_, output = module.graph.nodes
    node = output.args[0]
    is_module = isinstance(node, fx.Node) and node.op == "call_module" and len(node.users) == 1
    if is_module and type(module.get_submodule(str(cast(fx.Node, node).target))) is nn.Linear:
        return cast(fx.Node, node)
    return None


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
        gradient = weighted_gradient(self.output, _dense(self.scores, weights), self.result)
        return self.location.to_maps(gradient)

    def mean_gradients(self, weights: Weights) -> Tensor:
        """As `Forward`."""
        return self.gradients(weights).mean(dim=(2, 3))
