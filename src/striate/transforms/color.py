"""Transforms that change values, under torchvision's names and with its meanings.

On 8-bit pixels each function gives what Pillow's `ImageEnhance` and `ImageOps` give. A factor is one number
for each sample: 0 takes the property away, 1 leaves the picture, 2 exaggerates.
"""

from __future__ import annotations

import itertools
import math

import torch
import torch.nn.functional as F

from striate.errors import UsageError
from striate.transforms.transform import Transform, bernoulli, between, check_range, max_value

_ORDERS = torch.tensor(list(itertools.permutations(range(4))))  # of ColorJitter's four changes


def blend(images: torch.Tensor, other: torch.Tensor, factor: torch.Tensor) -> torch.Tensor:
    """`other` at factor 0, `images` at 1, further away beyond; truncated to 8 bits as Pillow does."""
    part = factor.to(images.device, torch.float32).view(-1, 1, 1, 1)
    mixed = other.float() + part * (images.float() - other.float())
    return mixed.clamp(0, max_value(images)).to(images.dtype)


def luma(images: torch.Tensor) -> torch.Tensor:
    """Gray `[batch, 1, height, width]` by ITU-R 601-2, in Pillow's fixed-point arithmetic for 8 bits."""
    if images.shape[1] == 1:
        return images
    if images.dtype == torch.uint8:
        r, g, b = images.to(torch.int32).unbind(1)
        return ((r * 19595 + g * 38470 + b * 7471 + 0x8000) >> 16).to(torch.uint8)[:, None]
    r, g, b = images.unbind(1)
    return (0.299 * r + 0.587 * g + 0.114 * b)[:, None]


def brightness(images: torch.Tensor, factor: torch.Tensor) -> torch.Tensor:
    """Towards black."""
    return blend(images, torch.zeros_like(images), factor)


def contrast(images: torch.Tensor, factor: torch.Tensor) -> torch.Tensor:
    """Towards the mean of its gray."""
    mean = luma(images).float().mean(dim=(1, 2, 3), keepdim=True)
    return blend(images, (mean + 0.5).floor() if images.dtype == torch.uint8 else mean, factor)


def saturation(images: torch.Tensor, factor: torch.Tensor) -> torch.Tensor:
    """Towards its gray."""
    return blend(images, luma(images), factor)


def sharpness(images: torch.Tensor, factor: torch.Tensor) -> torch.Tensor:
    """Towards a smoothed copy (Pillow's SMOOTH filter; the border is left)."""
    C, H, W = images.shape[1:]
    if min(H, W) < 3:
        return images
    kernel = torch.ones(3, 3, device=images.device)
    kernel[1, 1] = 5
    smooth = F.conv2d(images.float(), (kernel / 13).expand(C, 1, 3, 3), groups=C)
    blurred = images.float()
    blurred[:, :, 1:-1, 1:-1] = (smooth + 0.5).floor() if images.dtype == torch.uint8 else smooth
    return blend(images, blurred, factor)


def hue(images: torch.Tensor, shift: torch.Tensor) -> torch.Tensor:
    """Turn the hue by a share of the circle for each sample, -0.5 to 0.5; grayscale stays."""
    if images.shape[1] == 1:
        return images
    r, g, b = (images.float() / max_value(images)).unbind(1)
    high, low = torch.maximum(r, torch.maximum(g, b)), torch.minimum(r, torch.minimum(g, b))
    span = high - low
    by = torch.where(span == 0, torch.ones_like(span), span)
    h = torch.where(high == r, (g - b) / by, torch.where(high == g, 2 + (b - r) / by, 4 + (r - g) / by))
    h = (h / 6 + shift.to(h.device).view(-1, 1, 1)) % 1.0
    # Each channel is high, low or on the way between, by its distance on the circle (Smith 1978).
    out = torch.stack(
        [high - span * (1 - (((h * 6 + n) % 6) - 3).abs().sub(1).clamp(0, 1)) for n in (0, 4, 2)], dim=1
    ) * max_value(images)
    return (out.round() if images.dtype == torch.uint8 else out).to(images.dtype)


def posterize(images: torch.Tensor, bits: torch.Tensor) -> torch.Tensor:
    """Keep the highest bits of 8, so many for each sample."""
    mask = (256 - 2 ** (8 - bits.long())).to(images.device, torch.uint8)
    return images & mask.view(-1, 1, 1, 1)


def solarize(images: torch.Tensor, threshold: torch.Tensor) -> torch.Tensor:
    """Invert the values from the threshold on."""
    return torch.where(
        images >= threshold.to(images.device).view(-1, 1, 1, 1), max_value(images) - images, images
    )


