"""Networks that Striate does not define: built by their factory, then adapted to the classes and the images.

The result is a function of the reference alone (`striate.models.references`), so that a bundle can build the
network again. What the factory does not do itself is done here: a last layer with another number of outputs
is replaced, and so is a first convolution with another number of input channels.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from striate.errors import StriateError, UsageError, environment_error, unknown_name
from striate.models import references
from striate.models.references import NOTHING, Permission, Reference

# Names that factories give these arguments.
_CLASSES, _CHANNELS = ("num_classes", "n_classes"), ("in_channels", "in_chans")
_SIZES = ("input_size", "img_size", "image_size")
NORMS = (nn.modules.batchnorm._BatchNorm, nn.LayerNorm, nn.GroupNorm)  # of the stage before them
_FEW_STAGES = 5  # with fewer, the largest of them is divided


def build(name: str, reference: Reference, permission: Permission = NOTHING) -> nn.Module:
    """Build a network with fresh weights, or those of an object, as a reference says.

    Args:
        name: as in `striate.models.references`.
        reference: classes, channels, size, and the layers that depend on them.
        permission: of the caller.

    Raises:
        TrustError: the name is an import path that the caller does not trust, or an object.
        UsageError: it cannot be built, or lacks a layer of the reference.
    """
    made = make(name, reference, permission)
    fit_channels(made, reference.first_conv, reference.in_channels)
    fit_classes(made, reference.classifier, reference.num_classes)
    made.stage_containers = stage_containers(made, reference.classifier)  # type: ignore[assignment]
    return made


def make(name: str, reference: Reference, permission: Permission = NOTHING) -> nn.Module:
    """Call the factory of a network with those arguments that it takes; as for `build`.

    Returns:
        The network in float32, on the CPU (or the meta device, if it is the default).
    """
    made = _make(name, reference, permission)
    tensors = [*made.parameters(), *made.buffers()]
    if any(tensor.is_floating_point() and tensor.dtype != torch.float32 for tensor in tensors):
        made = made.float()
    return made if all(tensor.device.type in ("cpu", "meta") for tensor in tensors) else made.cpu()


def _make(name: str, reference: Reference, permission: Permission) -> nn.Module:
    kind = references.kind_of(name)
    if permission.network is not None:
        return _call(name, permission.network, replace(reference, options={}))  # it has its own
    if kind == references.TIMM:
        return _timm(name, reference)
    if kind == references.TORCHVISION:
        return _torchvision(name, reference)
    factory = references.follow(name, permission.trust)
    with references.working_folder_last():
        return _call(name, factory, reference)


def fit_classes(network: nn.Module, classifier: str, num_classes: int) -> int | None:
    """Replace the classifier if it has another number of outputs; returns how many it had, else None.

    Raises:
        UsageError: there is no such layer, or it is of another kind.
    """
    if not classifier:
        return None
    layer = layer_of(network, classifier)
    count = outputs_of(layer)
    if count is None or not isinstance(layer, (nn.Linear, nn.Conv2d)):
        kind = type(layer).__name__
        raise UsageError(f"--classifier {classifier}", f"it is a {kind}, not a linear layer or convolution")
    if count == num_classes:
        return None
    bias = layer.bias is not None
    fresh: nn.Module
    if isinstance(layer, nn.Linear):
        fresh = nn.Linear(layer.in_features, num_classes, bias)
    else:
        window: Any = {"stride": layer.stride, "padding": layer.padding, "dilation": layer.dilation}
        fresh = nn.Conv2d(layer.in_channels, num_classes, layer.kernel_size, **window, bias=bias)  # type: ignore[arg-type]
    _replace(network, classifier, fresh.to(next(layer.parameters())))
    return count


def fit_channels(network: nn.Module, first_conv: str, in_channels: int) -> int | None:
    """Replace the first convolution if it reads another number of channels; returns how many, else None."""
    if not first_conv:
        return None
    layer = layer_of(network, first_conv)
    if not isinstance(layer, nn.Conv2d) or layer.groups != 1:
        raise UsageError(f"cannot change the channels of {first_conv}", f"it is {layer}")
    before = layer.in_channels
    if before == in_channels:
        return None
    fresh = copy.deepcopy(layer)
    fresh.in_channels = in_channels
    fresh.weight = nn.Parameter(adapted_kernel(layer.weight.detach(), in_channels))
    _replace(network, first_conv, fresh)
    return before


def adapted_kernel(weight: Tensor, channels: int) -> Tensor:
    """The kernel of a first convolution for another number of channels.

    Each new channel gets the mean over the old ones, scaled by their numbers, so that equal channels give the
    activations that they gave before. One channel gets the sum: a gray image then acts like the same image in
    RGB.

    Args:
        weight: `[out, in, height, width]`.
        channels: number of the new channels.

    Returns:
        `[out, channels, height, width]`.
    """
    mean = weight.mean(dim=1, keepdim=True) if channels != 1 else weight.sum(dim=1, keepdim=True)
    scale = weight.shape[1] / channels if channels != 1 else 1.0
    return (mean * scale).repeat(1, channels, 1, 1)


def layer_of(network: nn.Module, name: str) -> nn.Module:
    """A layer by its name; raises UsageError with near matches."""
    layers = dict(network.named_modules())
    if name not in layers:
        known = [path for path, layer in layers.items() if path and outputs_of(layer) is not None]
        hint = "" if known else "It has no linear layer and no convolution"
        raise unknown_name(f"layer of this {type(network).__name__}", name, known, hint)
    return layers[name]


def outputs_of(layer: nn.Module) -> int | None:
    """Number of outputs of a linear layer or a convolution; None for other layers."""
    if isinstance(layer, nn.Linear):
        return layer.out_features
    return layer.out_channels if isinstance(layer, nn.Conv2d) and layer.groups == 1 else None


def stage_containers(network: nn.Module, classifier: str) -> tuple[str, ...]:
    """The modules whose children are stages for transfer learning and layer-wise decay.

    Each child of the network is a stage. While these are few, the one with the most parameters is divided
    into its children: the blocks of a ViT, the stages of a ConvNeXt.
    """
    opened: list[str] = []
    stages = _with_parameters(network, "")
    while len(stages) < _FEW_STAGES:
        divisible = [name for name in stages if len(_with_parameters(layer_of(network, name), name)) > 1]
        if not divisible:
            break
        largest = max(divisible, key=stages.__getitem__)
        opened.append(largest)
        del stages[largest]
        stages |= _with_parameters(layer_of(network, largest), largest)
    return tuple(opened)


def _with_parameters(module: nn.Module, name: str) -> dict[str, int]:
    """The children with parameters by their full names, with the numbers of these; norms belong to others."""
    counts = {
        f"{name}.{child}" if name else child: sum(p.numel() for p in part.parameters())
        for child, part in module.named_children()
        if not isinstance(part, NORMS)
    }
    return {child: count for child, count in counts.items() if count}


def _replace(network: nn.Module, name: str, layer: nn.Module) -> None:
    parent, _, last = name.rpartition(".")
    setattr(network.get_submodule(parent), last, layer)


def _call(name: str, factory: Any, reference: Reference) -> nn.Module:
    """A copy of a module, or the module that a function returns."""
    if isinstance(factory, nn.Module):
        return _copied(name, factory)
    positional, named = _arguments(factory, reference)
    try:
        made = factory(*positional, **{**named, **reference.options})
    except StriateError:
        raise
    except Exception as error:  # a factory may do anything
        failed = environment_error(error)
        if failed is not None:
            raise failed from error
        why = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
        raise UsageError(f"the factory of {name} failed", why, "It must work with these arguments") from error
    if not isinstance(made, nn.Module):
        what = f"the factory of {name} returned a {type(made).__name__}"
        raise UsageError(what, "a network is a torch.nn.Module", "Return a module")
    return made


def _copied(name: str, module: nn.Module) -> nn.Module:
    """A copy of a module of the caller."""
    try:
        made = copy.deepcopy(module)
    except Exception as error:  # __deepcopy__ and tensors of a graph raise anything
        why = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
        fix = "Give a function that returns the network instead"
        raise UsageError(f"cannot copy the network {name}", why, fix) from error
    return made


def _arguments(factory: Callable[..., Any], reference: Reference) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The arguments that a factory takes for classes, channels and size: positional and by name."""
    try:
        parameters = inspect.signature(factory).parameters
    except (TypeError, ValueError):  # of C
        return (), {}
    height, width = reference.input_size
    offered = dict.fromkeys(_CLASSES, reference.num_classes)
    offered |= dict.fromkeys(_CHANNELS, reference.in_channels)
    offered |= dict.fromkeys(_SIZES, height if height == width else (height, width))  # type: ignore[arg-type]
    free = {n: p for n, p in parameters.items() if n not in reference.options}
    named = {n: offered[n] for n, p in free.items() if n in offered and p.kind is not p.POSITIONAL_ONLY}
    needed = [
        n for n, p in free.items()
        if n not in named and p.default is p.empty and p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)
    ]  # fmt: skip
    if len(needed) == 1 and not set(named) & set(_CLASSES):  # such as `lambda n: ...`
        return (reference.num_classes,), named
    return (), named


