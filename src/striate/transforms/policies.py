"""Policies: random chains of the changes in `color` and `geometry`, each sample its own.

The changes, their ranges and the bins of their magnitudes are those of the papers as torchvision has them.
"""

from __future__ import annotations

import torch

from striate.errors import UsageError
from striate.transforms import color
from striate.transforms.affine import inverse_affine, warp
from striate.transforms.transform import Transform

# Cubuk et al. 2019 (AutoAugment), table 9: 25 sub-policies for ImageNet, each two of (change, probability,
# bin of the magnitude 0-9).
IMAGENET = (
    (("Posterize", 0.4, 8), ("Rotate", 0.6, 9)),
    (("Solarize", 0.6, 5), ("AutoContrast", 0.6, 0)),
    (("Equalize", 0.8, 0), ("Equalize", 0.6, 0)),
    (("Posterize", 0.6, 7), ("Posterize", 0.6, 6)),
    (("Equalize", 0.4, 0), ("Solarize", 0.2, 4)),
    (("Equalize", 0.4, 0), ("Rotate", 0.8, 8)),
    (("Solarize", 0.6, 3), ("Equalize", 0.6, 0)),
    (("Posterize", 0.8, 5), ("Equalize", 1.0, 0)),
    (("Rotate", 0.2, 3), ("Solarize", 0.6, 8)),
    (("Equalize", 0.6, 0), ("Posterize", 0.4, 6)),
    (("Rotate", 0.8, 8), ("Color", 0.4, 0)),
    (("Rotate", 0.4, 9), ("Equalize", 0.6, 0)),
    (("Equalize", 0.0, 0), ("Equalize", 0.8, 0)),
    (("Invert", 0.6, 0), ("Equalize", 1.0, 0)),
    (("Color", 0.6, 4), ("Contrast", 1.0, 8)),
    (("Rotate", 0.8, 8), ("Color", 1.0, 2)),
    (("Color", 0.8, 8), ("Solarize", 0.8, 7)),
    (("Sharpness", 0.4, 7), ("Invert", 0.6, 0)),
    (("ShearX", 0.6, 5), ("Equalize", 1.0, 0)),
    (("Color", 0.4, 0), ("Equalize", 0.6, 0)),
    (("Equalize", 0.4, 0), ("Solarize", 0.2, 4)),
    (("Solarize", 0.6, 5), ("AutoContrast", 0.6, 0)),
    (("Invert", 0.6, 0), ("Equalize", 1.0, 0)),
    (("Color", 0.6, 4), ("Contrast", 1.0, 8)),
    (("Equalize", 0.8, 0), ("Equalize", 0.6, 0)),
)

_SIGNED = (
    "ShearX",
    "ShearY",
    "TranslateX",
    "TranslateY",
    "Rotate",
    "Brightness",
    "Color",
    "Contrast",
    "Sharpness",
)
_CHANGES = ("Identity", *_SIGNED, "Posterize", "Solarize", "AutoContrast", "Equalize", "Invert")


def apply(images: torch.Tensor, change: str, magnitude: torch.Tensor, fill: float = 0) -> torch.Tensor:
    """One change of a batch, uint8 `[batch, channels, height, width]`.

    Args:
        images: the batch.
        change: its name in the papers.
        magnitude: float `[batch]`: shear (tangent), pixels, degrees, factor minus 1, bits or threshold.
        fill: value of what was outside.
    """
    if change in ("ShearX", "ShearY", "TranslateX", "TranslateY", "Rotate"):
        return warp(images, _inverse(change, magnitude, images.shape[2], images.shape[3]), "nearest", fill)
    match change:
        case "Identity":
            return images
        case "Brightness":
            return color.brightness(images, 1 + magnitude)
        case "Color":
            return color.saturation(images, 1 + magnitude)
        case "Contrast":
            return color.contrast(images, 1 + magnitude)
        case "Sharpness":
            return color.sharpness(images, 1 + magnitude)
        case "Posterize":
            return color.posterize(images, magnitude)
        case "Solarize":
            return color.solarize(images, magnitude)
        case "AutoContrast":
            return color.autocontrast(images)
        case "Equalize":
            return color.equalize(images)
        case "Invert":
            return color.invert(images)
    raise UsageError(f"change {change!r}", f"it must be one of {', '.join(_CHANGES)}")


def _inverse(change: str, magnitude: torch.Tensor, height: int, width: int) -> torch.Tensor:
    zero = torch.zeros_like(magnitude)
    shift, shear, turn = torch.stack([zero, zero], dim=1), torch.stack([zero, zero], dim=1), zero
    axis = 0 if change.endswith("X") else 1
    if change == "Rotate":
        turn = -magnitude  # counter-clockwise, as in Pillow
    elif change.startswith("Translate"):
        shift[:, axis] = magnitude.trunc()
    else:
        shear[:, axis] = torch.rad2deg(torch.atan(magnitude))
        # About the top left corner: what shearing about the centre has moved is moved back.
        shift[:, axis] = -magnitude * (height if axis == 0 else width) / 2
    return inverse_affine(turn, shift, torch.ones_like(magnitude), shear)


