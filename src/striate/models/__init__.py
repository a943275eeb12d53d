"""The networks by name: one table, and `build`. Reading the table imports no torch.

To add a network, write one file in this package and add one row for each variant to `MODELS`.

The file must define a function with the row's name that takes at least `num_classes` and `in_channels` and
returns the network. The network reads `[batch, channel, height, width]` and returns scores
`[batch, num_classes]`.

The file may define these names, for what the defaults do not cover:

- `RECIPES`: family -> name -> `striate.models.recipe.Recipe`, for `striate train --recipe`.
- `arguments_from(state)`: the arguments that the shapes of a state dict imply, apart from the number of
  classes and channels. A list of dicts to try in order, since shapes can leave a choice.
- `translate_keys(state)`: a state dict with this network's keys, and notes, if the argument has the keys of
  another library (timm); None for any other state dict.
- `KNOWN_VARIANTS`: key of a tensor -> sentence, for state dicts that are close to this network but not it.

The network's class may define:

- `stage_containers`: names of submodules whose children are separate stages. By default each child of the
  network is one stage. Transfer learning freezes stages; layer-wise decay counts them.
- `no_weight_decay`: names of parameters without weight decay, in addition to biases and norms.
- `final_norm`: name of a norm that learns at the classifier's rate.
- `adapt_weights(state)`: a state dict of the same network for another input size, adapted to this one, and
  notes.

A network with auxiliary heads returns a tuple in training whose `loss_weights` say how the outputs add up to
the loss (see `striate.models.layers.weighted_outputs`).
"""

from __future__ import annotations

import importlib
import inspect
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import TYPE_CHECKING, Any, Literal

from striate.errors import UsageError, unknown_name
from striate.models.references import MAX_CHANNELS as MAX_CHANNELS
from striate.models.references import NOTHING, kind_of, reference
from striate.models.references import Permission as Permission
from striate.models.references import is_custom as is_custom
from striate.models.references import is_foreign as is_foreign
from striate.models.references import path_of as path_of
from striate.validation import InvalidValueError, require, shown

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class Architecture:
    """One row of `MODELS`.

    Attributes:
        file: the module of this package that defines the network.
        input_size: height and width of the images it was designed for, in pixels.
        sizes: `any`: it reads images of any size; `argument`: the size is the argument `input_size`; `one`:
            it reads `input_size` only.
        channels: 3 for RGB; 1 for a network designed for grayscale.
        first_conv: name of the first convolution; empty if it is not known.
        classifier: name of the last layer with weights, which transfer learning replaces; empty if it is not
            known.
        head_replaceable: whether the classifier alone can be replaced and trained.
        auxiliary: whether it has auxiliary heads, which the argument `auxiliary` leaves out.
        family: networks of one family share recipes; the file's name by default.
    """

    file: str
    input_size: int = 224
    sizes: Literal["any", "argument", "one"] = "any"
    channels: Literal[1, 3] = 3
    first_conv: str = "conv1"
    classifier: str = "fc"
    head_replaceable: bool = True
    auxiliary: bool = False
    family: str = ""

    def __post_init__(self) -> None:
        """Fill in the default family."""
        if not self.family:
            object.__setattr__(self, "family", self.file)


_ALEXNET = Architecture("alexnet", first_conv="features.0", classifier="classifier.6")
_VGG = Architecture("vgg", first_conv="features.0", classifier="classifier.6")
_VGG_BN = Architecture("vgg", first_conv="features.0", classifier="classifier.6", family="vgg_bn")
_GOOGLENET = Architecture("googlenet", first_conv="conv1.conv", auxiliary=True)
_RESNET = Architecture("resnet")
_CIFAR = Architecture("resnet_cifar", 32, classifier="linear")
_MOBILENET_V3 = Architecture("mobilenet_v3", first_conv="features.0.0", classifier="classifier.3")
_EFFICIENTNET_LITE = {
    f"efficientnet_lite{number}": Architecture(
        "efficientnet_lite", size, first_conv="features.0.conv", classifier="classifier.1"
    )
    for number, size in enumerate((224, 240, 260))
}
_VIT = Architecture("vit", 224, "argument", first_conv="conv_proj", classifier="heads.head")

MODELS: dict[str, Architecture] = {
    "lenet": Architecture("lenet", 32, "argument", classifier="fc3"),
    "lenet5": Architecture(
        "lenet5", 32, "one", channels=1, first_conv="c1", classifier="f6", head_replaceable=False,
        family="lenet",
    ),
    **dict.fromkeys(("alexnet", "alexnet_2012"), _ALEXNET),
    **dict.fromkeys(("vgg11", "vgg13", "vgg16", "vgg19"), _VGG),
    **dict.fromkeys(("vgg11_bn", "vgg13_bn", "vgg16_bn", "vgg19_bn"), _VGG_BN),
    **dict.fromkeys(("googlenet", "googlenet_2014"), _GOOGLENET),
    **dict.fromkeys(("resnet18", "resnet34", "resnet50", "resnet101", "resnet152"), _RESNET),
    **dict.fromkeys(("resnet20", "resnet32", "resnet44", "resnet56", "resnet110", "resnet1202"), _CIFAR),
    **dict.fromkeys(("mobilenet_v3_large", "mobilenet_v3_small"), _MOBILENET_V3),
    **_EFFICIENTNET_LITE,
    **dict.fromkeys(("vit_ti_16", "vit_s_16", "vit_b_16", "vit_b_32", "vit_l_16"), _VIT),
}  # fmt: skip

