"""The learning rate as a pure function of the step."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt


def learning_rate(step: int, *, total: int, peak: float, kind: str = "cosine", warmup: float = 0.0) -> float:
    """The learning rate of one step.

    Args:
        step: counts from 0 to `total - 1`.
        total: steps of the whole run.
        peak: the largest rate.
        kind: `cosine` falls to zero along half a cosine (Loshchilov, Hutter 2017, equation 5); `step`
            falls to a tenth after half and again after three quarters of the steps (He et al. 2016,
            section 4.2); `constant` stays.
        warmup: share of all steps over which the rate first rises linearly (Goyal et al. 2017).
    """
    rising = math.ceil(warmup * total)
    if step < rising:
        return peak * (step + 1) / rising
    if kind == "constant":
        return peak
    if kind == "step":
        return peak * 0.1 ** ((step >= total / 2) + (step >= total * 3 / 4))
    return peak * 0.5 * (1 + math.cos(math.pi * (step - rising) / max(1, total - rising)))


def batches(count: int, size: int, *, seed: int, epoch: int) -> list[npt.NDArray[np.int64]]:
    """The order of one epoch, cut into batches; a function of the arguments alone.

    A last batch of one joins the one before it: a single image has no batch statistics, and BatchNorm
    refuses it.

    Args:
        count: samples.
        size: of a batch.
        seed: of the run.
        epoch: counts from 0.

    Returns:
        Arrays of indices that together hold each of 0 to `count - 1` once.
    """
    order = np.random.Generator(np.random.Philox(key=[seed, epoch])).permutation(count)
    cuts = list(range(size, count, size))
    if cuts and count - cuts[-1] == 1:
        cuts.pop()
    return np.split(order, cuts)
