"""Changes of 8-bit images in the native kernel, if it was built; callers have torch or Pillow for the rest.

Both ways give equal results. The kernel reads images on a CPU, with the channels last in memory: gray and RGB
ones, for `normalize` of any number of channels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from striate import native_modules
from striate.transforms.blocks import is_pillow_friendly

VERSION = 2  # of the functions' arguments and results, as in native/pixels.cpp
_Array = npt.NDArray[Any]

_native: Any = native_modules.load("striate.transforms._native", VERSION)


def fits(images: Tensor) -> bool:
    """Return whether the functions below, except `mirror`, can process the images."""
    built = _native is not None and is_pillow_friendly(images)
    return built and images.permute(0, 2, 3, 1).is_contiguous()


def _samples(images: Tensor) -> _Array:
    """Uint8 `[batch, height, width, channels]`, without a copy."""
    return images.permute(0, 2, 3, 1).numpy()


def enhance(images: Tensor, changes: str | Sequence[str], amounts: Tensor) -> Tensor:
    """Change colors.

    Args:
        images: uint8 `[batch, channels, height, width]`.
        changes: of each sample in order, or of all samples: `b` brightness, `c` contrast, `s` saturation,
            `o` solarize, `a` autocontrast, `e` equalize.
        amounts: the factor or threshold of each change, float32 `[batch, number of changes]`.
    """
    out = _samples(images).copy()
    names = [changes] * len(out) if isinstance(changes, str) else changes
    for pixels, name, amount in zip(out, names, amounts.contiguous().numpy(), strict=True):
        _native.enhance(pixels, pixels.shape[2], name.encode(), amount)
    return torch.from_numpy(out).permute(0, 3, 1, 2)


def warp(images: Tensor, matrices: Sequence[tuple[float, ...]], fill: int) -> Tensor | None:
    """Apply an affine transform with nearest interpolation.

    Args:
        images: uint8 `[batch, channels, height, width]`.
        matrices: Pillow's six coefficients of each sample.
        fill: value of pixels outside of the image.

    Returns:
        Images of the same shape; None if coordinates exceed the range of Pillow's fixed-point arithmetic.
    """
    samples = _samples(images)
    out, cached = np.empty_like(samples), np.empty_like(samples[:1])
    for pixels, warped, matrix in zip(samples, out, matrices, strict=True):
        cached[0] = pixels  # in the processor's cache, columns are read three times as fast
        if not _native.warp(cached, warped, *pixels.shape, matrix, fill):
            return None
    return torch.from_numpy(out).permute(0, 3, 1, 2)


def mirror(source: _Array, out: _Array) -> bool:
    """Flip one image `[height, width, channels]` left to right; False, without effect, if it does not fit."""
    fit = (
        source.dtype == np.uint8 and source.shape[2] in (1, 3) and out.flags.c_contiguous and source.size > 0
    )
    if _native is None or not fit:
        return False
    _native.mirror(source.copy(), out, *source.shape[1:])
    return True


def normalize(images: _Array, tables: _Array) -> _Array | None:
    """Look up the normalized value of each pixel, and put the channels first.

    Args:
        images: `[batch, height, width, channels]`.
        tables: float32 `[channels, 256]`, the normalized values of 0 to 255.

    Returns:
        float32 `[batch, channels, height, width]`; None if the images do not fit.
    """
    B, H, W, C = images.shape
    if _native is None or images.dtype != np.uint8 or images.strides[2:] != (C, 1) or not images.size:
        return None
    out = np.empty((B, C, H, W), np.float32)
    _native.normalize(np.ascontiguousarray(images), out, tables, H * W)
    return out
