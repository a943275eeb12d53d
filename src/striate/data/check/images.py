"""Check of one image: header, readability, and statistics of its pixels."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from striate.data.check.duplicates import Fingerprint, fingerprint
from striate.errors import DecodeError
from striate.transforms import decode
from striate.transforms.decode import MAX_PIXELS, TRUNCATED, Uint8Array
from striate.transforms.pixels import orientation

SHORTER_SIDE = 160  # pixels; larger images are resized to this before they are measured
MIN_SHARPNESS = 0.08  # minimum standard deviation of the Laplacian over that of the luma
DARK, BRIGHT = 48, 220  # luma in 0 to 255
BLANK = 0.92  # fraction of pixels within 4 of the most common luma
MAX_ASPECT = 3.0  # maximum aspect ratio


@dataclass(frozen=True)
class ImageStats:
    """Result of the check of one image.

    Attributes:
        digest: of the bytes of the file, or of the pixels; empty for unreadable files.
        kind: key of `KINDS` if the image is unusable, else empty.
        error: why it is unusable.
        format: Pillow's name of the format; empty for an image in memory.
        facts: (kind, detail) of each finding.
        size: width and height, upright.
        print: perceptual hash; None for unusable images.
    """

    digest: bytes = b""
    kind: str = ""
    error: str = ""
    format: str = ""
    facts: tuple[tuple[str, str], ...] = ()
    size: tuple[int, int] = (0, 0)
    print: Fingerprint | None = None


def inspect_image(source: str | bytes | Uint8Array, name: str) -> ImageStats:
    """Check one image: a path, the bytes of a file, or pixels. Damaged files do not raise."""
    if isinstance(source, np.ndarray):
        image = Image.fromarray(np.ascontiguousarray(source)).convert("RGB")
        return _measured(image, _digest(np.ascontiguousarray(source).tobytes()), image.size, {}, "")
    try:
        data = decode.read_file(source) if isinstance(source, str) else source
    except DecodeError as error:
        return ImageStats(kind="denied" if "ermission" in error.why else "unreadable", error=error.why)
    if not data:
        return ImageStats(kind="empty", error="0 bytes")
    digest = _digest(data)
    try:
        with decode.open_bytes(data, name) as image:
            facts = header(image, data, name)
            kind = image.format or ""
            size = image.size
            image.draft(None, (SHORTER_SIDE, SHORTER_SIDE))  # reads the whole JPEG, but decodes fewer pixels
            pixels = decode.to_array(image)
    except DecodeError as error:
        return ImageStats(digest, _kind_of_error(error.why), error.why)
    if (pixels.shape[1] > pixels.shape[0]) != (size[0] > size[1]):
        size = size[::-1]  # EXIF rotated it by 90 degrees
    return _measured(Image.fromarray(pixels), digest, size, facts, kind)


def header(image: Image.Image, data: bytes, name: str) -> dict[str, str]:
    """Check the header of an opened image; return kind -> detail."""
    facts = {}
    suffix = Path(name).suffix.lower()
    meant = Image.registered_extensions().get(suffix)
    kind = image.format or ""
    if meant is not None and _family(meant) != _family(kind):
        facts["wrong-name"] = f"{kind} named {suffix}"
    if getattr(image, "is_animated", False):
        facts["animated"] = f"{kind} with several images"
    bits = _bits(image, data)
    if bits > 8:
        facts["deep"] = f"{bits} bits, {image.mode}"
    elif image.mode != "RGB" or image.has_transparency_data:
        transparent = ", transparent" if image.has_transparency_data else ""
        facts["not-rgb"] = _MODES.get(image.mode, image.mode) + transparent
    if (turned := orientation(image)) != 1:
        facts["turned"] = f"orientation {turned}"
    return facts


_MODES = {
    "1": "1-bit", "L": "gray", "LA": "gray", "P": "palette", "PA": "palette", "RGBA": "RGBA", "CMYK": "CMYK",
    "YCbCr": "YCbCr", "LAB": "LAB", "La": "gray", "RGBa": "RGBA",
}  # fmt: skip


def _family(kind: str) -> str:
    """Map formats with common suffixes to one name."""
    return {"MPO": "JPEG", "DIB": "BMP", "AVIF": "HEIF"}.get(kind, kind)


def _bits(image: Image.Image, data: bytes) -> int:
    """Return bits per channel; Pillow reports 16-bit RGB as RGB."""
    if image.mode.startswith("I;16"):
        return 16
    if image.mode in ("I", "F"):
        return 32
    if image.format == "PNG" and data[12:16] == b"IHDR":
        return data[24]
    if image.format == "TIFF":
        depth = getattr(image, "tag_v2", {}).get(258, 8)
        return int(max(depth) if isinstance(depth, tuple) else depth)
    return 8


def _measured(
    image: Image.Image, digest: bytes, size: tuple[int, int], facts: dict[str, str], kind: str
) -> ImageStats:
    scale = SHORTER_SIDE / min(image.size)
    if scale < 1:
        small = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
        image = image.resize(small, Image.Resampling.BILINEAR)
    facts = {**facts, **_pixel_facts(np.asarray(image.convert("L")))}
    long, short = max(size), min(size)
    if long > MAX_ASPECT * short:
        facts["odd-shape"] = f"{size[0]}x{size[1]} px"
    return ImageStats(digest, "", "", kind, tuple(facts.items()), size, fingerprint(image, short))


def _pixel_facts(luma: Uint8Array) -> dict[str, str]:
    """Find blank, dark, overexposed and blurred images in luma `[height, width]`; return kind -> detail."""
    facts = {}
    counts = np.bincount(luma.ravel(), minlength=256)
    shares = np.cumsum(counts) / luma.size
    common = np.convolve(counts, np.ones(9), "same").max() / luma.size
    if common >= BLANK and luma.size >= 64:
        facts["odd-one-out"] = f"{100 * common:.0f} % of the pixels have one shade"
    elif shares[DARK] >= 0.95:
        facts["dark"] = f"95 % of the pixels are at most {int(np.searchsorted(shares, 0.95))} of 255"
    elif shares[BRIGHT - 1] <= 0.10:
        least = int(np.searchsorted(shares, 0.1, "right"))
        facts["overexposed"] = f"90 % of the pixels are at least {least} of 255"
    if "odd-one-out" not in facts and min(luma.shape) >= 16:
        x = luma.astype(np.float32)
        laplacian = 4 * x[1:-1, 1:-1] - x[:-2, 1:-1] - x[2:, 1:-1] - x[1:-1, :-2] - x[1:-1, 2:]
        sharpness = laplacian.std() / (x.std() + 1)
        if sharpness < MIN_SHARPNESS:
            facts["blurred"] = f"sharpness {sharpness:.3f}, below {MIN_SHARPNESS}"
    return facts


def _kind_of_error(why: str) -> str:
    if why.startswith(TRUNCATED):
        return "truncated"
    return "bomb" if f"{MAX_PIXELS:,} pixels" in why else "unreadable"


def _digest(data: bytes) -> bytes:
    return hashlib.blake2b(data, digest_size=16).digest()