class _Policy(Transform):
    """Chains of changes, chosen for each sample; `_space` says how strong each may be."""

    stages = ("pixels",)

    def _space(self, bins: int, height: int, width: int) -> dict[str, torch.Tensor]:
        """The ranges of AutoAugment (Cubuk et al. 2019, table 6): change -> magnitude of each bin."""
        way = torch.linspace(0, 1, bins)
        enhance = 0.9 * way
        return {
            "Identity": 0 * way, "ShearX": 0.3 * way, "ShearY": 0.3 * way,
            "TranslateX": 150 / 331 * width * way, "TranslateY": 150 / 331 * height * way, "Rotate": 30 * way,
            "Brightness": enhance, "Color": enhance, "Contrast": enhance, "Sharpness": enhance,
            "Posterize": 8 - (4 * way).round(), "Solarize": 255 * (1 - way),
            "AutoContrast": 0 * way, "Equalize": 0 * way,
        }  # fmt: skip

    def _change(
        self,
        images: torch.Tensor,
        names: tuple[str, ...],
        choice: torch.Tensor,
        bins: torch.Tensor,
        sign: torch.Tensor,
        space: dict[str, torch.Tensor],
    ) -> torch.Tensor:
        """Change each sample by `names[choice]` at the magnitude of its bin; a choice of -1 leaves it."""
        out = images.clone()
        for i, name in enumerate(names):
            which = (choice == i).nonzero()[:, 0]
            if len(which) and name != "Identity":
                magnitude = space[name].to(images.device)[bins[which]]
                if name in _SIGNED:
                    magnitude = torch.where(sign[which] < 0.5, -magnitude, magnitude)
                out[which] = apply(out[which], name, magnitude)
        return out


class TrivialAugmentWide(_Policy):
    """One change of random strength (Müller, Hutter 2021, table 1, the wide space).

    Args:
        num_magnitude_bins: steps of strength.
    """

    num_random = 3

    def __init__(self, num_magnitude_bins: int = 31) -> None:
        self.num_magnitude_bins = num_magnitude_bins

    def batch(self, images: torch.Tensor, rand: torch.Tensor) -> torch.Tensor:
        """Change each sample once."""
        space = self._space(self.num_magnitude_bins, *images.shape[2:])
        names = tuple(space)
        choice = (rand[:, 0] * len(names)).long()
        bins = (rand[:, 1] * self.num_magnitude_bins).long()
        return self._change(images, names, choice, bins, rand[:, 2], space)

    def _space(self, bins: int, height: int, width: int) -> dict[str, torch.Tensor]:
        way = torch.linspace(0, 1, bins)
        wide = dict.fromkeys(("ShearX", "ShearY", "Brightness", "Color", "Contrast", "Sharpness"), 0.99 * way)
        return super()._space(bins, height, width) | wide | {
            "TranslateX": 32 * way, "TranslateY": 32 * way, "Rotate": 135 * way,
            "Posterize": 8 - (6 * way).round(),
        }  # fmt: skip


class RandAugment(_Policy):
    """Several changes of one strength (Cubuk et al. 2020, section 3).

    Args:
        num_ops: changes one after the other.
        magnitude: bin of their strength.
        num_magnitude_bins: steps of strength.
    """

    def __init__(self, num_ops: int = 2, magnitude: int = 9, num_magnitude_bins: int = 31) -> None:
        if not 0 <= magnitude < num_magnitude_bins:
            raise UsageError(f"magnitude = {magnitude!r}", f"it must lie in 0 to {num_magnitude_bins - 1}")
        self.num_ops, self.magnitude, self.num_magnitude_bins = num_ops, magnitude, num_magnitude_bins
        self.num_random = 2 * num_ops

    def batch(self, images: torch.Tensor, rand: torch.Tensor) -> torch.Tensor:
        """Change each sample several times."""
        space = self._space(self.num_magnitude_bins, *images.shape[2:])
        names = tuple(space)
        bins = torch.full((len(images),), self.magnitude, device=images.device)
        for op in range(self.num_ops):
            choice = (rand[:, 2 * op] * len(names)).long()
            images = self._change(images, names, choice, bins, rand[:, 2 * op + 1], space)
        return images


class AutoAugment(_Policy):
    """Two changes by one of the 25 sub-policies learnt for ImageNet (Cubuk et al. 2019, table 9)."""

    num_random = 5

    def batch(self, images: torch.Tensor, rand: torch.Tensor) -> torch.Tensor:
        """Change each sample by its own sub-policy."""
        space = self._space(10, *images.shape[2:]) | {"Invert": torch.zeros(10)}
        names = tuple(space)
        policy = (rand[:, 0] * len(IMAGENET)).long().cpu()
        for turn in range(2):
            rule = [IMAGENET[i][turn] for i in policy.tolist()]
            choice = torch.tensor([names.index(name) for name, _, _ in rule], device=images.device)
            likely = torch.tensor([p for _, p, _ in rule], device=images.device)
            bins = torch.tensor([level for _, _, level in rule], device=images.device)
            choice = torch.where(rand[:, 1 + 2 * turn] < likely, choice, -1)
            images = self._change(images, names, choice, bins, rand[:, 2 + 2 * turn], space)
        return images
