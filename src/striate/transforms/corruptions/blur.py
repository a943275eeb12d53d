"""Blur of ImageNet-C: out of focus, through frosted glass, of a moving and of a zooming camera."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from striate.transforms.corruptions.filters import Kernel, filtered, motion_kernel, smoothed, zoomed


def disk(radius: float, sigma: float, scale: float = 1.0) -> Kernel:
    """The kernel `[size, size]` of defocus blur: a disk with a smoothed edge; its sum is 1.

    Args:
        radius: in pixels, before scaling.
        sigma: of the Gaussian that smooths the edge; of 3x3 pixels up to a radius of 8, else of 5x5.
        scale: of all lengths.
    """
    half = max(1, round((1 if radius <= 8 else 2) * scale))
    radius, sigma = radius * scale, sigma * scale
    reach = math.ceil(radius) + half
    squares = np.arange(-reach, reach + 1) ** 2
    inside = (squares[:, None] + squares <= radius**2).astype(float)
    edge = np.exp(-0.5 * (np.arange(-half, half + 1) / sigma) ** 2)
    for axis in (0, 1):
        inside = np.apply_along_axis(np.convolve, axis, inside, edge, "same")
    return np.asarray(inside / inside.sum())


def defocus(x: Tensor, rng: np.random.Generator, scale: float, radius: float, sigma: float) -> Tensor:
    """Blur with a disk, as a lens that is not focused."""
    return filtered(x, disk(radius, sigma, scale), "reflect")


def glass(
    x: Tensor, rng: np.random.Generator, scale: float, sigma: float, distance: float, passes: float
) -> Tensor:
    """Replace each pixel by one nearby, between two Gaussian blurs."""
    soft = smoothed(x, sigma * scale, "edge")
    order = shuffled(x.shape[1], x.shape[2], rng, max(1, round(distance * scale)), int(passes))
    mixed = soft.flatten(1)[:, torch.from_numpy(order)].reshape(x.shape)
    return smoothed(mixed, sigma * scale, "edge")


def shuffled(
    height: int, width: int, rng: np.random.Generator, distance: int, passes: int
) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """Which pixel comes to each place, int64 `[height * width]`.

    In each pass each place, from the bottom right to the top left, gets the pixel that is now up to
    `distance` rows and columns before it, or less than that after it; a margin of that width stays. The
    authors' code is meant to exchange the two, but assigns views of one array, which copies one to the other.
    """
    order = list(range(height * width))
    rows, columns = (np.arange(n - distance, distance, -1) for n in (height, width))
    if not len(rows) or not len(columns):
        return np.array(order)
    here = (rows[:, None] * width + columns)[None].repeat(passes, axis=0).ravel()
    down, right = rng.integers(-distance, distance, (2, len(here)))
    for a, b in zip(here.tolist(), (here + down * width + right).tolist(), strict=True):
        order[a] = order[b]
    return np.array(order)


def motion(x: Tensor, rng: np.random.Generator, scale: float, radius: float, sigma: float) -> Tensor:
    """Blur along a line, at up to 45 degrees to the horizontal."""
    angle = rng.uniform(-math.pi / 4, math.pi / 4)
    return filtered(x, motion_kernel(radius * scale, sigma * scale, angle), "edge")


def zoom(x: Tensor, rng: np.random.Generator, scale: float, count: float, step: float) -> Tensor:
    """The mean of the image and of enlarged ones, by 1, 1 + step, 1 + 2 step, ..."""
    total = x.clone()
    for i in range(int(count)):
        total += zoomed(x, 1 + i * step)
    return total / (count + 1)
