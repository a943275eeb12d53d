"""Decoded images, whose regions are converted to upright 8-bit pixels on demand.

A large image exists only once, as it was decoded: turning it upright and converting it to 8-bit RGB or
grayscale happens in regions of about a million pixels.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from PIL import Image

from striate.transforms.pixel_formats import (
    Array,
    Box,
    StoredImage,
    Uint8Array,
    bands,
    check_array,
    from_array,
)

ORIENTATION_TAG = 0x0112  # of EXIF
_TRANSPOSES = {
    2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_270, 7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}  # fmt: skip
# Orientations whose stored columns run from right to left, rows from bottom to top, or are exchanged.
MIRRORED_X, MIRRORED_Y, EXCHANGED = {2, 3, 7, 8}, {3, 4, 6, 7}, {5, 6, 7, 8}


class Frame(NamedTuple):
    """Where the picture of a JPEG file is in pixels that were decoded at 1/2, 1/4 or 1/8 of its size.

    Attributes:
        full_size: width and height in the file, upright.
        box: left, top, right, bottom in decoded pixels; they include a part of a pixel if the fraction of the
            size is not a whole number.
    """

    full_size: tuple[int, int]
    box: tuple[float, float, float, float]


class Pixels:
    """An image in memory.

    Attributes:
        size: width and height, upright.
        mode: `RGB` or `L`, of its regions.
        is_plain: True if `region` of the whole image makes no copy.
        frame: of a JPEG file that was decoded at a fraction of its size, else None.
    """

    size: tuple[int, int]
    is_plain: bool = False
    frame: Frame | None = None

    def __init__(self, channels: int) -> None:
        self.mode = "RGB" if channels == 3 else "L"

    def region(self, box: Box) -> Image.Image:
        """Return a region (left, top, right, bottom) as a Pillow image of `mode`; it must not be changed."""
        raise NotImplementedError

    def to_image(self) -> Image.Image:
        """Return the whole image as a Pillow image of `mode`; it must not be changed."""
        width, height = self.size
        parts = list(bands(width, height))
        if self.is_plain or len(parts) == 1:
            return self.region((0, 0, width, height))
        out = Image.new(self.mode, self.size)
        for top, bottom in parts:
            out.paste(self.region((0, top, width, bottom)), (0, top))
        return out

    def to_array(self) -> Uint8Array:
        """Return uint8 `[height, width, channels]`."""
        width, height = self.size
        out = np.empty((height, width, len(self.mode)), np.uint8)
        for top, bottom in bands(width, height):
            part = self.region((0, top, width, bottom))
            out[top:bottom] = np.asarray(part).reshape(bottom - top, width, -1)
        return out


class ImagePixels(Pixels):
    """The pixels of a Pillow image, with the EXIF orientation applied as `ImageOps.exif_transpose` does."""

    def __init__(self, image: Image.Image, channels: int) -> None:
        """Load the image; raises Pillow's exceptions, or UnsupportedPixelsError."""
        super().__init__(channels)
        self._stored = StoredImage(image)
        self._orientation = orientation(image)  # after loading: Pillow turns TIFFs itself
        width, height = self._stored.size
        self.size = (height, width) if self._orientation in EXCHANGED else (width, height)
        self.is_plain = self._orientation == 1 and self._stored.is_plain(self.mode)

    def region(self, box: Box) -> Image.Image:
        """Return a region (left, top, right, bottom) as a Pillow image of `mode`."""
        if self._orientation == 1:
            return self._stored.region(box, self.mode)
        left, top, right, bottom = box
        if self._orientation in EXCHANGED:
            left, top, right, bottom = top, left, bottom, right
        width, height = self._stored.size
        if self._orientation in MIRRORED_X:
            left, right = width - right, width - left
        if self._orientation in MIRRORED_Y:
            top, bottom = height - bottom, height - top
        part = self._stored.region((left, top, right, bottom), self.mode)
        return part.transpose(_TRANSPOSES[self._orientation])


class ArrayPixels(Pixels):
    """The pixels of a NumPy array.

    Attributes:
        values: `[height, width, channels]`, as `check_array` accepts them.
    """

    def __init__(self, values: Array, channels: int) -> None:
        """Check the array; raises LayoutError if it is not one that `check_array` accepts."""
        super().__init__(channels)
        self.values = check_array(values)
        self.size = (self.values.shape[1], self.values.shape[0])

    def region(self, box: Box) -> Image.Image:
        """Return a region (left, top, right, bottom) as a Pillow image of `mode`."""
        left, top, right, bottom = box
        stored = StoredImage(from_array(self.values[top:bottom, left:right]))
        return stored.region((0, 0, right - left, bottom - top), self.mode)


def orientation(image: Image.Image) -> int:
    """Return the EXIF orientation, 1 to 8; 1 (upright) if there is none or the EXIF block is damaged."""
    try:
        value = image.getexif().get(ORIENTATION_TAG, 1)
        return value if value in _TRANSPOSES else 1
    except Exception:  # Pillow raises any exception on a damaged EXIF block
        return 1
