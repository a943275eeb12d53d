"""A network cut in two where what trains begins: the frozen part, and the rest on what that gives."""

from __future__ import annotations

import copy
from dataclasses import dataclass

from torch import fx, nn

from striate.kernels.folding import Tracer


@dataclass(frozen=True, eq=False)
class Cut:
    """A network in two parts, which one after the other are the network.

    Attributes:
        frozen: images to features, for inference only; does not change while the rest trains.
        rest: the steps from features to scores; `torch.fx.GraphModule(network, rest)` takes them with the
            layers of the network, or of a copy of it.
    """

    frozen: nn.Module
    rest: fx.Graph


def cut(network: nn.Module) -> Cut | None:
    """Cut a network before the first step that trains, or that draws at random in training.

    Args:
        network: frozen in part, with its layers in the mode that each has in training (`training_mode`).

    Returns:
        The parts; None where nothing comes before what trains, where more than one tensor passes from the
        one part to the other, or where the network's steps depend on what it reads.
    """
    base = copy.copy(network)  # the tracer leaves constants behind
    try:
        graph = _Tracer().trace(base)
    except Exception:  # a forward may do anything to what it reads, and the stand-in bears little of it
        return None
    moving: set[fx.Node] = set()
    for node in graph.nodes:
        if _moves(node, network) or not moving.isdisjoint(node.all_input_nodes):
            moving.add(node)
    border = [node for node in graph.nodes if node not in moving and not moving.isdisjoint(node.users)]
    if len(border) != 1 or border[0].op == "placeholder":
        return None
    frozen = fx.GraphModule(base, _until(border[0]))
    return Cut(frozen.eval(), _after(border[0], moving))


class _Tracer(Tracer):
    """Follows a network into those modules of which a part trains and a part does not."""

    def is_leaf_module(self, module: nn.Module, name: str) -> bool:
        """Whether a module is one step."""
        trains = {parameter.requires_grad for parameter in module.parameters()}
        return len(trains) < 2


def _moves(node: fx.Node, network: nn.Module) -> bool:
    """Whether the answer of a step changes from epoch to epoch, though what it reads does not."""
    if node.op == "get_attr":
        return bool(getattr(_value(network, str(node.target)), "requires_grad", False))
    if node.op != "call_module":
        return False
    module = network.get_submodule(str(node.target))
    return any(parameter.requires_grad for parameter in module.parameters()) or any(
        isinstance(layer, nn.modules.dropout._DropoutNd) and layer.training and layer.p > 0
        for layer in module.modules()
    )


def _value(network: nn.Module, path: str) -> object:
    module, _, name = path.rpartition(".")
    return getattr(network.get_submodule(module), name)


def _until(border: fx.Node) -> fx.Graph:
    """The steps from the images to what passes the border."""
    graph = fx.Graph()
    copies: dict[fx.Node, fx.Node] = {}
    for node in border.graph.nodes:
        copies[node] = graph.node_copy(node, lambda old: copies[old])
        if node is border:
            break
    graph.output(copies[border])
    return graph


def _after(border: fx.Node, moving: set[fx.Node]) -> fx.Graph:
    """The steps from what passes the border to the scores."""
    graph = fx.Graph()
    copies = {border: graph.placeholder("features")}
    for node in border.graph.nodes:
        if node in moving:
            copies[node] = graph.node_copy(node, lambda old: copies[old])
    return graph
