"""The 15 corruptions of ImageNet-C, in five severities.

Hendrycks and Dietterich, "Benchmarking Neural Network Robustness to Common Corruptions and Perturbations",
ICLR 2019, section 3 and appendix A. The parameters are those that the authors published: of ImageNet-C for
224 px, and of CIFAR-10-C for 32 px. An image takes the set whose size is nearer on a logarithmic scale
(ImageNet-C's if its shorter side has more than 84 px), and lengths in pixels are scaled by its shorter side.

Differences: values are rounded, not truncated, to 8 bits; images are not stored as JPEG afterwards; the
ice of frost is generated, where the authors use photographs.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from striate.errors import LayoutError, UsageError, unknown_name
from striate.transforms.corruptions import blur, digital, noise, weather
from striate.transforms.decode import Uint8Array

SEVERITIES = (1, 2, 3, 4, 5)
CHANNELS = (1, 3)  # gray and RGB
_LARGE, _SMALL = 224, 32  # px of ImageNet-C and CIFAR-10-C
_MOST_SMALL = 84  # px; between the two, sqrt(224 * 32) = 84.7
_SETTINGS = tuple[tuple[float, ...], ...]


@dataclass(frozen=True)
class Corruption:
    """A corruption with its published parameters.

    Attributes:
        label: its name for readers.
        apply: from an image, float32 `[channels, height, width]` in 0-1, random numbers, the scale of
            lengths and the parameters to the corrupted image of the same shape, not yet limited to 0-1.
        large: parameters of the severities 1 to 5 for 224 px (ImageNet-C).
        small: those for 32 px (CIFAR-10-C).
    """

    label: str
    apply: Callable[..., Tensor]
    large: _SETTINGS
    small: _SETTINGS

    def parameters(self, severity: int, side: int) -> tuple[float, tuple[float, ...]]:
        """The scale of lengths and the parameters, for a severity and the shorter side in pixels."""
        if side > _MOST_SMALL:
            return side / _LARGE, self.large[severity - 1]
        return side / _SMALL, self.small[severity - 1]


def _each(*values: float) -> _SETTINGS:
    return tuple((value,) for value in values)


CORRUPTIONS: dict[str, Corruption] = {
    "gaussian_noise": Corruption(  # standard deviation
        "Gaussian noise",
        noise.gaussian,
        _each(0.08, 0.12, 0.18, 0.26, 0.38),
        _each(0.04, 0.06, 0.08, 0.09, 0.1),
    ),
    "shot_noise": Corruption(  # photons of full brightness
        "Shot noise", noise.shot, _each(60, 25, 12, 5, 3), _each(500, 250, 100, 75, 50)
    ),
    "impulse_noise": Corruption(  # share of the values
        "Impulse noise",
        noise.impulse,
        _each(0.03, 0.06, 0.09, 0.17, 0.27),
        _each(0.01, 0.02, 0.03, 0.05, 0.07),
    ),
    "defocus_blur": Corruption(  # radius of the disk, sigma that smooths its edge
        "Defocus blur",
        blur.defocus,
        ((3, 0.1), (4, 0.5), (6, 0.5), (8, 0.5), (10, 0.5)),
        ((0.3, 0.4), (0.4, 0.5), (0.5, 0.6), (1, 0.2), (1.5, 0.1)),
    ),
    "glass_blur": Corruption(  # sigma, largest distance, passes
        "Glass blur",
        blur.glass,
        ((0.7, 1, 2), (0.9, 2, 1), (1, 2, 3), (1.1, 3, 2), (1.5, 4, 2)),
        ((0.05, 1, 1), (0.25, 1, 1), (0.4, 1, 1), (0.25, 1, 2), (0.4, 1, 2)),
    ),
    "motion_blur": Corruption(  # radius, sigma
        "Motion blur",
        blur.motion,
        ((10, 3), (15, 5), (15, 8), (15, 12), (20, 15)),
        ((6, 1), (6, 1.5), (6, 2), (8, 2), (9, 2.5)),
    ),
    "zoom_blur": Corruption(  # number of zooms, step between them
        "Zoom blur",
        blur.zoom,
        ((11, 0.01), (16, 0.01), (11, 0.02), (13, 0.02), (11, 0.03)),
        ((6, 0.01), (11, 0.01), (16, 0.01), (21, 0.01), (26, 0.01)),
    ),
    "snow": Corruption(  # mean, deviation, zoom and threshold of the flakes, radius and sigma of blur, share
        "Snow",
        weather.snow,
        (
            (0.1, 0.3, 3, 0.5, 10, 4, 0.8),
            (0.2, 0.3, 2, 0.5, 12, 4, 0.7),
            (0.55, 0.3, 4, 0.9, 12, 8, 0.7),
            (0.55, 0.3, 4.5, 0.85, 12, 8, 0.65),
            (0.55, 0.3, 2.5, 0.85, 12, 12, 0.55),
        ),
        (
            (0.1, 0.2, 1, 0.6, 8, 3, 0.95),
            (0.1, 0.2, 1, 0.5, 10, 4, 0.9),
            (0.15, 0.3, 1.75, 0.55, 10, 4, 0.9),
            (0.25, 0.3, 2.25, 0.6, 12, 6, 0.85),
            (0.3, 0.3, 1.25, 0.65, 14, 12, 0.8),
        ),
    ),
    "frost": Corruption(  # weights of the image and of the ice
        "Frost",
        weather.frost,
        ((1, 0.4), (0.8, 0.6), (0.7, 0.7), (0.65, 0.7), (0.6, 0.75)),
        ((1, 0.2), (1, 0.3), (0.9, 0.4), (0.85, 0.4), (0.75, 0.45)),
    ),
    "fog": Corruption(  # weight, how fast finer structures fade
        "Fog",
        weather.fog,
        ((1.5, 2), (2, 2), (2.5, 1.7), (2.5, 1.5), (3, 1.4)),
        ((0.2, 3), (0.5, 3), (0.75, 2.5), (1, 2), (1.5, 1.75)),
    ),
    "brightness": Corruption(  # added to the value of HSV
        "Brightness", weather.brightness, _each(0.1, 0.2, 0.3, 0.4, 0.5), _each(0.05, 0.1, 0.15, 0.2, 0.3)
    ),
    "contrast": Corruption(  # factor
        "Contrast", digital.contrast, _each(0.4, 0.3, 0.2, 0.1, 0.05), _each(0.75, 0.5, 0.4, 0.3, 0.15)
    ),
    "elastic_transform": Corruption(  # displacement, its sigma, shift of the corners; ImageNet-C's for 244 px
        "Elastic transform",
        digital.elastic,
        (
            (488, 170.8, 24.4), (488, 19.52, 48.8), (12.2, 2.44, 4.88), (17.08, 2.44, 4.88),
            (29.28, 2.44, 4.88),
        ),
        ((0, 0, 2.56), (1.6, 6.4, 2.24), (2.56, 1.92, 1.92), (3.2, 1.28, 1.6), (3.2, 0.96, 0.96)),
    ),
    "pixelate": Corruption(  # relative size
        "Pixelate", digital.pixelate, _each(0.6, 0.5, 0.4, 0.3, 0.25), _each(0.95, 0.9, 0.85, 0.75, 0.65)
    ),
    "jpeg_compression": Corruption(  # quality
        "JPEG compression", digital.jpeg, _each(25, 18, 15, 10, 7), _each(80, 65, 58, 50, 40)
    ),
}  # fmt: skip


@torch.no_grad()
def corrupt(image: Uint8Array, corruption: str, severity: int, seed: int = 0) -> Uint8Array:
    """Corrupt an image; the result depends on its pixels and the other arguments only.

    The random numbers are the same for all severities: noise, for example, only gets stronger.

    Args:
        image: uint8 `[height, width, 1 or 3]`, gray or RGB, at the network's input size.
        corruption: a key of `CORRUPTIONS`.
        severity: 1 to 5; 0 for the image itself.
        seed: of the random numbers.

    Raises:
        LayoutError: another shape or dtype.
        UsageError: no such corruption or severity.
    """
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] not in CHANNELS:
        what = f"an array of shape {image.shape} and type {image.dtype}"
        raise LayoutError(what, "corruptions need uint8 [height, width, 1 or 3]", "Convert it first")
    if corruption not in CORRUPTIONS:
        raise unknown_name("corruption", corruption, CORRUPTIONS)
    if severity not in (0, *SEVERITIES):
        raise UsageError(f"severity {severity!r}", "there are 1 to 5", "Use 1, 2, 3, 4 or 5")
    if severity == 0:
        return image.copy()
    chosen = CORRUPTIONS[corruption]
    scale, parameters = chosen.parameters(severity, min(image.shape[:2]))
    pixels = np.ascontiguousarray(image)
    rng = np.random.default_rng([seed, zlib.crc32(corruption.encode()), zlib.crc32(pixels.data)])
    x = torch.from_numpy(pixels).permute(2, 0, 1).to(torch.float32).div_(255).contiguous()
    found = chosen.apply(x, rng, scale, *parameters).clamp(0, 1).mul(255).round().to(torch.uint8)
    corrupted: Uint8Array = found.permute(1, 2, 0).contiguous().numpy()
    return corrupted
