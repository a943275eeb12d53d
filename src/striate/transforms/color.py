"""Transforms of color and sharpness, with torchvision's names and behavior.

On 8-bit pixels the functions equal Pillow's `ImageEnhance` and `ImageOps`. A factor is one number per sample:
0 removes the property, 1 returns the original image, 2 doubles it.
"""

from __future__ import annotations

import functools
import itertools
import math
from typing import Protocol

import torch
import torch.nn.functional as F
from PIL import ImageOps
from torch import Tensor

from striate.errors import LayoutError, UsageError
from striate.transforms import native
from striate.transforms.arguments import Range, Size, check_range, range_around
from striate.transforms.blocks import in_blocks, is_pillow_friendly, with_pillow
from striate.transforms.transform import Transform, bernoulli, between, is_numpy_friendly, max_value

_ORDERS = tuple(itertools.permutations(range(4)))  # of the four changes of ColorJitter
_HUE = 3  # the number of its last one


def brightness(images: Tensor, factor: Tensor) -> Tensor:
    """Change the brightness: blend with black."""
    return _on_values(_brightness, images, factor)


def contrast(images: Tensor, factor: Tensor) -> Tensor:
    """Change the contrast: blend with the mean gray value."""
    return _on_values(_contrast, images, factor, planar=True)


def saturation(images: Tensor, factor: Tensor) -> Tensor:
    """Change the saturation: blend with the grayscale image."""
    return _on_values(_saturation, images, factor, planar=True)


def hue(images: Tensor, shift: Tensor) -> Tensor:
    """Shift the hue by a fraction of the circle, -0.5 to 0.5; grayscale images are returned unchanged."""
    return _on_values(_hue, images, shift, planar=True)


def sharpness(images: Tensor, factor: Tensor) -> Tensor:
    """Change the sharpness: blend with a smoothed copy (Pillow's SMOOTH filter, which skips the border)."""
    return _on_values(_sharpness, images, factor)


def luma(images: Tensor) -> Tensor:
    """Convert to grayscale `[batch, 1, height, width]` (ITU-R 601-2), in Pillow's fixed-point arithmetic."""
    if images.shape[1] == 1:
        return images
    return _cast(_luma(images.float(), eight_bit=images.dtype == torch.uint8), images.dtype)


class _Change(Protocol):
    """A change of float values, which it may overwrite; of 8-bit pixels, they are whole numbers to 255."""

    def __call__(self, values: Tensor, amount: Tensor, /, *, eight_bit: bool) -> Tensor: ...


def _on_values(change: _Change, images: Tensor, amount: Tensor, *, planar: bool = False) -> Tensor:
    """Apply a change to images, with one amount per sample; `planar` if it works on whole channels."""

    def changed(images: Tensor, amount: Tensor) -> Tensor:
        return _pixels(
            change(_values(images, planar=planar), amount, eight_bit=images.dtype == torch.uint8), images
        )

    amount = amount.to(images.device, torch.float32)
    if change in _NATIVE and native.fits(images):
        return native.enhance(images, _NATIVE[change], amount.view(-1, 1))
    return in_blocks(changed, images, amount.view(-1, 1, 1, 1))


def _values(images: Tensor, *, planar: bool) -> Tensor:
    return (images.contiguous() if planar else images).to(torch.float32, copy=True)


def _pixels(values: Tensor, images: Tensor) -> Tensor:
    """Convert values to the type and the memory layout of the images they come from."""
    values = _cast(values, images.dtype)
    if values.stride() == images.stride():
        return values
    out = torch.empty_like(images)
    if not is_numpy_friendly(images):
        return out.copy_(values)
    for channel in range(images.shape[1]):  # NumPy takes half of the time of torch
        out[:, channel].numpy()[:] = values[:, channel].numpy()
    return out


def _cast(values: Tensor, dtype: torch.dtype) -> Tensor:
    # From float32 to uint8 directly, a CPU takes four times as long.
    return values.to(torch.int16).to(dtype) if dtype == torch.uint8 else values.to(dtype)


def _bounded(values: Tensor, eight_bit: bool) -> Tensor:
    """Clip to the range of pixels; truncate 8-bit ones, as Pillow does."""
    return values.clamp_(0, 255).floor_() if eight_bit else values.clamp_(0, 1)


def _blend(values: Tensor, other: Tensor, factor: Tensor, eight_bit: bool) -> Tensor:
    """Interpolate from `other` (factor 0) to `values` (factor 1) and beyond."""
    return _bounded(values.sub_(other).mul_(factor).add_(other), eight_bit)


