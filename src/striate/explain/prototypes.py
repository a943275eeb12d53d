"""Prototypes and criticisms: images that stand for a class, and images that these do not stand for.

Kim, Khanna, Koyejo 2016, "Examples are not Enough, Learn to Criticize! Criticism for Interpretability", NIPS.
"""

from __future__ import annotations

from typing import cast

import numpy as np
import numpy.typing as npt

Features = npt.NDArray[np.float64]


def kernel(features: Features) -> Features:
    """Gaussian kernel k(x, y) = exp(-|x - y|^2 / s), `[n, n]`; s is the median of the squared distances.

    Args:
        features: `[n, features]`.
    """
    squares = np.square(features).sum(axis=1)
    distances = np.maximum(squares[:, None] + squares[None, :] - 2 * features @ features.T, 0)
    apart = distances[~np.eye(len(features), dtype=bool)]
    scale = float(np.median(apart)) if len(apart) else 1.0
    return cast(Features, np.exp(-distances / (scale or 1.0)))


def prototypes(similar: Features, count: int) -> list[int]:
    """The images whose distribution is nearest to that of all images, chosen one by one.

    Each choice maximizes J(S) = 2 / (n |S|) sum_i sum_{j in S} k(x_i, x_j) - 1 / |S|^2 sum_{i, j in S}
    k(x_i, x_j), which is a constant minus the squared maximum mean discrepancy (equation 3 of the paper).

    Args:
        similar: the kernel `[n, n]`.
        count: at most n.
    """
    chosen: list[int] = []
    means = similar.mean(axis=0)
    to_set = np.zeros(len(similar))  # the sum of each image's similarities to the chosen ones
    for size in range(1, min(count, len(similar)) + 1):
        # J without what is the same for all candidates.
        gain = 2 / size * means - (2 * to_set + np.diag(similar)) / size**2
        gain[chosen] = -np.inf
        best = int(gain.argmax())
        to_set += similar[best]
        chosen.append(best)
    return chosen


def criticisms(similar: Features, chosen: list[int], count: int) -> list[int]:
    """The images that the prototypes represent worst, chosen one by one.

    Each choice maximizes L(C) = sum_{l in C} |mean_i k(x_i, x_l) - mean_{j in S} k(x_j, x_l)| + log det K_CC:
    the witness function, and a term that keeps criticisms apart from each other (equations 5 and 6).

    Args:
        similar: the kernel `[n, n]`.
        chosen: the prototypes; at least one.
        count: at most n minus the number of prototypes.
    """
    witness = np.abs(similar.mean(axis=0) - similar[chosen].mean(axis=0))
    found: list[int] = []
    for _ in range(min(count, len(similar) - len(chosen))):
        gain = witness.copy()
        if found:
            # log det of the larger matrix minus that of K_CC: the Schur complement (jitter against copies).
            block = similar[np.ix_(found, found)] + 1e-9 * np.eye(len(found))
            cross = similar[found]
            rest = np.diag(similar) - (cross * np.linalg.solve(block, cross)).sum(axis=0)
            gain += np.log(np.maximum(rest, 1e-12))
        gain[[*chosen, *found]] = -np.inf
        found.append(int(gain.argmax()))
    return found
