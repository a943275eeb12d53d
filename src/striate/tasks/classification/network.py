"""The network of a run on images: built, loaded with initial weights, and frozen in part."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from striate import models
from striate.bundle import Description
from striate.errors import UsageError
from striate.models.adoption import adopt
from striate.models.appended import Appended
from striate.models.layers import no_weight_decay
from striate.models.references import Reference
from striate.progress import Progress
from striate.tasks.classification.config import ClassificationConfig
from striate.training import optimizer, transfer
from striate.transforms.preprocess import Preprocess
from striate.weights import open_weights

Pretrained = tuple[Description, dict[str, torch.Tensor]]  # a description, and weights by name


class Built(NamedTuple):
    """A network, and what is known about it.

    Attributes:
        network: with its initial weights, frozen in part.
        arguments: that it was built with.
        notes: about its weights.
        head: name of the module that learns at the full rate, the others at that of pretrained layers; None
            for all.
    """

    network: nn.Module
    arguments: dict[str, Any]
    notes: list[str]
    head: str | None


def open_pretrained(config: ClassificationConfig, progress: Progress) -> Pretrained | None:
    """The initial weights of a run, None for random ones.

    Raises:
        UsageError: they belong to another network, or already have an appended layer.
        DataError: they cannot be read or downloaded.
    """
    if config.weights == "none":
        return None
    description, state = open_weights(config.weights, config.architecture, progress, config.network)
    if config.transfer == "append" and "append" in description.arguments:
        raise UsageError(
            f"cannot append to {config.weights!r}", "it already has an appended layer", "Use --transfer head"
        )
    return description, state


def build(
    config: ClassificationConfig,
    preprocess: Preprocess,
    classes: tuple[str, ...],
    pretrained: Pretrained | None,
) -> Built:
    """Build the network, load its initial weights, and freeze what is not trained.

    Args:
        config: of the run.
        preprocess: of the run, for the number of channels and the image size.
        classes: of the data.
        pretrained: initial weights.

    Raises:
        UsageError: frozen layers would have random weights, or more layers than there are shall be trained.
    """
    replaced = False
    if models.is_foreign(config.architecture):
        network, arguments, notes, replaced = _adopt(config, preprocess, len(classes), pretrained)
    else:
        arguments, notes = _arguments(config, preprocess, len(classes), pretrained), []
        network = models.build(config.architecture, **arguments)
    head = _head_of(config, arguments)
    full_rate = head if pretrained is not None or _has_two_rates(config, head, replaced) else None
    if pretrained is None and not (config.brings_weights and config.transfer != "all"):
        return Built(network, arguments, notes, full_rate)
    if pretrained is not None:
        state, remarks = _kept(config, classes, pretrained, head)
        loading = transfer.load(network, state, Path(config.weights).name)
        if len(loading.fresh) == len(network.state_dict()):
            what = f"cannot start {config.model} from {config.weights!r}"
            raise UsageError(what, "none of its tensors fits", "Give weights with the network's own keys")
        notes += [*remarks, *loading.notes]
        fresh = set(loading.fresh)
    else:
        fresh = set()
    if not head and config.transfer in ("head", "append"):
        what = f"--transfer {config.transfer} with {config.model}"
        raise UsageError(what, "its last layer was not found", "Name it with --classifier")
    trained = transfer.freeze(network, config.transfer, config.last_layers, head)
    if config.unfreeze_every:
        first = freeze_gradually(config, network, head, 1)
        each = "each epoch" if config.unfreeze_every == 1 else f"every {config.unfreeze_every} epochs"
        every = f"one more stage is added after {each}"
        notes.append(f"gradual unfreezing: training starts with {', '.join(first)}, and {every}")
    random = fresh & set(transfer.frozen_state(network))
    if random:
        alternative = "--unfreeze-every" if config.unfreeze_every else "use --transfer all"
        raise UsageError(
            f"--transfer {config.transfer} with {config.weights!r}",
            f"{', '.join(sorted(random))} did not fit and would be frozen with random values",
            f"Leave out what changes their shapes (--imgsz), or {alternative}",
        )
    transfer.freeze(network, config.transfer, config.last_layers, head)  # the optimizer needs all of them
    training = sum(p.numel() for p in network.parameters() if p.requires_grad)
    frozen = sum(p.numel() for p in network.parameters()) - training
    notes.append(f"{training:,} parameters are trained ({', '.join(trained)}), {frozen:,} are frozen")
    return Built(network, arguments, notes, full_rate)


def freeze_gradually(
    config: ClassificationConfig, network: nn.Module, head: str | None, count: int
) -> list[str]:
    """Freeze all but the last `count` stages of those that a run trains; returns the names of what trains."""
    return transfer.freeze_gradually(network, config.transfer, config.last_layers, head or "", count)


def _arguments(
    config: ClassificationConfig, preprocess: Preprocess, classes: int, pretrained: Pretrained | None
) -> dict[str, Any]:
    """The arguments of a network of Striate."""
    row = models.MODELS[config.architecture]
    arguments: dict[str, Any] = {"num_classes": classes, "in_channels": preprocess.channels}
    if row.sizes == "argument":
        arguments["input_size"] = list(preprocess.size)
    if row.auxiliary and (config.transfer != "all" or config.unfreeze_every):
        arguments["auxiliary"] = False  # auxiliary heads on frozen layers would train nothing
    if pretrained is None:
        return arguments
    description, _ = pretrained
    arguments = {**description.arguments, **arguments}  # such as LeNet's widths
    if config.transfer == "append" or "append" in description.arguments:
        arguments |= {"num_classes": description.arguments["num_classes"], "append": classes}
    return arguments


def _adopt(
    config: ClassificationConfig, preprocess: Preprocess, classes: int, pretrained: Pretrained | None
) -> tuple[nn.Module, dict[str, Any], list[str], bool]:
    """Build a network that Striate does not define; its arguments, notes, whether its classifier is new."""
    before = {} if pretrained is None else pretrained[0].arguments
    appends = config.transfer == "append" or "append" in before
    wanted = Reference(
        before.get("num_classes", 0) if appends else classes, preprocess.channels, preprocess.size,
        config.classifier or "", options=dict(config.model_arguments or {}),
    )  # fmt: skip
    found = adopt(config.architecture, wanted, config.permission)
    network, arguments = found.network, found.reference.to_json()
    if appends:
        network = Appended(network, found.reference.num_classes, classes)
        arguments["append"] = classes
    return network, arguments, list(found.notes), found.has_new_classifier


def _kept(
    config: ClassificationConfig, classes: tuple[str, ...], pretrained: Pretrained, head: str
) -> tuple[dict[str, torch.Tensor], list[str]]:
    """The initial weights under the network's names, without those of a classifier that is replaced."""
    description, state = pretrained
    if config.transfer == "append":
        return {f"base.{name}": value for name, value in state.items()}, []
    if config.transfer != "head" and description.classes == classes:
        return state, []
    state = {name: value for name, value in state.items() if not head or not name.startswith(f"{head}.")}
    before = len(description.classes)
    return state, [f"{head}, for {before} classes, is replaced by one for {len(classes)}"] if before else []


