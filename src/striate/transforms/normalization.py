"""Normalization of a batch: pixels to the float32 values that a network reads.

Scaling to 0-1, subtracting the mean and dividing by the standard deviation are three steps, not one
multiply-add, to round exactly as torchvision's `ToTensor` and `Normalize`.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from striate.transforms import native

_Floats = npt.NDArray[np.float32]

_CHUNK = 1 << 18  # float32 values: one MiB


def normalize(batch: Tensor, mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
    """Scale to 0-1, subtract the mean, divide by the standard deviation, and put the channels first.

    Args:
        batch: uint8, or float in 0-255, `[batch, height, width, channels]`, on any device.
        mean: of each channel, of values in 0-1.
        std: of each channel.

    Returns:
        float32 `[batch, channels, height, width]` on the same device.
    """
    if batch.device.type != "cpu":
        shift, scale = _on_device(mean, batch.device), _on_device(std, batch.device)
        moved = batch.permute(0, 3, 1, 2).to(torch.float32, memory_format=torch.contiguous_format)
        return moved.div_(255).sub_(shift).div_(scale)
    pixels = batch.numpy()
    found = native.normalize(pixels, _tables(mean, std))
    return torch.from_numpy(_in_chunks(pixels, mean, std) if found is None else found)


def _in_chunks(pixels: npt.NDArray[Any], mean: tuple[float, ...], std: tuple[float, ...]) -> _Floats:
    """Normalize chunks that fit into the processor's cache."""
    nchw = np.moveaxis(pixels, 3, 1)
    shift, scale = (np.array(values, np.float32)[:, None, None] for values in (mean, std))
    out = np.empty(nchw.shape, np.float32)
    at_once = max(1, _CHUNK // max(1, math.prod(nchw.shape[1:])))
    for at in range(0, len(out), at_once):
        part = out[at : at + at_once]
        part[:] = nchw[at : at + at_once]
        part /= np.float32(255)
        part -= shift
        part /= scale
    return out


@functools.lru_cache(maxsize=32)
def _tables(mean: tuple[float, ...], std: tuple[float, ...]) -> _Floats:
    """The normalized values of 0 to 255, `[channels, 256]`."""
    values = np.arange(256).reshape(1, 256, 1, 1).repeat(len(mean), 3)
    return _in_chunks(values, mean, std)[0, :, :, 0]


@functools.lru_cache(maxsize=32)
def _on_device(values: tuple[float, ...], device: torch.device) -> Tensor:
    """Return float32 `[1, channels, 1, 1]`; cached, because a copy to a GPU synchronizes."""
    with torch.inference_mode(False):  # the tensor is also used in training
        return torch.tensor(values, dtype=torch.float32, device=device).view(1, -1, 1, 1)
