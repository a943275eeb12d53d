"""The records of published numbers: counts, results, and files of weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Sure = Literal["exact", "read", "high", "medium"]


@dataclass(frozen=True)
class Count:
    """A published number that follows from a network's definition.

    Attributes:
        network: a key of `models.MODELS`.
        quantity: the quantity counted.
        value: the number as printed.
        step: the value of one unit in its last printed digit; 1 for an exact number.
        source: paper and place, or package and version.
        sure: `exact`: derived again by arithmetic; `read`: read in the source; `high`, `medium`: from memory,
            with that confidence.
        differs: the network's true number, if it does not round to `value`.
        note: the reason for a difference, or other remarks.
        arguments: arguments of `models.build`, if the number is not for the defaults.
    """

    network: str
    quantity: str
    value: float
    step: float
    source: str
    sure: Sure
    differs: float | None = None
    note: str = ""
    arguments: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Result:
    """A published number that someone measured.

    Attributes:
        network: a key of `models.MODELS`, or the source's name for another network.
        measure: `top-1 accuracy`, `top-1 error`, `top-5 error` and so on, in percent.
        percent: the number as printed.
        on: the data and the test protocol.
        source: paper and place, or package and version.
        sure: see `Count`.
    """

    network: str
    measure: str
    percent: float
    on: str
    source: str
    sure: Sure


@dataclass(frozen=True)
class WeightsFile:
    """A file of trained weights on a public server, or in a package of the Python package index.

    Attributes:
        name: the network, a dot, and which of its files.
        file: name of the file; after the last dash come the first digits of its SHA-256.
        crop: side of the images it was evaluated on, in pixels.
        resize: length of the shorter side before the crop.
        top1: published accuracy on ImageNet's validation set, in percent.
        top5: the same for the five best classes.
        mib: size of the file in MiB.
        interpolation: resampling filter of the resize.
        default: whether these are the network's default weights.
        normalization: a key of `transforms.preprocess.NORMALIZATIONS`.
        license: SPDX identifier of the license that the publisher names.
        package: package of the Python package index that contains the file; empty for a server's file.
        sha256: the file's SHA-256, if more than the digits in its name are known.
    """

    name: str
    file: str
    crop: int
    resize: int
    top1: float
    top5: float
    mib: float
    interpolation: str = "bilinear"
    default: bool = True
    normalization: str = "imagenet"
    license: str = "BSD-3-Clause"
    package: str = ""
    sha256: str = ""

    @property
    def architecture(self) -> str:
        """The network's name in `striate.models.MODELS`."""
        return self.name.split(".")[0]
