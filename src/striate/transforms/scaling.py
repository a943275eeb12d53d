"""Resize images with Pillow's filters, computing only the part that is kept.

The result is that of `Image.resize` followed by a crop, which scale a picture of 5000x1 pixels to
1,280,000x256 (1.3 GB) before a crop of 224x224 is taken from it. Here each intermediate image has at most
`MOST` pixels of 4 bytes or `TIMES` as many as the result, whatever the shape and the size of the image.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from striate.transforms.pixel_formats import Uint8Array, bands
from striate.transforms.pixels import Pixels

MOST, TIMES = 1 << 22, 64  # pixels of an intermediate image: 16 MiB, or this multiple of the result
COPIED = 1 << 24  # pixels of an image up to which it is converted as a whole: 64 MiB
_ROUNDED_UP = 1 + 1e-9  # of a whole number that float arithmetic may miss
_ADDED = 1 << 27  # pixels up to which Pillow's rounding errors of the nearest pixel are reproduced
_SUPPORTS = {
    Image.Resampling.BILINEAR: 1.0, Image.Resampling.BICUBIC: 2.0, Image.Resampling.LANCZOS: 3.0,
}  # fmt: skip


@dataclass(frozen=True)
class Span:
    """One axis of an image: its own length, the length after scaling, and the part of that to keep.

    Attributes:
        own: pixels of the image.
        scaled: pixels after scaling.
        start: first pixel to keep.
        kept: number of pixels to keep.
        offset: pixels before the picture: a part of one, if a JPEG was decoded at a fraction of its size and
            then mirrored.
        extent: pixels that the picture covers, including a part of one; None for all.
    """

    own: int
    scaled: int
    start: int
    kept: int
    offset: float = 0.0
    extent: float | None = None

    @classmethod
    def whole(cls, own: int, scaled: int) -> Span:
        """Keep everything."""
        return cls(own, scaled, 0, scaled)

    @property
    def covered(self) -> float:
        """Pixels that the picture covers."""
        return self.own if self.extent is None else self.extent

    @property
    def ratio(self) -> float:
        """Pixels of the image for one scaled pixel."""
        return self.covered / self.scaled

    def source(self, filter: Image.Resampling) -> tuple[int, int]:
        """Return the first and the last (exclusive) pixel of the image that the kept part depends on."""
        ratio = self.ratio
        reach = _SUPPORTS[filter] * max(1.0, ratio) + 1
        first = math.floor(self.offset + self.start * ratio - reach)
        last = math.ceil(self.offset + (self.start + self.kept) * ratio + reach)
        return max(0, first), min(self.own, last)

    def box(self, first: int, last: int) -> tuple[float, float]:
        """Return the kept part as a range of the pixels `first` to `last` of the image."""
        ratio = self.ratio
        low = self.offset + self.start * ratio
        high = self.offset + (self.start + self.kept) * ratio
        return low - first, min(high, last) - first

    def parts(self, filter: Image.Resampling, most: int) -> list[Span]:
        """Divide the kept part, so that each depends on at most about `most` pixels of the image."""
        first, last = self.source(filter)
        count = min(self.kept, -(-(last - first) // max(1, most)))
        edges = np.linspace(0, self.kept, count + 1).astype(int).tolist()
        return [
            replace(self, start=self.start + low, kept=high - low) for low, high in itertools.pairwise(edges)
        ]


def fits_at_once(x: Span, y: Span) -> bool:
    """Return whether the image can be scaled as a whole before the crop: neither step of it is large."""
    return x.scaled * max(y.own, y.scaled) <= max(MOST, TIMES * x.kept * y.kept)


def scale(pixels: Pixels, x: Span, y: Span, filter: Image.Resampling) -> Image.Image:
    """Resize an image and crop it.

    The values are those of `Image.resize`, to the bit, if `fits_at_once`, and if an image of more than
    `COPIED` pixels needs no conversion. Otherwise they differ by 1 of 255 at most; with `bicubic` and
    `lanczos` from one of the two orders of the axes, which Pillow chooses in its own way: overshoot of the
    first axis is clipped before the second one is scaled.

    Args:
        pixels: the image.
        x: its width.
        y: its height.
        filter: nearest, bilinear, bicubic or lanczos.

    Returns:
        The kept part, of the mode of `pixels`.
    """
    if fits_at_once(x, y) and (pixels.is_plain or x.own * y.own <= COPIED):
        image = pixels.to_image()
        if image.size != (x.scaled, y.scaled):
            picture = (x.offset, y.offset, x.offset + x.covered, y.offset + y.covered)
            image = image.resize((x.scaled, y.scaled), filter, picture)
        return image.crop((x.start, y.start, x.start + x.kept, y.start + y.kept))
    if filter == Image.Resampling.NEAREST:
        return _nearest(pixels, x, y)
    (left, right), (top, bottom) = x.source(filter), y.source(filter)
    by_rows, by_columns = x.kept * (bottom - top), (right - left) * y.kept
    order = _rows_first if by_rows <= by_columns else _columns_first
    return order(pixels, x, y, filter)


def scale_by_torch(pixels: Uint8Array, x: Span, y: Span, mode: str) -> Uint8Array:
    """Resize an image with torch, without a crop; values differ from those of `scale` by 1 of 255 at most.

    Args:
        pixels: uint8 `[height, width, channels]`.
        x: its width; its picture begins with the first pixel.
        y: its height.
        mode: `bilinear` or `bicubic`.

    Returns:
        uint8 `[y.scaled, x.scaled, channels]`, or with more rows or columns at the end.
    """
    if pixels.shape[:2] == (y.scaled, x.scaled):
        return pixels
    import torch
    import torch.nn.functional as F

    # Not from_numpy(pixels[None]): its stride of 0 hides the channels-last layout from torch.
    nchw = torch.from_numpy(pixels)[None].permute(0, 3, 1, 2)
    to: dict[str, Any] = {"size": (y.scaled, x.scaled)}
    if (y.covered, x.covered) != (y.own, x.own):  # torch finds the size from the factors, rounded down
        to = {"scale_factor": (_ROUNDED_UP / y.ratio, _ROUNDED_UP / x.ratio)}
    scaled = F.interpolate(nchw, **to, mode=mode, antialias=True, align_corners=False)
    values: Uint8Array = scaled[0].permute(1, 2, 0).numpy()
    return values


def _rows_first(pixels: Pixels, x: Span, y: Span, filter: Image.Resampling) -> Image.Image:
    """Scale the rows, in bands, and then the columns."""
    first, last = y.source(filter)
    rows = Image.new(pixels.mode, (x.kept, last - first))
    for block in x.parts(filter, MOST):
        left, right = block.source(filter)
        low, high = block.box(left, right)
        for top, bottom in bands(right - left, last - first):
            band = pixels.region((left, first + top, right, first + bottom))
            band = band.resize((block.kept, bottom - top), filter, (low, 0, high, bottom - top))
            rows.paste(band, (block.start - x.start, top))
    low, high = y.box(first, last)
    return rows.resize((x.kept, y.kept), filter, (0, low, x.kept, high))


def _columns_first(pixels: Pixels, x: Span, y: Span, filter: Image.Resampling) -> Image.Image:
    """Scale the columns, in blocks of rows of the result, and then the rows."""
    left, right = x.source(filter)
    columns = Image.new(pixels.mode, (right - left, y.kept))
    for block in y.parts(filter, MOST // max(1, right - left)):
        first, last = block.source(filter)
        low, high = block.box(first, last)
        band = pixels.region((left, first, right, last))
        band = band.resize((right - left, block.kept), filter, (0, low, right - left, high))
        columns.paste(band, (0, block.start - y.start))
    low, high = x.box(left, right)
    return columns.resize((x.kept, y.kept), filter, (low, 0, high, y.kept))


def _nearest(pixels: Pixels, x: Span, y: Span) -> Image.Image:
    """Take the nearest pixels, one row of the result after the other."""
    columns = _nearest_pixels(x)
    left, right = int(columns[0]), int(columns[-1]) + 1
    out: list[Uint8Array] = []
    for row in _nearest_pixels(y).tolist():
        out.append(np.asarray(pixels.region((left, row, right, row + 1)))[0, columns - left])
    return Image.fromarray(np.stack(out))


def _nearest_pixels(span: Span) -> npt.NDArray[np.int64]:
    """Return the pixel of the image that is nearest to each kept one, as Pillow finds it."""
    ratio, end = span.ratio, span.start + span.kept
    if end > _ADDED:
        places = (np.arange(span.start, end) + 0.5) * ratio
    else:  # Pillow adds up the distances, with their rounding errors
        place, parts = ratio * 0.5, []
        for low in range(0, end, MOST):
            steps = np.full(min(MOST, end - low) + 1, ratio)
            steps[0] = place
            added = np.add.accumulate(steps)
            place = added[-1]
            parts.append(added[max(0, span.start - low) : -1])
        places = np.concatenate(parts)
    return np.minimum(places.astype(np.int64), span.own - 1)