def _rgb(values: Tensor) -> tuple[Tensor, ...]:
    """The channels, each `[batch, 1, height, width]`; raises LayoutError if they are not three."""
    if values.shape[1] != 3:
        what = f"the colors of an image of {values.shape[1]} channels"
        raise LayoutError(what, "only gray and RGB images have some", "Leave this transform out")
    return torch.split(values, 1, dim=1)


def _luma(values: Tensor, *, eight_bit: bool) -> Tensor:
    if values.shape[1] == 1:
        return values
    r, g, b = _rgb(values)
    if not eight_bit:
        return 0.299 * r + 0.587 * g + 0.114 * b
    # Pillow's integers, which float32 holds exactly: all sums are below 2^24.
    total = (19595 * r).add_(g, alpha=38470).add_(b, alpha=7471).add_(0x8000)
    return total.mul_(2**-16).floor_()


def _brightness(values: Tensor, factor: Tensor, *, eight_bit: bool) -> Tensor:
    return _bounded(values.mul_(factor), eight_bit)


def _contrast(values: Tensor, factor: Tensor, *, eight_bit: bool) -> Tensor:
    gray = _luma(values, eight_bit=eight_bit)
    exact = torch.float64 if gray.device.type == "cpu" else torch.float32
    mean = gray.mean(dim=(1, 2, 3), keepdim=True, dtype=exact).float()
    return _blend(values, (mean + 0.5).floor() if eight_bit else mean, factor, eight_bit)


def _saturation(values: Tensor, factor: Tensor, *, eight_bit: bool) -> Tensor:
    if values.shape[1] == 1:
        return values
    return _blend(values, _luma(values, eight_bit=eight_bit), factor, eight_bit)


def _sharpness(values: Tensor, factor: Tensor, *, eight_bit: bool) -> Tensor:
    if min(values.shape[2:]) < 3:
        return values
    # Sums of nine 8-bit values are small integers, which take half of the memory.
    exact = values.to(torch.int16) if eight_bit else values.clone()
    rows = (exact[:, :, :-2] + exact[:, :, 1:-1]).add_(exact[:, :, 2:])
    total = (rows[..., :-2] + rows[..., 1:-1]).add_(rows[..., 2:]).add_(exact[:, :, 1:-1, 1:-1], alpha=4)
    smooth = total.float().div_(13)
    _blend(values[:, :, 1:-1, 1:-1], smooth.add_(0.5).floor_() if eight_bit else smooth, factor, eight_bit)
    return values


def _hue(values: Tensor, shift: Tensor, *, eight_bit: bool) -> Tensor:
    if values.shape[1] == 1:
        return values
    white = 255 if eight_bit else 1
    r, g, b = (channel[:, 0] for channel in _rgb(values / white))
    high, low = torch.maximum(r, torch.maximum(g, b)), torch.minimum(r, torch.minimum(g, b))
    span = high - low
    by = torch.where(span == 0, torch.ones_like(span), span)
    h = torch.where(high == r, (g - b) / by, torch.where(high == g, 2 + (b - r) / by, 4 + (r - g) / by))
    h = (h / 6 + shift[:, 0]) % 1.0
    # HSV to RGB: each channel depends on the distance to its hue (Smith 1978).
    rgb = [high - span * (1 - (((h * 6 + n) % 6) - 3).abs().sub(1).clamp(0, 1)) for n in (0, 4, 2)]
    out = torch.stack(rgb, dim=1) * white
    return out.round() if eight_bit else out


_NATIVE: dict[_Change, str] = {_brightness: "b", _contrast: "c", _saturation: "s"}  # names in the kernel


def posterize(images: Tensor, bits: Tensor) -> Tensor:
    """Keep only the highest `bits` of 8 bits, per sample."""
    mask = (256 - 2 ** (8 - bits.long())).to(images.device, torch.uint8)
    return images & mask.view(-1, 1, 1, 1)


def solarize(images: Tensor, threshold: Tensor) -> Tensor:
    """Invert values of at least `threshold`."""
    limit = threshold.to(images.device).view(-1, 1, 1, 1)
    if images.dtype != torch.uint8:
        return torch.where(images >= limit, max_value(images) - images, images)

    def inverted(images: Tensor, limit: Tensor) -> Tensor:
        wide = images.to(torch.int16)
        below = (wide - limit) >> 15  # -1 below the limit, else 0
        return wide.bitwise_xor_(255).bitwise_xor_(below.bitwise_and_(255)).to(torch.uint8)

    if native.fits(images):
        return native.enhance(images, "o", limit.ceil().float().view(-1, 1))
    return in_blocks(inverted, images, limit.ceil().to(torch.int16))


