"""Attributions from the probability of a class when parts of the image are hidden, without gradients."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from striate.explain.explainer import Explainer
from striate.progress import AUTO, Progress

_AT_ONCE = 32  # images in a batch
_CELLS = 7  # rows and columns of a mask of RISE, and windows of occlusion along a side
_SHARE = 0.5  # of the cells that a mask of RISE shows


def occlusion(
    explainer: Explainer,
    image: Tensor,
    target: int,
    window: int | None = None,
    stride: int | None = None,
    progress: Progress = AUTO,
) -> Tensor:
    """Occlusion: how much the probability falls when a gray square hides a part of the image.

    Zeiler, Fergus 2014, "Visualizing and Understanding Convolutional Networks", ECCV, arXiv:1311.2901,
    section 4.2. The value of a pixel is the mean fall over all squares that hide it. Gray is 0 after
    normalization.

    Args:
        explainer: of the network.
        image: `[1, channels, height, width]`, as the network reads it.
        target: number of the class.
        window: side of the square in pixels; a seventh of the image's shorter side by default.
        stride: pixels between two squares; half the window by default.
        progress: receives an update per batch.

    Returns:
        float32 `[height, width]`; positive where hiding lowers the probability.
    """
    height, width = image.shape[2:]
    window = window or math.ceil(min(height, width) / _CELLS)
    stride = stride or max(1, window // 2)
    corners = [
        (top, left) for top in _starts(height, window, stride) for left in _starts(width, window, stride)
    ]
    before = explainer.probabilities(image)[0, target]
    fall, count = (torch.zeros(height, width, dtype=torch.float64) for _ in range(2))
    for start in range(0, len(corners), _AT_ONCE):
        part = corners[start : start + _AT_ONCE]
        hidden = image.repeat(len(part), 1, 1, 1)
        for row, (top, left) in enumerate(part):
            hidden[row, :, top : top + window, left : left + window] = 0
        falls = (before - explainer.probabilities(hidden)[:, target]).tolist()
        for (top, left), value in zip(part, falls, strict=True):
            fall[top : top + window, left : left + window] += value
            count[top : top + window, left : left + window] += 1
        progress.advance(len(part))
    return (fall / count).float()


def windows(height: int, width: int) -> int:
    """Number of squares of `occlusion` with its default window and stride."""
    window = math.ceil(min(height, width) / _CELLS)
    stride = max(1, window // 2)
    return len(_starts(height, window, stride)) * len(_starts(width, window, stride))


def _starts(size: int, window: int, stride: int) -> list[int]:
    """First pixels of the squares along a side; the last square may extend beyond the image."""
    return [index * stride for index in range(math.ceil(max(0, size - window) / stride) + 1)]


def rise(
    explainer: Explainer, image: Tensor, target: int, samples: int = 1000, progress: Progress = AUTO
) -> Tensor:
    """RISE: the mean of random masks, each weighted by the probability that the network gives what it shows.

    S(lambda) = 1 / (N p) sum_i f(I * M_i) M_i(lambda) (Petsiuk, Das, Saenko 2018, "RISE: Randomized Input
    Sampling for Explanation of Black-box Models", BMVC, arXiv:1806.07421, equation 6). A mask is a grid of
    7x7 cells, each shown with probability p = 1/2, enlarged bilinearly and shifted at random by less than a
    cell (section 3.2).

    Args:
        explainer: of the network.
        image: as for `occlusion`.
        target: number of the class.
        samples: masks; the paper uses 4,000 to 8,000.
        progress: receives an update per batch.

    Returns:
        float32 `[height, width]`, at least 0.
    """
    generator = torch.Generator().manual_seed(0)
    height, width = int(image.shape[2]), int(image.shape[3])
    total = torch.zeros(height, width, dtype=torch.float64)
    for start in range(0, samples, _AT_ONCE):
        count = min(_AT_ONCE, samples - start)
        masks = random_masks(count, height, width, generator).to(image)
        weights = explainer.probabilities(image * masks[:, None])[:, target]
        total += (weights[:, None, None] * masks).sum(dim=0).cpu()
        progress.advance(count)
    return (total / (samples * _SHARE)).float()


def random_masks(count: int, height: int, width: int, generator: torch.Generator) -> Tensor:
    """Random smooth masks of RISE, float32 `[count, height, width]` from 0 (hidden) to 1 (shown)."""
    cells = (torch.rand(count, 1, _CELLS, _CELLS, generator=generator) < _SHARE).float()
    cell = math.ceil(height / _CELLS), math.ceil(width / _CELLS)
    size = ((_CELLS + 1) * cell[0], (_CELLS + 1) * cell[1])
    large = F.interpolate(cells, size, mode="bilinear", align_corners=False)[:, 0]
    tops = torch.randint(cell[0], (count,), generator=generator).tolist()
    lefts = torch.randint(cell[1], (count,), generator=generator).tolist()
    corners = zip(large, tops, lefts, strict=True)
    return torch.stack([mask[top : top + height, left : left + width] for mask, top, left in corners])
