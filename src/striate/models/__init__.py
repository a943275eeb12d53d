"""The networks by name. Listing the names imports no torch; building one imports its file."""

from __future__ import annotations

import importlib
import inspect
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from striate.errors import UsageError, unknown_name

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class Architecture:
    """Where a network is defined and what it reads.

    Attributes:
        file: the module of this package that has a function of the network's name.
        input_size: height and width of the images it was made for, in pixels.
        sizes: whether it reads images of `any` size, takes the size as the `argument` input_size when
            it is built, or reads `one` size only.
        channels: 3 for RGB; 1 for a network made for grayscale.
    """

    file: str
    input_size: int = 224
    sizes: Literal["any", "argument", "one"] = "any"
    channels: Literal[1, 3] = 3


MODELS: dict[str, Architecture] = {
    "lenet": Architecture("lenet", 32, "argument"),
    "lenet5": Architecture("lenet5", 32, "one", channels=1),
    "alexnet": Architecture("alexnet"),
    "alexnet_2012": Architecture("alexnet"),
    "vgg11": Architecture("vgg"),
    "vgg13": Architecture("vgg"),
    "vgg16": Architecture("vgg"),
    "vgg19": Architecture("vgg"),
    "vgg11_bn": Architecture("vgg"),
    "vgg13_bn": Architecture("vgg"),
    "vgg16_bn": Architecture("vgg"),
    "vgg19_bn": Architecture("vgg"),
    "googlenet": Architecture("googlenet"),
    "googlenet_2014": Architecture("googlenet"),
    "resnet18": Architecture("resnet"),
    "resnet34": Architecture("resnet"),
    "resnet50": Architecture("resnet"),
    "resnet101": Architecture("resnet"),
    "resnet152": Architecture("resnet"),
    "resnet20": Architecture("resnet_cifar", 32),
    "resnet32": Architecture("resnet_cifar", 32),
    "resnet44": Architecture("resnet_cifar", 32),
    "resnet56": Architecture("resnet_cifar", 32),
    "resnet110": Architecture("resnet_cifar", 32),
    "resnet1202": Architecture("resnet_cifar", 32),
    "mobilenet_v3_large": Architecture("mobilenet_v3"),
    "mobilenet_v3_small": Architecture("mobilenet_v3"),
    "vit_ti_16": Architecture("vit", 224, "argument"),
    "vit_s_16": Architecture("vit", 224, "argument"),
    "vit_b_16": Architecture("vit", 224, "argument"),
    "vit_b_32": Architecture("vit", 224, "argument"),
    "vit_l_16": Architecture("vit", 224, "argument"),
}


def describe(name: str) -> Architecture:
    """The entry of `MODELS` for a name.

    Raises:
        UsageError: there is none; the message has the near matches.
    """
    if name not in MODELS:
        raise unknown_name("model", name, MODELS)
    return MODELS[name]


def build(name: str, **arguments: Any) -> nn.Module:
    """Build a network with fresh weights.

    Args:
        name: a key of `MODELS`.
        arguments: of the network's function: `num_classes`, `in_channels` and its own, as `input_size`.

    Returns:
        A plain `torch.nn.Module` that reads `[batch, channel, height, width]`.

    Raises:
        UsageError: unknown name or argument.
    """
    module = importlib.import_module(f"striate.models.{describe(name).file}")
    function = getattr(module, name)
    try:
        inspect.signature(function).bind(**arguments)
    except TypeError as error:
        takes = ", ".join(inspect.signature(function).parameters)
        raise UsageError(f"cannot build {name} with {arguments}", str(error), f"It takes {takes}") from error
    network: nn.Module = function(**arguments)
    return network
