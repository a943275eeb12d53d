"""Small PNG files that hold nothing but pixels: Pillow takes longer to open such a file than to decode it."""

from __future__ import annotations

import struct
import zlib

from PIL import Image

MAX_PIXELS = 1 << 16  # of an image; for larger ones the way hardly matters

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_CHUNK = struct.Struct(">I4s")
_CHECKSUM = struct.Struct(">I")
_HEADER = struct.Struct(">IIBBBBB")  # width, height, bits, color type, compression, filter, interlacing
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
        width, height, depth, color, *others = _HEADER.unpack_from(data, len(_SIGNATURE) + _CHUNK.size)
        # The size first: other files are not read further.
        if not 0 < width * height <= MAX_PIXELS or depth != 8 or any(others):
            return None
        mode = _MODES[color]
        return Image.frombytes(mode, (width, height), _compressed(data), "zip", mode)
    except (struct.error, KeyError, ValueError, SyntaxError, OSError):
        return None


def _compressed(data: bytes) -> bytes:
    """The compressed pixels; raises one of the errors above for damage, or if there is anything else."""
    at, parts = len(_SIGNATURE), []
    while True:
        length, kind = _CHUNK.unpack_from(data, at)
        body = data[at + _CHUNK.size : at + _CHUNK.size + length]
        (checksum,) = _CHECKSUM.unpack_from(data, at + _CHUNK.size + length)
        if zlib.crc32(body, zlib.crc32(kind)) != checksum:
            raise ValueError("a damaged chunk")
        if kind == b"IDAT":
            parts.append(body)
        elif kind == b"IEND":
            return b"".join(parts)
        elif at == len(_SIGNATURE):
            if (kind, length) != (b"IHDR", _HEADER.size):
                raise ValueError("a file without a header")
        elif parts or _IGNORED[kind] != length:
            raise ValueError("a chunk at a wrong place, or of a wrong length")
        at += _CHUNK.size + length + _CHECKSUM.size
