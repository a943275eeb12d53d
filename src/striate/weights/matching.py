"""Find the network that a state dict belongs to, by the names and shapes of its tensors."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from striate import models
from striate.device import on_meta
from striate.errors import BundleError, StriateError, UsageError
from striate.printable import first_few

_TRANSFORMERS = (  # in names of tensors
    "embeddings.patch_embeddings.", ".attention.attention.", "embedder.embedder.", ".convolution.weight",
)  # fmt: skip
_RENAME = "Other code trained it; rename its tensors to torchvision's names"
_COUNTER = ".num_batches_tracked"


@dataclass(frozen=True)
class Match:
    """The comparison of a state dict with a network.

    Attributes:
        architecture: the network's name.
        arguments: the arguments that it was built with.
        network: on the meta device: it has shapes and needs no memory.
        missing: keys of the network that the state dict lacks.
        unexpected: keys of the state dict that the network lacks.
        misshaped: key -> shape in the state dict, shape in the network.
        equal: number of keys with equal shapes.
    """

    architecture: str
    arguments: dict[str, Any]
    network: nn.Module
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    misshaped: dict[str, tuple[tuple[int, ...], tuple[int, ...]]]
    equal: int

    @property
    def exact(self) -> bool:
        """Whether all keys and shapes agree."""
        return not (self.missing or self.unexpected or self.misshaped)

    @property
    def has_features_only(self) -> bool:
        """Whether everything but the classifier is there; other tensors may be there, too."""
        classifier = f"{models.describe(self.architecture).classifier}."
        lacking = (*self.missing, *self.misshaped)
        return self.equal > 0 and bool(self.missing) and all(name.startswith(classifier) for name in lacking)

    @property
    def share(self) -> float:
        """Keys with equal shapes, as a share of the keys of both sides."""
        return self.equal / max(
            1, self.equal + len(self.missing) + len(self.unexpected) + len(self.misshaped)
        )


def translate_keys(state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
    """Rename tensors from another library's keys to ours, by the first network that knows them.

    Args:
        state: key -> tensor.

    Returns:
        The same tensors under our keys, with values changed only as a note says, and the notes. An unknown
        state dict comes back under its own keys.
    """
    for name in {row.file: name for name, row in models.MODELS.items()}.values():
        translate = getattr(models.module_of(name), "translate_keys", None)
        translated: tuple[dict[str, Tensor], list[str]] | None = translate(state) if translate else None
        if translated is not None:
            return translated
    return dict(state), []


def resembles(architecture: str, state: Mapping[str, Tensor]) -> bool:
    """Whether a state dict has most of a network's names."""
    if f"{models.describe(architecture).first_conv}.weight" not in state:
        return False
    try:
        match = compare(architecture, state)
    except StriateError:  # the shapes imply arguments that this network refuses
        return False
    own = match.equal + len(match.misshaped)
    return own > len(match.missing)


def require(architecture: str, state: Mapping[str, Tensor], source: str) -> Match:
    """Match a state dict with one network exactly.

    Args:
        architecture: a key of `models.MODELS`.
        state: key -> tensor, with our keys.
        source: the file, for messages.

    Raises:
        UsageError: it fits another network; the message names it.
        BundleError: it fits none; the message lists missing, unexpected and misshaped tensors.
    """
    match = compare(architecture, state)
    if match.exact:
        return match
    what = f"{source!r} does not fit {architecture}"
    nearest = _nearest(state, leave_out=architecture)
    if nearest is not None and nearest.exact:
        name = nearest.architecture
        raise UsageError(what, _differences(match), f"This looks like {name}: use --model {name}")
    raise BundleError(what, _differences(match), _likely_cause(match, nearest, state))


def recognize(state: Mapping[str, Tensor], source: str) -> Match:
    """Find the network that a state dict fits exactly.

    Raises:
        BundleError: it fits none; the message names the nearest network and the differences.
    """
    nearest = _nearest(state)
    what = f"{source!r} fits no network of Striate"
    if nearest is None:
        raise BundleError(what, _listed("it has", list(state)), _likely_cause(None, None, state))
    if not nearest.exact:
        why = f"nearest is {nearest.architecture}: {_differences(nearest)}"
        raise BundleError(what, why, _likely_cause(nearest, None, state))
    return nearest


