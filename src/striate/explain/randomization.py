"""The model randomization test: a map that stays the same without the network's weights explains nothing.

Adebayo, Gilmer, Muelly, Goodfellow, Hardt, Kim 2018, "Sanity Checks for Saliency Maps", NeurIPS,
arXiv:1810.03292, section 3.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from striate.device import standard_settings

LIMIT = 0.5  # rank correlation from which a map is called independent of the weights
_COPIES = 8  # noisy copies of the image, to estimate BatchNorm's statistics


@dataclass(frozen=True)
class Randomization:
    """How much a map depends on the network's weights.

    Attributes:
        correlation: Spearman's rank correlation of the map with that of the same network with random weights,
            -1 to 1; 0 if one of the maps is constant.
    """

    correlation: float

    @property
    def passes(self) -> bool:
        """Whether the map depends on the weights."""
        return self.correlation < LIMIT

    @property
    def verdict(self) -> str:
        """The outcome in words."""
        how = "depends" if self.passes else "hardly depends"
        return f"{how} on the weights (rank correlation {self.correlation:.2f} with random ones)"

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {"verdict": self.verdict, "correlation": self.correlation, "passes": self.passes}


@standard_settings()
def randomized(network: nn.Module, image: Tensor, seed: int = 0) -> nn.Module:
    """A copy of a network with random weights.

    The values of each weight are shuffled, which keeps their distribution, whatever the network's
    initialization. BatchNorm's statistics are estimated anew, on noisy copies of the image: with the old
    ones, the activations would vanish or explode.

    Args:
        network: left unchanged.
        image: `[1, channels, height, width]`, as the network reads it.
        seed: of the shuffles.
    """
    random = copy.deepcopy(network).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in random.parameters():
            order = torch.randperm(parameter.numel(), generator=generator).to(parameter.device)
            parameter.copy_(parameter.flatten()[order].view_as(parameter))
        norms = [
            part for part in random.modules() if isinstance(part, _BatchNorm) and part.track_running_stats
        ]
        for norm in norms:
            norm.train()
            norm.momentum = 1.0
        if norms:
            noise = torch.randn((_COPIES, *image.shape[1:]), generator=generator).to(image)
            random(image + image.std() * noise)
    return random.eval()


def rank_correlation(a: Tensor, b: Tensor) -> float:
    """Spearman's rank correlation of two maps of one shape, with mean ranks of ties; 0 if one is constant."""
    first, second = (_ranks(values.cpu().double().flatten().numpy()) for values in (a, b))
    if first.std() == 0 or second.std() == 0:
        return 0.0
    return float(np.corrcoef(first, second)[0, 1])


def _ranks(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """The mean rank of each value."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    means: npt.NDArray[np.float64] = last - (counts - 1) / 2
    return means[inverse]
