"""Affine transforms: rotation, translation, scale and shear, with torchvision's names and behavior."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from striate.errors import UsageError
from striate.transforms import native
from striate.transforms.arguments import Range, check_range, range_around
from striate.transforms.blocks import is_pillow_friendly, with_pillow
from striate.transforms.transform import Transform, between


class RandomAffine(Transform):
    """Random rotation, translation, scale and shear about the center.

    Args:
        degrees: rotation in -v to v, or a pair (min, max).
        translate: maximum translation as fractions of width and height.
        scale: factor, (min, max).
        shear: degrees along the width in -v to v, or a pair (min, max); four numbers for width and height.
        interpolation: `nearest` or `bilinear`.
        fill: value of pixels outside of the image.
    """

    num_random = 6
    stages = ("pixels", "unit", "normalized")

    def __init__(
        self,
        degrees: Range,
        translate: tuple[float, float] | None = None,
        scale: Range | None = None,
        shear: float | tuple[float, ...] | None = None,
        interpolation: str = "nearest",
        fill: float = 0,
    ) -> None:
        self.degrees = range_around("degrees", degrees, 0, -math.inf, math.inf)
        self.translate = translate or (0.0, 0.0)
        if not all(0 <= share <= 1 for share in self.translate):
            raise UsageError(f"translate = {translate!r}", "fractions of the sides must be between 0 and 1")
        self.scale = check_range("scale", scale or 1.0, 1e-6, math.inf)
        if not isinstance(shear, tuple) or len(shear) != 4:
            shear = (*range_around("shear", shear or 0, 0, -math.inf, math.inf), 0, 0)
        self.shear = tuple(map(float, shear))
        if interpolation not in ("nearest", "bilinear"):
            raise UsageError(f"interpolation = {interpolation!r}", "it must be nearest or bilinear")
        self.interpolation, self.fill = interpolation, fill

    def batch(self, images: Tensor, rand: Tensor) -> Tensor:
        """Transform each sample with random parameters."""
        H, W = images.shape[2:]
        turn = between(rand[:, 0], *self.degrees)
        far_x, far_y = self.translate[0] * W, self.translate[1] * H
        right, down = between(rand[:, 1], -far_x, far_x), between(rand[:, 2], -far_y, far_y)
        shift = torch.stack([right, down], dim=1).round()
        scale = between(rand[:, 3], *self.scale)
        along_x, along_y = between(rand[:, 4], *self.shear[:2]), between(rand[:, 5], *self.shear[2:])
        shear = torch.stack([along_x, along_y], dim=1)
        return warp(images, inverse_affine(turn, shift, scale, shear), self.interpolation, self.fill)


class RandomRotation(RandomAffine):
    """Random rotation about the center.

    Args:
        degrees: counter-clockwise, in -v to v, or a pair (min, max).
        interpolation: `nearest` or `bilinear`.
        fill: value of pixels outside of the image.
    """

    def __init__(self, degrees: Range, interpolation: str = "nearest", fill: float = 0) -> None:
        low, high = range_around("degrees", degrees, 0, -math.inf, math.inf)
        super().__init__((-high, -low), interpolation=interpolation, fill=fill)


def inverse_affine(turn: Tensor, shift: Tensor, scale: Tensor, shear: Tensor) -> Tensor:
    """Compute the inverse affine matrices: from output to input coordinates, in pixels from the center.

    The order is shear, scale, clockwise rotation, translation.

    Args:
        turn: degrees `[batch]`.
        shift: pixels to the right and down `[batch, 2]`.
        scale: factor `[batch]`.
        shear: degrees `[batch, 2]`.

    Returns:
        float64 `[batch, 2, 3]`.
    """
    a, x, y = (torch.deg2rad(v.double()) for v in (turn, shear[:, 0], shear[:, 1]))
    s = scale.double()
    m00, m01 = torch.cos(a - y) / torch.cos(y), -torch.cos(a - y) * torch.tan(x) / torch.cos(y) - torch.sin(a)
    m10, m11 = torch.sin(a - y) / torch.cos(y), -torch.sin(a - y) * torch.tan(x) / torch.cos(y) + torch.cos(a)
    forward = torch.stack([m00, m01, m10, m11], dim=1).view(-1, 2, 2) * s[:, None, None]
    back = torch.linalg.inv(forward)
    return torch.cat([back, -back @ shift.double()[:, :, None]], dim=2)


def warp(images: Tensor, inverse: Tensor, interpolation: str, fill: float) -> Tensor:
    """Apply inverse affine matrices `[batch, 2, 3]`, as `inverse_affine` returns them, to a batch."""
    B, C, H, W = images.shape
    device = images.device
    if interpolation == "nearest" and is_pillow_friendly(images):
        return _warp_eight_bit(images, inverse, int(fill))
    x = torch.arange(W, device=device, dtype=torch.float64) + 0.5 - W / 2
    y = torch.arange(H, device=device, dtype=torch.float64) + 0.5 - H / 2
    m = inverse.to(device)[:, :, :, None, None]
    from_x = m[:, 0, 0] * x + m[:, 0, 1] * y[:, None] + m[:, 0, 2] + W / 2  # [B, H, W]
    from_y = m[:, 1, 0] * x + m[:, 1, 1] * y[:, None] + m[:, 1, 2] + H / 2
    inside = ((from_x >= 0) & (from_x < W) & (from_y >= 0) & (from_y < H))[:, None]
    if interpolation == "nearest":
        place = from_y.floor().clamp(0, H - 1).long() * W + from_x.floor().clamp(0, W - 1).long()
        flat = place.view(B, 1, -1).expand(-1, C, -1)
        out = images.reshape(B, C, -1).gather(2, flat).view(B, C, H, W)
    else:
        grid = torch.stack([from_x * 2 / W - 1, from_y * 2 / H - 1], dim=3).float()
        values = F.grid_sample(images.float(), grid, padding_mode="border", align_corners=False)
        out = values.round().to(images.dtype) if images.dtype == torch.uint8 else values
    return torch.where(inside, out, torch.tensor(fill, dtype=out.dtype, device=device))


def _warp_eight_bit(images: Tensor, inverse: Tensor, fill: int) -> Tensor:
    """Like `warp`, for 8-bit images with nearest interpolation, as Pillow computes it: many times as fast."""
    H, W = images.shape[2:]
    matrices = [
        (a, b, c + W / 2 - a * W / 2 - b * H / 2, d, e, f + H / 2 - d * W / 2 - e * H / 2)
        for (a, b, c), (d, e, f) in inverse.double().tolist()
    ]
    out = native.warp(images, matrices, fill) if native.fits(images) else None
    if out is not None:
        return out

    def warped(picture: Image.Image, i: int) -> Image.Image:
        return picture.transform(
            (W, H), Image.Transform.AFFINE, matrices[i], Image.Resampling.NEAREST,
            fillcolor=(fill,) * 3 if picture.mode == "RGB" else fill,
        )  # fmt: skip

    return with_pillow(images, warped)
