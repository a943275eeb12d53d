"""Split a network where its trainable part begins, so that the frozen part runs only once per image."""

from __future__ import annotations

import copy
from dataclasses import dataclass

from torch import fx, nn

from striate.kernels.folding import Tracer


@dataclass(frozen=True, eq=False)
class Split:
    """The two parts of a network.

    Attributes:
        frozen: images to features, for inference only; training does not change it.
        trainable: graph of the steps from features to scores. `torch.fx.GraphModule(network, trainable)` runs
            it with the layers of the network or of a copy.
    """

    frozen: nn.Module
    trainable: fx.Graph


def split_at_trainable(network: nn.Module) -> Split | None:
    """Split a network before the first step that trains or that is random in training.

    Args:
        network: partly frozen, with its layers in the modes they have in training (`training_mode`).

    Returns:
        The parts. None if no step precedes the trainable ones, if more than one tensor passes between the
        parts, or if the steps depend on the input.
    """
    base = copy.copy(network)  # the tracer adds constants to the module
    try:
        graph = _Tracer().trace_images(base)
    except Exception:  # a forward may do anything with its input, and the proxy supports only some of it
        return None
    changing: set[fx.Node] = set()
    constant: set[fx.Node] = set()  # what depends neither on the images nor on what trains
    for node in graph.nodes:
        if _changes(node, base) or not changing.isdisjoint(node.all_input_nodes):
            changing.add(node)
        elif node.op != "placeholder" and constant.issuperset(node.all_input_nodes):
            constant.add(node)
    before = [node for node in graph.nodes if node not in changing | constant]
    border = [node for node in before if not changing.isdisjoint(node.users)]
    if len(border) != 1 or border[0].op == "placeholder":
        return None
    frozen = fx.GraphModule(base, _steps_until(border[0]))
    for node in reversed(graph.nodes):
        if node in constant and not changing.isdisjoint(node.users):
            changing.add(node)  # it is needed after the border
    after = _steps_after(border[0], changing)
    if any(node.op == "get_attr" and not _has(network, str(node.target)) for node in after.nodes):
        return None  # a tensor that was made while tracing, which the network does not have
    return Split(frozen.eval(), after)


class _Tracer(Tracer):
    """Traces into modules that are partly frozen; every other module is one step. Buffers are read anew."""

    proxy_buffer_attributes = True

    def is_leaf_module(self, module: nn.Module, name: str) -> bool:
        """Whether a module is one step."""
        return len({parameter.requires_grad for parameter in module.parameters()}) < 2


def _changes(node: fx.Node, network: nn.Module) -> bool:
    """Whether a step's output for the same input changes from epoch to epoch."""
    if node.op == "get_attr":
        path, _, name = str(node.target).rpartition(".")
        return bool(getattr(getattr(network.get_submodule(path), name), "requires_grad", False))
    if node.op != "call_module":
        return False
    module = network.get_submodule(str(node.target))
    return any(parameter.requires_grad for parameter in module.parameters()) or any(
        isinstance(layer, nn.modules.dropout._DropoutNd) and layer.training and layer.p > 0
        for layer in module.modules()
    )


def _has(network: nn.Module, target: str) -> bool:
    """Whether a network has a tensor of this name."""
    path, _, name = target.rpartition(".")
    return hasattr(network.get_submodule(path), name)


def _steps_until(border: fx.Node) -> fx.Graph:
    """The steps from the images to the features."""
    graph = fx.Graph()
    copies: dict[fx.Node, fx.Node] = {}
    for node in border.graph.nodes:
        copies[node] = graph.node_copy(node, lambda old: copies[old])
        if node is border:
            break
    graph.output(copies[border])
    return graph


def _steps_after(border: fx.Node, kept: set[fx.Node]) -> fx.Graph:
    """The steps from the features to the scores, of those that are kept."""
    graph = fx.Graph()
    copies = {border: graph.placeholder("features")}
    for node in border.graph.nodes:
        if node in kept:
            copies[node] = graph.node_copy(node, lambda old: copies[old])
    return graph
