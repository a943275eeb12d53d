"""The images of a split, each decoded when it is first asked for, and kept for the next time."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from striate.data.images.base import Images, Problem
from striate.data.images.cache import LIMIT_VARIABLE, Cache, limit
from striate.data.images.samples import Samples
from striate.errors import DecodeError
from striate.progress import SILENT, Progress
from striate.transforms.decode import Uint8Array
from striate.transforms.preprocess import Preprocess

MAX_SIDE_IN_MEMORY = 64  # pixels of the longer side up to which images live in memory
MAX_BYTES_IN_MEMORY = 2 << 30  # bytes of a split that may
_AHEAD = 256 << 20  # bytes of images that wait to be brought to size
_SETTLED = 2 * 10**9  # nanoseconds: the coarsest clock of a file system

_UNSEEN, _KEPT, _PLACED, _BAD = range(4)  # not asked for yet, in memory, in the cache, unreadable


class DecodedImages:
    """Images of one size: in memory up to 64 pixels, else in the cache, else decoded each time.

    It is read by several threads at once. What an image holds does not depend on when or by whom it is read.

    Attributes:
        shape: height, width and channels of each image.
        labels: int64 `[n]`.
        names: `[n]`, the path of each.
    """

    def __init__(
        self,
        samples: Samples,
        preprocess: Preprocess,
        *,
        crop: bool = True,
        cache: bool = True,
        root: str = "",
        progress: Progress = SILENT,
    ) -> None:
        """Look up what is there; decodes nothing.

        Args:
            samples: what to read.
            preprocess: how.
            crop: False leaves out the centre crop, for training that takes random crops.
            cache: keep the decoded images in the user's cache folder.
            root: the data set that they belong to there.
            progress: is told once, if the cache cannot be used.
        """
        size = preprocess.size if crop else preprocess.uncropped_size
        self.shape: tuple[int, int, int] = (*size, preprocess.channels)
        self.labels, self.names = samples.labels, samples.names
        self._samples, self._preprocess, self._crop, self._progress = samples, preprocess, crop, progress
        self._state = np.full(len(samples), _UNSEEN, np.uint8)
        self._reasons: dict[int, str] = {}
        self._cache: Cache | None = None
        self._places = np.full(len(samples), -1, np.int64)
        self._warned = False
        self._waiting: dict[int, Uint8Array] = {}  # decoded, and not brought to size yet

        pixels = samples.pixels
        if pixels is not None and (*pixels.shape[1:3], _channels(pixels)) == self.shape:
            self._kept: Uint8Array | None = pixels.reshape(len(samples), *self.shape)
            self._state[:] = _KEPT  # nothing to decode, nothing to scale
            return
        if cache and (samples.in_files or (len(samples) and samples.stamp(0) is not None)):
            self._open_cache(root)
        fits = len(samples) * math.prod(self.shape) <= MAX_BYTES_IN_MEMORY
        small = max(size) <= MAX_SIDE_IN_MEMORY or self._cache is None
        self._kept = np.empty((len(samples), *self.shape), np.uint8) if small and fits else None

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def in_memory(self) -> bool:
        """Whether reading is no more than a copy."""
        return self._kept is not None and bool(((self._state == _KEPT) | (self._state == _BAD)).all())

    @property
    def reusable(self) -> bool:
        """Whether an image that is read is there for the next time."""
        return self._kept is not None or (self._cache is not None and bool(self._storable.any()))

    @property
    def problems(self) -> tuple[Problem, ...]:
        """The images that turned out to be unreadable so far, in their order."""
        return tuple(Problem(self.names[i], self._reasons[i]) for i in sorted(self._reasons))

    @property
    def readable(self) -> npt.NDArray[np.bool_]:
        """Bool `[n]`, False for the images that turned out to be unreadable so far."""
        readable: npt.NDArray[np.bool_] = self._state != _BAD
        return readable

    def read(self, which: npt.NDArray[np.int64], out: Uint8Array) -> npt.NDArray[np.bool_]:
        """Write the images at `which` into `out`; answers which of them can be read."""
        state = self._state[which]
        if self._kept is not None and (state == _KEPT).all():
            np.take(self._kept, which, axis=0, out=out, mode="clip")
            return np.ones(len(which), np.bool_)
        readable: npt.NDArray[np.bool_] = state != _BAD
        fresh = []
        for row, i in enumerate(which.tolist()):
            if state[row] == _KEPT and self._kept is not None:
                out[row] = self._kept[i]
            elif state[row] == _PLACED and self._cache and self._cache.copy(int(self._places[i]), out[row]):
                if self._kept is not None:
                    self._kept[i], self._state[i] = out[row], _KEPT
            elif state[row] != _BAD:
                readable[row] = self._decode(i, out[row])
                if readable[row]:
                    fresh.append(row)
        if fresh:
            self._keep(which[fresh], out[fresh])
        return readable

    @contextlib.contextmanager
    def reading(self) -> Iterator[None]:
        """Around one pass: finds what other processes have stored, and leaves to them what this one has."""
        if self._cache is not None and (self._state == _UNSEEN).any():
            self._look_up()
        try:
            yield
        finally:
            if self._cache is not None:
                self._cache.publish()
                if self._cache.trouble and not self._warned:
                    self._warned = True
                    self._progress.warn(
                        f"decoded images are no longer stored ({self._cache.trouble}); "
                        "what is not stored yet is decoded in each epoch"
                    )

    def prefetch(self, i: int) -> None:
        """Do what takes no torch of reading an image, and keep it for when it is read."""
        if self._crop:
            self.read(np.array([i]), np.empty((1, *self.shape), np.uint8))
        elif self._state[i] == _UNSEEN and sum(image.nbytes for image in [*self._waiting.values()]) < _AHEAD:
            with contextlib.suppress(DecodeError):  # reading will tell
                self._waiting[i] = self._preprocess.decode_uncropped(self._samples.fetch(i))

    def any_readable(self, which: npt.NDArray[np.int64]) -> bool:
        """Whether at least one of these images can be read; tries them one after the other."""
        out = np.empty((1, *self.shape), np.uint8)
        return any(self.read(which[i : i + 1], out)[0] for i in range(len(which)))

    def _open_cache(self, root: str) -> None:
        """Look up what is stored, and make room for the rest."""
        cache = Cache(root, self._preprocess, crop=self._crop)
        stamps = [self._samples.stamp(i) for i in range(len(self))]
        self._digests = [None if stamp is None else cache.digest(stamp) for stamp in stamps]
        # A file that changed a moment ago may change again within the same tick of its file system's clock.
        now = time.time_ns()
        self._storable = np.array(
            [stamp is not None and stamp[-1] < now - _SETTLED for stamp in stamps], bool
        )
        self._cache = cache
        self._look_up()
        missing = int((self._storable & (self._state == _UNSEEN)).sum())
        if missing and not cache.make_room(missing):
            self._storable[:] = False
            self._progress.warn(
                f"{len(self):,} decoded images, {math.prod(self.shape) / 1e6:.1f} MB each, are more than the "
                f"cache may hold ({limit() / 1e9:.0f} GB; {LIMIT_VARIABLE} sets it): each epoch decodes them"
            )

    def _look_up(self) -> None:
        """Note where the cache has what is not known yet."""
        assert self._cache is not None
        unseen = np.flatnonzero(self._state == _UNSEEN)
        self._places[unseen] = self._cache.find([self._digests[i] for i in unseen])
        self._state[unseen[self._places[unseen] >= 0]] = _PLACED

    def _decode(self, i: int, out: Uint8Array) -> bool:
        """Decode one image; answers whether it can be read."""
        try:
            ahead = self._waiting.pop(i, None)
            source = self._samples.fetch(i) if ahead is None else ahead
            out[:] = self._preprocess.read(source, crop=self._crop)
        except DecodeError as error:
            self._reasons[i], self._state[i] = error.why, _BAD
            return False
        return True

    def _keep(self, which: npt.NDArray[np.int64], images: Uint8Array) -> None:
        """Keep decoded images for the next time, in memory or in the cache or both."""
        if self._kept is not None:
            self._kept[which] = images
            self._state[which] = _KEPT
        if self._cache is None or not (mine := self._storable[which]).any():
            return
        places = self._cache.add([self._digests[i] for i in which[mine]], images[mine])
        if places is not None and self._kept is None:
            self._places[which[mine]] = places
            self._state[which[mine]] = _PLACED


@dataclass(frozen=True)
class ImageSubset:
    """Some images of a source, each read when it is looked at: `view[i]`, `view[:5]`, `len(view)`.

    Attributes:
        source: what they are of.
        which: int64 `[n]`, their positions there.
    """

    source: Images
    which: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.which)

    def __getitem__(self, at: int | np.integer | slice) -> Uint8Array:
        """uint8 `[height, width, channels]`, or `[n, height, width, channels]` for a slice."""
        which = np.atleast_1d(self.which[at])
        out = np.empty((len(which), *self.source.shape), np.uint8)
        self.source.read(which, out)
        return out if isinstance(at, slice) else out[0]


def _channels(pixels: Uint8Array) -> int:
    return 1 if pixels.ndim == 3 else pixels.shape[3]
