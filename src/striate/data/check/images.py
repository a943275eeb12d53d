"""Check of one image: header, readability, and statistics of its pixels."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from striate.data.check.duplicates import Fingerprint, fingerprint
from striate.data.check.sharpness import blur
from striate.errors import DecodeError
from striate.transforms import decode
from striate.transforms.decode import MAX_PIXELS, TRUNCATED, Uint8Array
from striate.transforms.image_file import LargeFile, open_content
from striate.transforms.multiband import to_picture, visible_bands
from striate.transforms.pixels import orientation

SHORTER_SIDE = 160  # pixels; larger images are resized to this before they are measured
_START = 512  # first bytes of a file that `header` needs
_PART = 1 << 20  # bytes of a large file that are hashed at once
MAX_BLUR = 2.2  # pixels of the image itself: standard deviation of the Gaussian
MIN_SIDE = 16  # of images whose blur is measured
DARK, BRIGHT = 48, 220  # luma in 0 to 255
BLANK = 0.92  # fraction of pixels within 4 of the most common luma
MAX_ASPECT = 3.0  # maximum aspect ratio


class Fact(NamedTuple):
    """A property of an image: key of `KINDS`, details, and how bad it is, to sort images of one kind."""

    kind: str
    detail: str
    badness: float = 0.0


@dataclass(frozen=True)
class ImageStats:
    """Result of the check of one image.

    Attributes:
        digest: of the bytes of the file, or of the pixels; empty for unreadable files.
        kind: key of `KINDS` if the image is unusable, else empty.
        error: why it is unusable.
        format: Pillow's name of the format; empty for an image in memory.
        facts: (kind, detail, how bad) of each finding; the larger, the worse.
        size: width and height, upright.
        print: perceptual hash; None for unusable images.
    """

    digest: bytes = b""
    kind: str = ""
    error: str = ""
    format: str = ""
    facts: tuple[Fact, ...] = ()
    size: tuple[int, int] = (0, 0)
    print: Fingerprint | None = None


def inspect_image(source: str | bytes | Uint8Array, name: str) -> ImageStats:
    """Check one image: a path, the bytes of a file, or pixels. Damaged files do not raise."""
    if isinstance(source, np.ndarray):
        image = to_picture(source).convert("RGB")
        luma = np.asarray(image.convert("L"))
        return _measured(image, luma, _digest(np.ascontiguousarray(source).tobytes()), image.size, [], "")
    if isinstance(source, bytes):
        return _inspect_content(source, name)
    try:
        with open_content(source) as content:
            return _inspect_content(content, name)
    except DecodeError as error:
        return ImageStats(kind="denied" if "ermission" in error.why else "unreadable", error=error.why)


def _inspect_content(content: bytes | LargeFile, name: str) -> ImageStats:
    """Check the content of an image file: its bytes, or the open file."""
    if not content:
        return ImageStats(kind="empty", error="0 bytes")
    digest, start = _digest(content), content[:_START] if isinstance(content, bytes) else _start_of(content)
    try:
        if (bands := visible_bands(content, name)) is not None:
            shown = to_picture(bands)
            return _measured(shown, np.asarray(shown.convert("L")), digest, shown.size, [], "TIFF")
        with decode.open_bytes(content, name) as image:
            facts = header(image, start, name)
            kind = image.format or ""
            size = image.size
            image.draft(None, (SHORTER_SIDE, SHORTER_SIDE))  # reads the whole JPEG, but decodes fewer pixels
            reduced = image.size != size
            pixels = decode.to_array(image)
        small = Image.fromarray(pixels)
        luma = _own_luma(content, name) if reduced else np.asarray(small.convert("L"))
    except DecodeError as error:
        return ImageStats(digest, _kind_of_error(error.why), error.why)
    if (pixels.shape[1] > pixels.shape[0]) != (size[0] > size[1]):
        size = size[::-1]  # EXIF rotated it by 90 degrees
    return _measured(small, luma, digest, size, facts, kind)


def _own_luma(data: bytes | LargeFile, name: str) -> Uint8Array:
    """Decode the luma of a JPEG file at its own scale, as it is stored."""
    with decode.open_bytes(data, name) as image:
        image.draft("L", image.size)  # skips the colors
        return np.asarray(image.convert("L"))


def header(image: Image.Image, data: bytes, name: str) -> list[Fact]:
    """Check the header of an opened image; `data` are the first bytes of its file, or all."""
    facts = []
    suffix = Path(name).suffix.lower()
    meant = Image.registered_extensions().get(suffix)
    kind = image.format or ""
    if meant is not None and _family(meant) != _family(kind):
        facts.append(Fact("wrong-name", f"{kind} named {suffix}"))
    if getattr(image, "is_animated", False):
        facts.append(Fact("animated", f"{kind} with several images"))
    bits = _bits(image, data)
    if bits > 8:
        facts.append(Fact("deep", f"{bits} bits, {image.mode}", bits))
    elif image.mode != "RGB" or image.has_transparency_data:
        transparent = ", transparent" if image.has_transparency_data else ""
        facts.append(Fact("not-rgb", _MODES.get(image.mode, image.mode) + transparent))
    if (turned := orientation(image)) != 1:
        facts.append(Fact("turned", f"orientation {turned}"))
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
    image: Image.Image, luma: Uint8Array, digest: bytes, size: tuple[int, int], facts: list[Fact], kind: str
) -> ImageStats:
    """Measure the pixels of an image, which may be smaller than `luma`, that has the image's own scale."""
    scale = SHORTER_SIDE / min(image.size)
    if scale < 1:
        small = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
        image = image.resize(small, Image.Resampling.BILINEAR)
    found = [*facts, *_pixel_facts(np.asarray(image.convert("L")), luma)]
    long, short = max(size), min(size)
    if long > MAX_ASPECT * short:
        found.append(Fact("odd-shape", f"{size[0]}x{size[1]} px", long / short))
    return ImageStats(digest, "", "", kind, tuple(found), size, fingerprint(image, short))


