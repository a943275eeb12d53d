"""The catalog of published weights for our networks, with the preprocessing of each."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from importlib import resources
from typing import Any

from striate import facts
from striate.errors import UsageError, unknown_name
from striate.transforms.preprocess import NORMALIZATIONS, Preprocess

_SERVER = "https://download.pytorch.org/models/"
PRETRAINED = ("pretrained", "imagenet")  # values of --weights that mean a network's default weights


@dataclass(frozen=True)
class Weights(facts.WeightsFile):
    """A file of published weights that can be downloaded or installed.

    Attributes:
        url: address of the file, torchvision's server by default; empty if a package contains the file.
    """

    url: str = ""

    def __post_init__(self) -> None:
        """Fill in the default address."""
        if not self.url and not self.package:
            object.__setattr__(self, "url", _SERVER + self.file)

    @property
    def sha256_prefix(self) -> str:
        """The first hexadecimal digits of the file's SHA-256: all 64 if they are known, otherwise eight."""
        return self.sha256 or self.file.rsplit("-", 1)[1].split(".")[0]

    @property
    def source(self) -> str:
        """Who publishes the file: `torchvision`, or a package of the Python package index."""
        return self.package or "torchvision"

    @property
    def preprocess(self) -> Preprocess:
        """The preprocessing of its published accuracy."""
        mean, std = NORMALIZATIONS[self.normalization]
        return Preprocess(
            (self.crop, self.crop), shorter_side=self.resize, interpolation=self.interpolation,
            mean=mean, std=std,
        )  # fmt: skip

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values; accuracies as fractions of one."""
        return {
            "name": self.name,
            "architecture": self.architecture,
            "default": self.default,
            "source": self.source,
            "url": self.url,
            "license": self.license,
            "sha256_prefix": self.sha256_prefix,
            "mib": self.mib,
            "top1": round(self.top1 / 100, 5),
            "top5": round(self.top5 / 100, 5),
            "preprocess": self.preprocess.to_json(),
        }


CATALOG: dict[str, Weights] = {
    weights.name: Weights(**dataclasses.asdict(weights)) for weights in facts.WEIGHTS
}


def find(name: str) -> Weights:
    """The entry with a name such as `resnet50.v1`; for `resnet50`, the network's default weights.

    Raises:
        UsageError: there is no such entry; the message lists near matches.
    """
    known = CATALOG | _defaults()
    if name not in known:
        raise unknown_name("weights", name, known, "`striate weights list` shows them")
    return known[name]


def default(architecture: str) -> Weights:
    """A network's default ImageNet weights.

    Raises:
        UsageError: there are none for it.
    """
    if not has_default(architecture):
        raise UsageError(
            f"no ImageNet weights for {architecture}",
            "torchvision publishes none, and no package has any",
            "Give a file, or use --weights none; `striate weights list` shows what there is",
        )
    return _defaults()[architecture]


def has_default(architecture: str) -> bool:
    """Whether a network has default ImageNet weights."""
    return architecture in _defaults()


def named(weights: str, architecture: str) -> Weights | None:
    """The entry that a value of `--weights` names; None for a file or `none`.

    Args:
        weights: the value.
        architecture: the network that `pretrained` and `imagenet` mean.

    Raises:
        UsageError: there are no default weights for the network.
    """
    return default(architecture) if weights in PRETRAINED else CATALOG.get(weights)


def _defaults() -> dict[str, Weights]:
    return {weights.architecture: weights for weights in CATALOG.values() if weights.default}


def official(sha256: str, architecture: str) -> Weights | None:
    """The entry of a network whose file has this SHA-256, whatever the file's name; None if there is none."""
    return next(
        (
            w
            for w in CATALOG.values()
            if w.architecture == architecture and sha256.startswith(w.sha256_prefix)
        ),
        None,
    )


def imagenet_classes() -> tuple[str, ...]:
    """The names of ImageNet's 1000 classes, in the order of the scores, all different.

    From the table of ILSVRC 2012. It has two names twice (crane, maillot); here a suffix tells them apart.
    """
    text = (resources.files("striate.weights") / "imagenet_classes.txt").read_text("utf-8")
    return tuple(line.split(" ", 1)[1] for line in text.splitlines())
