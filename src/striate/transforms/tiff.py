"""Read TIFF files of any number of bands, which Pillow cannot: 8 or 16 bits, in strips or tiles.

Format: Adobe, "TIFF Revision 6.0" (1992): sections 2 (structure), 9 (PackBits), 13 (LZW), 14 (differencing),
15 (tiles); Deflate is from Adobe's Photoshop TIFF technical notes (2002); BigTIFF is Aware Systems' proposal.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import product

import numpy as np

from striate.transforms.pixel_formats import Array, UnsupportedPixelsError

_TYPES = {1: "B", 3: "H", 4: "I", 13: "I", 16: "Q", 18: "Q"}  # of whole numbers
BYTE_ORDERS = {b"II": "<", b"MM": ">"}  # the first two bytes
_WIDTH, _HEIGHT, _BITS, _COMPRESSION, _STRIPS, _SAMPLES = 256, 257, 258, 259, 273, 277
_ROWS, _STRIP_BYTES, _PLANAR, _PREDICTOR, _TILE_WIDTH, _TILE_HEIGHT = 278, 279, 284, 317, 322, 323
_TILES, _TILE_BYTES, _FORMAT = 324, 325, 339
_MOST_TILE_PIXELS = 1 << 24  # of a tile that is larger than the image
_MOST_ENTRIES = 4096  # of a directory
_MOST_VALUES = 1 << 20  # of a tag
_CLEAR, _END = 256, 257  # codes of LZW


@dataclass(frozen=True)
class Tiff:
    """The first image of a TIFF file.

    Attributes:
        data: the file.
        order: `<` or `>`.
        tags: number of a tag -> its values.
    """

    data: bytes
    order: str
    tags: dict[int, tuple[int, ...]]

    @property
    def size(self) -> tuple[int, int]:
        """Width and height."""
        return self._one(_WIDTH), self._one(_HEIGHT)

    @property
    def bands(self) -> int:
        """Samples of a pixel."""
        return self._one(_SAMPLES, 1)

    def read(self) -> Array:
        """The pixels, uint8 or uint16 `[height, width, bands]`.

        Raises:
            UnsupportedPixelsError: values or a compression that this reader does not know.
            ValueError, IndexError, zlib.error: the file is damaged.
        """
        (width, height), bands = self.size, self.bands
        bits, kind = set(self.tags.get(_BITS, (1,))), set(self.tags.get(_FORMAT, (1,)))
        if bits not in ({8}, {16}) or kind != {1}:
            why = f"its bands have {'/'.join(map(str, sorted(bits)))} bits"
            more = "" if kind == {1} else ", signed or floating point"
            raise UnsupportedPixelsError(f"{why}{more}: bands must be unsigned, of 8 or 16 bits")
        dtype = np.dtype(f"{self.order}u{1 if bits == {8} else 2}")
        planes, depth = (bands, 1) if self._one(_PLANAR, 1) == 2 else (1, bands)
        out = np.zeros((height, width, bands), dtype.newbyteorder("="))
        for plane, (top, left, rows, columns), chunk in self._chunks(planes):
            values = self._decoded(chunk, rows * columns * depth * dtype.itemsize)
            block = np.frombuffer(values, dtype).reshape(rows, columns, depth)
            if self._one(_PREDICTOR, 1) == 2:
                block = np.cumsum(block, axis=1, dtype=out.dtype)
            elif self._one(_PREDICTOR, 1) != 1:
                raise UnsupportedPixelsError(f"it has predictor {self._one(_PREDICTOR)}")
            part = out[top : top + rows, left : left + columns, plane * depth : (plane + 1) * depth]
            part[:] = block[: part.shape[0], : part.shape[1]]
        return out

    def _one(self, tag: int, default: int | None = None) -> int:
        values = self.tags.get(tag, () if default is None else (default,))
        if not values:
            raise ValueError(f"tag {tag} is missing")
        return values[0]

    def _chunks(self, planes: int) -> Iterator[tuple[int, tuple[int, int, int, int], bytes]]:
        """The plane, the place (top, left, rows, columns) and the bytes of each strip or tile."""
        width, height = self.size
        if _TILES in self.tags:
            rows, columns = self._one(_TILE_HEIGHT), self._one(_TILE_WIDTH)
            starts, lengths = self.tags[_TILES], self.tags[_TILE_BYTES]
        else:
            rows, columns = min(self._one(_ROWS, height), height), width
            starts, lengths = self.tags[_STRIPS], self.tags[_STRIP_BYTES]
        if min(rows, columns) < 1 or rows * columns > max(width * height, _MOST_TILE_PIXELS):
            raise ValueError(f"tiles of {columns}x{rows}")
        tops, lefts = range(0, height, rows), range(0, width, columns)
        if planes * len(tops) * len(lefts) > min(len(starts), len(lengths)):
            raise ValueError("strips or tiles are missing")
        places = product(range(planes), tops, lefts)
        for (plane, top, left), start, length in zip(places, starts, lengths, strict=False):
            kept = rows if _TILES in self.tags else min(rows, height - top)
            yield plane, (top, left, kept, columns), self.data[start : start + length]

    def _decoded(self, chunk: bytes, size: int) -> bytes:
        """The bytes of a strip or tile, exactly so many."""
        method = self._one(_COMPRESSION, 1)
        if method not in _METHODS:
            raise UnsupportedPixelsError(
                f"it has compression {method}; none, LZW, Deflate, PackBits are read"
            )
        values = _METHODS[method](chunk, size)
        if len(values) < size:
            raise EOFError("a strip is truncated")
        return values[:size]


def parse(data: bytes) -> Tiff | None:
    """Read the tags of the first image; None if the bytes are no TIFF, or its directory is damaged."""
    order = BYTE_ORDERS.get(data[:2])
    if order is None:
        return None
    try:
        version = struct.unpack_from(f"{order}H", data, 2)[0]
        if version not in (42, 43):
            return None
        big = version == 43
        start = struct.unpack_from(f"{order}Q" if big else f"{order}I", data, 8 if big else 4)[0]
        count = struct.unpack_from(f"{order}Q" if big else f"{order}H", data, start)[0]
        first, entry, inside = (start + 8, 20, 8) if big else (start + 2, 12, 4)
        tags = {}
        for at in range(first, first + entry * min(count, _MOST_ENTRIES), entry):
            tag, kind = struct.unpack_from(f"{order}HH", data, at)
            number = struct.unpack_from(f"{order}Q" if big else f"{order}I", data, at + 4)[0]
            if kind not in _TYPES or not 0 < number <= _MOST_VALUES:
                continue
            form, place = f"{order}{number}{_TYPES[kind]}", at + entry - inside
            if struct.calcsize(form) > inside:
                place = struct.unpack_from(f"{order}Q" if big else f"{order}I", data, place)[0]
            tags[tag] = struct.unpack_from(form, data, place)
    except struct.error:
        return None
    return Tiff(data, order, tags)


def _inflate(chunk: bytes, size: int) -> bytes:
    return zlib.decompressobj().decompress(chunk, size)


def _unpack_bits(chunk: bytes, size: int) -> bytes:
    """PackBits: runs of literal bytes and of one repeated byte."""
    out, at = bytearray(), 0
    while at < len(chunk) and len(out) < size:
        code = chunk[at]
        if code < 128:
            out += chunk[at + 1 : at + 2 + code]
            at += 2 + code
        else:
            if code > 128:
                out += chunk[at + 1 : at + 2] * (257 - code)
            at += 2 if code > 128 else 1
    return bytes(out)


def _lzw(chunk: bytes, size: int) -> bytes:
    """LZW with codes of 9 to 12 bits, most significant bit first; they grow one code early."""
    base = [bytes([i]) for i in range(256)] + [b"", b""]
    table, out, length = list(base), bytearray(), 0
    before, bits, held, count = b"", 9, 0, 0
    for byte in chunk:
        held, count = held << 8 | byte, count + 8
        if count < bits:
            continue
        count -= bits
        code, held = held >> count, held & (1 << count) - 1
        if code == _END or length >= size:
            break
        if code == _CLEAR:
            table, before, bits = list(base), b"", 9
            continue
        if not before:
            word = table[code]
        else:
            word = table[code] if code < len(table) else before + before[:1]
            table.append(before + word[:1])
        out += word
        length, before = length + len(word), word
        bits = min(12, max(9, (len(table) + 1).bit_length()))
    return bytes(out)


_METHODS: dict[int, Callable[[bytes, int], bytes]] = {
    1: lambda chunk, _: chunk, 5: _lzw, 8: _inflate, 32946: _inflate, 32773: _unpack_bits,
}  # fmt: skip
