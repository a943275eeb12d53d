"""Augmentation with transforms of other libraries and of users, one image at a time."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from striate.errors import UsageError
from striate.transforms.arguments import Sides


def augment(
    batch: Tensor, size: Sides, transform: Callable[..., Any], rand: npt.NDArray[np.float64]
) -> Tensor:
    """Call a transform on each image of a batch.

    The transform receives a Pillow image; albumentations transforms receive a NumPy array. Images that are
    neither RGB nor grayscale are uint8 tensors `[channels, height, width]`. The generators of
    Python, NumPy and torch are seeded for each image and restored afterwards, so that the result depends on
    `rand` only.

    Args:
        batch: uint8 `[batch, height, width, channels]`.
        size: required height and width of the result.
        transform: maps one image to one image.
        rand: float64 `[batch]` in [0, 1).

    Returns:
        uint8 `[batch, *size, channels]`.

    Raises:
        UsageError: the result has another dtype or size.
    """
    arrays = type(transform).__module__.split(".")[0] == "albumentations"
    shape = (*size, batch.shape[3])
    out = []
    before = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=[]):
        for image, number in zip(batch.cpu().numpy(), rand, strict=True):
            seed = int(number * 2**32)
            random.seed(seed)
            np.random.seed(seed)
            torch.default_generator.manual_seed(seed)
            if arrays:
                if hasattr(transform, "set_random_seed"):
                    transform.set_random_seed(seed)  # albumentations has its own generator
                changed = transform(image=image)["image"]
            elif shape[2] not in (1, 3):
                changed = transform(torch.from_numpy(image).permute(2, 0, 1).contiguous())
            else:
                changed = transform(Image.fromarray(image.squeeze(2) if shape[2] == 1 else image))
            out.append(_pixels(changed, shape))
    random.setstate(before[0])
    np.random.set_state(before[1])
    return torch.from_numpy(np.stack(out)).to(batch.device)


def _pixels(image: Any, shape: tuple[int, ...]) -> npt.NDArray[np.uint8]:
    if isinstance(image, Tensor):
        image = image.movedim(0, -1).numpy() if image.ndim == 3 else image.numpy()
    pixels = np.asarray(image)
    if pixels.dtype != np.uint8:
        what = f"the augmentation returns {pixels.dtype} {list(pixels.shape)}"
        why = "it must return 8-bit pixels: Striate applies the normalization that is stored with the weights"
        raise UsageError(what, why, "Remove ToTensor and Normalize from it")
    pixels = pixels if pixels.ndim == 3 else pixels[:, :, None]
    if pixels.shape != shape:
        why = f"the network expects {list(shape)}: height, width, channels"
        fix = "Add a crop or Resize to that size at its end"
        raise UsageError(f"the augmentation returns {list(pixels.shape)}", why, fix)
    return pixels