def _pixel_facts(small: Uint8Array, luma: Uint8Array) -> list[Fact]:
    """Find blank, dark, overexposed and blurred images in luma `[height, width]`, resized and not."""
    facts = []
    counts = np.bincount(small.ravel(), minlength=256)
    shares = np.cumsum(counts) / small.size
    common = float(np.convolve(counts, np.ones(9), "same").max() / small.size)
    if common >= BLANK and small.size >= 64:
        return [Fact("odd-one-out", f"{100 * common:.0f} % of the pixels have one shade", common)]
    if shares[DARK] >= 0.95:
        most = int(np.searchsorted(shares, 0.95))
        facts.append(Fact("dark", f"95 % of the pixels are at most {most} of 255", -most))
    elif shares[BRIGHT - 1] <= 0.10:
        least = int(np.searchsorted(shares, 0.1, "right"))
        facts.append(Fact("overexposed", f"90 % of the pixels are at least {least} of 255", least))
    if min(luma.shape) >= MIN_SIDE and (pixels := blur(luma)) > MAX_BLUR:
        facts.append(Fact("blurred", f"its sharpest edges are blurred by {pixels:.1f} px", pixels))
    return facts


def _kind_of_error(why: str) -> str:
    if why.startswith(TRUNCATED):
        return "truncated"
    return "bomb" if f"{MAX_PIXELS:,} pixels" in why else "unreadable"


def _digest(content: bytes | LargeFile) -> bytes:
    if isinstance(content, bytes):
        return hashlib.blake2b(content, digest_size=16).digest()
    digest, at = hashlib.blake2b(digest_size=16), 0
    while part := os.pread(content.fileno(), _PART, at):
        digest.update(part)
        at += len(part)
    return digest.digest()


def _start_of(file: LargeFile) -> bytes:
    file.seek(0)
    return file.read(_START)
