"""Find a network's weights among those of a larger module: `backbone.`, `encoder_q.`, next to a loss."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from torch import Tensor

from striate import models
from striate.weights import matching

_DEPTH = 4  # of modules around the network
_AVERAGES = ("ema", "teacher", "encoder_k", "momentum", "target", "average")  # in names of averaged copies


def take_network(state: dict[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
    """Take the tensors of the network out of those of the module that contains it.

    Args:
        state: key -> tensor.

    Returns:
        The network's tensors under its own keys, and notes; the same state dict if it is a network's, or if
        no part of it resembles one. Of several networks, the first that is no average of another.
    """
    if _resembling(state):
        return state, []
    found = dict(_networks(state, "", _DEPTH))
    if not found:
        return state, []
    names = sorted(found, key=lambda name: any(word in name for word in _AVERAGES))
    prefix, network = names[0], found[names[0]]
    notes = [f"weights taken from the tensors whose names start with {prefix!r}"]
    if names[1:]:
        others = ", ".join(name.rstrip(".") for name in names[1:])
        notes.append(f"the file also has weights under {others} (--part selects them)")
    left = [name for name in state if not name.startswith(tuple(names))]
    if layer := _only_layer(left):
        classifier = models.describe(_resembling(network)).classifier
        if f"{classifier}.weight" not in network:
            network = network | {f"{classifier}.{end}": state[f"{layer}.{end}"] for end in ("weight", "bias")}
            notes.append(f"{layer}, next to the network, is used as its classifier {classifier}")
            left = []
    if left:
        more = " and more" if len(left) > 4 else ""
        notes.append(f"ignored {', '.join(left[:4])}{more}: not of this network")
    return network, notes


def _only_layer(names: Sequence[str]) -> str:
    """The module that these are the weight and the bias of; empty for other names."""
    layers = {name.rpartition(".")[0] for name in names}
    ends = {name.rpartition(".")[2] for name in names}
    return layers.pop() if len(layers) == 1 and ends == {"weight", "bias"} else ""


def _networks(state: Mapping[str, Tensor], above: str, depth: int) -> Iterator[tuple[str, dict[str, Tensor]]]:
    """The prefixes of the networks in a state dict, with their tensors."""
    groups: dict[str, dict[str, Tensor]] = {}
    for name, tensor in state.items():
        first, dot, rest = name.partition(".")
        if dot:
            groups.setdefault(first, {})[rest] = tensor
    for first, group in groups.items():
        if _resembling(group):
            yield f"{above}{first}.", group
        elif depth > 1:
            yield from _networks(group, f"{above}{first}.", depth - 1)


def _resembling(state: Mapping[str, Tensor]) -> str:
    """The first network that has most of these names; empty if there is none."""
    translated, _ = matching.translate_keys(state)
    return next((name for name in models.MODELS if matching.resembles(name, translated)), "")
