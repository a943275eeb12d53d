"""One image, looked at: what its header says, whether it can be read, and a few measures of its pixels."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from striate.data.check.duplicates import Fingerprint, fingerprint
from striate.errors import DecodeError
from striate.transforms.decode import (
    MAX_PIXELS,
    ORIENTATION_TAG,
    TRUNCATED,
    Uint8Array,
    open_bytes,
    read_file,
    to_array,
)

LOOKED_AT = 160  # pixels of the shorter side that pictures are scaled down to before they are measured
SHARP = 0.08  # least contrast of neighbouring pixels (Laplacian), as a share of the contrast of the whole
DARK, BRIGHT = 48, 220  # luma of 255
BLANK = 0.92  # share of pixels within four levels of the most common luma
LONG = 3.0  # times as long as wide


@dataclass(frozen=True)
class ImageStats:
    """What was seen of one image.

    Attributes:
        digest: of the file's bytes, or of the pixels; empty where there are none.
        kind: of `KINDS`, if the image is of no use; empty where it can be read.
        error: why not.
        format: Pillow's name for it, empty for an image in memory.
        facts: kind -> detail, of what is remarkable of this image by itself.
        size: width and height, upright.
        print: to know the picture again; None where it cannot be read.
    """

    digest: bytes = b""
    kind: str = ""
    error: str = ""
    format: str = ""
    facts: tuple[tuple[str, str], ...] = ()
    size: tuple[int, int] = (0, 0)
    print: Fingerprint | None = None


def inspect_image(source: str | bytes | Uint8Array, name: str) -> ImageStats:
    """Look at one image: a path, the bytes of a file, or its pixels.

    Never raises for what is wrong with a file: that is what is reported.
    """
    if isinstance(source, np.ndarray):
        image = Image.fromarray(np.ascontiguousarray(source)).convert("RGB")
        return _seen(image, _digest(np.ascontiguousarray(source).tobytes()), image.size, {}, "")
    try:
        data = read_file(source) if isinstance(source, str) else source
    except DecodeError as error:
        return ImageStats(kind="denied" if "ermission" in error.why else "unreadable", error=error.why)
    if not data:
        return ImageStats(kind="empty", error="0 bytes")
    digest = _digest(data)
    try:
        with open_bytes(data, name) as image:
            facts = header(image, data, name)
            kind = image.format or ""
            size = image.size
            image.draft(None, (LOOKED_AT, LOOKED_AT))  # decodes every byte of a JPEG, to fewer pixels
            pixels = to_array(image)
    except DecodeError as error:
        return ImageStats(digest, _fault(error.why), error.why)
    if (pixels.shape[1] > pixels.shape[0]) != (size[0] > size[1]):
        size = size[::-1]  # EXIF turned it by a quarter
    return _seen(Image.fromarray(pixels), digest, size, facts, kind)


def header(image: Image.Image, data: bytes, name: str) -> dict[str, str]:
    """What the header of an opened image tells: kind -> detail."""
    facts = {}
    suffix = Path(name).suffix.lower()
    meant = Image.registered_extensions().get(suffix)
    kind = image.format or ""
    if meant is not None and _family(meant) != _family(kind):
        facts["wrong-name"] = f"{kind} named {suffix}"
    if getattr(image, "is_animated", False):
        facts["animated"] = f"{kind} with several pictures"
    bits = _bits(image, data)
    if bits > 8:
        facts["deep"] = f"{bits} bits, {image.mode}"
    elif image.mode != "RGB" or image.has_transparency_data:
        facts["not-rgb"] = _MODES.get(image.mode, image.mode) + (
            ", transparent" if image.has_transparency_data else ""
        )
    try:
        turned = image.getexif().get(ORIENTATION_TAG)
    except Exception:  # a damaged EXIF block, on which Pillow raises anything at all
        turned = None
    if turned in range(2, 9):
        facts["turned"] = f"orientation {turned}"
    return facts


_MODES = {
    "1": "1-bit", "L": "gray", "LA": "gray", "P": "palette", "PA": "palette", "RGBA": "RGBA", "CMYK": "CMYK",
    "YCbCr": "YCbCr", "LAB": "LAB", "La": "gray", "RGBa": "RGBA",
}  # fmt: skip


def _family(kind: str) -> str:
    """Formats that share suffixes by custom."""
    return {"MPO": "JPEG", "DIB": "BMP", "AVIF": "HEIF"}.get(kind, kind)


def _bits(image: Image.Image, data: bytes) -> int:
    """Bits of a channel; Pillow tells 16-bit RGB as RGB."""
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


def _seen(
    image: Image.Image, digest: bytes, size: tuple[int, int], facts: dict[str, str], kind: str
) -> ImageStats:
    scale = LOOKED_AT / min(image.size)
    if scale < 1:
        small = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
        image = image.resize(small, Image.Resampling.BILINEAR)
    facts = {**facts, **_measures(np.asarray(image.convert("L")))}
    long, short = max(size), min(size)
    if long > LONG * short:
        facts["odd-shape"] = f"{size[0]}x{size[1]} px"
    return ImageStats(digest, "", "", kind, tuple(facts.items()), size, fingerprint(image, short))


def _measures(luma: Uint8Array) -> dict[str, str]:
    """What is remarkable of the pixels, uint8 `[height, width]`: kind -> detail."""
    facts = {}
    counts = np.bincount(luma.ravel(), minlength=256)
    shares = np.cumsum(counts) / luma.size
    common = np.convolve(counts, np.ones(9), "same").max() / luma.size
    if common >= BLANK and luma.size >= 64:
        facts["odd-one-out"] = f"{100 * common:.0f} % of it one shade"
    elif shares[DARK] >= 0.95:
        facts["dark"] = f"95 % of it at most {int(np.searchsorted(shares, 0.95))} of 255"
    elif shares[BRIGHT - 1] <= 0.10:
        facts["overexposed"] = f"90 % of it at least {int(np.searchsorted(shares, 0.1, 'right'))} of 255"
    if "odd-one-out" not in facts and min(luma.shape) >= 16:
        x = luma.astype(np.float32)
        laplacian = 4 * x[1:-1, 1:-1] - x[:-2, 1:-1] - x[2:, 1:-1] - x[1:-1, :-2] - x[1:-1, 2:]
        sharpness = laplacian.std() / (x.std() + 1)
        if sharpness < SHARP:
            facts["blurred"] = f"sharpness {sharpness:.3f}, under {SHARP}"
    return facts


def _fault(why: str) -> str:
    if why.startswith(TRUNCATED):
        return "truncated"
    return "bomb" if f"{MAX_PIXELS:,} pixels" in why else "unreadable"


def _digest(data: bytes) -> bytes:
    return hashlib.blake2b(data, digest_size=16).digest()