def compare(architecture: str, state: Mapping[str, Tensor]) -> Match:
    """Compare a state dict with a network, built with the arguments that the state dict's shapes imply."""
    matches = []
    for arguments in _arguments(architecture, state):
        match = _compare(architecture, arguments, state)
        if match.exact:
            return match
        matches.append(match)
    return max(matches, key=lambda match: match.share)


def with_counters(network: nn.Module, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors in the network's order. BatchNorm's counters, missing in files before 2018, become 0."""
    return {
        name: state[name] if name in state else torch.zeros((), dtype=torch.int64)
        for name in network.state_dict()
        if name in state or name.endswith(_COUNTER)
    }


def _arguments(architecture: str, state: Mapping[str, Tensor]) -> list[dict[str, Any]]:
    """The arguments to build a network with, in the order to try."""
    row = models.describe(architecture)
    scores, pixels = state.get(f"{row.classifier}.weight"), state.get(f"{row.first_conv}.weight")
    arguments: dict[str, Any] = {}
    if scores is not None and scores.ndim and 1 <= scores.shape[0] <= 10**6:
        arguments["num_classes"] = scores.shape[0]
    if pixels is not None and pixels.ndim == 4:
        arguments["in_channels"] = pixels.shape[1]
    implied = getattr(models.module_of(architecture), "arguments_from", None)
    return [arguments | more for more in (implied(state) if implied else [{}])]


def _compare(architecture: str, arguments: dict[str, Any], state: Mapping[str, Tensor]) -> Match:
    with on_meta():
        network = models.build(architecture, **arguments)
    own = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    given = {name: tuple(tensor.shape) for name, tensor in state.items()}
    both = [name for name in own if name in given]
    missing = [name for name in own if name not in given and not name.endswith(_COUNTER)]
    return Match(
        architecture, arguments, network,
        missing=tuple(missing),
        unexpected=tuple(name for name in given if name not in own),
        misshaped={name: (given[name], own[name]) for name in both if given[name] != own[name]},
        equal=sum(given[name] == own[name] for name in both),
    )  # fmt: skip


def _nearest(state: Mapping[str, Tensor], leave_out: str = "") -> Match | None:
    """The network that fits best; None if no tensor fits any network."""
    best = None
    for name, row in models.MODELS.items():
        if name == leave_out or f"{row.first_conv}.weight" not in state:
            continue
        try:
            match = compare(name, state)
        except StriateError:  # the shapes imply arguments that this network refuses
            continue
        if match.exact:
            return match
        if match.equal and (best is None or match.share > best.share):
            best = match
    return best


def _differences(match: Match) -> str:
    shapes = [f"{name} is {list(given)}, not {list(own)}" for name, (given, own) in match.misshaped.items()]
    lists = (("missing", match.missing), ("unexpected", match.unexpected), ("of another shape", shapes))
    return "; ".join(_listed(f"{len(names)} {word}:", names) for word, names in lists if names)


def _listed(word: str, names: Iterable[str], most: int = 4) -> str:
    return f"{word} {first_few(list(names), most)}"


def _likely_cause(match: Match | None, nearest: Match | None, state: Mapping[str, Tensor]) -> str:
    """What to do about weights that do not fit; `match` is the network that is wanted or nearest, if any."""
    if any(words in name for name in state for words in _TRANSFORMERS):
        return (
            "These are names of Hugging Face transformers: take the same network from timm or torchvision "
            "(`striate weights list`)"
        )
    if match is None:
        return _RENAME
    if nearest is not None and nearest.share > max(0.5, match.share):
        own = nearest.equal + len(nearest.missing) + len(nearest.misshaped)
        return f"This looks most like {nearest.architecture}: {nearest.equal} of its {own} tensors fit"
    variants: dict[str, str] = getattr(models.module_of(match.architecture), "KNOWN_VARIANTS", {})
    if known := [sentence for key, sentence in variants.items() if key in state]:
        return known[0]
    if match.has_features_only:
        train = f"striate train DATA --model {match.architecture} --weights FILE --transfer head"
        return f"The classifier is missing: the file holds features only. Train a new one: `{train}`"
    if match.misshaped and not match.missing and not match.unexpected:
        return "The layers are the same but their widths differ: another variant of the network"
    if match.missing and not match.unexpected and not match.misshaped:
        return "A part of the network was not saved"
    return _RENAME