def invert(images: torch.Tensor) -> torch.Tensor:
    """The negative."""
    return max_value(images) - images


def autocontrast(images: torch.Tensor) -> torch.Tensor:
    """Stretch each channel of each sample from its darkest to its brightest value."""
    flat = images.flatten(2).double()
    low, high = (v[..., None, None] for v in (flat.amin(2), flat.amax(2)))
    scale = 255 / (high - low)
    # Pillow works out a table: int(value * scale + offset), offset = -low * scale.
    stretched = (images.double() * scale - low * scale).clamp(0, 255).to(torch.uint8)
    return torch.where(high > low, stretched, images)


def equalize(images: torch.Tensor) -> torch.Tensor:
    """Give each channel of each sample as even a histogram as can be, by Pillow's integer arithmetic."""
    B, C, H, W = images.shape
    flat = images.reshape(B * C, H * W).long()
    histogram = torch.zeros(B * C, 256, dtype=torch.long, device=images.device)
    histogram.scatter_add_(1, flat, torch.ones_like(flat))
    # The last occupied value does not count for the step.
    last = flat.amax(1, keepdim=True)
    step = (H * W - histogram.gather(1, last)) // 255
    before = histogram.cumsum(1) - histogram
    table = ((step // 2 + before) // step.clamp(min=1)).clamp(0, 255)
    table = torch.where(step == 0, torch.arange(256, device=images.device), table)
    return table.gather(1, flat).view(B, C, H, W).to(torch.uint8)


class ColorJitter(Transform):
    """Change brightness, contrast, saturation and hue, in an order that is random for each sample.

    Args:
        brightness, contrast, saturation: v draws the factor from max(0, 1 - v) to 1 + v; or from and to.
        hue: v draws the turn from -v to v, at most 0.5; or from and to.
    """

    num_random = 5

    def __init__(
        self,
        brightness: float | tuple[float, float] = 0,
        contrast: float | tuple[float, float] = 0,
        saturation: float | tuple[float, float] = 0,
        hue: float | tuple[float, float] = 0,
    ) -> None:
        self.brightness = _around("brightness", brightness, 1, 0, math.inf)
        self.contrast = _around("contrast", contrast, 1, 0, math.inf)
        self.saturation = _around("saturation", saturation, 1, 0, math.inf)
        self.hue = _around("hue", hue, 0, -0.5, 0.5)

    def batch(self, images: torch.Tensor, rand: torch.Tensor) -> torch.Tensor:
        """Change each sample in its own way."""
        changes = (brightness, contrast, saturation, hue)
        ranges = (self.brightness, self.contrast, self.saturation, self.hue)
        order = _ORDERS.to(images.device)[(rand[:, 4] * len(_ORDERS)).long()]  # [batch, 4]
        out = images.clone()
        for turn in range(4):
            for i, (change, (low, high)) in enumerate(zip(changes, ranges, strict=True)):
                which = (order[:, turn] == i).nonzero()[:, 0]
                if len(which) and (low, high) != ((0.0, 0.0) if change is hue else (1.0, 1.0)):
                    out[which] = change(out[which], between(rand[which, i], low, high))
        return out


class Grayscale(Transform):
    """The gray of a picture (ITU-R 601-2).

    Args:
        num_output_channels: 1, or 3 alike.
    """

    def __init__(self, num_output_channels: int = 1) -> None:
        if num_output_channels not in (1, 3):
            raise UsageError(f"num_output_channels = {num_output_channels!r}", "it must be 1 or 3")
        self.num_output_channels = num_output_channels

    def batch(self, images: torch.Tensor, rand: torch.Tensor) -> torch.Tensor:
        """Gray of a batch."""
        return luma(images).repeat(1, self.num_output_channels, 1, 1)


class RandomGrayscale(Transform):
    """The gray of a picture with probability p, in as many channels as before."""

    num_random = 1

    def __init__(self, p: float = 0.1) -> None:
        bernoulli(torch.zeros(1), p, "RandomGrayscale")
        self.p = p

    def batch(self, images: torch.Tensor, rand: torch.Tensor) -> torch.Tensor:
        """Gray of some."""
        gray = bernoulli(rand[:, 0], self.p, "RandomGrayscale")[:, None, None, None]
        return torch.where(gray, luma(images).expand_as(images), images)


class GaussianBlur(Transform):
    """Blur with a Gaussian; the border is mirrored.

    Args:
        kernel_size: odd, in pixels; one number or width and height.
        sigma: standard deviation in pixels, or from and to.
    """

    num_random = 1
    stages = ("pixels", "unit", "normalized")

    def __init__(
        self, kernel_size: int | tuple[int, int], sigma: float | tuple[float, float] = (0.1, 2.0)
    ) -> None:
        pair = (kernel_size, kernel_size) if isinstance(kernel_size, int) else tuple(kernel_size)
        if any(side < 1 or side % 2 == 0 for side in pair):
            raise UsageError(f"kernel_size = {kernel_size!r}", "it must be odd")
        self.kernel_size, self.sigma = pair, check_range("sigma", sigma, 1e-6, math.inf)

    def batch(self, images: torch.Tensor, rand: torch.Tensor) -> torch.Tensor:
        """Blur each sample with its own sigma."""
        B, C, H, W = images.shape
        wide, tall = self.kernel_size
        if wide // 2 >= W or tall // 2 >= H:
            raise UsageError(
                f"GaussianBlur({self.kernel_size}) of an image of {(H, W)}",
                "half the kernel exceeds the image",
                "Use a smaller kernel_size",
            )  # fmt: skip
        sigma = between(rand[:, :1], *self.sigma)
        # All samples' channels side by side, as the groups of one convolution.
        values = images.float().reshape(1, B * C, H, W)
        values = F.pad(values, (wide // 2, wide // 2, tall // 2, tall // 2), mode="reflect")
        across, down = (_gaussian(side, sigma).repeat_interleave(C, 0) for side in (wide, tall))
        values = F.conv2d(values, across.view(B * C, 1, 1, wide), groups=B * C)
        values = F.conv2d(values, down.view(B * C, 1, tall, 1), groups=B * C).view(B, C, H, W)
        return values.round().to(images.dtype) if images.dtype == torch.uint8 else values


class RandomErasing(Transform):
    """Blank a rectangle with probability p (Zhong et al. 2017, algorithm 1).

    Args:
        p: probability.
        scale: share of the area, from and to.
        ratio: height over width, from and to.
        value: of what is blanked, 0-255 on 8-bit pixels.
    """

    num_random = 2 * 10 + 3
    stages = ("pixels", "unit", "normalized")

    def __init__(
        self,
        p: float = 0.5,
        scale: tuple[float, float] = (0.02, 0.33),
        ratio: tuple[float, float] = (0.3, 3.3),
        value: float = 0,
    ) -> None:
        bernoulli(torch.zeros(1), p, "RandomErasing")
        self.p, self.value = p, value
        self.scale, self.ratio = (
            check_range("scale", scale, 0, 1),
            check_range("ratio", ratio, 1e-6, math.inf),
        )

    def batch(self, images: torch.Tensor, rand: torch.Tensor) -> torch.Tensor:
        """Blank each sample's own rectangle, the first of ten that fits."""
        H, W = images.shape[2:]
        area = between(rand[:, :10], *self.scale) * H * W
        aspect = torch.exp(between(rand[:, 10:20], *map(math.log, self.ratio)))
        heights, widths = (area * aspect).sqrt().round(), (area / aspect).sqrt().round()
        fits = (heights < H) & (widths < W)
        first = fits.to(torch.uint8).argmax(dim=1, keepdim=True)
        height, width = (v.gather(1, first)[:, 0] for v in (heights, widths))
        y, x = (rand[:, 20] * (H - height + 1)).floor(), (rand[:, 21] * (W - width + 1)).floor()
        rows, columns = (torch.arange(side, device=images.device) for side in (H, W))
        in_rows = (rows >= y[:, None]) & (rows < (y + height)[:, None])
        in_columns = (columns >= x[:, None]) & (columns < (x + width)[:, None])
        erased = bernoulli(rand[:, 22], self.p, "RandomErasing") & fits.any(dim=1)
        box = (in_rows[:, :, None] & in_columns[:, None, :] & erased[:, None, None])[:, None]
        return images.masked_fill(box, self.value)


def _gaussian(side: int, sigma: torch.Tensor) -> torch.Tensor:
    """Kernels `[batch, side]` that sum to 1."""
    x = torch.arange(side, device=sigma.device) - side // 2
    weight = torch.exp(-0.5 * (x / sigma) ** 2)
    return weight / weight.sum(dim=1, keepdim=True)


def _around(
    name: str, value: float | tuple[float, float], centre: float, low: float, high: float
) -> tuple[float, float]:
    if isinstance(value, (int, float)):
        if value < 0:
            raise UsageError(f"ColorJitter({name}={value!r})", "it must be at least 0")
        return check_range(name, (max(low, centre - value), centre + value), low, high)
    return check_range(name, value, low, high)
