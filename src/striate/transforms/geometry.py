"""Transforms that move pixels, under torchvision's names and with its meanings.

`Resize` and `CenterCrop` of Pillow images and arrays are Pillow's own, to the pixel.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from PIL import Image

from striate.errors import UsageError
from striate.transforms.preprocess import INTERPOLATIONS
from striate.transforms.transform import Transform, bernoulli, check_range, check_size, is_numpy_friendly

_ATTEMPTS = 10  # at a rectangle that fits, before the whole image is taken; as in torchvision


class Resize(Transform):
    """Scale to a size: one number is the shorter side, two are height and width.

    8-bit images are scaled by Pillow, antialiased; floats by torch, antialiased.

    Args:
        size: pixels.
        interpolation: `nearest`, `bilinear`, `bicubic` or `lanczos`.
        max_size: the longer side is not to exceed it, where `size` is one number.
    """

    stages = ("pixels", "unit", "normalized")

    def __init__(
        self, size: int | tuple[int, int], interpolation: str = "bilinear", max_size: int | None = None
    ) -> None:
        check_size(size, "Resize")
        if interpolation not in INTERPOLATIONS:
            raise UsageError(
                f"Resize(interpolation={interpolation!r})", f"it must be one of {', '.join(INTERPOLATIONS)}"
            )
        if max_size is not None and (not isinstance(size, int) or max_size <= size):
            raise UsageError(
                f"Resize({size!r}, max_size={max_size!r})",
                "max_size bounds the longer side: it must exceed the shorter one, which is one number",
            )
        self.size, self.interpolation, self.max_size = size, interpolation, max_size

    def __call__(self, image: Any) -> Any:
        """Scale an image, or each of a batch."""
        if isinstance(image, Image.Image):
            height, width = self.target(image.height, image.width)
            return image.resize((width, height), INTERPOLATIONS[self.interpolation])
        return super().__call__(image)

    def target(self, height: int, width: int) -> tuple[int, int]:
        """Height and width that an image of this height and width is scaled to."""
        if not isinstance(self.size, int):
            return check_size(self.size, "Resize")
        short, long = min(height, width), max(height, width)
        new_short, new_long = self.size, int(self.size * long / short)
        if self.max_size is not None and new_long > self.max_size:
            new_short, new_long = int(self.max_size * new_short / new_long), self.max_size
        return (new_short, new_long) if height <= width else (new_long, new_short)

    def batch(self, images: torch.Tensor, rand: torch.Tensor) -> torch.Tensor:
        """Scale a batch."""
        size = self.target(images.shape[2], images.shape[3])
        if images.dtype == torch.uint8:
            return torch.stack([self._by_pillow(image, size) for image in images]).to(images.device)
        if self.interpolation == "nearest":
            return F.interpolate(images, size, mode="nearest-exact")
        if self.interpolation == "lanczos":
            raise UsageError(
                "Resize with lanczos on a float tensor", "torch has no such filter", "Use bicubic"
            )
        return F.interpolate(images, size, mode=self.interpolation, antialias=True, align_corners=False)

    def _by_pillow(self, image: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
        planes = [
            np.asarray(Image.fromarray(plane).resize((size[1], size[0]), INTERPOLATIONS[self.interpolation]))
            for plane in image.cpu().numpy()  # a filter treats each channel alike
        ]
        return torch.from_numpy(np.stack(planes))


class CenterCrop(Transform):
    """The middle of an image; zeros around it where it is smaller.

    Args:
        size: pixels of a square, or height and width.
    """

    stages = ("pixels", "unit", "normalized")

    def __init__(self, size: int | tuple[int, int]) -> None:
        self.size = check_size(size, "CenterCrop")

    def batch(self, images: torch.Tensor, rand: torch.Tensor) -> torch.Tensor:
        """Cut out of a batch."""
        height, width = self.size
        short_y, short_x = max(0, height - images.shape[2]), max(0, width - images.shape[3])
        if short_y or short_x:
            left, above = short_x // 2, short_y // 2
            images = F.pad(images, (left, short_x - left, above, short_y - above))
        top = round((images.shape[2] - height) / 2)
        left = round((images.shape[3] - width) / 2)
        return images[:, :, top : top + height, left : left + width]


class RandomCrop(Transform):
    """A rectangle of the size at a random place.

    Args:
        size: pixels of a square, or height and width.
        padding: zeros on each side beforehand: one number, or left-right and top-bottom, or left, top, right,
            bottom.
        pad_if_needed: also where the image is smaller than the crop.
    """

    num_random = 2
    stages = ("pixels", "unit", "normalized")

    def __init__(
        self,
        size: int | tuple[int, int],
        padding: int | tuple[int, ...] | None = None,
        pad_if_needed: bool = False,
    ) -> None:
        self.size, self.padding, self.pad_if_needed = check_size(size, "RandomCrop"), padding, pad_if_needed
        four = padding if isinstance(padding, tuple) else (padding or 0,)
        if len(four) not in (1, 2, 4):
            raise UsageError(f"RandomCrop(padding={padding!r})", "it must be one, two or four numbers")
        left, up, right, down = four * (4 // len(four))
        self._pad = (left, right, up, down)

    def batch(self, images: torch.Tensor, rand: torch.Tensor) -> torch.Tensor:
        """Cut each sample at its own place."""
        height, width = self.size
        images = F.pad(images, self._pad) if any(self._pad) else images
        short_y, short_x = max(0, height - images.shape[2]), max(0, width - images.shape[3])
        if short_y or short_x:
            if not self.pad_if_needed:
                raise UsageError(
                    f"RandomCrop({self.size}) of an image of {tuple(images.shape[2:])}",
                    "the image is smaller than the crop",
                    "Use pad_if_needed=True, or Resize before it",
                )
            images = F.pad(images, (short_x, short_x, short_y, short_y))
        top = (rand[:, 0] * (images.shape[2] - height + 1)).long()
        left = (rand[:, 1] * (images.shape[3] - width + 1)).long()
        if is_numpy_friendly(images):  # copying each is five times as fast as gathering all
            out = torch.empty_like(images[:, :, :height, :width])
            source, target = images.numpy(), out.numpy()
            for i, (t, le) in enumerate(zip(top.tolist(), left.tolist(), strict=True)):
                target[i] = source[i, :, t : t + height, le : le + width]
            return out
        rows = top[:, None] + torch.arange(height, device=images.device)
        columns = left[:, None] + torch.arange(width, device=images.device)
        return _gather(images, rows, columns)


class RandomResizedCrop(Transform):
    """A crop of random area and shape, scaled to the size (Szegedy et al. 2015, section 6).

    Each sample tries ten rectangles and takes the first that fits. A Pillow image is scaled by Pillow, others
    as `resized_crops` says.

    Args:
        size: pixels of a square, or height and width.
        scale: of the area, from and to.
        ratio: width over height, from and to.
    """

    num_random = 2 * _ATTEMPTS + 2

    def __init__(
        self,
        size: int | tuple[int, int],
        scale: tuple[float, float] = (0.08, 1.0),
        ratio: tuple[float, float] = (3 / 4, 4 / 3),
    ) -> None:
        self.size = check_size(size, "RandomResizedCrop")
        self.scale = check_range("scale", scale, 0, 1)
        self.ratio = check_range("ratio", ratio, 1e-6, math.inf)

    def __call__(self, image: Any) -> Any:
        """Crop and scale an image, or each of a batch."""
        if not isinstance(image, Image.Image):
            return super().__call__(image)
        rand = torch.rand(1, self.num_random)
        top, left, height, width = (int(v[0]) for v in self.boxes(image.height, image.width, rand))
        box = image.crop((left, top, left + width, top + height))
        return box.resize(self.size[::-1], Image.Resampling.BILINEAR)

    def boxes(
        self, tall: int, wide: int, rand: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        """Top, left, height and width of each sample's rectangle, int64 `[batch]`."""
        # By NumPy: for a few hundred numbers torch would wake other threads, which costs far more.
        numbers = rand.cpu().numpy().astype(np.float64)
        tries, place = numbers[:, : 2 * _ATTEMPTS], numbers[:, 2 * _ATTEMPTS :]
        area = _uniform(tries[:, :_ATTEMPTS], *self.scale) * tall * wide
        aspect = np.exp(_uniform(tries[:, _ATTEMPTS:], *map(math.log, self.ratio)))
        widths, heights = np.rint(np.sqrt(area * aspect)), np.rint(np.sqrt(area / aspect))
        fits = (widths > 0) & (widths <= wide) & (heights > 0) & (heights <= tall)
        found, first = fits.any(axis=1), fits.argmax(axis=1)[:, None]
        # Where none fits, the largest centred rectangle within the ratios.
        whole = (min(tall, round(wide / self.ratio[0])), min(wide, round(tall * self.ratio[1])))
        height = np.where(found, np.take_along_axis(heights, first, 1)[:, 0], whole[0])
        width = np.where(found, np.take_along_axis(widths, first, 1)[:, 0], whole[1])
        top = np.where(found, np.floor(place[:, 0] * (tall - height + 1)), (tall - height) // 2)
        left = np.where(found, np.floor(place[:, 1] * (wide - width + 1)), (wide - width) // 2)
        numbered = (torch.from_numpy(side.astype(np.int64)) for side in (top, left, height, width))
        t, le, h, w = (side.to(rand.device) for side in numbered)
        return t, le, h, w

    def batch(self, images: torch.Tensor, rand: torch.Tensor) -> torch.Tensor:
        """Crop and scale each sample by its own rectangle."""
        return resized_crops(images, self.boxes(images.shape[2], images.shape[3], rand), self.size)


def resized_crops(
    images: torch.Tensor,
    boxes: tuple[torch.Tensor, ...],
    size: tuple[int, int],
    mirrored: torch.Tensor | None = None,
) -> torch.Tensor:
    """Scale a rectangle of each image to one size: on the CPU antialiased, as Pillow does; else bilinearly.

    Args:
        images: uint8 or float, `[batch, channels, height, width]`.
        boxes: top, left, height and width of each rectangle, int64 `[batch]`.
        size: height and width to give.
        mirrored: bool `[batch]`, which of them to mirror left and right; None for none.

    Returns:
        Of the same type, `[batch, channels, *size]`.
    """
    if is_numpy_friendly(images):
        # One by one: torch's kernel for 8-bit images is many times as fast as grid_sample.
        return _antialiased_crops(images, torch.stack(boxes, 1).tolist(), size, mirrored)
    B, C, H, W = images.shape
    top, left, height, width = (v.float() for v in boxes)
    zero = torch.zeros_like(top)
    # grid_sample's coordinates run from -1 to 1: scale is the crop's share, shift its centre.
    shift_x, shift_y = (2 * left + width) / W - 1, (2 * top + height) / H - 1
    across = width / W if mirrored is None else width / W * torch.where(mirrored, -1.0, 1.0)
    theta = torch.stack([across, zero, shift_x, zero, height / H, shift_y], dim=1).view(B, 2, 3)
    grid = F.affine_grid(theta, [B, C, *size], align_corners=False)
    sampled = F.grid_sample(images.float(), grid, mode="bilinear", padding_mode="border", align_corners=False)
    return sampled.round().to(torch.uint8) if images.dtype == torch.uint8 else sampled


def _uniform(rand: npt.NDArray[np.float64], low: float, high: float) -> npt.NDArray[np.float64]:
    return low + (high - low) * rand


def copy_rows(source: npt.NDArray[Any], out: npt.NDArray[Any], mirrored: bool) -> None:
    """Copy one image `[height, width, channels]`, mirrored or not."""
    if not mirrored:
        out[:] = source
        return
    for channel in range(out.shape[2]):  # five times as fast as pixel by pixel
        out[:, :, channel] = source[:, ::-1, channel]


def _antialiased_crops(
    images: torch.Tensor, boxes: list[list[int]], size: tuple[int, int], mirrored: torch.Tensor | None
) -> torch.Tensor:
    source = images.permute(0, 2, 3, 1).numpy()
    flips = [False] * len(images) if mirrored is None else mirrored.tolist()
    out = np.empty((len(images), *size, images.shape[1]), source.dtype)
    for i, (top, left, height, width) in enumerate(boxes):
        # NumPy's copies stay in this thread: torch's would wake others for a few hundred kilobytes.
        crop = np.ascontiguousarray(source[i : i + 1, top : top + height, left : left + width])
        nchw = torch.from_numpy(crop).permute(0, 3, 1, 2)
        scaled = F.interpolate(nchw, size, mode="bilinear", antialias=True, align_corners=False)
        copy_rows(scaled[0].permute(1, 2, 0).numpy(), out[i], flips[i])
    return torch.from_numpy(out).permute(0, 3, 1, 2)


class RandomHorizontalFlip(Transform):
    """Mirror left and right with probability p."""

    num_random = 1
    stages = ("pixels", "unit", "normalized")
    axis = 3

    def __init__(self, p: float = 0.5) -> None:
        bernoulli(torch.zeros(1), p, type(self).__name__)
        self.p = p

    def batch(self, images: torch.Tensor, rand: torch.Tensor) -> torch.Tensor:
        """Mirror each sample, or not."""
        mirrored = bernoulli(rand[:, 0], self.p, "flip")
        if is_numpy_friendly(images):
            out = torch.empty_like(images)
            source, target = (pages.permute(0, 2, 3, 1).numpy() for pages in (images, out))
            for i, flip in enumerate(mirrored.tolist()):
                across = self.axis == 3 and flip
                copy_rows(source[i, ::-1] if flip and not across else source[i], target[i], across)
            return out
        return torch.where(mirrored[:, None, None, None], images.flip(self.axis), images)


class RandomVerticalFlip(RandomHorizontalFlip):
    """Turn upside down with probability p."""

    axis = 2


def _gather(images: torch.Tensor, rows: torch.Tensor, columns: torch.Tensor) -> torch.Tensor:
    """The rows `[batch, height]` and columns `[batch, width]` of each sample."""
    B, C = images.shape[:2]
    out = images.gather(2, rows[:, None, :, None].expand(B, C, -1, images.shape[3]))
    return out.gather(3, columns[:, None, None, :].expand(B, C, out.shape[2], -1))
