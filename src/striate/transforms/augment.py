"""Augment whole batches of uint8 images on the device where they are.

The random numbers of a sample are a function of (seed, epoch, sample) only. They do not depend on the other
samples of the batch, on the number of threads or on earlier calls.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F

from striate import transforms
from striate.transforms import foreign
from striate.transforms.augmentations import AUGMENTATIONS
from striate.transforms.geometry import RandomResizedCrop, copy_rows, resized_crops
from striate.transforms.transform import Transform

# Principal components of the RGB values (0 to 1) of ImageNet: standard deviations, and directions as columns.
# Values from Facebook's fb.resnet.torch.
_PCA_STD = (0.2175, 0.0188, 0.0045)
_PCA_DIRECTIONS = ((-0.5675, 0.7192, 0.4009), (-0.5808, -0.0045, -0.8140), (-0.5836, -0.6948, 0.4203))
_PCA_STREAM = 3  # of the random numbers; transforms get 1, 2, 4, 5 and so on, crops get 0


def augment(
    batch: torch.Tensor,
    size: tuple[int, int],
    augmentation: str | Callable[..., Any],
    *,
    seed: int,
    epoch: int,
    samples: npt.NDArray[np.int64],
) -> torch.Tensor:
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
    if crop == "center":
        out = _center_crop(batch, size)
    elif crop == "resized":
        out = _resized_crop(batch, size, seed, epoch, samples, flip=row.flip)
    else:
        rand = _to_device(uniform(seed, epoch, samples, 5), batch.device)
        out = (_scaled_crop if crop == "scale" else _shifted_crop)(batch, size, rand, flip=row.flip)
    if not row.transforms:
        return out
    images = out.permute(0, 3, 1, 2)
    streams = (i for i in itertools.count(1) if i != _PCA_STREAM)
    for transform, stream in zip(_transforms(augmentation), streams, strict=False):
        rand = _to_device(uniform(seed ^ stream << 56, epoch, samples, transform.num_random), batch.device)
        images = transform.batch(images, rand)
    return images.permute(0, 2, 3, 1)


def pca_color(
    batch: torch.Tensor, std: float, *, seed: int, epoch: int, samples: npt.NDArray[np.int64]
) -> torch.Tensor:
    """PCA colour augmentation of AlexNet (Krizhevsky, Sutskever, Hinton 2012, section 4.1).

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


