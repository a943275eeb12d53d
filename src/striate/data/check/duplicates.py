"""The same picture in different files: a perceptual hash, an index over it, and a second look.

The hash is the sign of the 63 lowest frequencies of the discrete cosine transform of the picture at 32x32
pixels, as in Zauner, Implementation and Benchmarking of Perceptual Image Hash Functions (2010), section
3.2.1, with the sign in place of the comparison with the median: mirroring a picture then flips known bits
(those of odd frequencies), and turning it permutes them: one hash gives those of all eight positions.

Two hashes that differ in at most five of 63 bits differ in at most one of 21 in some third of them: the
index of Norouzi, Punjani and Fleet, Fast Search in Hamming Space with Multi-Index Hashing (CVPR 2012),
section 3.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

from striate.transforms.decode import Uint8Array

RADIUS = 5  # bits of 63 in which the hashes of one picture may differ
ALIKE = 0.97  # least correlation of the luma of two files of one picture, at 16x16 pixels
TINT = 20.0  # largest root mean square difference of their chroma at 4x4 pixels, of 255
LEAST_SIDE = 32  # of the larger of two files: below, different handwritten digits look the same
LEAST_CONTRAST = (
    4.0  # standard deviation of the luma at 16x16 pixels, of 255: below, there is nothing to compare
)
MOST_NEIGHBOURS = (
    512  # of one key of the index that are compared: frames of a fixed camera all are neighbours
)

_SIDE, _KEPT, _BANDS = 32, 8, 3
_WIDTH = (_KEPT * _KEPT - 1) // _BANDS  # 21 bits in each band
_BATCH = 1 << 20  # pairs in one step

Hashes = npt.NDArray[np.uint64]
Pairs = npt.NDArray[np.int64]


class Fingerprint(NamedTuple):
    """What is kept of a picture to know it again.

    Attributes:
        bits: bool `[8, 8]`, the signs of the lowest frequencies.
        luma: uint8 `[16, 16]`.
        chroma: int8 `[4, 4, 2]`, blue and red difference (ITU-R 601), all zero for gray.
        side: the shorter side of the picture, in pixels.
    """

    bits: npt.NDArray[np.bool_]
    luma: Uint8Array
    chroma: npt.NDArray[np.int8]
    side: int


def _cosines() -> npt.NDArray[np.float32]:
    """The lowest rows of the DCT-II of 32 values."""
    k, x = np.arange(_KEPT)[:, None], np.arange(_SIDE)[None, :]
    rows: npt.NDArray[np.float32] = np.cos(np.pi / _SIDE * (x + 0.5) * k).astype(np.float32)
    return rows


_DCT = _cosines()


def fingerprint(pixels: Image.Image, side: int) -> Fingerprint:
    """The print of an RGB image, of which `side` was the shorter side before it was scaled down."""
    scaling = Image.Resampling.BOX if min(pixels.size) >= _SIDE else Image.Resampling.BILINEAR
    small = pixels.resize((_SIDE, _SIDE), scaling)
    ycc = np.asarray(small.convert("YCbCr"), np.float32)
    bits = _DCT @ ycc[..., 0] @ _DCT.T > 0
    luma = ycc[..., 0].reshape(16, 2, 16, 2).mean((1, 3))
    chroma = ycc[..., 1:].reshape(4, 8, 4, 8, 2).mean((1, 3)) - 128
    return Fingerprint(
        bits, np.rint(luma).astype(np.uint8), np.rint(chroma).clip(-127, 127).astype(np.int8), side
    )


def find_copies(prints: list[Fingerprint]) -> Pairs:
    """The pairs `[n, 2]` of prints that are of one picture, re-encoded, scaled, turned or mirrored.

    Blank pictures, of less than `LEAST_CONTRAST`, have no pair.
    """
    if max((p.side for p in prints), default=0) < LEAST_SIDE:
        return np.empty((0, 2), np.int64)
    luma = np.stack([p.luma for p in prints])
    chroma = np.stack([p.chroma for p in prints])
    sides = np.array([p.side for p in prints])
    own = np.flatnonzero(luma.std((1, 2)) >= LEAST_CONTRAST)
    bits = np.stack([p.bits for p in prints])[own]
    found = [np.empty((0, 2), np.int64)]
    for position in range(8):
        first, second = neighbors(_packed(bits), _packed(_moved_bits(bits, position)))
        first, second = own[first], own[second]
        keep = (first < second) & (np.maximum(sides[first], sides[second]) >= LEAST_SIDE)
        first, second = first[keep], second[keep]
        for at in range(0, len(first), 1 << 16):
            a, b = first[at : at + (1 << 16)], second[at : at + (1 << 16)]
            alike = _correlation(luma[a], _moved(luma[b], position)) >= ALIKE
            alike &= _tint(chroma[a], _moved(chroma[b], position)) <= TINT
            found.append(np.stack([a[alike], b[alike]], axis=1))
    return np.unique(np.concatenate(found), axis=0)


def neighbors(hashes: Hashes, others: Hashes, radius: int = RADIUS) -> tuple[Pairs, Pairs]:
    """The positions of all hashes and others that differ in at most `radius` (up to five) of 63 bits.

    In time and memory about linear in their number: tables of 21-bit keys, no comparison of all with all.
    Where one key has more than `MOST_NEIGHBOURS`, so many are compared.
    """
    pairs = [np.empty(0, np.int64)]
    flips = [0, *(1 << bit for bit in range(_WIDTH))]
    for band in range(_BANDS):
        mine, theirs = _band(hashes, band), _band(others, band)
        order = np.argsort(theirs, kind="stable")
        table = theirs[order]
        queries = np.argsort(
            mine, kind="stable"
        )  # in order, so that neighbours in the table are met together
        for flip in flips:
            wanted = mine[queries] ^ flip
            start = np.searchsorted(table, wanted, "left")
            count = np.minimum(np.searchsorted(table, wanted, "right") - start, MOST_NEIGHBOURS)
            for which, place in _expand(start, count):
                i, j = queries[which], order[place]
                close = _distance(hashes[i], others[j]) <= radius
                pairs.append(i[close] * len(others) + j[close])
    both = np.unique(np.concatenate(pairs))
    return both // len(others), both % len(others)


def connected_components(pairs: Pairs) -> list[list[int]]:
    """Positions that hang together through pairs, each group in order."""
    parent: dict[int, int] = {}

    def root(i: int) -> int:
        while parent.setdefault(i, i) != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i

    for a, b in pairs.tolist():
        parent[root(b)] = root(a)
    members: dict[int, list[int]] = {}
    for i in sorted(parent):
        members.setdefault(root(i), []).append(i)
    return sorted(members.values())


def _expand(start: Pairs, count: Pairs) -> Iterator[tuple[Pairs, Pairs]]:
    """Each query with each of its `count` places from `start` on, not too many at once."""
    which = np.flatnonzero(count)
    ends = np.cumsum(count[which])
    first = 0
    while first < len(which):
        done = ends[first - 1] if first else 0
        last = max(first + 1, int(np.searchsorted(ends, done + _BATCH, "right")))
        part = which[first:last]
        n = count[part]
        offset = np.arange(int(n.sum())) - np.repeat(np.cumsum(n) - n, n)
        yield np.repeat(part, n), np.repeat(start[part], n) + offset
        first = last


def _packed(bits: npt.NDArray[np.bool_]) -> Hashes:
    """Bool `[n, 8, 8]` as 63-bit numbers; the mean, frequency zero, is left out."""
    flat = bits.reshape(len(bits), _KEPT * _KEPT).copy()
    flat[:, 0] = False
    # Every third bit into one band, so that each band has low frequencies and high ones.
    order = [0, *(1 + i for band in range(_BANDS) for i in range(band, 63, _BANDS))]
    hashes: Hashes = (
        np.ascontiguousarray(np.packbits(flat[:, order], axis=1)).view(">u8")[:, 0].astype(np.uint64)
    )
    return hashes


def _band(hashes: Hashes, band: int) -> npt.NDArray[np.int64]:
    shift = np.uint64(band * _WIDTH)
    return ((hashes >> shift) & np.uint64((1 << _WIDTH) - 1)).astype(np.int64)


_ONES = np.array([i.bit_count() for i in range(1 << 16)], np.uint8)


def _distance(a: Hashes, b: Hashes) -> npt.NDArray[np.uint8]:
    """The number of bits that differ (NumPy counts bits from 2.0 on only)."""
    parts = np.ascontiguousarray(a ^ b).view(np.uint16).reshape(-1, 4)
    counts: npt.NDArray[np.uint8] = _ONES[parts].sum(1, dtype=np.uint8)
    return counts


def _moved(arrays: npt.NDArray[np.generic], position: int) -> npt.NDArray[np.generic]:
    """Images `[n, s, s, ...]` in one of the eight positions of a square."""
    if position & 4:
        arrays = arrays.swapaxes(1, 2)
    if position & 2:
        arrays = arrays[:, ::-1]
    return arrays[:, :, ::-1] if position & 1 else arrays


def _moved_bits(bits: npt.NDArray[np.bool_], position: int) -> npt.NDArray[np.bool_]:
    """Their bits in that position: from the other side the k-th cosine is itself times (-1)^k."""
    odd = np.arange(_KEPT) % 2 == 1
    if position & 4:
        bits = bits.swapaxes(1, 2)
    if position & 2:
        bits = bits ^ odd[:, None]
    return bits ^ odd[None, :] if position & 1 else bits


def _correlation(a: npt.NDArray[np.generic], b: npt.NDArray[np.generic]) -> npt.NDArray[np.float32]:
    x, y = _rows(a), _rows(b)
    x, y = x - x.mean(1, keepdims=True), y - y.mean(1, keepdims=True)
    result: npt.NDArray[np.float32] = (x * y).sum(1) / np.sqrt((x * x).sum(1) * (y * y).sum(1))
    return result


def _tint(a: npt.NDArray[np.generic], b: npt.NDArray[np.generic]) -> npt.NDArray[np.float32]:
    """How far the colours are apart; zero where one of the two is gray, as a copy without colour is."""
    x, y = _rows(a), _rows(b)
    apart = np.sqrt(((x - y) ** 2).mean(1))
    gray = np.minimum(np.abs(x).max(1), np.abs(y).max(1)) <= 2
    return np.where(gray, np.float32(0), apart)


def _rows(arrays: npt.NDArray[np.generic]) -> npt.NDArray[np.float32]:
    return arrays.reshape(len(arrays), int(np.prod(arrays.shape[1:]))).astype(np.float32)
