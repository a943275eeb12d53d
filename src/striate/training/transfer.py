"""Transfer learning: load weights, freeze, and keep what is frozen frozen.

Frozen means parameters and buffers: a frozen BatchNorm neither learns nor updates its statistics, and the
frozen part as a whole computes as in evaluation.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from striate.errors import UsageError
from striate.models.vit import VisionTransformer, interpolate_positions

_NORMS = (nn.BatchNorm2d, nn.LayerNorm)


@dataclass(frozen=True)
class Loading:
    """What became of the weights that a network was started from.

    Attributes:
        fresh: names of tensors that keep their fresh values, since the weights have none that fit.
        sentences: a line for each thing worth knowing.
    """

    fresh: tuple[str, ...]
    sentences: tuple[str, ...]


def load(network: nn.Module, state: dict[str, Tensor], source: str) -> Loading:
    """Load all weights that fit, adapt what can be adapted, and say what was neither.

    A first layer for RGB is summed over its channels for a grayscale network; a ViT's positions are
    interpolated for other image sizes.

    Args:
        network: its state is overwritten.
        state: weights under the network's own names, on the CPU.
        source: where they are from, for the sentences.
    """
    own = network.state_dict()
    fits, sentences = {}, []
    for name, value in state.items():
        if name not in own:
            continue
        wanted = own[name].shape
        if value.shape == wanted:
            fits[name] = value
        elif value.ndim == 4 and (value.shape[1], wanted[1]) == (3, 1) and value.shape[2:] == wanted[2:]:
            fits[name] = value.sum(dim=1, keepdim=True)
            sentences.append(f"{name}: summed over red, green and blue for grayscale images")
        elif name.endswith("encoder.pos_embedding") and isinstance(network, VisionTransformer):
            fits[name] = interpolate_positions(value, network.grid)
            sentences.append(f"{name}: interpolated for {network.grid[0]}x{network.grid[1]} patches")
        else:
            sentences.append(f"{name}: not loaded, it has shape {list(value.shape)} and not {list(wanted)}")
    network.load_state_dict(fits, strict=False)
    fresh = tuple(name for name in own if name not in fits)
    missing = f"; fresh are {', '.join(fresh)}" if fresh else ""
    return Loading(fresh, (f"{source}: {len(fits)} of {len(own)} tensors loaded{missing}", *sentences))


def freeze(network: nn.Module, mode: str, last_layers: int, head: str) -> list[str]:
    """Let only a part of a network train.

    Args:
        network: its parameters are marked.
        mode: `all`; `last`, the last stages or blocks; `head` or `append`, the module called `head`.
        last_layers: how many units `last` trains, the classifier among them.
        head: name of the classifier, or of the layer appended to it.

    Returns:
        The names of the modules that train.

    Raises:
        UsageError: more units asked for than there are.
    """
    groups = units(network)
    if mode == "last":
        if last_layers > len(groups):
            raise UsageError(
                f"--last-layers {last_layers}",
                f"the network has {len(groups)} stages and blocks",
                "Use --transfer all to train everything",
            )
        groups = groups[-last_layers:]
    trained = [name for group in groups for name in group] if mode in ("all", "last") else [head]
    network.requires_grad_(mode == "all")
    for name in trained:
        network.get_submodule(name).requires_grad_(True)
    return trained


def units(network: nn.Module) -> list[list[str]]:
    """The stages and blocks of a network in their order, each as the names of its modules.

    Lists of layers count layer by layer, and a norm belongs to what stands before it.
    """
    names = []
    for name, child in network.named_children():
        if name in ("features", "classifier", "heads"):
            names += [f"{name}.{index}" for index, _ in child.named_children()]
        elif name == "encoder":
            names += [
                f"encoder.layers.{index}" for index, _ in child.get_submodule("layers").named_children()
            ]
            names.append("encoder.ln")
        else:
            names.append(name)
    groups: list[list[str]] = []
    for name in names:
        module = network.get_submodule(name)
        if isinstance(module, _NORMS) and groups:
            groups[-1].append(name)
        elif any(True for _ in module.parameters()):
            groups.append([name])
    return groups


def training_mode(network: nn.Module) -> None:
    """Put what trains into training mode, and what is frozen into evaluation mode.

    A layer without parameters (dropout, an activation) goes with the layer that it feeds.
    """
    for module in network.modules():
        parameters = list(module.parameters())
        module.training = not parameters or any(p.requires_grad for p in parameters)
    leaves = [module for module in network.modules() if not any(True for _ in module.children())]
    feeds_training = True
    for leaf in reversed(leaves):
        if any(True for _ in leaf.parameters()):
            feeds_training = leaf.training
        else:
            leaf.training = feeds_training


def count(network: nn.Module) -> tuple[int, int]:
    """How many parameters train, and how many are frozen."""
    trained = sum(p.numel() for p in network.parameters() if p.requires_grad)
    return trained, sum(p.numel() for p in network.parameters()) - trained


def frozen_state(network: nn.Module) -> dict[str, torch.Tensor]:
    """Parameters and buffers of the frozen part: what training must leave as it is, bit for bit."""
    frozen = {name for name, p in network.named_parameters() if not p.requires_grad}
    for path, module in network.named_modules():
        parameters = list(module.parameters(recurse=False))
        if parameters and not any(p.requires_grad for p in parameters):
            prefix = f"{path}." if path else ""
            frozen |= {prefix + name for name, _ in module.named_buffers(recurse=False)}
    return {name: value for name, value in network.state_dict().items() if name in frozen}
