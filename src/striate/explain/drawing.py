"""Draw maps over images, and sheets of thumbnails, with Pillow alone."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from striate.errors import UsageError
from striate.transforms.decode import Uint8Array

# The color map "inferno" of Stéfan van der Walt and Nathaniel Smith (CC0): lightness rises evenly from black
# to light yellow, also for the color-blind and in print. Between these colors it is linear.
COLORS = (
    (0, 0, 4), (11, 7, 36), (33, 12, 74), (61, 9, 101), (87, 16, 110), (113, 25, 110), (138, 34, 106),
    (163, 44, 97), (188, 55, 84), (210, 70, 68), (228, 90, 49), (241, 115, 29), (249, 142, 9),
    (252, 172, 17), (249, 203, 53), (242, 234, 105), (252, 255, 164),
)  # fmt: skip

MAX_CELLS = 4096  # thumbnails of a figure: 180 MB of pixels
_SMALLEST = 224  # pixels of the shorter side of a figure; smaller images are enlarged
_OPACITY = 0.85  # of the highest value
_DUST = 64  # standard deviations of the blur of a map of pixels in its shorter side
_CELL = 28  # pixels of a cell of a table
_LONGEST_NAME = 20  # letters of its names
_GAP = 8  # pixels between the parts of a figure
_THUMBNAIL = 112  # longer side of an image in a sheet


def colorize(values: npt.NDArray[Any]) -> Uint8Array:
    """Colors `[..., 3]` for values from 0 (dark) to 1 (light); others are clipped."""
    places = np.linspace(0, 1, len(COLORS))
    channels = [np.interp(values, places, channel) for channel in np.array(COLORS).T]
    return np.stack(channels, axis=-1).round().astype(np.uint8)


def enlarged(values: npt.NDArray[np.float32], size: tuple[int, int]) -> npt.NDArray[np.float32]:
    """A map enlarged bilinearly to `[height, width]`, as `torch.nn.functional.interpolate` does it."""
    rows, columns = size
    image = Image.fromarray(np.ascontiguousarray(values, np.float32))
    return np.asarray(image.resize((columns, rows), Image.Resampling.BILINEAR))


def overlay(pixels: Uint8Array, heat: npt.NDArray[np.float32]) -> Image.Image:
    """The image next to a grayscale copy under the colors of its map.

    Args:
        pixels: uint8 `[height, width, channels]`.
        heat: `[height, width]` from 0 to 1; 0 is transparent.
    """
    image, factor = _rgb(pixels), _factor(pixels)
    size = (image.width * factor, image.height * factor)
    large = Image.fromarray(heat.astype(np.float32)).resize(size, Image.Resampling.BILINEAR)
    values = np.asarray(large)
    below = np.asarray(image.convert("L").resize(size, Image.Resampling.NEAREST), np.float32)[..., None]
    share = (_OPACITY * np.sqrt(values.clip(0, 1)))[..., None]
    mixed = (1 - share) * below + share * colorize(values)
    return joined([image.resize(size, Image.Resampling.NEAREST), Image.fromarray(mixed.astype(np.uint8))])


def smoothed(heat: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Blur a map of single pixels, which would look like dust, and scale it to a maximum of 1 again."""
    if min(heat.shape) < _DUST // 8:
        return heat
    reach = max(1, round(min(heat.shape) / _DUST))
    places = np.arange(-2 * reach, 2 * reach + 1)
    kernel = np.exp(-(places**2) / (2 * reach**2))
    for axis in (0, 1):
        heat = np.apply_along_axis(np.convolve, axis, heat, kernel, mode="same")
    largest = max(float(heat.max()), float(np.finfo(np.float32).tiny))
    return (heat / largest).astype(np.float32)


