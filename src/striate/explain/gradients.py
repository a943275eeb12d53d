"""Attributions of single pixels from the gradients of a score with respect to the image."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from striate.explain.explainer import Explainer
from striate.progress import AUTO, Progress

_AT_ONCE = 16  # images in a batch with gradients
_NOISE = 0.15  # as a fraction of the image's range: the middle of the paper's 10 to 20 %


def integrated_gradients(
    explainer: Explainer, image: Tensor, target: int, samples: int = 32, progress: Progress = AUTO
) -> Tensor:
    """Integrated gradients along the line from a baseline image to the image.

    IG_i = (x_i - x'_i) * integral over alpha in [0, 1] of dF(x' + alpha (x - x')) / dx_i (Sundararajan,
    Taly, Yan 2017, ICML, arXiv:1703.01365, equation 1). The baseline x' is 0 after normalization, the mean
    color of the training images; the integral is by Gauss-Legendre quadrature. The attributions of all
    pixels add up to F(x) - F(x').

    Args:
        explainer: of the network.
        image: `[1, channels, height, width]`, as the network reads it.
        target: number of the class.
        samples: points of the quadrature.
        progress: receives an update per batch.

    Returns:
        float32 `[height, width]`, summed over the colors; positive values speak for the class.
    """
    points, weights = np.polynomial.legendre.leggauss(samples)
    alphas, shares = torch.from_numpy((points + 1) / 2), torch.from_numpy(weights / 2)
    total = torch.zeros(image.shape, dtype=torch.float64)  # on the CPU: not all devices have float64
    for start in range(0, samples, _AT_ONCE):
        part = slice(start, start + _AT_ONCE)
        scale = alphas[part].to(image)[:, None, None, None]
        gradients = explainer.gradients(scale * image, target).cpu().double()
        total += (shares[part, None, None, None] * gradients).sum(dim=0, keepdim=True)
        progress.advance(len(scale))
    return (image.cpu() * total).sum(dim=1)[0].float()


def smooth_grad(
    explainer: Explainer,
    image: Tensor,
    target: int,
    samples: int = 25,
    noise: float = _NOISE,
    progress: Progress = AUTO,
) -> Tensor:
    """SmoothGrad: the mean gradient of noisy copies of the image.

    M = 1/n sum of M_c(x + N(0, sigma^2)) with M_c = dS_c / dx (Smilkov, Thorat, Kim, Viegas, Wattenberg 2017,
    arXiv:1706.03825, section 2.1); sigma is a fraction of the image's range. The pixel's value is the largest
    magnitude over the colors, as in Simonyan, Vedaldi, Zisserman 2014, arXiv:1312.6034, section 3.1.

    Args:
        explainer: of the network.
        image: as for `integrated_gradients`.
        target: number of the class.
        samples: noisy copies.
        noise: sigma, as a fraction of the image's range.
        progress: receives an update per batch.

    Returns:
        float32 `[height, width]`, at least 0. It says how much the score depends on a pixel, not in which
        direction.
    """
    generator = torch.Generator().manual_seed(0)
    sigma = noise * float(image.max() - image.min())
    total = torch.zeros_like(image)
    for start in range(0, samples, _AT_ONCE):
        shape = (min(_AT_ONCE, samples - start), *image.shape[1:])
        noisy = image + sigma * torch.randn(shape, generator=generator).to(image)
        total += explainer.gradients(noisy, target).sum(dim=0, keepdim=True)
        progress.advance(len(noisy))
    return (total / samples).abs().amax(dim=1)[0].float()
