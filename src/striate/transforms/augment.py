"""Augment whole batches of uint8 images on the device where they are.

The random numbers of a sample are a function of (seed, epoch, sample) only. They do not depend on the other
samples of the batch, on the number of threads or on earlier calls.
"""

from __future__ import annotations

import functools
import importlib
import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from striate.transforms import foreign
from striate.transforms.arguments import Sides
from striate.transforms.augmentations import AUGMENTATIONS, Crop
from striate.transforms.geometry import RandomResizedCrop, crops, resized_crops, sampled_crops
from striate.transforms.transform import Transform

# Principal components of the RGB values (0 to 1) of ImageNet: standard deviations, and directions as columns.
# Values from Facebook's fb.resnet.torch.
_PCA_STD = (0.2175, 0.0188, 0.0045)
_PCA_DIRECTIONS = ((-0.5675, 0.7192, 0.4009), (-0.5808, -0.0045, -0.8140), (-0.5836, -0.6948, 0.4203))
_Indices = npt.NDArray[np.int64]
_Random = npt.NDArray[np.float64]  # [batch, number of random numbers]
_BELOW_1 = 1 - 2**-24  # the largest float32 below 1; larger float64 would be rounded to 1, which is no draw
_PCA_STREAM = 3  # of the random numbers; transforms get 1, 2, 4, 5 and so on, crops get 0


def augment(
    batch: Tensor,
    size: Sides,
    augmentation: str | Callable[..., Any],
    *,
    seed: int,
    epoch: int,
    samples: _Indices,
) -> Tensor:
    """Augment a batch of resized, uncropped images.

    Args:
        batch: uint8 `[batch, height, width, channels]`, at least as large as `size`.
        size: height and width of the result.
        augmentation: a key of `AUGMENTATIONS`, or a callable that maps one image to one image.
        seed: of the run.
        epoch: counts from 0.
        samples: int64 `[batch]`, the index of each sample in its dataset.

    Returns:
        uint8 `[batch, *size, channels]`; for the crop `scale` float32 of the range 0-255.

    Raises:
        UsageError: the callable returns anything but 8-bit pixels of that size.
    """
    if not isinstance(augmentation, str):
        return foreign.augment(batch, size, augmentation, uniform(seed, epoch, samples, 1)[:, 0])
    row = AUGMENTATIONS[augmentation]
    crop = row.large_crop if row.large_crop and max(size) > 64 else row.crop
    num_random, cropped = _CROPS[crop]
    numbers = uniform(seed, epoch, samples, num_random) if num_random else np.empty(0)
    out = cropped(batch, size, numbers, row.flip)
    if not row.transforms:
        return out
    images = out.permute(0, 3, 1, 2)
    streams = (i for i in itertools.count(1) if i != _PCA_STREAM)
    for transform, stream in zip(_transforms(augmentation), streams, strict=False):
        rand = _to_device(uniform(seed ^ stream << 56, epoch, samples, transform.num_random), batch.device)
        images = transform.batch(images, rand)
    return images.permute(0, 2, 3, 1)


def pca_color(batch: Tensor, std: float, *, seed: int, epoch: int, samples: _Indices) -> Tensor:
    """PCA color augmentation of AlexNet (Krizhevsky, Sutskever, Hinton 2012, section 4.1).

    Adds to all pixels of an image the same linear combination of the principal components of ImageNet's RGB
    values. Each coefficient is the component's standard deviation times a normal random number.

    Args:
        batch: `[batch, height, width, 3]` in 0-255; grayscale images are returned unchanged.
        std: of the normal distribution; 0.1 in the paper, 0 for no augmentation.
        seed: of the run.
        epoch: counts from 0.
        samples: int64 `[batch]`, the index of each sample in its dataset.

    Returns:
        float32 of that shape; values may lie slightly outside 0-255.
    """
    if not std or batch.shape[3] != 3:
        return batch
    rand = uniform(seed ^ _PCA_STREAM << 56, epoch, samples, 6)
    radius, angle = np.sqrt(-2 * np.log1p(-rand[:, :3])), 2 * np.pi * rand[:, 3:]
    normal = radius * np.cos(angle)  # Box and Muller 1958
    shift = 255 * std * (normal * _PCA_STD) @ np.transpose(_PCA_DIRECTIONS)
    return batch + torch.from_numpy(shift).to(batch.device, torch.float32)[:, None, None, :]


