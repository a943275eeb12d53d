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
        classifier: the name of the last layer, which transfer learning replaces.
    """

    file: str
    input_size: int = 224
    sizes: Literal["any", "argument", "one"] = "any"
    channels: Literal[1, 3] = 3
    classifier: str = "fc"


MODELS: dict[str, Architecture] = {
    "lenet": Architecture("lenet", 32, "argument", classifier="fc3"),
    "lenet5": Architecture("lenet5", 32, "one", channels=1, classifier="f6"),
    "alexnet": Architecture("alexnet", classifier="classifier.6"),
    "alexnet_2012": Architecture("alexnet", classifier="classifier.6"),
    "vgg11": Architecture("vgg", classifier="classifier.6"),
    "vgg13": Architecture("vgg", classifier="classifier.6"),
    "vgg16": Architecture("vgg", classifier="classifier.6"),
    "vgg19": Architecture("vgg", classifier="classifier.6"),
    "vgg11_bn": Architecture("vgg", classifier="classifier.6"),
    "vgg13_bn": Architecture("vgg", classifier="classifier.6"),
    "vgg16_bn": Architecture("vgg", classifier="classifier.6"),
    "vgg19_bn": Architecture("vgg", classifier="classifier.6"),
    "googlenet": Architecture("googlenet"),
    "googlenet_2014": Architecture("googlenet"),
    "resnet18": Architecture("resnet"),
    "resnet34": Architecture("resnet"),
    "resnet50": Architecture("resnet"),
    "resnet101": Architecture("resnet"),
    "resnet152": Architecture("resnet"),
    "resnet20": Architecture("resnet_cifar", 32, classifier="linear"),
    "resnet32": Architecture("resnet_cifar", 32, classifier="linear"),
    "resnet44": Architecture("resnet_cifar", 32, classifier="linear"),
    "resnet56": Architecture("resnet_cifar", 32, classifier="linear"),
    "resnet110": Architecture("resnet_cifar", 32, classifier="linear"),
    "resnet1202": Architecture("resnet_cifar", 32, classifier="linear"),
    "mobilenet_v3_large": Architecture("mobilenet_v3", classifier="classifier.3"),
    "mobilenet_v3_small": Architecture("mobilenet_v3", classifier="classifier.3"),
    "vit_ti_16": Architecture("vit", 224, "argument", classifier="heads.head"),
    "vit_s_16": Architecture("vit", 224, "argument", classifier="heads.head"),
    "vit_b_16": Architecture("vit", 224, "argument", classifier="heads.head"),
    "vit_b_32": Architecture("vit", 224, "argument", classifier="heads.head"),
    "vit_l_16": Architecture("vit", 224, "argument", classifier="heads.head"),
}


def describe(name: str) -> Architecture:
    """The entry of `MODELS` for a name.

    Raises:
        UsageError: there is none; the message has the near matches.
    """
    if name not in MODELS:
        raise unknown_name("model", name, MODELS)
    return MODELS[name]


def build(name: str, *, append: int | None = None, **arguments: Any) -> nn.Module:
    """Build a network with fresh weights.

    Args:
        name: a key of `MODELS`.
        append: scores of one more fully connected layer on top of the whole network; None for none.
        arguments: of the network's function: `num_classes`, `in_channels` and its own, as `input_size`.

    Returns:
        A plain `torch.nn.Module` that reads `[batch, channel, height, width]`.

    Raises:
        UsageError: unknown name or argument.
    """
    for argument in ("num_classes", "in_channels"):
        if arguments.get(argument, 1) < 1:
            raise UsageError(f"{argument} = {arguments[argument]}", "it must be at least 1")
    module = importlib.import_module(f"striate.models.{describe(name).file}")
    function = getattr(module, name)
    try:
        inspect.signature(function).bind(**arguments)
    except TypeError as error:
        takes = ", ".join(inspect.signature(function).parameters)
        raise UsageError(f"cannot build {name} with {arguments}", str(error), f"It takes {takes}") from error
    network: nn.Module = function(**arguments)
    if append is None:
        return network
    from striate.models.appended import Appended

    return Appended(network, classes_of(network, name), append)


def classes_of(network: nn.Module, name: str) -> int:
    """How many scores a network of that name gives."""
    if name == "lenet5":
        return len(network.get_submodule("output").get_buffer("codes"))
    return len(network.get_submodule(MODELS[name].classifier).get_parameter("weight"))
