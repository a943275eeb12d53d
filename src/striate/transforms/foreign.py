"""Other libraries' transforms, and the user's own, on imagees: one image at a time, as they expect it."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from striate.errors import UsageError


def augment(
    batch: torch.Tensor, size: tuple[int, int], transform: Callable[..., Any], rand: npt.NDArray[np.float64]
) -> torch.Tensor:
    """Call a transform on each image of a batch.

    It is given a Pillow image, an albumentations transform a NumPy array. The generators of Python, NumPy and
    torch are seeded for each image and put back after, so that what is random depends on `rand` alone.

    Args:
        batch: uint8 `[batch, height, width, channels]`.
        size: height and width that it must give.
        transform: takes and gives one image.
        rand: float64 `[batch]` in [0, 1).

    Returns:
        uint8 `[batch, *size, channels]`.

    Raises:
        UsageError: it gives something else.
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
                    transform.set_random_seed(seed)  # it has its own generator
                changed = transform(image=image)["image"]
            else:
                changed = transform(Image.fromarray(image.squeeze(2) if shape[2] == 1 else image))
            out.append(_pixels(changed, shape))
    random.setstate(before[0])
    np.random.set_state(before[1])
    return torch.from_numpy(np.stack(out)).to(batch.device)


def _pixels(image: Any, shape: tuple[int, ...]) -> npt.NDArray[np.uint8]:
    if isinstance(image, torch.Tensor):
        image = image.movedim(0, -1).numpy() if image.ndim == 3 else image.numpy()
    pixels = np.asarray(image)
    if pixels.dtype != np.uint8:
        raise UsageError(
            f"the augmentation gives {pixels.dtype} {list(pixels.shape)}",
            "it must give 8-bit pixels: Striate normalises by the contract that is stored with the weights",
            "Leave ToTensor and Normalize out of it",
        )
    pixels = pixels if pixels.ndim == 3 else pixels[:, :, None]
    if pixels.shape != shape:
        raise UsageError(
            f"the augmentation gives {list(pixels.shape)}",
            f"the network reads {list(shape)}: height, width, channels",
            "Let it end with a crop or Resize to that size",
        )
    return pixels
