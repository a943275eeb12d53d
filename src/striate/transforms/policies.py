"""AutoAugment, RandAugment and TrivialAugmentWide.

Operations, ranges and bins of magnitudes are those of the papers, in torchvision's version.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from striate.errors import UsageError
from striate.transforms import color
from striate.transforms.affine import inverse_affine, warp
from striate.transforms.blocks import blocks
from striate.transforms.transform import Transform

# Cubuk et al. 2019 (AutoAugment), table 9: 25 sub-policies for ImageNet, each two of (operation, probability,
# bin of the magnitude 0-9).
IMAGENET = (
    (("Posterize", 0.4, 8), ("Rotate", 0.6, 9)), (("Solarize", 0.6, 5), ("AutoContrast", 0.6, 0)),
    (("Equalize", 0.8, 0), ("Equalize", 0.6, 0)), (("Posterize", 0.6, 7), ("Posterize", 0.6, 6)),
    (("Equalize", 0.4, 0), ("Solarize", 0.2, 4)), (("Equalize", 0.4, 0), ("Rotate", 0.8, 8)),
    (("Solarize", 0.6, 3), ("Equalize", 0.6, 0)), (("Posterize", 0.8, 5), ("Equalize", 1.0, 0)),
    (("Rotate", 0.2, 3), ("Solarize", 0.6, 8)), (("Equalize", 0.6, 0), ("Posterize", 0.4, 6)),
    (("Rotate", 0.8, 8), ("Color", 0.4, 0)), (("Rotate", 0.4, 9), ("Equalize", 0.6, 0)),
    (("Equalize", 0.0, 0), ("Equalize", 0.8, 0)), (("Invert", 0.6, 0), ("Equalize", 1.0, 0)),
    (("Color", 0.6, 4), ("Contrast", 1.0, 8)), (("Rotate", 0.8, 8), ("Color", 1.0, 2)),
    (("Color", 0.8, 8), ("Solarize", 0.8, 7)), (("Sharpness", 0.4, 7), ("Invert", 0.6, 0)),
    (("ShearX", 0.6, 5), ("Equalize", 1.0, 0)), (("Color", 0.4, 0), ("Equalize", 0.6, 0)),
    (("Equalize", 0.4, 0), ("Solarize", 0.2, 4)), (("Solarize", 0.6, 5), ("AutoContrast", 0.6, 0)),
    (("Invert", 0.6, 0), ("Equalize", 1.0, 0)), (("Color", 0.6, 4), ("Contrast", 1.0, 8)),
    (("Equalize", 0.8, 0), ("Equalize", 0.6, 0)),
)  # fmt: skip

_Space = dict[str, Tensor]  # operation -> magnitude of each bin
_GEOMETRIC = ("ShearX", "ShearY", "TranslateX", "TranslateY", "Rotate")
_ENHANCE = {
    "Brightness": color.brightness, "Color": color.saturation, "Contrast": color.contrast,
    "Sharpness": color.sharpness,
}  # fmt: skip
_BY_LEVEL = {"Posterize": color.posterize, "Solarize": color.solarize}
_PLAIN = {"AutoContrast": color.autocontrast, "Equalize": color.equalize, "Invert": color.invert}
_SIGNED = (*_GEOMETRIC, *_ENHANCE)


def apply(images: Tensor, operation: str, magnitude: Tensor, fill: float = 0) -> Tensor:
    """Apply one operation to a batch, uint8 `[batch, channels, height, width]`.

    Args:
        images: the batch.
        operation: its name in the papers.
        magnitude: float `[batch]`: shear (tangent), pixels, degrees, factor minus 1, bits or threshold.
        fill: value of pixels outside of the image.
    """
    change, numbers = _prepared(operation, magnitude, images.shape[2], images.shape[3], fill)
    return change(images, numbers)


def _prepared(
    operation: str, magnitude: Tensor, height: int, width: int, fill: float = 0
) -> tuple[Callable[[Tensor, Tensor], Tensor], Tensor]:
    """Return a function of images and of numbers per sample, and these numbers."""
    if operation in _GEOMETRIC:
        inverse = _inverse(operation, magnitude, height, width)
        return lambda images, inverse: warp(images, inverse, "nearest", fill), inverse
    if operation in _ENHANCE:
        return _ENHANCE[operation], 1 + magnitude
    if operation in _BY_LEVEL:
        return _BY_LEVEL[operation], magnitude
    if operation == "Identity":
        return lambda images, _: images, magnitude
    if operation in _PLAIN:
        return lambda images, _: _PLAIN[operation](images), magnitude
    names = ", ".join(("Identity", *_GEOMETRIC, *_ENHANCE, *_BY_LEVEL, *_PLAIN))
    raise UsageError(f"operation {operation!r}", f"it must be one of {names}")


def _inverse(operation: str, magnitude: Tensor, height: int, width: int) -> Tensor:
    zero = torch.zeros_like(magnitude)
    shift, shear, turn = torch.stack([zero, zero], dim=1), torch.stack([zero, zero], dim=1), zero
    axis = 0 if operation.endswith("X") else 1
    if operation == "Rotate":
        turn = -magnitude  # counter-clockwise, as in Pillow
    elif operation.startswith("Translate"):
        shift[:, axis] = magnitude.trunc()
    else:
        shear[:, axis] = torch.rad2deg(torch.atan(magnitude))
        # The papers shear about the top left corner: undo the translation of shearing about the center.
        shift[:, axis] = -magnitude * (height if axis == 0 else width) / 2
    return inverse_affine(turn, shift, torch.ones_like(magnitude), shear)


def _apply_bins(
    images: Tensor, out: Tensor, space: _Space, choice: Tensor, bins: Tensor, sign: Tensor
) -> Tensor:
    """Apply operation `choice` of the space to each sample, with the bin of its magnitude.

    Args:
        images: the batch.
        out: the result, which is returned; may be the same tensor.
        space: magnitudes of each operation.
        choice: int64 `[batch]`, positions in the space.
        bins: int64 `[batch]`.
        sign: random numbers `[batch]`; below 0.5 for a negative magnitude.
    """
    for i, (name, magnitudes) in enumerate(space.items()):
        which = (choice == i).nonzero()[:, 0]
        if not len(which) or (name == "Identity" and out is images):
            continue
        magnitude = magnitudes.to(images.device)[bins[which]]
        if name in _SIGNED:
            magnitude = torch.where(sign[which] < 0.5, -magnitude, magnitude)
        change, numbers = _prepared(name, magnitude, *images.shape[2:])
        for rows, part in blocks(images, which):
            out[rows] = change(images[rows], numbers[part])
    return out


class _Policy(Transform):
    """Base class: chooses operations per sample; `_space` defines their magnitudes."""

    stages = ("pixels",)

    def _space(self, bins: int, height: int, width: int) -> _Space:
        """Return operation -> magnitude of each bin (AutoAugment, Cubuk et al. 2019, table 6)."""
        way = torch.linspace(0, 1, bins, dtype=torch.float32, device="cpu")
        enhance = 0.9 * way
        return {
            "Identity": 0 * way, "ShearX": 0.3 * way, "ShearY": 0.3 * way,
            "TranslateX": 150 / 331 * width * way, "TranslateY": 150 / 331 * height * way, "Rotate": 30 * way,
            "Brightness": enhance, "Color": enhance, "Contrast": enhance, "Sharpness": enhance,
            "Posterize": 8 - (4 * way).round(), "Solarize": 255 * (1 - way),
            "AutoContrast": 0 * way, "Equalize": 0 * way,
        }  # fmt: skip


class TrivialAugmentWide(_Policy):
    """One operation of random magnitude (Müller, Hutter 2021, table 1, the wide space).

    Args:
        num_magnitude_bins: number of magnitudes.
    """

    num_random = 3

    def __init__(self, num_magnitude_bins: int = 31) -> None:
        self.num_magnitude_bins = num_magnitude_bins

    def batch(self, images: Tensor, rand: Tensor) -> Tensor:
        """Apply one operation to each sample."""
        space = self._space(self.num_magnitude_bins, *images.shape[2:])
        choice = (rand[:, 0] * len(space)).long()
        bins = (rand[:, 1] * self.num_magnitude_bins).long()
        return _apply_bins(images, torch.empty_like(images), space, choice, bins, rand[:, 2])

    def _space(self, bins: int, height: int, width: int) -> _Space:
        way = torch.linspace(0, 1, bins, dtype=torch.float32, device="cpu")
        wide = dict.fromkeys(("ShearX", "ShearY", "Brightness", "Color", "Contrast", "Sharpness"), 0.99 * way)
        return super()._space(bins, height, width) | wide | {
            "TranslateX": 32 * way, "TranslateY": 32 * way, "Rotate": 135 * way,
            "Posterize": 8 - (6 * way).round(),
        }  # fmt: skip


class RandAugment(_Policy):
    """Several operations of one magnitude (Cubuk et al. 2020, section 3).

    Args:
        num_ops: number of operations.
        magnitude: bin of the magnitude.
        num_magnitude_bins: number of magnitudes.
    """

    def __init__(self, num_ops: int = 2, magnitude: int = 9, num_magnitude_bins: int = 31) -> None:
        if not 0 <= magnitude < num_magnitude_bins:
            raise UsageError(f"magnitude = {magnitude!r}", f"it must be in 0 to {num_magnitude_bins - 1}")
        self.num_ops, self.magnitude, self.num_magnitude_bins = num_ops, magnitude, num_magnitude_bins
        self.num_random = 2 * num_ops

    def batch(self, images: Tensor, rand: Tensor) -> Tensor:
        """Apply several operations to each sample."""
        space = self._space(self.num_magnitude_bins, *images.shape[2:])
        bins = torch.full((len(images),), self.magnitude, device=images.device)
        out = torch.empty_like(images) if self.num_ops else images
        for op in range(self.num_ops):
            choice = (rand[:, 2 * op] * len(space)).long()
            images = _apply_bins(images, out, space, choice, bins, rand[:, 2 * op + 1])
        return out


class AutoAugment(_Policy):
    """Two operations of a random one of 25 sub-policies for ImageNet (Cubuk et al. 2019, table 9)."""

    num_random = 5

    def batch(self, images: Tensor, rand: Tensor) -> Tensor:
        """Apply a random sub-policy to each sample."""
        space = self._space(10, *images.shape[2:]) | {
            "Invert": torch.zeros(10, dtype=torch.float32, device="cpu")
        }
        index = {name: i for i, name in enumerate(space)}
        policy = (rand[:, 0] * len(IMAGENET)).long().tolist()
        out = torch.empty_like(images)
        for turn in range(2):
            rules = [(index[name], p, level) for name, p, level in (IMAGENET[i][turn] for i in policy)]
            columns = zip(*rules, strict=True)
            choice, likely, bins = (torch.tensor(column, device=images.device) for column in columns)
            choice = torch.where(rand[:, 1 + 2 * turn] < likely, choice, index["Identity"])
            images = _apply_bins(images, out, space, choice, bins, rand[:, 2 + 2 * turn])
        return out