def rebuild(config: ClassificationConfig, description: Description, head: str | None) -> nn.Module:
    """The network of a run that is being resumed, frozen as before; its weights are restored later."""
    network = models.build(
        description.architecture, permission=config.permission, **description.arguments
    )  # fmt: skip
    if head is not None:
        transfer.freeze(network, config.transfer, config.last_layers, head)
    return network


def _has_two_rates(config: ClassificationConfig, head: str, replaced: bool) -> bool:
    """Whether layers before the head of a network without `--weights` learn at the rate of pretrained ones.

    Nobody says whether a network of the user comes with trained weights. It does if a part of it is frozen,
    if the user gives a rate for it, or if its classifier was made for other classes.
    """
    trained = config.transfer != "all" or config.backbone_lr is not None or config.layer_decay != 1
    return config.brings_weights and head != "" and (trained or replaced)


def _head_of(config: ClassificationConfig, arguments: dict[str, Any]) -> str:
    """Name of the classifier, or of the appended layer; empty if it is not known."""
    if "append" in arguments:
        return "head"
    return arguments.get("classifier") or models.describe(config.architecture).classifier


def parameter_groups(
    config: ClassificationConfig, network: nn.Module, head: str | None
) -> list[dict[str, Any]]:
    """The optimizer's groups: pretrained layers at a lower rate, and layer-wise decay towards the input.

    Args:
        config: with its defaults filled in.
        network: partly frozen.
        head: name of the module with the full rate; None if all weights are random.
    """
    pretrained = config.backbone_peak_lr / config.peak_lr if head is not None else 1.0
    scales = {
        name: scale if head is not None and name.startswith(f"{head}.") else scale * pretrained
        for name, scale in optimizer.layer_scales(network, config.layer_decay).items()
    }
    return optimizer.parameter_groups(network, config.decay, scales, no_weight_decay(network))
