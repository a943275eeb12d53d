"""Heads of pools and linear layers: gradients of their scores with respect to feature maps, in closed form.

Most convolutional networks end in pools and one to three linear layers with activations between them. To
record such a head for autograd takes longer than the arithmetic of a small one. And Grad-CAM needs only the
sum of the gradient over the units of each map, which max pools and adaptive average pools leave as it is: a
max pool passes the gradient of each of its units to one unit, an average passes shares of it that add up to
it. So the first layer's weights, added up over units, suffice; those of AlexNet are 36 times fewer, those of
VGG 49 times.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from striate.explain.forward import Weights, weighted_gradient, weighted_rows


class _Activation(NamedTuple):
    """A function, and the gradient of its argument from that of its result and the argument."""

    function: Callable[[Tensor], Tensor]
    backward: Callable[[Tensor, Tensor], Tensor]


_NONE = _Activation(lambda x: x, lambda gradient, _: gradient)
_RELU = _Activation(F.relu, lambda gradient, x: torch.ops.aten.threshold_backward(gradient, x, 0))
_HARDSWISH = _Activation(F.hardswish, torch.ops.aten.hardswish_backward)
_ACTIVATIONS: dict[Any, _Activation] = {
    nn.ReLU: _RELU,
    F.relu: _RELU,
    torch.relu: _RELU,
    nn.Hardswish: _HARDSWISH,
    F.hardswish: _HARDSWISH,
}
_POOLS = (nn.MaxPool2d, F.max_pool2d, nn.AdaptiveAvgPool2d, F.adaptive_avg_pool2d)
_WITHOUT_EFFECT = (nn.Dropout, nn.Identity)  # in evaluation mode


class LinearHead:
    """Pools, then linear layers with activations between them, in evaluation mode.

    Args:
        pools: from maps `[batch, channels, rows, columns]` to `[batch, channels * units]`.
        layers: the linear layers.
        activations: after each but the last.
        channels: of the maps.
        is_constant: whether the weights stay as they are.
    """

    def __init__(
        self,
        pools: nn.Module,
        layers: Sequence[nn.Linear],
        activations: Sequence[_Activation],
        channels: int,
        *,
        is_constant: bool,
    ) -> None:
        self.pools, self.layers, self.activations = pools, layers, activations
        self.channels = channels
        self._summed = self._sum_over_units() if is_constant else None

    def __call__(self, maps: Tensor) -> LinearPass:
        """One pass, in inference mode."""
        x, inner = self.pools(maps), list[Tensor]()
        for layer, activation in zip(self.layers, (*self.activations, _NONE), strict=True):
            inner.append(F.linear(x, layer.weight, layer.bias))
            x = activation.function(inner[-1])
        return LinearPass(maps, x, self, inner)

    def gradients(self, inner: Sequence[Tensor], weights: Weights) -> Tensor:
        """Gradients of weighted sums of scores with respect to what the first layer reads.

        Args:
            inner: the results of the layers, before activations.
            weights: of the scores.

        Returns:
            `[batch, channels * units]`.
        """
        return self._backward(inner, weights, self.layers[0].weight.detach())

    def sums_of_gradients(self, inner: Sequence[Tensor], weights: Weights, factor: float) -> Tensor:
        """Their sums over the units of each map times a factor, `[batch, channels]`."""
        first = self._sum_over_units() if self._summed is None else self._summed
        return self._backward(inner, weights, first, factor)

    def _backward(
        self, inner: Sequence[Tensor], weights: Weights, first: Tensor, factor: float = 1.0
    ) -> Tensor:
        *rows, last = (first, *(layer.weight.detach() for layer in self.layers[1:]))
        gradient = weighted_rows(last, weights, factor)
        for place in reversed(range(len(rows))):
            gradient = self.activations[place].backward(gradient, inner[place]) @ rows[place]
        return gradient

    def _sum_over_units(self) -> Tensor:
        """The first layer's weights added up over the units of each map, `[out, channels]`."""
        weight = self.layers[0].weight.detach()
        return (
            weight if weight.shape[1] == self.channels else weight.view(len(weight), self.channels, -1).sum(2)
        )