def _timm(name: str, reference: Reference) -> nn.Module:
    own = name.partition(":")[2]
    with references.installed("timm") as timm:
        references.require_known(name, timm.list_models())
        cfg = timm.get_pretrained_cfg(own)
        sized = cfg is not None and cfg.fixed_input_size
        size = {"img_size": tuple(reference.input_size)} if sized else {}
        try:
            made: nn.Module = timm.create_model(
                own, pretrained=False, num_classes=reference.num_classes, in_chans=reference.in_channels,
                **size,
            )  # fmt: skip
        except (TypeError, ValueError, AssertionError) as error:
            raise _refused(name, error) from error
    return made


def _torchvision(name: str, reference: Reference) -> nn.Module:
    own = name.partition(":")[2]
    with references.installed("torchvision") as torchvision:
        references.require_known(name, torchvision.models.list_models(module=torchvision.models))
        builder = torchvision.models.get_model_builder(own)
        more: dict[str, Any] = {}
        if own.startswith(("inception", "googlenet")):
            more = {"aux_logits": False, "init_weights": False}  # random weights would be drawn for minutes
        if own.startswith("vit_"):
            if reference.input_size[0] != reference.input_size[1]:
                raise UsageError(
                    f"{name} for images of {reference.input_size}", "it reads square images only"
                )
            more = {"image_size": reference.input_size[0]}
        try:
            made: nn.Module = builder(weights=None, num_classes=reference.num_classes, **more)
        except (TypeError, ValueError, RuntimeError) as error:
            raise _refused(name, error) from error
    return made


def _refused(name: str, error: Exception) -> UsageError:
    why = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
    return UsageError(f"cannot build {name}", why, "Leave out --imgsz, or use another network")
