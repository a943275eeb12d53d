"""Random crops and flips for a whole batch of uint8 pixels at once, on the device they are on.

The randomness of a sample is a function of (seed, epoch, sample) and of nothing else: not of the batch it
falls into, of the number of threads, or of what ran before.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F

from striate.transforms import foreign
from striate.transforms.color import RandomErasing
from striate.transforms.geometry import RandomResizedCrop, copy_rows, resized_crops
from striate.transforms.policies import TrivialAugmentWide

Recipe = Literal["none", "shift", "light", "scale", "standard", "strong"]
RECIPES: dict[str, str] = {
    "none": "the centre crop, as in evaluation",
    "shift": "a random crop (small images padded by an eighth): for writing, which is not to be mirrored",
    "light": "the same, and a horizontal flip",
    "scale": "a crop of the image scaled to 256 to 480 for 224 px (He et al. 2016) and a horizontal flip",
    "standard": "a crop of random area and shape (Szegedy et al. 2014) and a horizontal flip",
    "strong": "light up to 64 px, else standard; then TrivialAugment, and RandomErasing of one image in ten",
}
_STRONG = (TrivialAugmentWide(), RandomErasing(0.1))
# Principal components of the colours of ImageNet's pixels in 0 to 1: their sizes, and their directions in
# red, green and blue (the columns), as Facebook's fb.resnet.torch has them.
_SIZES = (0.2175, 0.0188, 0.0045)
_DIRECTIONS = ((-0.5675, 0.7192, 0.4009), (-0.5808, -0.0045, -0.8140), (-0.5836, -0.6948, 0.4203))


def augment(
    batch: torch.Tensor,
    size: tuple[int, int],
    recipe: Recipe | Callable[..., Any],
    *,
    seed: int,
    epoch: int,
    samples: npt.NDArray[np.int64],
) -> torch.Tensor:
    """Augment a batch of resized, uncropped images.

    Args:
        batch: uint8 `[batch, height, width, channels]`, at least as large as `size`.
        size: height and width to give.
        recipe: a key of `RECIPES`, or a callable that takes and gives one image.
        seed: of the run.
        epoch: counts from 0.
        samples: int64 `[batch]`, the index of each sample in its data set.

    Returns:
        uint8 (float32 of the range 0-255 for `scale`) `[batch, *size, channels]`.

    Raises:
        UsageError: the callable gives something else than 8-bit pixels of that size.
    """
    if not isinstance(recipe, str):
        return foreign.augment(batch, size, recipe, uniform(seed, epoch, samples, 1)[:, 0])
    if recipe == "none":
        return _centre(batch, size)
    small = max(size) <= 64
    if recipe == "standard" or (recipe == "strong" and not small):
        crop = _resized_crop(batch, size, seed, epoch, samples)
    else:
        rand = _to_device(uniform(seed, epoch, samples, 5), batch.device)
        if recipe == "scale":
            return _scaled_crop(batch, size, rand)
        crop = _shifted_crop(batch, size, rand, flip=recipe != "shift")
    if recipe != "strong":
        return crop
    images = crop.permute(0, 3, 1, 2)
    for i, change in enumerate(_STRONG, start=1):
        numbers = uniform(seed ^ i << 56, epoch, samples, change.num_random)  # another stream for each
        images = change.batch(images, _to_device(numbers, batch.device))
    return images.permute(0, 2, 3, 1)


def pca_color(
    batch: torch.Tensor, deviation: float, *, seed: int, epoch: int, samples: npt.NDArray[np.int64]
) -> torch.Tensor:
    """Change the light that images were taken in: its intensity and colour.

    Krizhevsky, Sutskever, Hinton 2012, section 4.1.
    To each pixel is added a sum of the principal components of ImageNet's colours, each times its size
    and a number that is drawn once for the image, from a normal distribution about 0.

    Args:
        batch: `[batch, height, width, 3]` in 0-255; grayscale images are given back as they are.
        deviation: of that distribution; 0.1 in the paper.
        seed: of the run.
        epoch: counts from 0.
        samples: int64 `[batch]`, the index of each sample in its data set.

    Returns:
        float32 of that shape, which may leave 0-255 a little.
    """
    if not deviation or batch.shape[3] != 3:
        return batch
    rand = uniform(seed ^ 3 << 56, epoch, samples, 6)  # 1 and 2 are the streams of `strong`
    radius, angle = np.sqrt(-2 * np.log1p(-rand[:, :3])), 2 * np.pi * rand[:, 3:]
    normal = radius * np.cos(angle)  # Box and Muller 1958
    shift = 255 * deviation * (normal * _SIZES) @ np.transpose(_DIRECTIONS)
    return batch + torch.from_numpy(shift).to(batch.device, torch.float32)[:, None, None, :]


def uniform(
    seed: int, epoch: int, samples: npt.NDArray[np.int64], num_random: int
) -> npt.NDArray[np.float64]:
    """Numbers in [0, 1) that depend on the seed, the epoch and the sample alone.

    A counter-based generator: SplitMix64's finaliser (Steele, Lea, Flood 2014) over a counter made of
    the three, so that no draw waits for another.

    Returns:
        float64 `[len(samples), draws]`.
    """
    with np.errstate(over="ignore"):  # unsigned wrap-around is the arithmetic meant here
        key = np.array([seed % 2**64], np.uint64)
        key = _mix(_mix(key) ^ np.array([epoch], np.uint64))
        first = samples.astype(np.uint64)[:, None] * np.array([num_random], np.uint64)
        counter = first + np.arange(num_random).astype(np.uint64)
        bits = _mix(key ^ _mix(counter))
    return (bits >> np.uint64(11)).astype(np.float64) * 2.0**-53


def _mix(value: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    z = value + np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def _to_device(numbers: npt.NDArray[np.float64], device: torch.device) -> torch.Tensor:
    """Numbers as float32 on the device; from pinned memory, so that the host need not wait for a GPU."""
    values = torch.from_numpy(numbers).float()
    return values.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else values.to(device)


def _centre(batch: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    top, left = round((batch.shape[1] - size[0]) / 2), round((batch.shape[2] - size[1]) / 2)
    return batch[:, top : top + size[0], left : left + size[1]]


def _shifted_crop(
    batch: torch.Tensor, size: tuple[int, int], rand: torch.Tensor, *, flip: bool
) -> torch.Tensor:
    """Random crop and maybe horizontal flip (He et al. 2016, section 4.2, for small images)."""
    B, H, W, _ = batch.shape
    height, width = size
    # If the resized image leaves no margin, zeros are padded all around: 4 px at 32, as in the paper.
    pad_y = height // 8 if height == H else 0
    pad_x = width // 8 if width == W else 0
    top = (rand[:, 0] * (H + 2 * pad_y - height + 1)).long() - pad_y
    left = (rand[:, 1] * (W + 2 * pad_x - width + 1)).long() - pad_x
    mirrored = rand[:, 2] < 0.5 if flip else torch.zeros(B, dtype=torch.bool, device=batch.device)
    cut = _crop_on_cpu if batch.device.type == "cpu" else _crop_by_gather
    return cut(batch, top, left, mirrored, size)


def _crop_on_cpu(
    batch: torch.Tensor, top: torch.Tensor, left: torch.Tensor, mirrored: torch.Tensor, size: tuple[int, int]
) -> torch.Tensor:
    """The rectangle of each image, zeros where it is outside: image by image, which a CPU copies fastest."""
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
    """The same in one gather, as a GPU does it fastest."""
    (B, H, W, _), (height, width) = batch.shape, size
    rows = top[:, None] + torch.arange(height, device=batch.device)  # [B, height]
    columns = left[:, None] + torch.arange(width, device=batch.device)  # [B, width]
    columns = torch.where(mirrored[:, None], columns.flip(1), columns)
    inside = ((rows >= 0) & (rows < H))[:, :, None] & ((columns >= 0) & (columns < W))[:, None, :]
    image = torch.arange(B, device=batch.device)[:, None, None]
    crop = batch[image, rows.clamp(0, H - 1)[:, :, None], columns.clamp(0, W - 1)[:, None, :]]
    return crop * inside[..., None]


def _resized_crop(
    batch: torch.Tensor, size: tuple[int, int], seed: int, epoch: int, samples: npt.NDArray[np.int64]
) -> torch.Tensor:
    """A crop of 8 % to 100 % of the area and of aspect 3/4 to 4/3, scaled to `size`, and a flip."""
    crop = RandomResizedCrop(size)
    rand = torch.from_numpy(uniform(seed, epoch, samples, crop.num_random + 1)).float()
    boxes, mirrored = crop.boxes(batch.shape[1], batch.shape[2], rand), rand[:, -1] < 0.5
    if batch.device.type != "cpu":
        top, left, height, width, flip = _to_device(torch.stack((*boxes, mirrored)).numpy(), batch.device)
        boxes, mirrored = (top, left, height, width), flip > 0
    return resized_crops(batch.permute(0, 3, 1, 2), boxes, size, mirrored).permute(0, 2, 3, 1)


def _scaled_crop(batch: torch.Tensor, size: tuple[int, int], rand: torch.Tensor) -> torch.Tensor:
    """A crop from the image scaled to a random size (He et al. 2016, section 3.4), and a flip."""
    share = 224 / (256 + (480 - 256) * rand[:, 0])
    flip = torch.where(rand[:, 2] < 0.5, -1.0, 1.0)
    # grid_sample's coordinates run from -1 to 1; shift is the crop's centre.
    shift_x, shift_y = (2 * rand[:, 3] - 1) * (1 - share), (2 * rand[:, 4] - 1) * (1 - share)
    zero = torch.zeros_like(share)
    theta = torch.stack([share * flip, zero, shift_x, zero, share, shift_y], dim=1).view(-1, 2, 3)
    pixels = batch.permute(0, 3, 1, 2).float()
    grid = F.affine_grid(theta, [*pixels.shape[:2], *size], align_corners=False)
    crop = F.grid_sample(pixels, grid, mode="bilinear", padding_mode="border", align_corners=False)
    return crop.permute(0, 2, 3, 1)