@dataclass(frozen=True, eq=False)
class LinearPass:
    """A pass through a network with such a head, as `Forward`."""

    maps: Tensor
    scores: Tensor
    head: LinearHead
    inner: Sequence[Tensor]

    def gradients(self, weights: Weights) -> Tensor:
        """As `Forward`."""
        maps = self.maps.clone().requires_grad_()
        return weighted_gradient(self.head.pools(maps), self.head.gradients(self.inner, weights), maps)

    def mean_gradients(self, weights: Weights) -> Tensor:
        """As `Forward`."""
        return self.head.sums_of_gradients(self.inner, weights, 1 / self.maps[0, 0].numel())


def linear_head(
    module: fx.GraphModule, node: fx.Node, channels: int, *, is_constant: bool
) -> LinearHead | None:
    """The steps of a traced network after the one that returns its maps; None if there are others among them.

    Args:
        module: the network.
        node: returns `[batch, channels, rows, columns]`.
        channels: of the maps.
        is_constant: as for `LinearHead`.
    """
    steps = _only_path(node)
    kinds = [_kind(module, step) for step in steps]
    if nn.Linear not in kinds or steps[-1].op != "output":
        return None
    start = kinds.index(nn.Linear)
    layers, activations = list[nn.Linear](), list[_Activation]()
    for step, kind in zip(steps[start:-1], kinds[start:-1], strict=True):
        if kind is nn.Linear:
            layers.append(cast(nn.Linear, module.get_submodule(str(step.target))))
            activations.append(_NONE)
        elif kind in _ACTIVATIONS and activations[-1] is _NONE:
            activations[-1] = _ACTIVATIONS[kind]
        elif kind not in _WITHOUT_EFFECT:
            return None
    pools = steps[:start]
    is_known = activations.pop() is _NONE and _flatten_and_keep_sums(module, pools)
    if not is_known or layers[0].in_features % channels:
        return None
    return LinearHead(
        part(module, [node], pools, pools[-1:]), layers, activations, channels, is_constant=is_constant
    )


def _only_path(node: fx.Node) -> list[fx.Node]:
    """The steps after one, up to the first whose result several others read."""
    steps = list[fx.Node]()
    while len(node.users) == 1:
        (node,) = node.users
        steps.append(node)
    return steps


def _kind(module: fx.GraphModule, node: fx.Node) -> Any:
    """The type of a step's module, or its function, or the name of its method."""
    return type(module.get_submodule(str(node.target))) if node.op == "call_module" else node.target


def _flatten_and_keep_sums(module: fx.GraphModule, steps: Sequence[fx.Node]) -> bool:
    """Whether some steps return `[batch, features]` and leave sums of gradients over units as they are."""
    is_flat = False
    for step in steps:
        kind = _kind(module, step)
        keeps_dims = global_mean(step)
        if kind in (torch.flatten, "flatten"):
            is_flat = (*step.args[1:], *step.kwargs.values()) == (1,)
        elif kind is nn.Flatten:
            layer = cast(nn.Flatten, module.get_submodule(str(step.target)))
            is_flat = (layer.start_dim, layer.end_dim) == (1, -1)
        elif keeps_dims is not None:
            is_flat = not keeps_dims
        elif kind not in (*_POOLS, *_WITHOUT_EFFECT):
            return False
    return is_flat


def global_mean(node: fx.Node) -> bool | None:
    """Whether a mean over rows and columns keeps these dimensions; None for any other step."""
    is_mean = node.target is torch.mean or (node.op == "call_method" and node.target == "mean")
    arguments = {**dict(zip(("dim", "keepdim"), node.args[1:], strict=False)), **node.kwargs}
    known = set(arguments) <= {"dim", "keepdim"} and arguments.get("dim") in (
        (2, 3),
        (-2, -1),
        [2, 3],
        [-2, -1],
    )
    return bool(arguments.get("keepdim", False)) if is_mean and known else None


def part(
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