_LARGEST = 2**31 - 1
# Ranges of arguments by their names; others are from 0. A bundle's arguments are checked against them.
RANGES: dict[str, tuple[float, float]] = {
    "num_classes": (1, _LARGEST), "append": (1, _LARGEST), "source_vocab": (1, _LARGEST),
    "target_vocab": (1, _LARGEST), "in_channels": (1, 1 << 16), "input_size": (1, 1 << 14),
    "dropout": (0, 1), "depth": (0, 1000), "decoder_depth": (0, 1000), "heads": (1, 1 << 16),
    "max_length": (1, 1 << 20), "patch": (1, 1 << 14),
}  # fmt: skip

DEFAULT = "resnet18"  # for training, if no network is named


def describe(name: str) -> Architecture:
    """The row of `MODELS` for a name; a general one for a network that Striate does not define.

    Raises:
        UsageError: there is no such row; the message lists near matches.
    """
    if is_foreign(name):
        kind_of(name)
        return Architecture("foreign", first_conv="", classifier="")
    if name not in MODELS:
        raise unknown_name("model", name, MODELS)
    return MODELS[name]


def module_of(name: str) -> ModuleType:
    """Import the file that defines a network.

    Raises:
        UsageError: unknown name.
    """
    return importlib.import_module(f"striate.models.{describe(name).file}")


def build(
    name: str, *, append: int | None = None, permission: Permission = NOTHING, **arguments: Any
) -> nn.Module:
    """Build a network with fresh weights.

    Args:
        name: a key of `MODELS`, or as in `striate.models.references`.
        append: number of scores of an additional fully connected layer on top of the network; None for none.
        permission: for a name of `references`: the code that the caller allows.
        arguments: arguments of the network's function: `num_classes`, `in_channels`, `input_size` and others;
            or the fields of `references.Reference`.

    Returns:
        A plain `torch.nn.Module` that reads `[batch, channel, height, width]`.

    Raises:
        UsageError: unknown name or argument.
        TrustError: an import path that the caller does not trust.
    """
    if append is not None:
        _check_argument("append", append, int)
    if not isinstance(permission, Permission):  # an argument of a bundle
        raise UsageError(f"cannot build {name}", "it has no argument permission")
    if is_foreign(name):
        from striate.models import foreign

        found = reference(name, arguments)
        base, scores = foreign.build(name, found, permission), found.num_classes
    elif permission.network is not None:
        raise UsageError(f"network= for a {name}", "Striate builds this network itself", "Leave it out")
    else:
        function = getattr(module_of(name), name)
        bound = bind(name, function, arguments)
        bound.apply_defaults()
        base, scores = function(**arguments), bound.arguments["num_classes"]
    if append is None:
        return base
    from striate.models.appended import Appended

    return Appended(base, scores, append)


def interface(name: str, arguments: Mapping[str, Any]) -> tuple[int, int, tuple[int, int] | None]:
    """The number of scores and of channels that a network has, and its image size; None for any size.

    Raises:
        UsageError: unknown name or argument, or an invalid value.
    """
    if is_foreign(name):
        found = reference(name, arguments)
        return arguments.get("append") or found.num_classes, found.in_channels, found.input_size
    row, own = describe(name), {key: value for key, value in arguments.items() if key != "append"}
    bound = bind(name, getattr(module_of(name), name), own)
    bound.apply_defaults()
    scores = arguments.get("append") or bound.arguments["num_classes"]
    size = bound.arguments.get("input_size", row.input_size)
    sides = (size, size) if isinstance(size, int) else tuple(size)
    return scores, bound.arguments["in_channels"], None if row.sizes == "any" else sides


def bind(name: str, function: Callable[..., Any], arguments: Mapping[str, Any]) -> inspect.BoundArguments:
    """Check that a function takes some arguments, by their names, types and ranges.

    Args:
        name: of the network, for the message.
        function: it, or its class.
        arguments: plain values.

    Raises:
        UsageError: it does not; the message lists those that it takes.
    """
    signature = inspect.signature(function)
    try:
        bound = signature.bind(**arguments)
    except TypeError as error:
        takes = ", ".join(signature.parameters)
        raise UsageError(f"cannot build {name} with {arguments}", str(error), f"It takes {takes}") from error
    hints = typing.get_type_hints(function.__init__ if inspect.isclass(function) else function)
    for argument, value in arguments.items():
        _check_argument(argument, value, hints.get(argument, Any))
    return bound


def _check_argument(name: str, value: Any, hint: Any) -> None:
    """Check the type and the range of an argument; raises UsageError."""
    try:
        require(value, hint, name)
    except InvalidValueError as error:
        raise UsageError(f"{name} = {shown(value)}", f"it must be {error.wanted}") from error
    least, most = RANGES.get(name, (0, _LARGEST))
    for number in value if isinstance(value, (list, tuple)) else [value]:
        if isinstance(number, (int, float)) and not least <= number <= most:
            raise UsageError(f"{name} = {shown(value)}", f"it must be from {least:,} to {most:,}")