def uniform(seed: int, epoch: int, samples: _Indices, count: int) -> _Random:
    """Uniform random numbers in [0, 1) that are a function of seed, epoch and sample only.

    Counter-based generator: the finaliser of SplitMix64 (Steele, Lea, Flood 2014) applied to a counter made
    of seed, epoch and sample, so that all numbers are independent of each other.

    Returns:
        float64 `[len(samples), count]`.
    """
    with np.errstate(over="ignore"):  # unsigned overflow is intended
        key = np.array([seed % 2**64], np.uint64)
        key = _mix(_mix(key) ^ np.array([epoch], np.uint64))
        first = samples.astype(np.uint64)[:, None] * np.array([count], np.uint64)
        counter = first + np.arange(count).astype(np.uint64)
        bits = _mix(key ^ _mix(counter))
    return (bits >> np.uint64(11)).astype(np.float64) * 2.0**-53


def _mix(value: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    z = value + np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


@functools.cache
def _transforms(augmentation: str) -> list[Transform]:
    found = []
    for target, arguments in AUGMENTATIONS[augmentation].transforms:
        module, name = target.split(":")
        found.append(getattr(importlib.import_module(f"striate.transforms.{module}"), name)(**arguments))
    return found


def _to_device(numbers: _Random, device: torch.device) -> Tensor:
    """Convert to float32 on the device; through pinned memory, so that the host does not wait for a GPU."""
    values = torch.from_numpy(numbers).float().clamp_(max=_BELOW_1)
    return values.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else values.to(device)


def _center_crop(batch: Tensor, size: Sides, rand: _Random, flip: bool) -> Tensor:
    top, left = round((batch.shape[1] - size[0]) / 2), round((batch.shape[2] - size[1]) / 2)
    return batch[:, top : top + size[0], left : left + size[1]]


def _shifted_crop(batch: Tensor, size: Sides, rand: _Random, flip: bool) -> Tensor:
    """Random crop and optional horizontal flip (He et al. 2016, section 4.2, for small images)."""
    (H, W), (height, width) = batch.shape[1:3], size
    # If the image has no margin around the crop, it is padded with zeros: 4 px at 32, as in the paper.
    pad_y = height // 8 if height == H else 0
    pad_x = width // 8 if width == W else 0
    place_y, place_x, mirror = _to_device(rand[:, :3], batch.device).unbind(1)
    top = (place_y * (H + 2 * pad_y - height + 1)).long() - pad_y
    left = (place_x * (W + 2 * pad_x - width + 1)).long() - pad_x
    mirrored = (mirror < 0.5) & flip
    return crops(batch, top, left, size, mirrored)


def _resized_crop(batch: Tensor, size: Sides, rand: _Random, flip: bool) -> Tensor:
    """Crop 8 % to 100 % of the area with aspect ratio 3/4 to 4/3, resize to `size`, flip half of them."""
    numbers = torch.from_numpy(rand).float()
    boxes = RandomResizedCrop(size).boxes(batch.shape[1], batch.shape[2], numbers)
    mirrored = (numbers[:, -1] < 0.5) & flip
    if batch.device.type != "cpu":
        top, left, height, width, mirror = _to_device(torch.stack((*boxes, mirrored)).numpy(), batch.device)
        boxes, mirrored = (top, left, height, width), mirror > 0
    return resized_crops(batch.permute(0, 3, 1, 2), boxes, size, mirrored).permute(0, 2, 3, 1)


def _scaled_crop(batch: Tensor, size: Sides, rand: _Random, flip: bool) -> Tensor:
    """Crop from the image resized to a random size (He et al. 2016, section 3.4), flip half of the images."""
    numbers = _to_device(rand, batch.device)
    share = 224 / (256 + (480 - 256) * numbers[:, 0])
    mirror = torch.where((numbers[:, 2] < 0.5) & flip, -1.0, 1.0)
    scale = torch.stack([share * mirror, share], dim=1)
    shift = (2 * numbers[:, 3:] - 1) * (1 - share)[:, None]
    return sampled_crops(batch.permute(0, 3, 1, 2), scale, shift, size).permute(0, 2, 3, 1)


# Number of random numbers per sample, and the function.
_CROPS: dict[Crop, tuple[int, Callable[[Tensor, Sides, _Random, bool], Tensor]]] = {
    "center": (0, _center_crop), "shift": (5, _shifted_crop), "scale": (5, _scaled_crop),
    "resized": (RandomResizedCrop.num_random + 1, _resized_crop),
}  # fmt: skip