def table(values: npt.NDArray[np.float32], rows: Sequence[str], columns: Sequence[str]) -> Image.Image:
    """A table of numbers as colors, from 0 to the maximum of each row, with a name for each row and column.

    Args:
        values: `[rows, columns]`, at least 0.
        rows: their names.
        columns: their names.
    """
    font = ImageFont.load_default(_CELL // 2)
    margin = 2 * _GAP + max(round(font.getlength(_shortened(name))) for name in (*rows, *columns))
    page = Image.new("RGB", (margin + _CELL * len(columns), margin + _CELL * len(rows)), "white")
    top = Image.new("RGB", (_CELL * len(columns), margin), "white").rotate(90, expand=True)
    for names, image, start in ((rows, page, margin), (reversed(columns), top, 0)):
        for place, name in enumerate(names):
            where = (_GAP, start + _CELL * place + _CELL // 4)
            ImageDraw.Draw(image).text(where, _shortened(name), "black", font)
    page.paste(top.rotate(-90, expand=True), (margin, 0))
    shares = values / values.max(axis=1, keepdims=True).clip(min=float(np.finfo(np.float32).tiny))
    cells = Image.fromarray(colorize(shares))
    size = (_CELL * len(columns), _CELL * len(rows))
    page.paste(cells.resize(size, Image.Resampling.NEAREST), (margin, margin))
    return page


def _shortened(name: str) -> str:
    """A name for a table: without line breaks, and of a limited length."""
    return name.replace("\n", " ")[:_LONGEST_NAME]


def joined(images: Sequence[Image.Image]) -> Image.Image:
    """Images of any size in one row on white."""
    height = max(image.height for image in images)
    row = Image.new("RGB", (sum(image.width + _GAP for image in images) - _GAP, height), "white")
    left = 0
    for image in images:
        row.paste(image, (left, 0))
        left += image.width + _GAP
    return row


def sheet(images: Sequence[Uint8Array], columns: int = 0) -> Image.Image:
    """Thumbnails in rows on white; images smaller than a thumbnail are enlarged.

    Args:
        images: uint8 `[height, width, channels]` of any sizes; at least one.
        columns: in a row; about as many as rows by default.

    Raises:
        UsageError: there are more than `MAX_CELLS`.
    """
    require_few(len(images))
    columns = columns or math.ceil(math.sqrt(len(images)))
    cell = _THUMBNAIL + _GAP
    page = Image.new("RGB", (columns * cell, math.ceil(len(images) / columns) * cell), "white")
    for place, pixels in enumerate(images):
        image = _rgb(pixels)
        scale = _THUMBNAIL / max(image.size)
        size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
        kind = Image.Resampling.NEAREST if scale > 1 else Image.Resampling.BILINEAR
        page.paste(image.resize(size, kind), (place % columns * cell, place // columns * cell))
    return page


def stacked(rows: Sequence[Sequence[Uint8Array]]) -> Image.Image:
    """Sheets of one row below each other; empty rows stay empty.

    Raises:
        UsageError: as for `sheet`.
    """
    require_few(len(rows) * max(map(len, rows), default=0))
    drawn = [sheet(row, len(row)) for row in rows if row]
    height = _THUMBNAIL + _GAP
    page = Image.new(
        "RGB", (max((row.width for row in drawn), default=1), height * max(1, len(rows))), "white"
    )
    filled = iter(drawn)
    for place, row in enumerate(rows):
        if row:
            page.paste(next(filled), (0, place * height))
    return page


def require_few(cells: int) -> None:
    """Refuse a figure that would not fit into memory: raises UsageError beyond `MAX_CELLS`."""
    if cells > MAX_CELLS:
        why = f"one figure has room for {MAX_CELLS:,}"
        raise UsageError(f"a figure of {cells:,} images", why, "Ask for fewer images or classes")


def tiles(arrays: npt.NDArray[Any]) -> list[Uint8Array]:
    """Each array `[height, width]` or `[height, width, 3]` as uint8, from its minimum to its maximum."""
    out = []
    for values in arrays:
        low, high = float(values.min()), float(values.max())
        scaled = (values - low) / (high - low) if high > low else np.zeros_like(values)
        color = colorize(scaled) if scaled.ndim == 2 else (255 * scaled).round().astype(np.uint8)
        out.append(color)
    return out


def png(image: Image.Image) -> bytes:
    """The bytes of a PNG file."""
    content = io.BytesIO()
    image.save(content, format="PNG")
    return content.getvalue()


def _rgb(pixels: Uint8Array) -> Image.Image:
    """Of images with more than three bands the first three, of those with two the first."""
    bands = pixels[..., :3] if pixels.shape[2] >= 3 else pixels[..., 0]
    return Image.fromarray(np.ascontiguousarray(bands)).convert("RGB")


def _factor(pixels: Uint8Array) -> int:
    """How often each pixel is repeated along a side."""
    side: int = min(pixels.shape[0], pixels.shape[1])
    return math.ceil(max(1, _SMALLEST / side))
