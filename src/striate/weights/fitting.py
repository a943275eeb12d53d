"""Which network a state dict is for: its arguments from the shapes, and what does not fit."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from striate import models
from striate.errors import BundleError, StriateError, UsageError

# By file of `striate.models`: the first convolution, which reads the channels, and the classifier.
_ENDS = {
    "lenet": ("conv1.weight", "fc3.weight"),
    "lenet5": ("c1.weight", "output.codes"),
    "alexnet": ("features.0.weight", "classifier.6.weight"),
    "vgg": ("features.0.weight", "classifier.6.weight"),
    "googlenet": ("conv1.conv.weight", "fc.weight"),
    "resnet": ("conv1.weight", "fc.weight"),
    "resnet_cifar": ("conv1.weight", "linear.weight"),
    "mobilenet_v3": ("features.0.0.weight", "classifier.3.weight"),
    "vit": ("conv_proj.weight", "heads.head.weight"),
}
_WIDTHS = (0.5, 0.75, 1.25, 1.5, 2.0)  # of MobileNetV3, beside 1
_COUNTER = ".num_batches_tracked"


@dataclass(frozen=True)
class Fit:
    """How a state dict and a network compare.

    Attributes:
        architecture: the network's name.
        arguments: what it was built with for the comparison.
        network: on the meta device: it has shapes, and takes no memory.
        missing: keys of the network that the state dict lacks.
        unexpected: keys that the network lacks.
        misshaped: key -> shape in the state dict, shape in the network.
        matching: how many keys agree in shape.
    """

    architecture: str
    arguments: dict[str, Any]
    network: nn.Module
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    misshaped: dict[str, tuple[tuple[int, ...], tuple[int, ...]]]
    matching: int

    @property
    def exact(self) -> bool:
        """Whether nothing is missing, too many or of another shape."""
        return not (self.missing or self.unexpected or self.misshaped)

    @property
    def share(self) -> float:
        """Tensors that agree, of all that either side has."""
        return self.matching / max(
            1, self.matching + len(self.missing) + len(self.unexpected) + len(self.misshaped)
        )


def fitted(architecture: str, state: Mapping[str, Tensor], source: str) -> Fit:
    """Compare a state dict with a network built to its measure, and accept it only where all fits.

    Args:
        architecture: a key of `models.MODELS`.
        state: name -> tensor, under our names.
        source: the file, for messages.

    Raises:
        UsageError: it fits another network, which is named.
        BundleError: it fits none; what is missing, unexpected or misshaped is listed.
    """
    fit = compare(architecture, state)
    if fit.exact:
        return fit
    what = f"{source!r} does not fit {architecture}"
    near = _nearest(state, leave_out=architecture)
    if near is not None and near.exact:
        name = near.architecture
        raise UsageError(what, _differences(fit), f"This looks like {name}: use --model {name}")
    raise BundleError(what, _differences(fit), _likely_cause(fit, near, state))


def recognised(state: Mapping[str, Tensor], source: str) -> Fit:
    """The one network that a state dict fits.

    Raises:
        BundleError: it fits none; the nearest is named, with what does not fit.
    """
    near = _nearest(state)
    if near is not None and near.exact:
        return near
    if near is None:
        shown = _listed("it has", list(state))
        raise BundleError(f"{source!r} fits no network of Striate", shown, "`striate weights import --help`")
    name = near.architecture
    raise BundleError(
        f"{source!r} fits no network of Striate",
        f"nearest is {name}: {_differences(near)}",
        _likely_cause(near, None, state),
    )


def compare(architecture: str, state: Mapping[str, Tensor]) -> Fit:
    """Compare a state dict with a network whose classes, channels and sizes are taken from its shapes."""
    fits = []
    for arguments in _candidates(architecture, state):
        fit = _compared(architecture, arguments, state)
        if fit.exact:
            return fit
        fits.append(fit)
    return max(fits, key=lambda fit: fit.share)


def with_counters(network: nn.Module, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors in the network's order; BatchNorm's counters, which files before 2018 lack, at 0."""
    zero = torch.zeros((), dtype=torch.int64)
    return {
        name: state[name] if name in state else zero.clone()
        for name in network.state_dict()
        if name in state or name.endswith(_COUNTER)
    }


