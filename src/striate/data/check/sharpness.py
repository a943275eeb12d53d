"""Blur of an image at its own scale, from the slope of its strongest edges.

A step of height h, blurred by a Gaussian with standard deviation s, has a maximum slope of h/(s sqrt(2 pi)).
So s follows from the contrast and the maximum slope of a small window. Resizing an image first would hide the
blur of large images. The variance of the Laplacian, a common measure, depends on how much detail there is.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from striate.transforms.decode import Uint8Array

WINDOW = 16  # pixels; an edge that is wider appears narrower
_CONTRAST = 0.7  # of the contrast of the strongest windows: weaker ones may have no edge
_STRONGEST = 98  # percentile of the contrast of all windows
_SHARPEST = 10  # percentile of the blur: an image is sharp if its subject is
_MOST = 1024  # windows, the strongest ones


def blur(luma: Uint8Array) -> float:
    """Estimate the blur of an image `[height, width]`, at least 3 pixels on each side.

    Returns:
        The standard deviation in pixels of a Gaussian that would blur a perfect edge as much: about 0.8 for
        the sharpest images, and at most about 5; infinite for an image of one color.
    """
    side = min(WINDOW, luma.shape[0] - 2, luma.shape[1] - 2)
    rows, columns = (luma.shape[0] - 2) // side, (luma.shape[1] - 2) // side
    inside = luma[1 : 1 + rows * side, 1 : 1 + columns * side].reshape(rows, side, columns, side)
    contrast = (inside.max((1, 3)) - inside.min((1, 3))).ravel()
    strong = np.flatnonzero(contrast >= max(1.0, _CONTRAST * np.percentile(contrast, _STRONGEST)))
    if not len(strong):
        return math.inf
    strong = strong[np.argsort(-contrast[strong].astype(np.int64), kind="stable")[:_MOST]]
    tops, lefts = side * (strong // columns), side * (strong % columns)
    size = np.arange(side + 2)
    windows = luma[(tops[:, None] + size)[:, :, None], (lefts[:, None] + size)[:, None, :]].astype(np.float32)
    slopes = np.maximum(_slope(windows).max((1, 2)), 1e-3)
    return float(np.percentile(contrast[strong] / slopes, _SHARPEST)) / math.sqrt(2 * math.pi)


def _slope(windows: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Return the gradient per pixel in `[n, height, width]` (Sobel), without the border."""
    down = (windows[:, 2:] - windows[:, :-2]) / 2
    right = (windows[:, :, 2:] - windows[:, :, :-2]) / 2
    down = (down[:, :, :-2] + 2 * down[:, :, 1:-1] + down[:, :, 2:]) / 4
    right = (right[:, :-2] + 2 * right[:, 1:-1] + right[:, 2:]) / 4
    slope: npt.NDArray[np.float32] = np.hypot(down, right)
    return slope
