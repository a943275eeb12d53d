"""Resize, crops and flips, with torchvision's names and behavior.

`Resize` and `CenterCrop` of Pillow images and arrays are bit-identical to Pillow.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from numpy.lib.stride_tricks import as_strided
from PIL import Image
from torch import Tensor

from striate.errors import UsageError
from striate.transforms import native
from striate.transforms.arguments import Range, Sides, Size, check_range, check_size
from striate.transforms.preprocess import INTERPOLATIONS
from striate.transforms.transform import Transform, bernoulli, is_numpy_friendly

_AT_ONCE = 1 << 12  # bytes of an image up to which cropping all images at once is faster
_ATTEMPTS = 10  # random rectangles before the central crop is used, as in torchvision


class Resize(Transform):
    """Resize with antialiasing: 8-bit images with Pillow, floats with torch.

    Args:
        size: in pixels; one number is the shorter side, two are height and width.
        interpolation: `nearest`, `bilinear`, `bicubic` or `lanczos`.
        max_size: maximum of the longer side, if `size` is one number.
    """

    stages = ("pixels", "unit", "normalized")

    def __init__(self, size: Size, interpolation: str = "bilinear", max_size: int | None = None) -> None:
        check_size(size, "Resize")
        if interpolation not in INTERPOLATIONS:
            why = f"it must be one of {', '.join(INTERPOLATIONS)}"
            raise UsageError(f"Resize(interpolation={interpolation!r})", why)
        if max_size is not None and (not isinstance(size, int) or max_size <= size):
            why = "max_size is the maximum of the longer side: size must be one number, and smaller"
            raise UsageError(f"Resize({size!r}, max_size={max_size!r})", why)
        self.size, self.interpolation, self.max_size = size, interpolation, max_size

    def __call__(self, image: Any) -> Any:
        """Resize an image or a batch."""
        if isinstance(image, Image.Image):
            height, width = self.target(image.height, image.width)
            return image.resize((width, height), INTERPOLATIONS[self.interpolation])
        return super().__call__(image)

    def target(self, height: int, width: int) -> Sides:
        """Return the height and width of a resized image of this height and width."""
        if not isinstance(self.size, int):
            return check_size(self.size, "Resize")
        short, long = min(height, width), max(height, width)
        new_short, new_long = self.size, int(self.size * long / short)
        if self.max_size is not None and new_long > self.max_size:
            new_short, new_long = int(self.max_size * new_short / new_long), self.max_size
        return (new_short, new_long) if height <= width else (new_long, new_short)

    def batch(self, images: Tensor, rand: Tensor) -> Tensor:
        """Resize a batch."""
        size = self.target(images.shape[2], images.shape[3])
        if images.dtype == torch.uint8:
            return torch.stack([self._by_pillow(image, size) for image in images]).to(images.device)
        if self.interpolation == "nearest":
            return F.interpolate(images, size, mode="nearest-exact")
        if self.interpolation == "lanczos":
            what, why = "Resize with lanczos on a float tensor", "torch does not have this filter"
            raise UsageError(what, why, "Use bicubic")
        return F.interpolate(images, size, mode=self.interpolation, antialias=True, align_corners=False)

    def _by_pillow(self, image: Tensor, size: Sides) -> Tensor:
        filter = INTERPOLATIONS[self.interpolation]
        # Pillow filters each channel separately.
        planes = [Image.fromarray(plane).resize(size[::-1], filter) for plane in image.cpu().numpy()]
        return torch.from_numpy(np.stack([np.asarray(plane) for plane in planes]))


class CenterCrop(Transform):
    """Crop the center; pads images that are smaller with zeros.

    Args:
        size: one number for a square, or height and width.
    """

    stages = ("pixels", "unit", "normalized")

    def __init__(self, size: Size) -> None:
        self.size = check_size(size, "CenterCrop")

    def batch(self, images: Tensor, rand: Tensor) -> Tensor:
        """Crop a batch."""
        height, width = self.size
        short_y, short_x = max(0, height - images.shape[2]), max(0, width - images.shape[3])
        if short_y or short_x:
            left, above = short_x // 2, short_y // 2
            images = F.pad(images, (left, short_x - left, above, short_y - above))
        top = round((images.shape[2] - height) / 2)
        left = round((images.shape[3] - width) / 2)
        return images[:, :, top : top + height, left : left + width]


class RandomCrop(Transform):
    """Crop at a random position.

    Args:
        size: one number for a square, or height and width.
        padding: zeros added to the sides first: one number, (left-right, top-bottom), or (left, top, right,
            bottom).
        pad_if_needed: also pad if the image is smaller than the crop.
    """

    num_random = 2
    stages = ("pixels", "unit", "normalized")

    def __init__(
        self, size: Size, padding: int | tuple[int, ...] | None = None, pad_if_needed: bool = False
    ) -> None:
        self.size, self.padding, self.pad_if_needed = check_size(size, "RandomCrop"), padding, pad_if_needed
        four = padding if isinstance(padding, tuple) else (padding or 0,)
        if len(four) not in (1, 2, 4):
            raise UsageError(f"RandomCrop(padding={padding!r})", "it must be one, two or four numbers")
        left, up, right, down = four * (4 // len(four))
        self._pad = (left, right, up, down)

    def batch(self, images: Tensor, rand: Tensor) -> Tensor:
        """Crop each sample at a random position."""
        height, width = self.size
        images = F.pad(images, self._pad) if any(self._pad) else images
        short_y, short_x = max(0, height - images.shape[2]), max(0, width - images.shape[3])
        if short_y or short_x:
            if not self.pad_if_needed:
                what = f"RandomCrop({self.size}) on an image of {tuple(images.shape[2:])}"
                fix = "Use pad_if_needed=True, or Resize before it"
                raise UsageError(what, "the image is smaller than the crop", fix)
            images = F.pad(images, (short_x, short_x, short_y, short_y))
        top = (rand[:, 0] * (images.shape[2] - height + 1)).long()
        left = (rand[:, 1] * (images.shape[3] - width + 1)).long()
        if is_numpy_friendly(images):  # five times as fast as indices
            out = torch.empty_like(images[:, :, :height, :width])
            source, target = images.numpy(), out.numpy()
            for i, (t, le) in enumerate(zip(top.tolist(), left.tolist(), strict=True)):
                target[i] = source[i, :, t : t + height, le : le + width]
            return out
        return crops(images.permute(0, 2, 3, 1), top, left, self.size).permute(0, 3, 1, 2)


class RandomResizedCrop(Transform):
    """Crop a random area with a random aspect ratio, then resize (Szegedy et al. 2015, section 6).

    Uses the first of ten random rectangles that fits into the image. Pillow images are resized by Pillow,
    others by `resized_crops`.

    Args:
        size: one number for a square, or height and width.
        scale: fraction of the area, (min, max).
        ratio: width over height, (min, max).
    """

    num_random = 2 * _ATTEMPTS + 2

    def __init__(self, size: Size, scale: Range = (0.08, 1.0), ratio: Range = (3 / 4, 4 / 3)) -> None:
        self.size = check_size(size, "RandomResizedCrop")
        self.scale = check_range("scale", scale, 0, 1)
        self.ratio = check_range("ratio", ratio, 1e-6, math.inf)

    def __call__(self, image: Any) -> Any:
        """Crop and resize an image or a batch."""
        if not isinstance(image, Image.Image):
            return super().__call__(image)
        rand = torch.rand(1, self.num_random, dtype=torch.float32, device="cpu")
        top, left, height, width = (int(v[0]) for v in self.boxes(image.height, image.width, rand))
        box = image.crop((left, top, left + width, top + height))
        return box.resize(self.size[::-1], Image.Resampling.BILINEAR)

    def boxes(self, tall: int, wide: int, rand: Tensor) -> tuple[Tensor, ...]:
        """Return top, left, height and width of the rectangle of each sample, int64 `[batch]`."""
        # NumPy, because torch would wake other threads for a few hundred numbers.
        numbers = rand.cpu().numpy().astype(np.float64)
        tries, place = numbers[:, : 2 * _ATTEMPTS], numbers[:, 2 * _ATTEMPTS :]
        area = _uniform(tries[:, :_ATTEMPTS], *self.scale) * tall * wide
        aspect = np.exp(_uniform(tries[:, _ATTEMPTS:], *map(math.log, self.ratio)))
        widths, heights = np.rint(np.sqrt(area * aspect)), np.rint(np.sqrt(area / aspect))
        fits = (widths > 0) & (widths <= wide) & (heights > 0) & (heights <= tall)
        found, first = fits.any(axis=1), fits.argmax(axis=1)[:, None]
        # If none fits, the largest central rectangle with an allowed aspect ratio.
        whole = (min(tall, round(wide / self.ratio[0])), min(wide, round(tall * self.ratio[1])))
        height = np.where(found, np.take_along_axis(heights, first, 1)[:, 0], whole[0])
        width = np.where(found, np.take_along_axis(widths, first, 1)[:, 0], whole[1])
        top = np.where(found, np.floor(place[:, 0] * (tall - height + 1)), (tall - height) // 2)
        left = np.where(found, np.floor(place[:, 1] * (wide - width + 1)), (wide - width) // 2)
        boxes = np.stack((top, left, height, width)).astype(np.int64)
        return torch.from_numpy(boxes).to(rand.device).unbind()

    def batch(self, images: Tensor, rand: Tensor) -> Tensor:
        """Crop and resize a random rectangle of each sample."""
        return resized_crops(images, self.boxes(images.shape[2], images.shape[3], rand), self.size)


def crops(images: Tensor, top: Tensor, left: Tensor, size: Sides, mirrored: Tensor | None = None) -> Tensor:
    """Crop each image at its own position, with zeros outside of the image.

    Args:
        images: `[batch, height, width, channels]`, at least as large as `size`.
        top: first row of each crop, int64 `[batch]`.
        left: first column of each crop, int64 `[batch]`.
        size: height and width of the crops.
        mirrored: bool `[batch]`, which crops to flip left to right; None for none.

    Returns:
        `[batch, *size, channels]` of the same dtype.
    """
    mirrored = torch.zeros_like(top, dtype=torch.bool) if mirrored is None else mirrored
    crop = _crops_by_index
    if is_numpy_friendly(images):
        small = len(images) and images[0].nbytes <= _AT_ONCE
        crop = _crops_at_once if small else _crops_by_numpy
    return crop(images, top, left, size, mirrored)


def _crops_at_once(images: Tensor, top: Tensor, left: Tensor, size: Sides, mirrored: Tensor) -> Tensor:
    """Crop all images with one index of NumPy: up to five times as fast as one by one for small images."""
    source, (height, width), (t, le) = images.numpy(), size, (top.numpy(), left.numpy())
    (B, H, W, C), above, before = source.shape, max(0, -int(t.min())), max(0, -int(le.min()))
    tall = above + max(H, int(t.max()) + height)
    wide = before + max(W, int(le.max()) + width)
    padded = np.zeros((B, tall, wide, C), source.dtype)
    padded[:, above : above + H, before : before + W] = source
    image, row, pixel, value = padded.strides
    windows = as_strided(
        padded,
        (B, tall - height + 1, wide - width + 1, height, width * C),
        (image, row, pixel, row, value),
        writeable=False,
    )
    out = windows[np.arange(B), t + above, le + before].reshape(B, height, width, C)
    flips = np.flatnonzero(mirrored.numpy())
    out[flips] = torch.from_numpy(out[flips]).flip(2).numpy()  # NumPy flips pixels of three values slowly
    return torch.from_numpy(out)


def _crops_by_numpy(images: Tensor, top: Tensor, left: Tensor, size: Sides, mirrored: Tensor) -> Tensor:
    """Crop image by image: five times as fast as indices on a CPU for images of some size."""
    source, (H, W) = images.numpy(), images.shape[1:3]
    out = np.zeros((len(images), *size, images.shape[3]), source.dtype)
    for i, (t, le, flip) in enumerate(zip(top.tolist(), left.tolist(), mirrored.tolist(), strict=True)):
        y, x = max(t, 0), max(le, 0)
        inside = source[i, y : min(t + size[0], H), x : min(le + size[1], W)]
        start = size[1] - (x - le) - inside.shape[1] if flip else x - le
        copy_rows(inside, out[i, y - t :, start:][: inside.shape[0], : inside.shape[1]], flip)
    return torch.from_numpy(out)


def _crops_by_index(images: Tensor, top: Tensor, left: Tensor, size: Sides, mirrored: Tensor) -> Tensor:
    """Crop all images with one index: the fastest way on a GPU."""
    (B, H, W, _), (height, width) = images.shape, size
    rows = top[:, None] + torch.arange(height, device=images.device)  # [B, height]
    columns = left[:, None] + torch.arange(width, device=images.device)  # [B, width]
    columns = torch.where(mirrored[:, None], columns.flip(1), columns)
    inside = ((rows >= 0) & (rows < H))[:, :, None] & ((columns >= 0) & (columns < W))[:, None, :]
    image = torch.arange(B, device=images.device)[:, None, None]
    crop = images[image, rows.clamp(0, H - 1)[:, :, None], columns.clamp(0, W - 1)[:, None, :]]
    return crop * inside[..., None]


def resized_crops(
    images: Tensor, boxes: tuple[Tensor, ...], size: Sides, mirrored: Tensor | None = None
) -> Tensor:
    """Resize a rectangle of each image to one size: antialiased on a CPU, bilinear on a GPU.

    Args:
        images: uint8 or float, `[batch, channels, height, width]`.
        boxes: top, left, height and width of each rectangle, int64 `[batch]`.
        size: height and width of the result.
        mirrored: bool `[batch]`, which images to flip left to right; None for none.

    Returns:
        `[batch, channels, *size]` of the same dtype.
    """
    if is_numpy_friendly(images):
        # One by one: torch's resize kernel for 8-bit images is many times as fast as grid_sample.
        return _antialiased(images, torch.stack(boxes, 1).tolist(), size, mirrored)
    H, W = images.shape[2:]
    top, left, height, width = (v.float() for v in boxes)
    across = width / W if mirrored is None else width / W * torch.where(mirrored, -1.0, 1.0)
    scale = torch.stack([across, height / H], dim=1)
    shift = torch.stack([(2 * left + width) / W - 1, (2 * top + height) / H - 1], dim=1)
    sampled = sampled_crops(images, scale, shift, size)
    return sampled.round().to(torch.uint8) if images.dtype == torch.uint8 else sampled


def sampled_crops(images: Tensor, scale: Tensor, shift: Tensor, size: Sides) -> Tensor:
    """Resize a rectangle of each image with bilinear interpolation.

    Args:
        images: `[batch, channels, height, width]`.
        scale: width and height of each rectangle as fractions of the image, `[batch, 2]`; a negative width
            flips it.
        shift: x and y of the center of each rectangle, from -1 to 1, `[batch, 2]`.
        size: height and width of the result.

    Returns:
        float32 `[batch, channels, *size]`.
    """
    theta = torch.cat([torch.diag_embed(scale), shift[:, :, None]], dim=2)
    grid = F.affine_grid(theta, [*images.shape[:2], *size], align_corners=False)
    return F.grid_sample(images.float(), grid, mode="bilinear", padding_mode="border", align_corners=False)


def _uniform(rand: npt.NDArray[np.float64], low: float, high: float) -> npt.NDArray[np.float64]:
    return low + (high - low) * rand


def copy_rows(source: npt.NDArray[Any], out: npt.NDArray[Any], mirrored: bool) -> None:
    """Copy one image `[height, width, channels]`, optionally flipped left to right."""
    if not mirrored:
        out[:] = source
    elif not native.mirror(source, out):
        # torch flips pixels of three values six times as fast as NumPy.
        out[:] = torch.from_numpy(source).flip(1).numpy()


def _antialiased(images: Tensor, boxes: list[list[int]], size: Sides, mirrored: Tensor | None) -> Tensor:
    source = images.permute(0, 2, 3, 1).numpy()
    flips = [False] * len(images) if mirrored is None else mirrored.tolist()
    out = np.empty((len(images), *size, images.shape[1]), source.dtype)
    for i, (top, left, height, width) in enumerate(boxes):
        # Copy with NumPy: torch would wake other threads for a few hundred kilobytes.
        crop = np.ascontiguousarray(source[i : i + 1, top : top + height, left : left + width])
        nchw = torch.from_numpy(crop).permute(0, 3, 1, 2)
        scaled = F.interpolate(nchw, size, mode="bilinear", antialias=True, align_corners=False)
        copy_rows(scaled[0].permute(1, 2, 0).numpy(), out[i], flips[i])
    return torch.from_numpy(out).permute(0, 3, 1, 2)


class RandomHorizontalFlip(Transform):
    """Flip left to right with probability p."""

    num_random = 1
    stages = ("pixels", "unit", "normalized")
    axis = 3

    def __init__(self, p: float = 0.5) -> None:
        bernoulli(torch.zeros(1), p, type(self).__name__)
        self.p = p

    def batch(self, images: Tensor, rand: Tensor) -> Tensor:
        """Flip some samples."""
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
    """Flip upside down with probability p."""

    axis = 2
