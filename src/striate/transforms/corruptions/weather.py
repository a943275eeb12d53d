"""Weather of ImageNet-C: snow, frost, fog and brightness."""

from __future__ import annotations

import functools
import math

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw
from torch import Tensor

from striate.transforms.corruptions.filters import filtered, motion_kernel, smoothed, zoomed
from striate.transforms.decode import Uint8Array

Floats = npt.NDArray[np.float32]
_LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601
_TEXTURES = 3  # of ice, from which random parts are taken
_DRAWN = 448  # px of a drawn picture of ice
_CRYSTALS = 150  # in it
_ICE = (0.86, 0.95, 1.0)  # its color, a little blue


def snow(
    x: Tensor, rng: np.random.Generator, scale: float, mean: float, deviation: float, zoom: float,
    threshold: float, radius: float, sigma: float, share: float,
) -> Tensor:  # fmt: skip
    """Whiten the image and add falling flakes: bright spots of enlarged noise, blurred downwards.

    The flakes are made at the size that the parameters are for, and then resized.
    """
    size = (max(1, round(x.shape[1] / scale)), max(1, round(x.shape[2] / scale)))
    flakes = torch.from_numpy(rng.standard_normal(size, np.float32))[None] * deviation + mean
    flakes = zoomed(flakes, zoom)
    flakes = torch.where(flakes < threshold, 0.0, flakes).clamp(0, 1)
    angle = math.radians(rng.uniform(-135, -45))
    flakes = filtered(flakes, motion_kernel(radius, sigma, angle), "edge")
    if size != x.shape[1:]:
        flakes = F.interpolate(flakes[None], x.shape[1:], mode="bilinear", antialias=True)[0]
    gray = x if len(x) == 1 else (x * torch.tensor(_LUMA)[:, None, None]).sum(dim=0, keepdim=True)
    white = share * x + (1 - share) * torch.maximum(x, gray * 1.5 + 0.5)
    return white + flakes + flakes.flip(1, 2)


def frost(x: Tensor, rng: np.random.Generator, scale: float, image: float, ice: float) -> Tensor:
    """Add a random part of a picture of ice crystals, or of its mirror image."""
    height, width = x.shape[1:]
    texture = ice_texture(int(rng.integers(_TEXTURES)), 2 * max(height, width))
    top, left = (int(rng.integers(len(texture) - n + 1)) for n in (height, width))
    part = texture[top : top + height, left : left + width]
    mirrored = torch.from_numpy(part[:, ::-1].copy() if rng.random() < 0.5 else part)[None]
    colour = torch.tensor(_ICE if len(x) == 3 else (1.0,))
    return image * x + ice * mirrored * colour[:, None, None]


@functools.lru_cache(maxsize=4 * _TEXTURES)
def ice_texture(number: int, side: int) -> Floats:
    """A generated picture of frost on glass, float32 `[side, side]` in 0-1: the same one in every size."""
    reduced = Image.fromarray(_drawn_ice(number)).resize((side, side), Image.Resampling.BOX)
    return np.asarray(np.asarray(reduced).astype(np.float32) / np.float32(255))


@functools.lru_cache(maxsize=_TEXTURES)
def _drawn_ice(number: int) -> Uint8Array:
    """Feathery crystals on thin ice, uint8 `[448, 448]`."""
    rng = np.random.default_rng(number)
    picture = Image.new("L", (_DRAWN, _DRAWN))
    draw = ImageDraw.Draw(picture)
    for _ in range(_CRYSTALS):
        length = _DRAWN * rng.uniform(0.06, 0.3)
        _feather(draw, rng, rng.uniform(0, _DRAWN, 2), rng.uniform(0, 2 * math.pi), length, depth=2)
    lines = torch.from_numpy(np.array(picture, np.float32)[None] / 255)
    sharp, glow = (smoothed(lines, sigma, "edge")[0].numpy() for sigma in (0.7, 6.0))
    cloud = plasma(512, 1.6, rng)[:_DRAWN, :_DRAWN]
    ice = np.clip((0.65 * sharp + 0.7 * glow) * (0.5 + cloud) + 0.35 * cloud, 0, 1)
    return np.asarray((ice * 255).astype(np.uint8))


def _feather(
    draw: ImageDraw.ImageDraw, rng: np.random.Generator, start: npt.NDArray[np.float64], angle: float,
    length: float, depth: int,
) -> None:  # fmt: skip
    """Draw a crystal: a bent axis, and smaller crystals at about 60 degrees on both sides of it."""
    pieces = max(3, round(length / 6)) if depth else 1
    bend = rng.normal(0, 0.05)
    for i in range(pieces):
        end = start + length / pieces * np.array([math.cos(angle), math.sin(angle)])
        fill = int(255 * (1 - 0.7 * i / pieces) * (0.45 + 0.25 * depth) * rng.uniform(0.7, 1))
        draw.line([*start, *end], fill=min(255, fill), width=1 + depth // 2)
        if depth and length > 8:
            for turn in (-1, 1):
                part = length * 0.4 * (1 - i / pieces) * rng.uniform(0.4, 1)
                _feather(draw, rng, end, angle + turn * rng.uniform(0.7, 1.2), part, depth - 1)
        start, angle = end, angle + bend + rng.normal(0, 0.05)


def fog(x: Tensor, rng: np.random.Generator, scale: float, weight: float, decay: float) -> Tensor:
    """Add a random fractal, and scale the brightest value back to what it was."""
    height, width = x.shape[1:]
    size = 2 ** max(1, math.ceil(math.log2(max(height, width))))
    haze = torch.from_numpy(plasma(size, decay, rng)[:height, :width])[None]
    brightest = float(x.max())
    return (x + weight * haze) * brightest / (brightest + weight)


def plasma(size: int, decay: float, rng: np.random.Generator) -> Floats:
    """A random fractal by the diamond-square algorithm, float32 `[size, size]` in 0-1, periodic.

    Args:
        size: a power of two.
        decay: the square of it divides the noise of each next finer level.
        rng: random numbers.
    """
    field = np.zeros((size, size), np.float32)
    step, amplitude = size, 1.0

    def noisy(total: Floats) -> Floats:
        return total / 4 + amplitude * (2 * rng.random(total.shape, np.float32) - 1)

    while step > 1:
        half = step // 2
        corners = field[::step, ::step]
        pairs = corners + np.roll(corners, -1, axis=0)
        field[half::step, half::step] = noisy(pairs + np.roll(pairs, -1, axis=1))
        centres = field[half::step, half::step]
        beside = corners + np.roll(corners, -1, axis=1) + centres + np.roll(centres, 1, axis=0)
        below = corners + np.roll(corners, -1, axis=0) + centres + np.roll(centres, 1, axis=1)
        field[::step, half::step], field[half::step, ::step] = noisy(beside), noisy(below)
        step, amplitude = half, amplitude / decay**2
    low, high = field.min(), field.max()
    return np.asarray((field - low) / max(high - low, 1e-9))


def brightness(x: Tensor, rng: np.random.Generator, scale: float, added: float) -> Tensor:
    """Add to the value of HSV, the largest channel; hue and saturation stay the same."""
    value = x.amax(dim=0, keepdim=True)
    brighter = (value + added).clamp(0, 1)
    return torch.where(value > 0, x * (brighter / value.clamp(min=1e-6)), brighter)