def uniform(seed: int, epoch: int, samples: npt.NDArray[np.int64], count: int) -> npt.NDArray[np.float64]:
    """Uniform random numbers in [0, 1) that are a function of seed, epoch and sample only.

    Counter-based generator: the finaliser of SplitMix64 (Steele, Lea, Flood 2014) applied to a counter made of
    seed, epoch and sample, so that all numbers can be computed independently.

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
    rows = AUGMENTATIONS[augmentation].transforms
    return [getattr(transforms, name)(**arguments) for name, arguments in rows]


def _to_device(numbers: npt.NDArray[np.float64], device: torch.device) -> torch.Tensor:
    """Convert to float32 on the device; through pinned memory, so that the host does not wait for a GPU."""
    values = torch.from_numpy(numbers).float()
    return values.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else values.to(device)


def _center_crop(batch: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    top, left = round((batch.shape[1] - size[0]) / 2), round((batch.shape[2] - size[1]) / 2)
    return batch[:, top : top + size[0], left : left + size[1]]


def _shifted_crop(
    batch: torch.Tensor, size: tuple[int, int], rand: torch.Tensor, *, flip: bool
) -> torch.Tensor:
    """Random crop and optional horizontal flip (He et al. 2016, section 4.2, for small images)."""
    B, H, W, _ = batch.shape
    height, width = size
    # If the image has no margin around the crop, it is padded with zeros: 4 px at 32, as in the paper.
    pad_y = height // 8 if height == H else 0
    pad_x = width // 8 if width == W else 0
    top = (rand[:, 0] * (H + 2 * pad_y - height + 1)).long() - pad_y
    left = (rand[:, 1] * (W + 2 * pad_x - width + 1)).long() - pad_x
    mirrored = rand[:, 2] < 0.5 if flip else torch.zeros(B, dtype=torch.bool, device=batch.device)
    crop = _crop_on_cpu if batch.device.type == "cpu" else _crop_by_gather
    return crop(batch, top, left, mirrored, size)


def _crop_on_cpu(
    batch: torch.Tensor, top: torch.Tensor, left: torch.Tensor, mirrored: torch.Tensor, size: tuple[int, int]
) -> torch.Tensor:
    """Crop image by image, with zeros outside the image: the fastest way on a CPU."""
    source, (H, W) = batch.numpy(), batch.shape[1:3]
    out = np.zeros((len(batch), *size, batch.shape[3]), source.dtype)
    for i, (t, le, flip) in enumerate(zip(top.tolist(), left.tolist(), mirrored.tolist(), strict=True)):
        y, x = max(t, 0), max(le, 0)
        inside = source[i, y : min(t + size[0], H), x : min(le + size[1], W)]
        start = size[1] - (x - le) - inside.shape[1] if flip else x - le
        copy_rows(inside, out[i, y - t :, start:][: inside.shape[0], : inside.shape[1]], flip)
    return torch.from_numpy(out)


def _crop_by_gather(
    batch: torch.Tensor, top: torch.Tensor, left: torch.Tensor, mirrored: torch.Tensor, size: tuple[int, int]
) -> torch.Tensor:
    """Like `_crop_on_cpu` with one gather: the fastest way on a GPU."""
    (B, H, W, _), (height, width) = batch.shape, size
    rows = top[:, None] + torch.arange(height, device=batch.device)  # [B, height]
    columns = left[:, None] + torch.arange(width, device=batch.device)  # [B, width]
    columns = torch.where(mirrored[:, None], columns.flip(1), columns)
    inside = ((rows >= 0) & (rows < H))[:, :, None] & ((columns >= 0) & (columns < W))[:, None, :]
    image = torch.arange(B, device=batch.device)[:, None, None]
    crop = batch[image, rows.clamp(0, H - 1)[:, :, None], columns.clamp(0, W - 1)[:, None, :]]
    return crop * inside[..., None]


def _resized_crop(
    batch: torch.Tensor,
    size: tuple[int, int],
    seed: int,
    epoch: int,
    samples: npt.NDArray[np.int64],
    *,
    flip: bool,
) -> torch.Tensor:
    """Crop 8 % to 100 % of the area with aspect ratio 3/4 to 4/3, resize to `size`, flip half of the images."""
    crop = RandomResizedCrop(size)
    rand = torch.from_numpy(uniform(seed, epoch, samples, crop.num_random + 1)).float()
    boxes, mirrored = crop.boxes(batch.shape[1], batch.shape[2], rand), (rand[:, -1] < 0.5) & flip
    if batch.device.type != "cpu":
        top, left, height, width, mirror = _to_device(torch.stack((*boxes, mirrored)).numpy(), batch.device)
        boxes, mirrored = (top, left, height, width), mirror > 0
    return resized_crops(batch.permute(0, 3, 1, 2), boxes, size, mirrored).permute(0, 2, 3, 1)


def _scaled_crop(
    batch: torch.Tensor, size: tuple[int, int], rand: torch.Tensor, *, flip: bool
) -> torch.Tensor:
    """Crop from the image resized to a random size (He et al. 2016, section 3.4), flip half of the images."""
    share = 224 / (256 + (480 - 256) * rand[:, 0])
    mirror = torch.where((rand[:, 2] < 0.5) & flip, -1.0, 1.0)
    # Coordinates of grid_sample run from -1 to 1; shift is the center of the crop.
    shift_x, shift_y = (2 * rand[:, 3] - 1) * (1 - share), (2 * rand[:, 4] - 1) * (1 - share)
    zero = torch.zeros_like(share)
    theta = torch.stack([share * mirror, zero, shift_x, zero, share, shift_y], dim=1).view(-1, 2, 3)
    pixels = batch.permute(0, 3, 1, 2).float()
    grid = F.affine_grid(theta, [*pixels.shape[:2], *size], align_corners=False)
    crop = F.grid_sample(pixels, grid, mode="bilinear", padding_mode="border", align_corners=False)
    return crop.permute(0, 2, 3, 1)
