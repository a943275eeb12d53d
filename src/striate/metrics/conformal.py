"""Conformal prediction sets: sets of classes that contain the right one with a chosen probability.

Split conformal prediction (Vovk et al. 2005; Angelopoulos and Bates 2021, arXiv:2107.07511): each class of
an image has a nonconformity score, how badly it fits. The set holds the classes whose score is at most a
quantile of the scores of the right classes of other images, the calibration images. If these and the image
are exchangeable, the set contains the right class with the chosen probability or a little more, whatever the
model.
"""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
import numpy.typing as npt

from striate.metrics.classification import Floats, Integers

MANY_CLASSES = 20  # with more, sets are those of RAPS
_RANK, _PENALTY = 5, 0.01  # k_reg and lambda of RAPS

Method = Literal["lac", "raps"]
Float64s = npt.NDArray[np.float64]


def method_for(classes: int) -> Method:
    """`lac`, which has the smallest sets on average, or `raps`, whose sets adapt to an image's difficulty."""
    return "raps" if classes > MANY_CLASSES else "lac"


def nonconformity_scores(probabilities: Floats, method: str) -> Float64s:
    """How badly each class fits, `[n, classes]`: low for a likely class.

    With RAPS the sum is that of the classes that are likelier, without the class itself: the random number u
    of the paper is 1. So the likeliest class has the score 0, and is in every set.

    Args:
        probabilities: `[n, classes]`.
        method: `lac` or `raps`.
    """
    exact: Float64s = np.asarray(probabilities, np.float64)
    return np.asarray(1 - exact) if method == "lac" else np.asarray(raps_scores(exact) - exact)


def raps_scores(probabilities: Float64s, rank: float = _RANK, penalty: float = _PENALTY) -> Float64s:
    """Regularized adaptive scores of a class, itself included (Angelopoulos et al. 2021, arXiv:2009.14193).

    The sum of the probabilities of all classes that are at least as likely, and a penalty for each class
    beyond the first `rank` ones.

    Args:
        probabilities: `[n, classes]`.
        rank: k_reg of the paper.
        penalty: lambda of the paper.
    """
    order = np.argsort(-probabilities, axis=1, kind="stable")
    ordered = np.cumsum(np.take_along_axis(probabilities, order, axis=1), axis=1)
    ordered += penalty * np.maximum(0, np.arange(1, probabilities.shape[1] + 1) - rank)
    scores = np.empty_like(ordered)
    np.put_along_axis(scores, order, ordered, axis=1)
    return scores


def calibration_scores(probabilities: Floats, labels: Integers, method: str) -> Float64s:
    """The scores of the right classes, `[n]`, rising."""
    return np.sort(nonconformity_scores(probabilities, method)[np.arange(len(labels)), labels])


def images_needed(coverage: float) -> int:
    """The fewest calibration images for a coverage below 1: 19 for 95 %."""
    return math.ceil(coverage / (1 - coverage) - 1e-9)


def quantile_rank(images: int, coverage: float) -> int:
    """Which of the rising scores is the threshold, from 1: the ceil((n + 1) coverage)-th of n.

    More than `images` if there are too few images for this coverage.
    """
    return math.ceil((images + 1) * coverage - 1e-9)


def prediction_sets(probabilities: Floats, threshold: float, method: str) -> npt.NDArray[np.bool_]:
    """Which classes are in the set of each image, `[n, classes]`.

    The sets of LAC may be empty: no class is likely enough. Those of RAPS have at least the likeliest class.

    Args:
        probabilities: `[n, classes]`.
        threshold: the quantile of the scores of the calibration images.
        method: `lac` or `raps`.
    """
    return np.asarray(nonconformity_scores(probabilities, method) <= threshold)
