"""The record of a training recipe from the literature, and settings that several recipes share.

A recipe is a set of `ClassificationConfig` fields. Its notes list what the source does differently and what
it does not specify. Some differences apply to every recipe: biases and norms are not decayed here, the
learning rate follows steps and not epochs, a milestone that the source chose by watching the curve is a fixed
share of the run, and images are resized to 8/7 of the input size before the crop.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from striate import facts

# Training images of each data set.
IMAGES = {"ImageNet": 1_281_167, "CIFAR-10, 45,000 images of it": 45_000, "MNIST": 60_000}

EQUAL_DISTANCES = "the paper divides the rate by 10 when the error stops falling; here at equal distances"
NO_RANDAUGMENT = "TrivialAugment and erasing of one image in ten in place of RandAugment and of one in {}"

SGD = {"opt": "sgd", "momentum": 0.9, "warmup": 0.0, "sched": "step", "milestones": "1/4", "gamma": 0.1}
REFERENCE_SGD = {
    **SGD,
    "batch": 256,
    "epochs": 90,
    "milestones": "1/3",
    "weight_decay": 1e-4,
    "augment": "standard",
}
MIXED = {"label_smoothing": 0.1, "mixup": 0.8, "cutmix": 1.0, "augment": "strong"}


@dataclass(frozen=True)
class Recipe:
    """One way to train a network.

    Attributes:
        source: paper and section, or another public document.
        on: the data set of the source, a key of `IMAGES`.
        settings: fields of `ClassificationConfig`.
        results: two strings that select the published results from `facts.RESULTS`: the start of `source`
            and a part of `on`; empty if none are published.
        notes: differences from the source, and what the source does not specify.
    """

    source: str
    on: str
    settings: Mapping[str, Any]
    results: tuple[str, str] | tuple[()] = ()
    notes: tuple[str, ...] = ()


def torchvision_reference(lr: float) -> Recipe:
    """The recipe of torchvision's first ImageNet weights, which differs between networks in the rate only."""
    settings = {**REFERENCE_SGD, "lr": lr}
    return Recipe(
        "torchvision, references/classification/README.md", "ImageNet", settings, ("torchvision", facts.V1)
    )
