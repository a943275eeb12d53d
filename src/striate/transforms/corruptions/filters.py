"""Filters that several corruptions share, for images `[channels, height, width]`."""

from __future__ import annotations

import functools
import math

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

Kernel = npt.NDArray[np.float64]


def filtered(x: Tensor, kernel: Kernel, mode: str) -> Tensor:
    """Correlate with a kernel `[2 r + 1, 2 r + 1]`; `mode` continues the image (`np.pad`)."""
    r = len(kernel) // 2
    padded = torch.from_numpy(np.pad(x.numpy(), ((0, 0), (r, r), (r, r)), mode=mode))  # type: ignore[call-overload]
    size = (padded.shape[1], padded.shape[2])
    spectrum = torch.fft.rfft2(torch.from_numpy(kernel.astype(np.float32)), s=size).conj()
    found: Tensor = torch.fft.irfft2(torch.fft.rfft2(padded) * spectrum, s=size)
    return found[:, : x.shape[1], : x.shape[2]]


def smoothed(x: Tensor, sigma: float, mode: str, truncate: float = 4.0) -> Tensor:
    """Gaussian blur, cut off at `truncate` standard deviations; `mode` continues the image (`np.pad`)."""
    if sigma <= 0:
        return x
    rows, columns = (_smoothing(n, sigma, mode, truncate) for n in x.shape[1:])
    return rows @ x @ columns.T


@functools.lru_cache(maxsize=16)
def _smoothing(n: int, sigma: float, mode: str, truncate: float) -> Tensor:
    """Gaussian blur of n values as a matrix `[n, n]`: as fast for any sigma."""
    r = int(truncate * sigma + 0.5)
    weights = np.exp(-0.5 * (np.arange(-r, r + 1) / sigma) ** 2)
    weights /= weights.sum()
    source = np.pad(np.arange(n), r, mode=mode)  # type: ignore[call-overload]
    rows = (np.bincount(source[i : i + 2 * r + 1], weights, minlength=n) for i in range(n))
    matrix = np.stack([*rows])
    return torch.from_numpy(matrix.astype(np.float32))


def motion_kernel(radius: float, sigma: float, angle: float) -> Kernel:
    """A trail `[size, size]` that starts in the center and fades as half a normal distribution; its sum is 1.

    As the motion blur of ImageMagick, which the authors use.

    Args:
        radius: the trail has `2 radius + 1` pixels, at least 3.
        sigma: of the normal distribution, in pixels.
        angle: its direction in radians, clockwise from the right.
    """
    length = 2 * max(1, round(radius)) + 1
    weights = np.exp(-0.5 * (np.arange(length) / sigma) ** 2)
    steps = np.arange(length)
    x, y = (np.ceil(steps * f(angle) - 0.5).astype(int) + length - 1 for f in (math.cos, math.sin))
    kernel = np.zeros((2 * length - 1, 2 * length - 1))
    np.add.at(kernel, (y, x), weights / weights.sum())
    return kernel


def zoomed(x: Tensor, factor: float) -> Tensor:
    """Enlarge the center of an image to its size, bilinearly between the centers of the outermost pixels."""
    height, width = x.shape[1:]
    rows, columns = math.ceil(height / factor), math.ceil(width / factor)
    top, left = (height - rows) // 2, (width - columns) // 2
    part = x[None, :, top : top + rows, left : left + columns]
    size = (max(height, round(rows * factor)), max(width, round(columns * factor)))
    large = F.interpolate(part, size, mode="bilinear", align_corners=True)[0]
    top, left = (size[0] - height) // 2, (size[1] - width) // 2
    return large[:, top : top + height, left : left + width]


def sampled(x: Tensor, rows: Tensor, columns: Tensor, *, repeat_edge: bool) -> Tensor:
    """Read an image at other places, bilinearly; outside of it is its mirror image.

    Args:
        x: the image.
        rows: float `[height, width]`, in pixels.
        columns: the same.
        repeat_edge: whether the mirror image starts with the outermost pixels, as `symmetric` of `np.pad`, or
            with the next ones (`reflect`).
    """
    height, width = x.shape[1:]
    if repeat_edge:
        grid = torch.stack([(2 * columns + 1) / width - 1, (2 * rows + 1) / height - 1], dim=2)
    else:
        grid = torch.stack([2 * columns / max(1, width - 1) - 1, 2 * rows / max(1, height - 1) - 1], dim=2)
    return F.grid_sample(x[None], grid[None], padding_mode="reflection", align_corners=not repeat_edge)[0]
