"""Near duplicates: perceptual hashes, an index for fast search, and a check of each candidate.

The hash is the sign of the 63 lowest frequencies of the discrete cosine transform of the image at 32x32 px
(Zauner, Implementation and Benchmarking of Perceptual Image Hash Functions, 2010, section 3.2.1, with the
sign instead of a comparison with the median). Flipping an image flips known bits (odd frequencies) and
rotating it permutes the bits, so one hash gives the hashes of all eight orientations.

If two hashes differ in at most 5 of 63 bits, they differ in at most 1 of 21 bits in at least one of three
bands: the index is multi-index hashing (Norouzi, Punjani, Fleet, CVPR 2012, section 3).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

from striate.transforms.decode import Uint8Array

RADIUS = 5  # bits of 63 that may differ between near duplicates
MIN_CORRELATION = 0.97  # minimum correlation of the luma at 16x16 pixels
MAX_TINT = 20.0  # maximum root mean square difference of the chroma at 4x4 pixels, of 255
MIN_SIDE = 32  # of the larger image: below this, different handwritten digits look the same
MIN_CONTRAST = 4.0  # standard deviation of the luma at 16x16 pixels, of 255: below this, images are blank
MAX_NEIGHBORS = 512  # compared per key of the index: frames of a fixed camera are all neighbors

_SIDE, _FREQUENCIES, _BANDS = 32, 8, 3
_WIDTH = (_FREQUENCIES * _FREQUENCIES - 1) // _BANDS  # 21 bits in each band
_CHUNK = 1 << 20  # pairs in one step

Hashes = npt.NDArray[np.uint64]
Pairs = npt.NDArray[np.int64]


class Fingerprint(NamedTuple):
    """Perceptual hash and thumbnail of an image.

    Attributes:
        bits: bool `[8, 8]`, the signs of the lowest frequencies.
        luma: uint8 `[16, 16]`.
        chroma: int8 `[4, 4, 2]`, blue and red difference (ITU-R 601); zero for grayscale.
        side: shorter side of the image, in pixels.
    """

    bits: npt.NDArray[np.bool_]
    luma: Uint8Array
    chroma: npt.NDArray[np.int8]
    side: int


# The lowest rows of the DCT-II matrix of 32 values.
_DCT = np.cos(np.pi / _SIDE * (np.arange(_SIDE) + 0.5) * np.arange(_FREQUENCIES)[:, None]).astype(np.float32)


def fingerprint(pixels: Image.Image, side: int) -> Fingerprint:
    """Compute the fingerprint of an RGB image; `side` is its shorter side before resizing."""
    scaling = Image.Resampling.BOX if min(pixels.size) >= _SIDE else Image.Resampling.BILINEAR
    small = pixels.resize((_SIDE, _SIDE), scaling)
    ycc = np.asarray(small.convert("YCbCr"), np.float32)
    bits = _DCT @ ycc[..., 0] @ _DCT.T > 0
    luma = ycc[..., 0].reshape(16, 2, 16, 2).mean((1, 3))
    chroma = ycc[..., 1:].reshape(4, 8, 4, 8, 2).mean((1, 3)) - 128
    chroma = np.rint(chroma).clip(-127, 127).astype(np.int8)
    return Fingerprint(bits, np.rint(luma).astype(np.uint8), chroma, side)


def find_copies(prints: list[Fingerprint]) -> Pairs:
    """Find pairs `[n, 2]` of the same image, re-encoded, resized, rotated or flipped.

    Blank images, with a contrast below `MIN_CONTRAST`, are in no pair.
    """
    if max((p.side for p in prints), default=0) < MIN_SIDE:
        return np.empty((0, 2), np.int64)
    bits, luma, chroma, sides = (np.stack(column) for column in zip(*prints, strict=True))
    own = np.flatnonzero(luma.std((1, 2)) >= MIN_CONTRAST)
    bits = bits[own]
    found = [np.empty((0, 2), np.int64)]
    for orientation in range(8):
        first, second = neighbors(_packed(bits), _packed(_oriented_bits(bits, orientation)))
        first, second = own[first], own[second]
        keep = (first < second) & (np.maximum(sides[first], sides[second]) >= MIN_SIDE)
        first, second = first[keep], second[keep]
        for at in range(0, len(first), 1 << 16):
            a, b = first[at : at + (1 << 16)], second[at : at + (1 << 16)]
            alike = _correlation(luma[a], _oriented(luma[b], orientation)) >= MIN_CORRELATION
            alike &= _tint(chroma[a], _oriented(chroma[b], orientation)) <= MAX_TINT
            found.append(np.stack([a[alike], b[alike]], axis=1))
    return np.unique(np.concatenate(found), axis=0)


def neighbors(hashes: Hashes, others: Hashes, radius: int = RADIUS) -> tuple[Pairs, Pairs]:
    """Find all pairs of hashes that differ in at most `radius` (up to five) of 63 bits.

    Time and memory are about linear: tables of 21-bit keys instead of all comparisons. At most
    `MAX_NEIGHBORS` are compared per key.
    """
    pairs = [np.empty(0, np.int64)]
    flips = [0, *(1 << bit for bit in range(_WIDTH))]
    for band in range(_BANDS):
        mine, theirs = _band(hashes, band), _band(others, band)
        order = np.argsort(theirs, kind="stable")
        table = theirs[order]
        queries = np.argsort(mine, kind="stable")  # sorted, for locality in the table
        for flip in flips:
            wanted = mine[queries] ^ flip
            start = np.searchsorted(table, wanted, "left")
            count = np.minimum(np.searchsorted(table, wanted, "right") - start, MAX_NEIGHBORS)
            for which, place in _expand(start, count):
                i, j = queries[which], order[place]
                close = _distance(hashes[i], others[j]) <= radius
                pairs.append(i[close] * len(others) + j[close])
    both = np.unique(np.concatenate(pairs))
    return both // len(others), both % len(others)


def connected_components(pairs: Pairs) -> list[list[int]]:
    """Return the connected components of a graph with these edges, each sorted."""
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
    """Yield each query with its `count` positions from `start`, in chunks."""
    which = np.flatnonzero(count)
    ends = np.cumsum(count[which])
    first = 0
    while first < len(which):
        done = ends[first - 1] if first else 0
        last = max(first + 1, int(np.searchsorted(ends, done + _CHUNK, "right")))
        part = which[first:last]
        n = count[part]
        offset = np.arange(int(n.sum())) - np.repeat(np.cumsum(n) - n, n)
        yield np.repeat(part, n), np.repeat(start[part], n) + offset
        first = last


def _packed(bits: npt.NDArray[np.bool_]) -> Hashes:
    """Pack bool `[n, 8, 8]` into 63-bit numbers, without frequency zero (the mean)."""
    flat = bits.reshape(len(bits), _FREQUENCIES * _FREQUENCIES).copy()
    flat[:, 0] = False
    # Each band gets every third bit, so that it has low and high frequencies.
    order = [0, *(1 + i for band in range(_BANDS) for i in range(band, 63, _BANDS))]
    packed = np.ascontiguousarray(np.packbits(flat[:, order], axis=1))
    return packed.view(">u8")[:, 0].astype(np.uint64)


def _band(hashes: Hashes, band: int) -> npt.NDArray[np.int64]:
    shift = np.uint64(band * _WIDTH)
    return ((hashes >> shift) & np.uint64((1 << _WIDTH) - 1)).astype(np.int64)


_ONES = np.array([i.bit_count() for i in range(1 << 16)], np.uint8)


def _distance(a: Hashes, b: Hashes) -> npt.NDArray[np.uint8]:
    """Return the Hamming distance (np.bitwise_count needs NumPy 2)."""
    parts = np.ascontiguousarray(a ^ b).view(np.uint16).reshape(-1, 4)
    counts: npt.NDArray[np.uint8] = _ONES[parts].sum(1, dtype=np.uint8)
    return counts


def _oriented(arrays: npt.NDArray[np.generic], orientation: int) -> npt.NDArray[np.generic]:
    """Rotate and flip images `[n, s, s, ...]` to one of eight orientations."""
    if orientation & 4:
        arrays = arrays.swapaxes(1, 2)
    if orientation & 2:
        arrays = arrays[:, ::-1]
    return arrays[:, :, ::-1] if orientation & 1 else arrays


def _oriented_bits(bits: npt.NDArray[np.bool_], orientation: int) -> npt.NDArray[np.bool_]:
    """Return the bits of a rotated or flipped image: flipping multiplies the k-th cosine by (-1)^k."""
    odd = np.arange(_FREQUENCIES) % 2 == 1
    if orientation & 4:
        bits = bits.swapaxes(1, 2)
    if orientation & 2:
        bits = bits ^ odd[:, None]
    return bits ^ odd[None, :] if orientation & 1 else bits


def _correlation(a: npt.NDArray[np.generic], b: npt.NDArray[np.generic]) -> npt.NDArray[np.float32]:
    x, y = _rows(a), _rows(b)
    x, y = x - x.mean(1, keepdims=True), y - y.mean(1, keepdims=True)
    result: npt.NDArray[np.float32] = (x * y).sum(1) / np.sqrt((x * x).sum(1) * (y * y).sum(1))
    return result


def _tint(a: npt.NDArray[np.generic], b: npt.NDArray[np.generic]) -> npt.NDArray[np.float32]:
    """Return the difference in color; zero if one image is grayscale, as a copy without color is."""
    x, y = _rows(a), _rows(b)
    apart = np.sqrt(((x - y) ** 2).mean(1))
    gray = np.minimum(np.abs(x).max(1), np.abs(y).max(1)) <= 2
    return np.where(gray, np.float32(0), apart)


def _rows(arrays: npt.NDArray[np.generic]) -> npt.NDArray[np.float32]:
    return arrays.reshape(len(arrays), int(np.prod(arrays.shape[1:]))).astype(np.float32)
