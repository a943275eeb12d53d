"""Corruptions of ImageNet-C by processing: contrast, elastic transform, pixelation, JPEG compression."""

from __future__ import annotations

import io

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from striate.transforms.corruptions.filters import sampled, smoothed


def contrast(x: Tensor, rng: np.random.Generator, scale: float, factor: float) -> Tensor:
    """Scale the difference to the mean of each channel."""
    mean = x.mean(dim=(1, 2), keepdim=True)
    return (x - mean) * factor + mean


def elastic(
    x: Tensor, rng: np.random.Generator, scale: float, strength: float, sigma: float, shift: float
) -> Tensor:
    """A random affine map, then smooth random displacements."""
    height, width = x.shape[1:]
    side = min(height, width)
    rows, columns = torch.meshgrid(torch.arange(float(height)), torch.arange(float(width)), indexing="ij")
    centre, half = np.array([width // 2, height // 2], float), side // 3
    corners = centre + np.array([[half, half], [half, -half], [-half, -half]])
    moved = corners + rng.uniform(-shift * scale, shift * scale, corners.shape)
    noise = torch.from_numpy(rng.uniform(-1, 1, (2, height, width)).astype(np.float32))
    if side >= 3:  # the corners of smaller images coincide
        # From places in the result to places in the image: moved -> corners.
        back = np.linalg.lstsq(np.column_stack([moved, np.ones(3)]), corners, rcond=None)[0].tolist()
        across, down = (back[0][i] * columns + back[1][i] * rows + back[2][i] for i in (0, 1))
        x = sampled(x, down, across, repeat_edge=False)
    # Smoothing leaves noise of a height in proportion to 1 / sigma, so a shorter sigma raises it.
    displacement = smoothed(noise, sigma * scale, "symmetric", truncate=3.0) * strength * scale**2
    return sampled(x, rows + displacement[1], columns + displacement[0], repeat_edge=True)


def pixelate(x: Tensor, rng: np.random.Generator, scale: float, share: float) -> Tensor:
    """Reduce to a share of the size and enlarge again, both with box filters."""
    image = _image(x)
    size = max(1, int(image.width * share)), max(1, int(image.height * share))
    box = Image.Resampling.BOX
    return _tensor(image.resize(size, box).resize(image.size, box))


def jpeg(x: Tensor, rng: np.random.Generator, scale: float, quality: float) -> Tensor:
    """Compress as JPEG of a quality, with Pillow's default settings."""
    content = io.BytesIO()
    _image(x).save(content, "JPEG", quality=int(quality))
    with Image.open(content) as image:
        return _tensor(image)


def _image(x: Tensor) -> Image.Image:
    pixels = x.mul(255).round().to(torch.uint8).permute(1, 2, 0).contiguous().numpy()
    return Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)


def _tensor(image: Image.Image) -> Tensor:
    pixels = np.array(image).reshape(image.height, image.width, -1)
    return torch.from_numpy(pixels).permute(2, 0, 1).to(torch.float32).div(255)
