"""JPEG files: fast decoding, also at 1/2, 1/4 or 1/8 of their size.

libjpeg then leaves out the high frequencies of each block, which takes less time. Pillow calls it `draft`.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable
from typing import Literal

import simplejpeg
from PIL import Image, JpegImagePlugin

from striate.transforms.pixel_formats import Box, Uint8Array, file_content
from striate.transforms.pixels import (
    EXCHANGED,
    MIRRORED_X,
    MIRRORED_Y,
    ORIENTATION_TAG,
    Frame,
    ImagePixels,
    Pixels,
    orientation,
)

# The smallest width and height at which an image of this width and height may be decoded.
Needed = Callable[[tuple[int, int]], tuple[int, int]]


def reduce(image: Image.Image, needed: Needed | None) -> Frame | None:
    """Have a JPEG file that is not decoded yet decoded at 1/2, 1/4 or 1/8 of its size, if that is enough.

    Args:
        image: as Pillow opened it; other formats are left alone.
        needed: of upright sizes; None for full size.

    Returns:
        Where the picture will be in the upright pixels; None if it is decoded at full size.
    """
    if needed is None or not isinstance(image, JpegImagePlugin.JpegImageFile):
        return None
    size, turned = image.size, orientation(image)
    full_size = size[::-1] if turned in EXCHANGED else size
    wanted = needed(full_size)
    drafted = image.draft(None, wanted[::-1] if turned in EXCHANGED else wanted)
    if drafted is None or image.size == size:
        return None
    width, height = drafted[1][2:]  # with a part of the last pixel
    left = image.width - width if turned in MIRRORED_X else 0.0
    top = image.height - height if turned in MIRRORED_Y else 0.0
    box = left, top, left + width, top + height
    return Frame(full_size, (box[1], box[0], box[3], box[2]) if turned in EXCHANGED else box)


def reopened(image: Image.Image) -> Image.Image:
    """Open the file of a JPEG image a second time, if it is not decoded yet; return other images themselves.

    The copy can be decoded at a fraction of its size without a change of the caller's image.
    """
    is_first = isinstance(image, JpegImagePlugin.JpegImageFile) and image.tell() == 0
    content = file_content(image) if is_first and getattr(image, "tile", None) else None
    if content is None:
        return image
    again = Image.open(io.BytesIO(content), formats=("JPEG",))
    if (again.size, again.mode) != (image.size, image.mode):  # the caller has called draft()
        return image
    again.getexif()[ORIENTATION_TAG] = orientation(image)  # the caller may have changed it
    return again


class JpegPixels(Pixels):
    """A JPEG file that needs no conversion; decoded by simplejpeg, if only the array is needed."""

    def __init__(self, image: Image.Image, data: bytes, channels: Literal[1, 3]) -> None:
        super().__init__(channels)
        self.size, self.is_plain = image.size, True
        self._image, self._data, self._channels = image, data, channels

    def region(self, box: Box) -> Image.Image:
        """Return a region as a Pillow image."""
        return ImagePixels(self._image, self._channels).region(box)

    def to_array(self) -> Uint8Array:
        """Return uint8 `[height, width, channels]`."""
        # Bit-identical to Pillow, which takes a third longer to copy the pixels. If libjpeg-turbo reports an
        # error, or knows no such fraction, Pillow decides.
        space = "RGB" if self._channels == 3 else "GRAY"
        width, height = (0, 0) if self.frame is None else self.size  # 0 is full size
        with contextlib.suppress(ValueError):
            pixels: Uint8Array = simplejpeg.decode_jpeg(self._data, space, min_height=height, min_width=width)
            if pixels.shape[1::-1] == self.size:
                return pixels
        return ImagePixels(self._image, self._channels).to_array()
