"""Images of a split, decoded on first use, then kept in memory or in the cache."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from striate.data.images.base import Images, Indices, Problem
from striate.data.images.cache import LIMIT_VARIABLE, Cache, limit
from striate.data.images.samples import Samples, Stamp
from striate.errors import DecodeError
from striate.progress import AUTO, Progress
from striate.transforms import many_files
from striate.transforms.decode import Uint8Array, decode_errors
from striate.transforms.pixel_formats import Array
from striate.transforms.pixels import ArrayPixels
from striate.transforms.preprocess import Preprocess

MAX_SIDE_IN_MEMORY = 64  # pixels; images up to this size stay in memory
MAX_BYTES_IN_MEMORY = 2 << 30  # of a split
_PREFETCH_BYTES = 256 << 20  # of decoded images that are not resized yet
_PNG = (".png", ".PNG")
_WIDTH_BYTES = 4  # of the width of a padded image
_CLOCK_NS = 2 * 10**9  # resolution of the coarsest file system clock

_UNKNOWN, _IN_MEMORY, _IN_CACHE, _UNREADABLE = range(4)


class DecodedImages:
    """Decoded images of one size: in memory up to 64 pixels, else in the cache, else decoded on each read.

    Thread-safe. The content of an image does not depend on when or by which thread it is read.

    Attributes:
        shape: height, width and channels of each image.
        labels: int64 `[n]`.
        names: `[n]`, the path of each.
        reads_plain: whether `read_plain` reads plain PNG files.
    """

    def __init__(
        self,
        samples: Samples,
        preprocess: Preprocess,
        *,
        crop: bool = True,
        cache: bool = True,
        memory: int = MAX_BYTES_IN_MEMORY,
        variable_width: bool = False,
        root: str = "",
        progress: Progress = AUTO,
    ) -> None:
        """Look up the images in the cache; decodes nothing.

        Args:
            samples: images to read.
            preprocess: how to decode and resize.
            crop: False leaves out the center crop, for training with random crops.
            cache: keep decoded images in the user's cache folder.
            memory: bytes of decoded images that may stay in memory.
            variable_width: pad images on the right to one size, and append their width: see `unpad`.
            root: dataset that the images belong to in the cache.
            progress: receives one warning if the cache cannot be used.
        """
        height, width = preprocess.size if crop else preprocess.uncropped_size
        self._width_rows = -(-_WIDTH_BYTES // (width * preprocess.channels)) if variable_width else 0
        self.shape: tuple[int, int, int] = (height + self._width_rows, width, preprocess.channels)
        self.labels, self.names = samples.labels, samples.names
        self._samples, self._preprocess, self._crop, self._progress = samples, preprocess, crop, progress
        self._state = np.full(len(samples), _UNKNOWN, np.uint8)
        self._reasons: dict[int, str] = {}
        self._cache: Cache | None = None
        self._positions = np.full(len(samples), -1, np.int64)  # in the cache
        self._warned = False
        self._prefetched: dict[int, Array | ArrayPixels] = {}  # decoded, but not resized yet
        self._states = np.zeros(0, np.int64)  # hashes of the files' stamps, if they have some
        self._decoded = False  # whether a file was decoded since `rewritten` looked at them
        self.reads_plain = False

        pixels = samples.pixels
        if pixels is not None and (*pixels.shape[1:], 1)[:3] == self.shape:
            self._memory: Uint8Array | None = pixels.reshape(len(samples), *self.shape)
            self._state[:] = _IN_MEMORY  # nothing to decode or resize
            return
        if samples.in_files or (len(samples) and samples.stamp(0) is not None):
            stamps = self._stamp_all()
            self._states = _hashes(stamps)
            if cache:
                self._open_cache(root, stamps)
        fits = len(samples) * math.prod(self.shape) <= memory
        small = max(height, width) <= MAX_SIDE_IN_MEMORY or self._cache is None
        self._memory = np.empty((len(samples), *self.shape), np.uint8) if small and fits else None
        as_is = small and samples.in_files and not variable_width and preprocess.only_decodes(crop=crop)
        self.reads_plain = as_is and fits and many_files.native() is not None

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def in_memory(self) -> bool:
        """True if reading is only a copy from memory."""
        done = (self._state == _IN_MEMORY) | (self._state == _UNREADABLE)
        return self._memory is not None and bool(done.all())

    @property
    def reusable(self) -> bool:
        """True if images that were read once need not be decoded again."""
        return self._memory is not None or (self._cache is not None and bool(self._storable.any()))

    @property
    def problems(self) -> tuple[Problem, ...]:
        """Images that were found unreadable so far, in their order."""
        return tuple(Problem(self.names[i], self._reasons[i]) for i in sorted(self._reasons))

    @property
    def readable(self) -> npt.NDArray[np.bool_]:
        """Bool `[n]`, False for images that were found unreadable so far."""
        readable: npt.NDArray[np.bool_] = self._state != _UNREADABLE
        return readable

    def read(self, which: Indices, out: Uint8Array) -> npt.NDArray[np.bool_]:
        """Write the images at `which` into `out` `[len(which), *shape]`; return which ones are readable."""
        self.read_plain(which)
        state = self._state[which]
        if self._memory is not None and (state == _IN_MEMORY).all():
            np.take(self._memory, which, axis=0, out=out, mode="clip")
            return np.ones(len(which), np.bool_)
        readable: npt.NDArray[np.bool_] = state != _UNREADABLE
        fresh, cache = [], self._cache
        for row, i in enumerate(which.tolist()):
            if state[row] == _IN_MEMORY and self._memory is not None:
                out[row] = self._memory[i]
            elif state[row] == _IN_CACHE and cache and cache.copy(int(self._positions[i]), out[row]):
                if self._memory is not None:
                    self._memory[i], self._state[i] = out[row], _IN_MEMORY
            elif state[row] != _UNREADABLE:
                readable[row] = self._decode(i, out[row])
                if readable[row]:
                    fresh.append(row)
        if fresh:
            self._store(which[fresh], out[fresh])
        return readable

    def read_plain(self, which: Indices) -> None:
        """Read those images at `which` into memory that are plain PNG files of the right size.

        Does not hold Python's lock meanwhile. Nothing happens if `reads_plain` is false.
        """
        if not self.reads_plain or not (unknown := self._state[which] == _UNKNOWN).any():
            return
        which = np.array([i for i in which[unknown].tolist() if self.names[i].endswith(_PNG)], np.int64)
        self._decoded = True
        images = np.empty((len(which), *self.shape), np.uint8)
        readable = many_files.read_plain_pngs([self.names[i] for i in which.tolist()], images)
        assert self._memory is not None
        self._memory[which[readable]] = images[readable]
        self._state[which[readable]] = _IN_MEMORY  # not in the cache, which is hardly faster

    @contextlib.contextmanager
    def reading(self) -> Iterator[None]:
        """Context of one pass: first finds what other processes have cached, then publishes new images."""
        if self._cache is not None and (self._state == _UNKNOWN).any():
            self._look_up()
        try:
            yield
        finally:
            if self._cache is not None:
                self._cache.publish()
                if self._cache.error and not self._warned:
                    self._warned = True
                    what = f"cannot cache more decoded images ({self._cache.error})"
                    self._progress.warn(f"{what}; images that are not cached yet are decoded in each epoch")

    def prefetch(self, i: int) -> None:
        """Decode image `i` in advance, as far as that is possible without importing torch."""
        if self._crop:
            self.read(np.array([i]), np.empty((1, *self.shape), np.uint8))
            return
        self.read_plain(np.array([i]))
        waiting = sum(_bytes_of(image) for image in [*self._prefetched.values()])
        if self._state[i] == _UNKNOWN and waiting < _PREFETCH_BYTES:
            with contextlib.suppress(DecodeError):  # `read` reports it
                self._prefetched[i] = self._preprocess.decode_uncropped(self._samples.fetch(i))

    def rewritten(self) -> list[str]:
        """Return the names of images whose files have changed since they were opened, or since the last call.

        Looks only if files were decoded since then: otherwise what is read does not depend on them.
        """
        if not self._decoded or not len(self._states):
            return []
        self._decoded = False
        before, self._states = self._states, _hashes(self._stamp_all())
        return [self.names[i] for i in np.flatnonzero(before != self._states)]

    def _stamp_all(self) -> list[Stamp | None]:
        return [self._samples.stamp(i) for i in range(len(self))]

    def any_readable(self, which: Indices) -> bool:
        """Return whether at least one of these images is readable; reads until it finds one."""
        out = np.empty((1, *self.shape), np.uint8)
        return any(self.read(which[i : i + 1], out)[0] for i in range(len(which)))

    def _open_cache(self, root: str, stamps: Sequence[Stamp | None]) -> None:
        """Find the images that are in the cache, and make room for the others."""
        cache = Cache(root, self._preprocess, self.shape, crop=self._crop)
        self._digests = [None if stamp is None else cache.digest(stamp) for stamp in stamps]
        # A file that has just changed may change again within the same tick of the file system's clock.
        latest = time.time_ns() - _CLOCK_NS
        self._storable = np.array([stamp is not None and stamp.changed_ns < latest for stamp in stamps], bool)
        self._cache = cache
        self._look_up()
        missing = int((self._storable & (self._state == _UNKNOWN)).sum())
        if missing and not cache.make_room(missing):
            self._storable[:] = False
            self._progress.warn(
                f"{len(self):,} decoded images, {math.prod(self.shape) / 1e6:.1f} MB each, exceed the cache "
                f"limit ({limit() / 1e9:.0f} GB), so each epoch decodes them; {LIMIT_VARIABLE} sets the limit"
            )

    def _look_up(self) -> None:
        """Find the positions in the cache of images in unknown state."""
        assert self._cache is not None
        unknown = np.flatnonzero(self._state == _UNKNOWN)
        self._positions[unknown] = self._cache.find([self._digests[i] for i in unknown])
        self._state[unknown[self._positions[unknown] >= 0]] = _IN_CACHE

    def _decode(self, i: int, out: Uint8Array) -> bool:
        """Decode one image into `out`; return whether it is readable."""
        try:
            self._decoded = True
            image = self._prefetched.pop(i, None)
            if image is None:
                decoded = self._preprocess.read(self._samples.fetch(i), crop=self._crop)
            else:
                with decode_errors(self.names[i]):
                    decoded = self._preprocess.resize_uncropped(image)
        except DecodeError as error:
            self._reasons[i], self._state[i] = error.why, _UNREADABLE
            return False
        if self._width_rows:
            _pad(decoded, out)
        else:
            out[:] = decoded
        return True

    def _store(self, which: Indices, images: Uint8Array) -> None:
        """Keep decoded images in memory, in the cache, or in both."""
        if self._memory is not None:
            self._memory[which] = images
            self._state[which] = _IN_MEMORY
        if self._cache is None or not (storable := self._storable[which]).any():
            return
        positions = self._cache.add([self._digests[i] for i in which[storable]], images[storable])
        if positions is not None and self._memory is None:
            self._positions[which[storable]] = positions
            self._state[which[storable]] = _IN_CACHE


@dataclass(frozen=True)
class ImageSubset:
    """A subset of images, read on access: `subset[i]`, `subset[:5]`, `len(subset)`.

    Attributes:
        source: all images.
        which: int64 `[n]`, indices of the subset.
    """

    source: Images
    which: Indices

    def __len__(self) -> int:
        return len(self.which)

    def __getitem__(self, at: int | np.integer | slice) -> Uint8Array:
        """uint8 `[height, width, channels]`; `[n, height, width, channels]` for a slice."""
        which = np.atleast_1d(self.which[at])
        out = np.empty((len(which), *self.source.shape), np.uint8)
        self.source.read(which, out)
        return out if isinstance(at, slice) else out[0]


class JoinedImages:
    """Several arrays or subsets of images one after the other, read on access: `images[i]`, `images[:5]`.

    Args:
        parts: of images of one size.
    """

    def __init__(self, parts: Sequence[Any]) -> None:
        self._parts = parts
        self._ends = np.cumsum([len(part) for part in parts])

    def __len__(self) -> int:
        return int(self._ends[-1])

    def __getitem__(self, at: int | np.integer | slice) -> Uint8Array:
        """uint8 `[height, width, channels]`; `[n, height, width, channels]` for a slice."""
        if isinstance(at, slice):
            return np.stack([self[i] for i in range(len(self))[at]])
        place = range(len(self))[at]
        part = int(np.searchsorted(self._ends, place, side="right"))
        start = self._ends[part - 1] if part else 0
        image: Uint8Array = self._parts[part][place - start]
        return image


def _bytes_of(image: Array | ArrayPixels) -> int:
    return image.values.nbytes if isinstance(image, ArrayPixels) else image.nbytes


def _pad(image: Uint8Array, out: Uint8Array) -> None:
    """Write an image of variable width into `out`, padded with zeros; the rows below start with its width."""
    height, width = image.shape[:2]
    out[:] = 0
    out[:height, :width] = image
    out[height:].reshape(-1)[:_WIDTH_BYTES] = np.frombuffer(width.to_bytes(_WIDTH_BYTES, "little"), np.uint8)


def unpad(padded: Uint8Array, height: int) -> Uint8Array:
    """Return a copy of an image of variable width, as `DecodedImages(variable_width=True)` reads it."""
    width = int.from_bytes(padded[height:].tobytes()[:_WIDTH_BYTES], "little")
    return padded[:height, :width].copy()


def _hashes(stamps: Sequence[Stamp | None]) -> Indices:
    """A number for each stamp; equal stamps of a file have equal numbers."""
    numbers = (0 if stamp is None else hash(stamp[1:]) for stamp in stamps)
    return np.fromiter(numbers, np.int64, len(stamps))
