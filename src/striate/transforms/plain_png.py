"""Small PNG files that hold nothing but pixels: Pillow takes longer to open such a file than to decode it."""

from __future__ import annotations

import struct
import zlib

from PIL import Image

MAX_PIXELS = 1 << 16  # of an image; for larger ones the way hardly matters

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_CHUNK = struct.Struct(">I4s")
_CHECKSUM = struct.Struct(">I")
_HEADER = struct.Struct(">IIBBBBB")
_MODES = {0: "L", 2: "RGB"}  # by the color type of the header
# Chunks that change no pixel, with their lengths: of another length they are errors.
_IGNORED = {b"pHYs": 9, b"tIME": 7, b"gAMA": 4, b"sRGB": 1, b"cHRM": 32}


def open_plain_png(data: bytes) -> Image.Image | None:
    """Decode a small PNG of 8-bit gray or RGB values that has nothing but pixels.

    Args:
        data: bytes of a file.

    Returns:
        A Pillow image of mode `L` or `RGB`; None for any other file, also a damaged one: Pillow reads those,
        and knows what is wrong.
    """
    if not data.startswith(_SIGNATURE):
        return None
    try:
        header, pixels = _chunks(data)
        width, height, depth, color, compression, filters, interlaced = _HEADER.unpack(header)
        if depth != 8 or compression or filters or interlaced or not 0 < width * height <= MAX_PIXELS:
            return None
        mode = _MODES[color]
        return Image.frombytes(mode, (width, height), pixels, "zip", mode)
    except (struct.error, KeyError, ValueError, SyntaxError, OSError):
        return None


def _chunks(data: bytes) -> tuple[bytes, bytes]:
    """The header and the compressed pixels; raises one of the errors above if there is anything else."""
    at, header, parts = len(_SIGNATURE), b"", []
    while True:
        length, kind = _CHUNK.unpack_from(data, at)
        body = data[at + 8 : at + 8 + length]
        (checksum,) = _CHECKSUM.unpack_from(data, at + 8 + length)
        if zlib.crc32(body, zlib.crc32(kind)) != checksum:
            raise ValueError("a damaged chunk")
        at += 12 + length
        if kind == b"IHDR" and not header:
            header = body
        elif kind == b"IDAT":
            parts.append(body)
        elif kind == b"IEND":
            return header, b"".join(parts)
        elif parts or _IGNORED[kind] != length:
            raise ValueError("a chunk at a wrong place, or of a wrong length")
