"""What evaluations of image classifiers have in common, with one class per image or several."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from striate.data import Problem
from striate.data.images.decoded import ImageSubset, JoinedImages
from striate.data.images.samples import UNSPLIT
from striate.metrics.classification import all_finite
from striate.transforms.decode import Uint8Array


@dataclass(frozen=True, kw_only=True)
class ImageEvaluation:
    """The metrics of a classifier of images on one split.

    Attributes:
        data: name of the dataset.
        split: `test`, `val`, `train`, or `all` of data without splits.
        n: number of images.
        metrics: the value of each metric, by name.
        intervals: 95 % confidence intervals of the metrics, by name.
        classes: the model's class names.
        missing_classes: the model's classes without any image in the data.
        extra_classes: classes that the model does not know, with their number of images; they are left out.
        problems: unreadable images, which are left out.
        names: `[n]`, the path of each image.
        probabilities: float64 `[n, classes]`.
        images: uint8 `[n, height, width, channels]`, at the network's input size; read lazily.
        notes: warnings.
        unknown: features of training images for the bundle, as `Description.unknown`; or empty.
    """

    data: str
    split: str
    n: int
    metrics: dict[str, float]
    intervals: dict[str, tuple[float, float]]
    classes: tuple[str, ...]
    missing_classes: tuple[str, ...]
    extra_classes: dict[str, int]
    problems: tuple[Problem, ...]
    names: tuple[str, ...] = field(repr=False)
    probabilities: npt.NDArray[np.float64] = field(repr=False)
    images: Uint8Array | ImageSubset | JoinedImages = field(repr=False)
    notes: tuple[str, ...] = ()
    unknown: str = field(default="", repr=False)

    @property
    def what(self) -> str:
        """The images in words: `test images`, or `images` of data without splits."""
        return "images" if self.split == UNSPLIT else f"{self.split} images"

    @property
    def nonfinite(self) -> int:
        """Number of images whose scores are not finite; they count as wrong."""
        return int((~all_finite(self.probabilities)).sum())

    def headline(self) -> dict[str, Any]:
        """The figures that a bundle carries."""
        intervals = {f"{name}_ci": list(ends) for name, ends in self.intervals.items()}
        return {"n": self.n, **self.metrics, **intervals}

    def nonfinite_note(self) -> tuple[str, ...]:
        """The warning about images whose scores are not finite; empty if there are none."""
        if not self.nonfinite:
            return ()
        count = f"{self.nonfinite:,} of {self.n:,} images"
        return (f"the scores of {count} are not finite: they count as wrong",)
