"""Noise of ImageNet-C: of electronics, of few photons, and of defective pixels."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


def gaussian(x: Tensor, rng: np.random.Generator, scale: float, sigma: float) -> Tensor:
    """Add normal noise with the standard deviation `sigma`, as of a sensor in low light."""
    return x + sigma * torch.from_numpy(rng.standard_normal(x.shape, np.float32))


def shot(x: Tensor, rng: np.random.Generator, scale: float, photons: float) -> Tensor:
    """Draw each value from a Poisson distribution, `photons` for full brightness."""
    return torch.from_numpy((rng.poisson(x.numpy() * photons) / photons).astype(np.float32))


def impulse(x: Tensor, rng: np.random.Generator, scale: float, amount: float) -> Tensor:
    """Replace a share of the values, independently in each channel, by 0 or 1."""
    changed = torch.from_numpy(rng.random(x.shape, np.float32)) < amount
    white = torch.from_numpy(rng.random(x.shape, np.float32)) < 0.5
    return torch.where(changed, white.to(x.dtype), x)
