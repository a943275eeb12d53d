"""Test whether a map shows what the prediction depends on: deletion and insertion curves against baselines.

Petsiuk, Das, Saenko 2018 (arXiv:1806.07421, section 4.1) hide the most important pixels first and watch the
probability fall (deletion), and show them first and watch it rise (insertion). The area under a curve says
little by itself: with most networks and photographs, a blob in the middle of the image does well. So the map
is compared with such a blob, and with shuffled copies of itself, which are as coarse or as fine.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

FRACTIONS = (0.05, 0.2, 0.5)  # of the pixels, most important first, between none and all
SHUFFLES = 3  # shuffled copies of the map
PASSES = 3 + 2 * len(FRACTIONS) * (2 + SHUFFLES)  # images through the network: 33

_LEAST = 0.1  # probability that must depend on the image, for the test to say anything
# Of that probability: a score that one in twenty shuffled maps reaches by chance. Three of them do not show
# that if the map is coarse (benchmarks/bench_explain.py).
_CHANCE = 0.35
_COARSE = 400  # units of a map
_AT_ONCE = 11  # images in a batch
_BLUR = 16  # standard deviations of the blur in the image's shorter side
_BLOB = 4  # standard deviations of the blob in the image's shorter side

Outcome = Literal["better", "center", "chance", "empty", "untestable"]


@dataclass(frozen=True)
class Faithfulness:
    """What the deletion and insertion curves say about a map.

    A score is the area under the insertion curve minus that under the deletion curve, from -1 to 1; the
    fraction of the pixels is on the x axis and the probability of the class on the y axis.

    Attributes:
        fractions: of the pixels that are deleted or inserted, from 0 to 1.
        deletion: the probability for each fraction, the most important pixels hidden.
        insertion: the probability for each fraction, the most important pixels shown.
        score: of the map.
        center: the score of a blob in the center of the image.
        shuffled: the scores of shuffled copies of the map.
        outcome: `better` than both; no better than a blob in the `center`; no better than `chance`, which
            shuffled maps show; `empty` if no value is above 0; `untestable` if the probability hardly depends
            on the image.
    """

    fractions: tuple[float, ...]
    deletion: tuple[float, ...]
    insertion: tuple[float, ...]
    score: float
    center: float
    shuffled: tuple[float, ...]
    outcome: Outcome

    @property
    def passes(self) -> bool:
        """Whether the map is better than the blob and the shuffled maps."""
        return self.outcome == "better"

    @property
    def verdict(self) -> str:
        """The outcome in words."""
        if self.outcome == "better":
            return "better than a blob in the center and than shuffled maps"
        if self.outcome == "center":
            return "no better than a blob in the center"
        if self.outcome == "chance":
            return "no better than chance: shuffled maps do as well"
        if self.outcome == "empty":
            return "empty: nothing in the image speaks for the class"
        with_image, without = self.deletion[0], self.deletion[-1]
        return (
            f"cannot be tested: the probability of the class is {with_image:.2f} with the image and "
            f"{without:.2f} without it"
        )

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "verdict": self.verdict, "outcome": self.outcome, "score": self.score, "center": self.center,
            "shuffled": list(self.shuffled), "fractions": list(self.fractions),
            "deletion": list(self.deletion), "insertion": list(self.insertion),
        }  # fmt: skip


def measure(
    probability: Callable[[Tensor], Tensor], image: Tensor, values: Tensor, hidden: Tensor | None = None
) -> Faithfulness:
    """Measure how faithful a map is, in `PASSES` images through the network.

    Args:
        probability: images `[batch, channels, height, width]` to the probability of the class, `[batch]`.
        image: `[1, channels, height, width]`, as the network reads it. 0 must be a neutral color.
        values: the map, `[rows, columns]` of any size; higher where the image matters more.
        hidden: what insertion starts from, the shape of `image`; the blurred image by default.
    """
    hidden = blur(image) if hidden is None else hidden
    size = (int(image.shape[2]), int(image.shape[3]))
    ranks = [ranking(resized(values, size)), ranking(center_blob(size))]
    for seed in range(SHUFFLES):
        order = torch.randperm(values.numel(), generator=torch.Generator().manual_seed(seed))
        shuffled = values.flatten()[order.to(values.device)].view_as(values)
        ranks.append(ranking(resized(shuffled, size)))
    variants = _variants(image, hidden, ranks)
    parts = iter(lambda: list(itertools.islice(variants, _AT_ONCE)), [])
    found = np.concatenate([probability(torch.cat(part)).cpu().double().numpy() for part in parts])
    full, nothing, hazy = (float(value) for value in found[:3])
    between = found[3:].reshape(len(ranks), len(FRACTIONS), 2)
    deletions = [(full, *row, nothing) for row in between[:, :, 0].tolist()]
    insertions = [(hazy, *row, full) for row in between[:, :, 1].tolist()]
    scores = [_area(up) - _area(down) for down, up in zip(deletions, insertions, strict=True)]
    score, center, *shuffles = scores
    outcome = _outcome(score, center, max(shuffles), full - nothing, is_coarse=values.numel() <= _COARSE)
    return Faithfulness(
        (0.0, *FRACTIONS, 1.0), deletions[0], insertions[0], score, center, tuple(shuffles),
        outcome if bool((values > 0).any()) else "empty",
    )  # fmt: skip


def _variants(image: Tensor, hidden: Tensor, ranks: Sequence[npt.NDArray[np.float64]]) -> Iterator[Tensor]:
    """The image, gray, the hidden image; then for each ranking and fraction deletion and insertion."""
    gray = torch.zeros_like(image)
    yield from (image, gray, hidden)
    for rank in ranks:
        for fraction in FRACTIONS:
            important = torch.from_numpy(rank < fraction).to(image.device)
            yield torch.where(important, gray, image)
            yield torch.where(important, image, hidden)


def _outcome(score: float, center: float, shuffled: float, effect: float, *, is_coarse: bool) -> Outcome:
    if not effect >= _LEAST:  # also if it is not a number
        return "untestable"
    if score <= max(shuffled, _CHANCE * effect if is_coarse else shuffled):
        return "chance"
    return "better" if score > center else "center"


def _area(probabilities: Sequence[float]) -> float:
    """Area under a curve over the fractions, by trapezoids."""
    return float(np.trapezoid(probabilities, (0.0, *FRACTIONS, 1.0)))


def ranking(values: Tensor) -> npt.NDArray[np.float64]:
    """For each pixel, the fraction of pixels that are more important, from 0 to below 1, `[height, width]`.

    Equal values, such as the zeros of a ReLU, are in the order of a smooth random map: a row-by-row order
    would favor one side, and single pixels at random would disturb the network more than areas do.
    """
    flat = values.cpu().double().flatten().numpy()
    noise = torch.rand(4, 4, generator=torch.Generator().manual_seed(SHUFFLES))
    ties = resized(noise, (values.shape[0], values.shape[1])).flatten().numpy()
    ranks = np.empty(len(flat))
    ranks[np.lexsort((ties, -flat))] = np.arange(len(flat)) / len(flat)
    return ranks.reshape(tuple(values.shape))


def resized(values: Tensor, size: tuple[int, int]) -> Tensor:
    """A map enlarged bilinearly to the size of the image."""
    return F.interpolate(values[None, None], size, mode="bilinear", align_corners=False)[0, 0]


def center_blob(size: tuple[int, int]) -> Tensor:
    """A Gaussian in the center of the image, `[height, width]`."""
    rows, columns = (torch.arange(side) - (side - 1) / 2 for side in size)
    deviation = (min(size) if min(size) > 1 else max(size)) / _BLOB  # a text has one row
    return torch.exp(-(rows[:, None] ** 2 + columns[None, :] ** 2) / (2 * deviation**2))


def blur(image: Tensor) -> Tensor:
    """Blur images `[batch, channels, height, width]` until they show nothing but colors."""
    deviation = min(image.shape[2:]) / _BLUR
    reach = max(1, math.ceil(2 * deviation))
    places = torch.arange(-reach, reach + 1, device=image.device, dtype=image.dtype)
    kernel = torch.exp(-(places**2) / (2 * deviation**2))
    kernel = (kernel / kernel.sum()).expand(image.shape[1], 1, 1, -1)
    for turned, padding in ((kernel, (reach, reach, 0, 0)), (kernel.transpose(2, 3), (0, 0, reach, reach))):
        image = F.conv2d(F.pad(image, padding, mode="replicate"), turned, groups=image.shape[1])
    return image