def _compared(architecture: str, arguments: dict[str, Any], state: Mapping[str, Tensor]) -> Fit:
    with torch.device("meta"):
        network = models.build(architecture, **arguments)
    own = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    given = {name: tuple(tensor.shape) for name, tensor in state.items()}
    both = [name for name in own if name in given]
    missing = [name for name in own if name not in given and not name.endswith(_COUNTER)]
    return Fit(
        architecture,
        arguments,
        network,
        missing=tuple(missing),
        unexpected=tuple(name for name in given if name not in own),
        misshaped={name: (given[name], own[name]) for name in both if given[name] != own[name]},
        matching=sum(given[name] == own[name] for name in both),
    )


def _candidates(architecture: str, state: Mapping[str, Tensor]) -> Iterable[dict[str, Any]]:
    """The arguments that the shapes speak for; more than one where they leave a choice."""
    file = models.describe(architecture).file
    first, last = _ENDS[file]
    arguments: dict[str, Any] = {}
    if (
        last in state
        and state[last].ndim
        and 1 <= state[last].shape[0] <= (10 if file == "lenet5" else 10**6)
    ):
        arguments["num_classes"] = state[last].shape[0]
    if first in state and state[first].ndim == 4:
        arguments["in_channels"] = state[first].shape[1]
    if file == "googlenet":
        arguments["auxiliary"] = any(name.startswith(("aux1.", "aux2.")) for name in state)
    elif file == "lenet":
        arguments |= _lenet_sizes(state)
    elif file == "vit":
        arguments |= _vit_size(state)
    yield arguments
    if file == "mobilenet_v3":
        yield from ({**arguments, "width": width} for width in _WIDTHS)


def _lenet_sizes(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """The widths, and the smallest square input that leaves what the first fully connected layer reads."""
    shapes = [state[name].shape for name in ("conv1.weight", "conv2.weight", "fc1.weight") if name in state]
    if [len(shape) for shape in shapes] != [4, 4, 2]:
        return {}
    widths = (shapes[0][0], shapes[1][0])
    side = math.isqrt(shapes[2][1] // widths[1])
    if side < 1 or side * side * widths[1] != shapes[2][1]:
        return {"widths": list(widths)}
    return {"widths": list(widths), "input_size": [4 * side + 12] * 2}  # ((12 + 4s - 4) / 2 - 4) / 2 = s


def _vit_size(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """The square image whose patches have as many positions as there are."""
    positions, patches = state.get("encoder.pos_embedding"), state.get("conv_proj.weight")
    if positions is None or patches is None or positions.ndim != 3 or patches.ndim != 4:
        return {}
    side = math.isqrt(positions.shape[1] - 1)
    return {"input_size": [side * patches.shape[2]] * 2} if side else {}


def _nearest(state: Mapping[str, Tensor], leave_out: str = "") -> Fit | None:
    """The network that fits best; None if nothing fits at all."""
    best = None
    for name in models.MODELS:
        if name == leave_out or _ENDS[models.describe(name).file][0] not in state:
            continue
        try:
            fit = compare(name, state)
        except StriateError:  # the shapes speak for arguments that this network does not take
            continue
        if fit.exact:
            return fit
        if fit.matching and (best is None or fit.share > best.share):
            best = fit
    return best


def _differences(fit: Fit) -> str:
    shapes = [f"{name} is {list(given)}, not {list(own)}" for name, (given, own) in fit.misshaped.items()]
    lists = (("missing", fit.missing), ("unexpected", fit.unexpected), ("of another shape", shapes))
    return "; ".join(_listed(f"{len(names)} {word}:", names) for word, names in lists if names)


def _listed(word: str, names: Iterable[str], most: int = 4) -> str:
    names = list(names)
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return f"{word} {', '.join(names[:most])}{more}"


def _likely_cause(fit: Fit, near: Fit | None, state: Mapping[str, Tensor]) -> str:
    classifier = _ENDS[models.describe(fit.architecture).file][1]
    if near is not None and near.share > max(0.5, fit.share):
        own = near.matching + len(near.missing) + len(near.misshaped)
        return f"This looks most like {near.architecture}, of which {near.matching} of {own} tensors fit"
    if "dist_token" in state:
        return "This is a distilled DeiT, with a second head that the network here does not have"
    if classifier in fit.missing:
        return "The classifier is missing: the file holds features only"
    if fit.misshaped and not fit.missing and not fit.unexpected:
        return "The layers are the same and their widths are not: another variant of the network"
    if fit.missing and not fit.unexpected and not fit.misshaped:
        return "A part of the network was not saved"
    return "It was trained with other code; rename its tensors to torchvision's names"
