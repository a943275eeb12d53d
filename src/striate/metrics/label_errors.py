"""Find labels that are probably wrong from the predictions of a classifier."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

_FEW = 0.1  # share of wrong labels that is rarely exceeded in real datasets


def suspected_labels(probabilities: Array, labels: Array) -> tuple[Array, Array]:
    """Images that a classifier puts into another class as surely as it recognizes images of that class.

    The threshold of a class is the mean probability that its own images have for it. An image is suspected
    if the most probable class among those whose threshold it reaches is not its label (Northcutt, Jiang,
    Chuang 2021, "Confident Learning", Journal of Artificial Intelligence Research 70, arXiv:1911.00068,
    section 3.1). The images must be held out: a network knows the labels that it was trained on, also wrong
    ones.

    Args:
        probabilities: float `[n, classes]`; rows that are not finite are never suspected.
        labels: int `[n]`.

    Returns:
        The indexes of the suspected images, int64 `[m]`, and the classes that they seem to be of, int64
        `[m]`: the least probable labels first, as cleanlab's `self_confidence`.
    """
    finite = np.asarray(np.isfinite(probabilities).all(axis=1))
    count = np.bincount(labels[finite], minlength=probabilities.shape[1])
    own = probabilities[np.arange(len(labels)), labels]
    sums = np.bincount(labels[finite], weights=own[finite], minlength=probabilities.shape[1])
    thresholds = np.where(
        count > 0, sums / np.maximum(count, 1), np.inf
    )  # no image of it: nothing to compare with
    reached = np.where((probabilities >= thresholds) & finite[:, None], probabilities, -np.inf)
    best = reached.argmax(axis=1)
    which = np.flatnonzero((reached.max(axis=1) > -np.inf) & (best != labels))
    order = np.argsort(own[which], kind="stable")
    return which[order], best[which][order]


def doubt(suspected: int, images: int) -> str:
    """Why so many suspected labels can hardly all be wrong; empty if they are few.

    Args:
        suspected: number of images with a suspected label.
        images: number of all images.
    """
    if suspected <= _FEW * images:
        return ""
    count = f"the labels of {suspected:,} of {images:,} images are suspected"
    why = "of so many, most are probably errors of the model that suspects them"
    return f"{count}: {why}; look at them before you leave them out, or train a more accurate model"
