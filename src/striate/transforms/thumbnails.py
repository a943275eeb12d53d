"""Small JPEG images for pages."""

from __future__ import annotations

import base64
import io

from PIL import Image

from striate.transforms.decode import Uint8Array
from striate.transforms.multiband import to_picture


def jpeg(image: Uint8Array, longest: int = 96, quality: int = 80) -> bytes:
    """A JPEG of an image that is reduced to at most `longest` pixels on its longer side.

    Args:
        image: uint8 `[height, width, channels]`; of more than three channels the first three are shown.
        longest: an image that is not larger keeps its size.
        quality: as Pillow's.
    """
    picture = to_picture(image)
    if max(picture.size) > longest:
        picture.thumbnail((longest, longest), Image.Resampling.BILINEAR, reducing_gap=2.0)
    out = io.BytesIO()
    picture.save(out, "JPEG", quality=quality)
    return out.getvalue()


def thumbnail(image: Uint8Array, longest: int = 96) -> str:
    """The URL of `jpeg`, for the `src` of an image."""
    return data_url(jpeg(image, longest), "jpeg")


def data_url(content: bytes, kind: str) -> str:
    """Return the URL that holds an image file, of the kind `png` or `jpeg`."""
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"
