"""Class activation maps: weighted sums of the last feature maps.

A is a feature map, k its channel, (i, j) its units, y^c the score of class c before softmax. All maps are
ReLU'd: only what speaks for the class is shown.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from striate.explain.forward import Forward, Weights

_SIMILAR = 3  # classes that Finer-CAM compares with


def grad_cam(forward: Forward, targets: Sequence[int]) -> Tensor:
    """Grad-CAM: each map weighted by the mean gradient of the score over its units.

    L^c = ReLU(sum_k alpha_k^c A^k) with alpha_k^c = 1/Z sum_ij dy^c / dA_ij^k (Selvaraju, Cogswell, Das,
    Vedantam, Parikh, Batra 2017, ICCV, arXiv:1610.02391, equations 1 and 2).

    Args:
        forward: a pass of images through the network (`Explainer.forward`).
        targets: number of the class, for each image.

    Returns:
        float32 `[images, rows, columns]` of the last feature maps, at least 0.
    """
    return _weighted_by_mean(forward, [{target: 1.0} for target in targets])


def layer_cam(forward: Forward, targets: Sequence[int]) -> Tensor:
    """LayerCAM: each unit weighted by its own positive gradient, on maps of twice the resolution.

    Grad-CAM weights whole maps, which fails before the last stage of a network; LayerCAM does not. So it
    reads the last maps that have at least twice as many rows and columns, if there are some.

    M^c = ReLU(sum_k w^kc A^k) with w_ij^kc = ReLU(dy^c / dA_ij^k) (Jiang, Zhang, Hou, Cheng, Wei 2021, IEEE
    Transactions on Image Processing 30, "LayerCAM", equations 6 to 8).

    Args, returns: as `grad_cam`; the pass is one with `fine`.
    """
    gradients = forward.gradients([{target: 1.0} for target in targets])
    return (gradients.relu() * forward.maps).sum(dim=1).relu().float()


def finer_cam(forward: Forward, targets: Sequence[int], versus: Sequence[int] = ()) -> Tensor:
    """Finer-CAM: Grad-CAM of the difference to similar classes, "why this class and not that one".

    Grad-CAM with y^c - gamma y^d in place of y^c, averaged over the reference classes d; gamma is 1 (Zhang et
    al. 2025, "Finer-CAM: Spotting the Difference Reveals Finer Details for Visual Explanation", CVPR,
    arXiv:2501.11309, section 3). What both classes share is suppressed.

    Args:
        forward: as for `grad_cam`.
        targets: as for `grad_cam`.
        versus: numbers of the reference classes; by default the three whose scores are nearest.

    Returns: as `grad_cam`.
    """

    def difference(scores: Tensor, target: int) -> dict[int, float]:
        # A network with one class has no others; then this is Grad-CAM.
        others = set(versus or nearest_classes(scores, target)) - {target}
        return {target: 1.0, **dict.fromkeys(others, -1 / max(1, len(others)))}

    return _weighted_by_mean(
        forward, [difference(row, target) for row, target in zip(forward.scores, targets, strict=True)]
    )


def nearest_classes(scores: Tensor, target: int, count: int = _SIMILAR) -> list[int]:
    """The classes whose scores `[classes]` are nearest to that of the target, without itself."""
    distances = (scores.detach() - scores[target].detach()).abs()
    order: list[int] = distances.argsort(stable=True).tolist()
    return [number for number in order if number != target][:count]


def _weighted_by_mean(forward: Forward, weights: Weights) -> Tensor:
    units = forward.maps.flatten(2)  # a view in either layout of the memory
    means = forward.mean_gradients(weights)[:, None]
    return torch.bmm(means, units).view(len(units), *forward.maps.shape[2:]).relu_().float()
