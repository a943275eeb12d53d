"""Transforms with torchvision's names, arguments and behavior; decoding, preprocessing and augmentation.

They work on Pillow images, NumPy arrays, tensors and whole uint8 batches. Names are imported on first use,
because most of them need torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from striate.transforms.affine import RandomAffine, RandomRotation
    from striate.transforms.color import ColorJitter, GaussianBlur, Grayscale, RandomErasing, RandomGrayscale
    from striate.transforms.compose import Compose, Normalize, ToTensor
    from striate.transforms.geometry import (
        CenterCrop,
        RandomCrop,
        RandomHorizontalFlip,
        RandomResizedCrop,
        RandomVerticalFlip,
        Resize,
    )
    from striate.transforms.mixing import CutMix, MixUp
    from striate.transforms.policies import AutoAugment, RandAugment, TrivialAugmentWide

_HOMES = {
    "AutoAugment": "policies", "CenterCrop": "geometry", "ColorJitter": "color", "Compose": "compose",
    "CutMix": "mixing", "GaussianBlur": "color", "Grayscale": "color", "MixUp": "mixing",
    "Normalize": "compose", "RandAugment": "policies", "RandomAffine": "affine", "RandomCrop": "geometry",
    "RandomErasing": "color", "RandomGrayscale": "color", "RandomHorizontalFlip": "geometry",
    "RandomResizedCrop": "geometry", "RandomRotation": "affine", "RandomVerticalFlip": "geometry",
    "Resize": "geometry", "ToTensor": "compose", "TrivialAugmentWide": "policies",
}  # fmt: skip


__all__ = [
    "AutoAugment", "CenterCrop", "ColorJitter", "Compose", "CutMix", "GaussianBlur", "Grayscale", "MixUp",
    "Normalize", "RandAugment", "RandomAffine", "RandomCrop", "RandomErasing", "RandomGrayscale",
    "RandomHorizontalFlip", "RandomResizedCrop", "RandomRotation", "RandomVerticalFlip", "Resize", "ToTensor",
    "TrivialAugmentWide",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(f"striate.transforms.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