def invert(images: Tensor) -> Tensor:
    """Invert all values."""
    return max_value(images) - images


def autocontrast(images: Tensor) -> Tensor:
    """Stretch each channel of each sample to the full range of values."""
    if native.fits(images):
        return native.enhance(images, "a", torch.zeros(len(images), 1, device="cpu"))
    if is_pillow_friendly(images):
        return with_pillow(images, lambda picture, _: ImageOps.autocontrast(picture))
    flat = images.flatten(2).double()
    low, high = (v[..., None, None] for v in (flat.amin(2), flat.amax(2)))
    scale = 255 / (high - low)
    # Pillow computes int(value * scale + offset) with offset = -low * scale.
    stretched = (images.double() * scale - low * scale).clamp(0, 255).to(torch.uint8)
    return torch.where(high > low, stretched, images)


def equalize(images: Tensor) -> Tensor:
    """Equalize the histogram of each channel of each sample, in Pillow's integer arithmetic."""
    if native.fits(images):
        return native.enhance(images, "e", torch.zeros(len(images), 1, device="cpu"))
    if is_pillow_friendly(images):
        return with_pillow(images, lambda picture, _: ImageOps.equalize(picture))
    B, C, H, W = images.shape
    flat = images.reshape(B * C, H * W).long()
    histogram = torch.zeros(B * C, 256, dtype=torch.long, device=images.device)
    histogram.scatter_add_(1, flat, torch.ones_like(flat))
    # As in Pillow, the highest value does not count.
    last = flat.amax(1, keepdim=True)
    step = (H * W - histogram.gather(1, last)) // 255
    before = histogram.cumsum(1) - histogram
    table = ((step // 2 + before) // step.clamp(min=1)).clamp(0, 255)
    table = torch.where(step == 0, torch.arange(256, device=images.device), table)
    return table.gather(1, flat).view(B, C, H, W).to(torch.uint8)


class ColorJitter(Transform):
    """Change brightness, contrast, saturation and hue, in random order per sample.

    Args:
        brightness, contrast, saturation: the factor is in max(0, 1 - v) to 1 + v; or a pair (min, max).
        hue: the shift is in -v to v, with v up to 0.5; or a pair (min, max).
    """

    num_random = 5

    def __init__(
        self, brightness: Range = 0, contrast: Range = 0, saturation: Range = 0, hue: Range = 0
    ) -> None:
        self.brightness = range_around("brightness", brightness, 1, 0, math.inf)
        self.contrast = range_around("contrast", contrast, 1, 0, math.inf)
        self.saturation = range_around("saturation", saturation, 1, 0, math.inf)
        self.hue = range_around("hue", hue, 0, -0.5, 0.5)

    def batch(self, images: Tensor, rand: Tensor) -> Tensor:
        """Apply random factors to each sample."""
        ranges = (self.brightness, self.contrast, self.saturation, self.hue)
        amounts = torch.stack([between(rand[:, i], *ranges[i]) for i in range(4)], dim=1).float()
        active = [i for i, range_ in enumerate(ranges) if range_ != ((0, 0) if i == _HUE else (1, 1))]
        numbers = (rand[:, 4] * len(_ORDERS)).long()
        if _HUE in active or not native.fits(images):
            return in_blocks(functools.partial(_jitter, active=active), images, amounts, numbers)
        orders = [[i for i in _ORDERS[number] if i in active] for number in numbers.tolist()]
        names = ["".join("bcs"[i] for i in order) for order in orders]
        columns = torch.tensor(orders, dtype=torch.long, device="cpu").view(len(images), len(active))
        return native.enhance(images, names, amounts.gather(1, columns))


def _jitter(images: Tensor, amounts: Tensor, numbers: Tensor, *, active: list[int]) -> Tensor:
    """Apply the active changes with `amounts` `[batch, 4]`, in the order of each sample."""
    changes = (_brightness, _contrast, _saturation, _hue)
    values, eight_bit = _values(images, planar=True), images.dtype == torch.uint8
    orders = [_ORDERS[number] for number in numbers.tolist()]
    for turn, i in itertools.product(range(4), active):
        rows = [row for row, order in enumerate(orders) if order[turn] == i]
        if not rows:
            continue
        amount = amounts[rows, i].view(-1, 1, 1, 1)
        if len(rows) == len(orders):
            values = changes[i](values, amount, eight_bit=eight_bit)
        else:
            values[rows] = changes[i](values[rows], amount, eight_bit=eight_bit)
    return _pixels(values, images)


class Grayscale(Transform):
    """Convert to grayscale (ITU-R 601-2).

    Args:
        num_output_channels: 1, or 3 equal channels.
    """

    def __init__(self, num_output_channels: int = 1) -> None:
        if num_output_channels not in (1, 3):
            raise UsageError(f"num_output_channels = {num_output_channels!r}", "it must be 1 or 3")
        self.num_output_channels = num_output_channels

    def batch(self, images: Tensor, rand: Tensor) -> Tensor:
        """Convert a batch."""
        return luma(images).repeat(1, self.num_output_channels, 1, 1)


class RandomGrayscale(Transform):
    """Convert to grayscale with probability p, with the same number of channels."""

    num_random = 1

    def __init__(self, p: float = 0.1) -> None:
        bernoulli(torch.zeros(1, device="cpu"), p, "RandomGrayscale")
        self.p = p

    def batch(self, images: Tensor, rand: Tensor) -> Tensor:
        """Convert some samples."""
        gray = bernoulli(rand[:, 0], self.p, "RandomGrayscale")[:, None, None, None]
        return torch.where(gray, luma(images).expand_as(images), images)


class GaussianBlur(Transform):
    """Gaussian blur with reflect padding.

    Args:
        kernel_size: odd, in pixels; one number, or width and height.
        sigma: standard deviation in pixels, or a pair (min, max).
    """

    num_random = 1
    stages = ("pixels", "unit", "normalized")

    def __init__(self, kernel_size: Size, sigma: Range = (0.1, 2.0)) -> None:
        pair = (kernel_size, kernel_size) if isinstance(kernel_size, int) else tuple(kernel_size)
        if any(side < 1 or side % 2 == 0 for side in pair):
            raise UsageError(f"kernel_size = {kernel_size!r}", "it must be odd")
        self.kernel_size, self.sigma = pair, check_range("sigma", sigma, 1e-6, math.inf)

    def batch(self, images: Tensor, rand: Tensor) -> Tensor:
        """Blur each sample with a random sigma."""
        B, C, H, W = images.shape
        wide, tall = self.kernel_size
        if wide // 2 >= W or tall // 2 >= H:
            what = f"GaussianBlur({self.kernel_size}) on an image of {(H, W)}"
            raise UsageError(what, "half the kernel exceeds the image", "Use a smaller kernel_size")
        sigma = between(rand[:, :1], *self.sigma)
        # One grouped convolution over all channels of all samples.
        values = images.float().reshape(1, B * C, H, W)
        values = F.pad(values, (wide // 2, wide // 2, tall // 2, tall // 2), mode="reflect")
        across, down = (_gaussian(side, sigma).repeat_interleave(C, 0) for side in (wide, tall))
        values = F.conv2d(values, across.view(B * C, 1, 1, wide), groups=B * C)
        values = F.conv2d(values, down.view(B * C, 1, tall, 1), groups=B * C).view(B, C, H, W)
        return values.round().to(images.dtype) if images.dtype == torch.uint8 else values


class RandomErasing(Transform):
    """Erase a random rectangle with probability p (Zhong et al. 2017, algorithm 1).

    Args:
        p: probability.
        scale: fraction of the area, (min, max).
        ratio: height over width, (min, max).
        value: of erased pixels, 0-255 for 8-bit images.
    """

    num_random = 2 * 10 + 3
    stages = ("pixels", "unit", "normalized")

    def __init__(
        self, p: float = 0.5, scale: Range = (0.02, 0.33), ratio: Range = (0.3, 3.3), value: float = 0
    ) -> None:
        bernoulli(torch.zeros(1, device="cpu"), p, "RandomErasing")
        self.p, self.value = p, value
        self.scale = check_range("scale", scale, 0, 1)
        self.ratio = check_range("ratio", ratio, 1e-6, math.inf)

    def batch(self, images: Tensor, rand: Tensor) -> Tensor:
        """Erase a rectangle of each sample: the first of ten random ones that fits."""
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


def _gaussian(side: int, sigma: Tensor) -> Tensor:
    """Return normalized kernels `[batch, side]`."""
    x = torch.arange(side, device=sigma.device) - side // 2
    weight = torch.exp(-0.5 * (x / sigma) ** 2)
    return weight / weight.sum(dim=1, keepdim=True)
