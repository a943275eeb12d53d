"""Table of named augmentations. Imports neither torch nor NumPy, so that `--help` can list the names."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

Crop = Literal["center", "shift", "scale", "resized"]


@dataclass(frozen=True)
class Augmentation:
    """A random crop, an optional horizontal flip, then any transforms of `striate.transforms`.

    Attributes:
        summary: what it does, in one sentence for the documentation.
        crop: `center`; `shift`, at a random position; `scale`, at a random scale (He et al. 2016, section
            3.4); `resized`, with random area and aspect ratio (Szegedy et al. 2015, section 6).
        large_crop: the crop for networks that read more than 64 px, if different.
        flip: mirror half of the images left to right.
        transforms: `module:Class` below `striate.transforms` and the keyword arguments of each further
            transform of uint8 images.
    """

    summary: str
    crop: Crop
    large_crop: Crop | None = None
    flip: bool = True
    transforms: tuple[tuple[str, dict[str, Any]], ...] = field(default=())


# To add an augmentation, add a row. A transform that does not exist yet gets its own file.
AUGMENTATIONS: dict[str, Augmentation] = {
    "none": Augmentation("the center crop, as in evaluation", "center", flip=False),
    "shift": Augmentation(
        "a random crop, with padding of 1/8 for small images; for text, which must not be mirrored",
        "shift", flip=False),
    "light": Augmentation("`shift` and a horizontal flip", "shift"),
    "scale": Augmentation(
        "a crop of the image scaled to 256 to 480 for 224 px (He et al. 2016), and a horizontal flip",
        "scale"),
    "standard": Augmentation(
        "a crop of random area and aspect ratio (Szegedy et al. 2015), and a horizontal flip", "resized"),
    "strong": Augmentation(
        "`light` up to 64 px, else `standard`; then `TrivialAugmentWide` and 10 % `RandomErasing`",
        "shift", "resized",
        transforms=(("policies:TrivialAugmentWide", {}), ("color:RandomErasing", {"p": 0.1}))),
}  # fmt: skip
