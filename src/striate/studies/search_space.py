"""What `striate tune` searches: learning rate, weight decay, augmentation and the layers that are trained."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection
from typing import Any

import numpy as np

from striate import models
from striate.tasks.classification.config import ClassificationConfig

SEARCHED = ("lr", "weight_decay", "augment", "transfer")
_LR, _DECAY = (-1.0, 1.0), (-1.5, 1.5)  # powers of ten, around the default
_AUGMENTATIONS = {1: ("none", "shift"), 3: ("none", "light", "standard", "strong")}  # by channels
_OTHERS = ("none", "light", "standard")  # `strong` changes colors


def sample(
    config: ClassificationConfig, number: int, fixed: Collection[str], channels: int
) -> dict[str, Any]:
    """The options of a trial: a function of the seed and its number.

    Learning rate and weight decay are log-uniform around the defaults: from a tenth to ten times that of
    the layers that are trained, and from 1/32 to 32 times. They are rounded to two digits.

    Args:
        config: of all trials; its initial weights decide which layers may be frozen.
        number: of the trial; 0 is the defaults.
        fixed: options of `SEARCHED` that the user has chosen.
        channels: of the images; those of 1 channel may be text, which must not be mirrored.
    """
    if number == 0:
        return {}
    rng = np.random.default_rng([config.seed, number])
    # Each draw is made whether or not it is used, so that a fixed option leaves the others as they are.
    powers, places = [rng.uniform(*_LR), rng.uniform(*_DECAY)], rng.random(2)
    found: dict[str, Any] = {}
    if "transfer" not in fixed and len(parts := transfers(config)) > 1:
        found["transfer"] = _pick(parts, places[0])
    placed = dataclasses.replace(config, lr=None, **found)
    found["augment"] = _pick(_AUGMENTATIONS.get(channels, _OTHERS), places[1])
    if placed.transfer in ("head", "append"):
        found["augment"] = "none"  # frozen layers then run only once
    found |= {
        "lr": _rounded(placed.peak_lr * 10 ** powers[0]),
        "weight_decay": _rounded(placed.decay * 10 ** powers[1]),
    }
    return {name: value for name, value in found.items() if name not in fixed}


def transfers(config: ClassificationConfig) -> tuple[str, ...]:
    """The layers that may be trained; only pretrained ones may be frozen."""
    if config.weights == "none" and not config.brings_weights:
        return ("all",)
    replaceable = models.describe(config.architecture).head_replaceable
    head = ("head",) if replaceable and not config.unfreeze_every else ()  # gradual unfreezing adds stages
    return ("all", "last", *head)


def _pick(choices: tuple[str, ...], place: float) -> str:
    return choices[int(place * len(choices))]


def _rounded(value: float) -> float:
    return float(f"{value:.2g}")
