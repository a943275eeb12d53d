"""Read a file of weights from another library and describe them as a bundle does.

What the file does not say (class names, preprocessing) is assumed, and each assumption is a note in
`provenance["notes"]`.
"""

from __future__ import annotations

import dataclasses
import datetime
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from striate import models
from striate.bundle import Description, warn_if_not_finite
from striate.device import on_meta
from striate.errors import UsageError
from striate.transforms.preprocess import Preprocess
from striate.version import __version__
from striate.weights import checkpoints, matching
from striate.weights.catalog import Weights, imagenet_classes, official
from striate.weights.download import sha256
from striate.weights.matching import Match
from striate.weights.wrapped import take_network


@dataclass(frozen=True)
class Overrides:
    """What the user knows about a file; None for what the file says or for the default.

    Attributes:
        classes: a name for each score.
        mean: subtracted from each channel of images scaled to 0-1; one value for all channels, or one each.
        std: divides each channel after that.
        imgsz: height and width of the network's input, in pixels.
        part: key of the weights in a nested file, such as `model_ema`.
    """

    classes: Sequence[str] | None = None
    mean: Sequence[float] | None = None
    std: Sequence[float] | None = None
    imgsz: int | None = None
    part: str | None = None


def read_foreign(
    path: Path, architecture: str | None, overrides: Overrides = Overrides(), *, features: bool = False
) -> tuple[Description, dict[str, Tensor]]:
    """Read weights that another library wrote, and find out which network they belong to.

    Args:
        path: `.pth` or `.safetensors`.
        architecture: the network they must fit; any network if None.
        overrides: what the user knows about the file.
        features: accept weights without a classifier for `architecture`; they have no classes.

    Returns:
        The description, and the tensors on the CPU with our keys.

    Raises:
        UsageError: the weights of another network, or overrides that contradict the weights.
        BundleError: a damaged file, a pickled module, or weights of no network of Striate.
    """
    checkpoint = checkpoints.read(path, overrides.part)
    inner, found = take_network(checkpoint.state)
    translated, notes = matching.translate_keys(inner)
    notes = [*checkpoint.notes, *found, *notes]
    if architecture is None:
        match = matching.recognize(translated, str(path))
    elif features and (match := matching.compare(architecture, translated)).has_features_only:
        notes.append("the file has no classifier for this network: only its features are used")
    else:
        match = matching.require(architecture, translated, str(path))
    state = matching.with_counters(match.network, translated)
    if set(state) - set(translated):
        notes.append("the file lacks BatchNorm's batch counters: set to 0")
    if message := warn_if_not_finite(state, path.name):
        notes.append(message)
    digest = sha256(path)
    known = official(digest, match.architecture)
    if known is not None:
        notes.append(f"this is {known.name}, published by {known.source}")
    arguments, state = _resize(match, state, overrides.imgsz, notes)
    description = Description(
        task="classification",
        architecture=match.architecture,
        arguments=arguments,
        classes=() if match.has_features_only else _classes(match, overrides.classes, known, notes),
        preprocess=_preprocess(match, arguments, overrides, known, notes),
        provenance=_provenance(path.name, digest, known, notes),
    )
    return description, state


def _resize(
    match: Match, state: dict[str, Tensor], imgsz: int | None, notes: list[str]
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The network's arguments and weights for the input size that the user asks for."""
    row, size = models.describe(match.architecture), [imgsz, imgsz]
    own = _input_size(match.architecture, match.arguments)
    if imgsz is None or row.sizes == "any" or list(own) == size:
        return match.arguments, state
    if row.sizes == "argument":
        arguments = {**match.arguments, "input_size": size}
        with on_meta():
            network = models.build(match.architecture, **arguments)  # refuses an impossible size
        adapt = getattr(network, "adapt_weights", None)
        adapted, remarks = adapt(state) if adapt else (state, [])
        if all(adapted[name].shape == tensor.shape for name, tensor in network.state_dict().items()):
            notes += remarks
            return arguments, adapted
    raise UsageError(f"--imgsz {imgsz}", f"these weights are for images of {own[0]} px", "Leave --imgsz out")


def _input_size(architecture: str, arguments: dict[str, Any]) -> tuple[int, int]:
    """Height and width of a network's input."""
    default = models.describe(architecture).input_size
    height, width = arguments.get("input_size", (default, default))
    return height, width


def _classes(
    match: Match, given: Sequence[str] | None, known: Weights | None, notes: list[str]
) -> tuple[str, ...]:
    count = match.arguments["num_classes"]
    if given is not None:
        if len(given) != count or len(set(given)) != count:
            why = f"the weights have {count} scores" if len(given) != count else "a name is there twice"
            raise UsageError(f"--classes with {len(given)} names", why, "Give one name for each score")
        return tuple(given)
    if count == 1000:
        if known is None:
            notes.append("class names are not in the file: ImageNet's are assumed for its 1000 scores")
        return imagenet_classes()
    notes.append(f"class names are not in the file: numbered 0 to {count - 1} (--classes names them)")
    return tuple(str(number) for number in range(count))


def _preprocess(
    match: Match, arguments: dict[str, Any], overrides: Overrides, known: Weights | None, notes: list[str]
) -> Preprocess:
    channels = match.arguments["in_channels"]
    if channels not in (1, 3):
        raise UsageError(
            f"weights for images of {channels} channels", "Striate reads grayscale (1) and RGB (3)"
        )
    if known is not None:
        preprocess = known.preprocess
    else:
        preprocess = Preprocess.for_size(max(_input_size(match.architecture, arguments)), channels)
        if overrides.mean is None or overrides.std is None:
            values = "mean 0.5, std 0.5" if channels == 1 else "ImageNet's mean and standard deviation"
            notes.append(f"preprocessing is not in the file: {values} assumed (--mean and --std change it)")
    if overrides.imgsz is not None:
        resized = Preprocess.for_size(overrides.imgsz)
        preprocess = dataclasses.replace(preprocess, size=resized.size, shorter_side=resized.shorter_side)
    return dataclasses.replace(
        preprocess,
        mean=_per_channel(overrides.mean, channels) or preprocess.mean,
        std=_per_channel(overrides.std, channels) or preprocess.std,
    )


def _per_channel(values: Sequence[float] | None, channels: int) -> tuple[float, ...]:
    """The values, one for each channel; a single value is repeated."""
    return tuple(values or ()) * (channels if values is not None and len(values) == 1 else 1)


def _provenance(name: str, digest: str, known: Weights | None, notes: list[str]) -> dict[str, Any]:
    published: dict[str, Any] = {}
    if known is not None:
        entry = known.to_json()
        published = {"weights": known.name, "published": {key: entry[key] for key in ("top1", "top5")}}
    return {
        "striate": __version__,
        "torch": torch.__version__,
        "created": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "imported_from": name,
        "sha256": digest,
        **published,
        "notes": notes,
    }
