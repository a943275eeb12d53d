"""Transfer learning: load pretrained weights, freeze a part of the network, and keep it frozen.

Frozen means parameters and buffers: a frozen BatchNorm updates neither its weights nor its statistics, and
the frozen part runs in evaluation mode.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from striate.errors import UsageError
from striate.models.foreign import NORMS, adapted_kernel


@dataclass(frozen=True)
class Loading:
    """The result of loading weights into a network.

    Attributes:
        fresh: names of tensors that keep their initial values because the weights have none that fit.
        notes: one line for each remark.
    """

    fresh: tuple[str, ...]
    notes: tuple[str, ...]


def load(network: nn.Module, state: dict[str, Tensor], source: str) -> Loading:
    """Load all weights that fit, adapt those that can be adapted, and report the others.

    A first convolution for other channels is adapted to the network's: its mean over the input channels,
    scaled (for grayscale, their sum). A network may adapt weights to its input size (`adapt_weights`, see
    `striate.models`).

    Args:
        network: its state is overwritten.
        state: weights with the network's own keys, on the CPU.
        source: where they come from, for the notes.
    """
    own = network.state_dict()
    first = next((f"{n}.weight" for n, layer in network.named_modules() if isinstance(layer, nn.Conv2d)), "")
    fits, notes = {}, []
    if adapt := getattr(network, "adapt_weights", None):
        state, notes = adapt(state)
    for name, value in state.items():
        if name not in own:
            continue
        wanted = own[name].shape
        if value.shape == wanted:
            fits[name] = value
        elif name == first and _other_channels(value.shape, wanted):
            fits[name] = adapted_kernel(value, wanted[1])
            notes.append(
                f"{name}: summed over red, green and blue for grayscale images"
                if (value.shape[1], wanted[1]) == (3, 1)
                else f"{name}: for {wanted[1]} channels, the mean over its {value.shape[1]}, scaled"
            )
        else:
            notes.append(f"{name}: not loaded because its shape is {list(value.shape)}, not {list(wanted)}")
    network.load_state_dict(fits, strict=False)
    fresh = tuple(name for name in own if name not in fits)
    missing = f"; initialized at random: {', '.join(fresh)}" if fresh else ""
    return Loading(fresh, (f"{source}: {len(fits)} of {len(own)} tensors loaded{missing}", *notes))


def _other_channels(one: torch.Size, other: torch.Size) -> bool:
    """Whether two shapes of convolutions differ in nothing but the number of input channels."""
    return len(one) == len(other) == 4 and (one[0], *one[2:]) == (other[0], *other[2:])


def freeze(network: nn.Module, mode: str, last_layers: int, head: str) -> list[str]:
    """Freeze all parameters of a network except those that a mode trains.

    Args:
        network: `requires_grad` of its parameters is set.
        mode: `all`; `last`, the last stages; `head` or `append`, the module called `head`.
        last_layers: number of stages that `last` trains, including the classifier.
        head: name of the classifier, or of the layer appended to it.

    Returns:
        The names of the modules that train.

    Raises:
        UsageError: the network has fewer stages.
    """
    groups = stages(network)
    if mode == "last":
        if last_layers > len(groups):
            raise UsageError(
                f"--last-layers {last_layers}",
                f"the network has {len(groups)} stages",
                "Use --transfer all to train everything",
            )
        groups = groups[-last_layers:]
    trained = [name for group in groups for name in group] if mode in ("all", "last") else [head]
    network.requires_grad_(mode == "all")
    for name in trained:
        network.get_submodule(name).requires_grad_(True)
    return trained


def freeze_gradually(network: nn.Module, mode: str, last_layers: int, head: str, count: int) -> list[str]:
    """Freeze all but the last stages of those that a mode trains (Howard, Ruder 2018, section 3.3).

    Args:
        network: `requires_grad` of its parameters is set.
        mode: `all` or `last`, as for `freeze`.
        last_layers: as for `freeze`.
        head: name of the classifier, which is trained in any case; empty if it is not known.
        count: number of stages to train, at least 1; `freeze` if there are no more.

    Returns:
        The names of the modules that train.
    """
    groups = stages(network)
    groups = groups[-last_layers:] if mode == "last" else groups
    if count >= len(groups):
        return freeze(network, mode, last_layers, head)
    trained = [name for group in groups[-count:] for name in group]
    trained += [head] if head and head not in trained else []
    network.requires_grad_(False)
    for name in trained:
        network.get_submodule(name).requires_grad_(True)
    return trained


def stages(network: nn.Module) -> list[list[str]]:
    """The stages of a network in their order, each a list of module names.

    Each child with parameters is a stage, and so is each layer of the network's `stage_containers` (see
    `striate.models`). A norm belongs to the stage before it.
    """
    groups: list[list[str]] = []
    for name, module in _children(network, getattr(network, "stage_containers", ())):
        if isinstance(module, NORMS) and groups:
            groups[-1].append(name)
        elif any(True for _ in module.parameters()):
            groups.append([name])
    return groups


def _children(
    module: nn.Module, containers: tuple[str, ...], prefix: str = ""
) -> Iterator[tuple[str, nn.Module]]:
    """The children of a module with their full names; those of its containers instead of the containers."""
    for name, child in module.named_children():
        if prefix + name in containers:
            yield from _children(child, containers, f"{prefix}{name}.")
        else:
            yield prefix + name, child


def training_mode(network: nn.Module) -> None:
    """Put trainable modules into training mode and frozen ones into evaluation mode."""
    for module, trains in training_modes(network).items():
        module.training = trains


def training_modes(network: nn.Module) -> dict[nn.Module, bool]:
    """For each module whether it is in training mode while the network is trained.

    A layer without parameters (dropout, an activation) gets the mode of the layer it feeds.
    """
    kinds: dict[nn.Module, set[bool]] = {}  # requires_grad of all parameters of each module, inner ones first
    _add_kinds(network, kinds)
    modes = {module: not kinds[module] or True in kinds[module] for module in network.modules()}
    leaves = [module for module in modes if not any(True for _ in module.children())]
    feeds_training = True
    for leaf in reversed(leaves):
        if kinds[leaf]:
            feeds_training = modes[leaf]
        else:
            modes[leaf] = feeds_training
    return modes


def _add_kinds(module: nn.Module, kinds: dict[nn.Module, set[bool]]) -> None:
    found = kinds[module] = {p.requires_grad for p in module.parameters(recurse=False)}
    for child in module.children():
        if child not in kinds:  # a layer may be in several places
            _add_kinds(child, kinds)
        found |= kinds[child]


def frozen_state(network: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers of the frozen part, which training must not change by a single bit."""
    frozen = {name for name, p in network.named_parameters() if not p.requires_grad}
    for path, module in network.named_modules():
        parameters = list(module.parameters(recurse=False))
        if parameters and not any(p.requires_grad for p in parameters):
            prefix = f"{path}." if path else ""
            frozen |= {prefix + name for name, _ in module.named_buffers(recurse=False)}
    return {name: value for name, value in network.state_dict().items() if name in frozen}
