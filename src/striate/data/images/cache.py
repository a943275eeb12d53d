"""Decoded images that outlive a run: uint8 pixels in files of the user's cache folder, mapped into memory.

`<cache>/striate/decoded/<kind>/` holds the images of one data set and one size, in segments. A segment is
written by one process alone and only ever grows:

    <segment>.pixels    the images one after the other, all of the same number of bytes
    <segment>.index     16 bytes for each image of the other file: the digest of all that determines it

The index is written after the pixels it speaks of have reached the disk, so a process that dies, at whatever
instant, leaves at most pixels that no index knows. Processes that run at the same time write segments of
their own and read each other's; none waits for another. A file that has changed has another digest, and its
old pixels are never asked for again; what has not been used for longest goes first when room is needed.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import re
import shutil
import threading
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import IO

import numpy as np
import numpy.typing as npt
import PIL
from PIL import features

from striate.data.images.samples import Stamp
from striate.errors import UsageError
from striate.transforms.decode import DECODER_VERSION, Uint8Array
from striate.transforms.preprocess import Preprocess

Places = npt.NDArray[np.int64]  # segment number * 2**32 + position in it; -1 for nowhere

LIMIT_VARIABLE = "STRIATE_CACHE_LIMIT"  # in GB
_USUAL_LIMIT = 20 * 10**9
_DIGEST = 16
_PUBLISH_BYTES, _PUBLISH_SECONDS = 64 << 20, 5.0  # what a kill can cost at most, about


def cache_folder() -> Path:
    """Striate's folder in the user's cache (XDG_CACHE_HOME, else ~/.cache)."""
    base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")  # noqa: PTH111 - never raises
    return Path(base) / "striate"


def limit() -> int:
    """Bytes that all decoded images together may take.

    20 GB, or half of what is free on that disk if that is less; `STRIATE_CACHE_LIMIT` says otherwise, in GB.

    Raises:
        UsageError: the variable is not a number.
    """
    given = os.environ.get(LIMIT_VARIABLE)
    if given:
        try:
            gigabytes = float(given)
        except ValueError:
            gigabytes = math.nan
        if not gigabytes >= 0:
            raise UsageError(f"{LIMIT_VARIABLE}={given}", "it must be a number of GB", "Set it to 20, say")
        return int(min(gigabytes * 1e9, 2**62))
    place = cache_folder()
    while not place.exists() and place != place.parent:
        place = place.parent
    try:
        free = shutil.disk_usage(place).free
    except OSError:
        return 0
    return min(_USUAL_LIMIT, (free + sum(segment.size for segment in segments())) // 2)


@dataclass(frozen=True)
class SegmentFile:
    """One segment on the disk: its path without suffix, its bytes, and when it was last used."""

    path: Path
    size: int
    used: float

    def remove(self) -> None:
        """Remove it; a process that has it mapped keeps it until its end."""
        # The index first: pixels without an index are nothing, an index without pixels would be odd.
        for suffix in (".index", ".pixels"):
            try:
                self.path.with_suffix(suffix).unlink(missing_ok=True)
            except OSError:
                return  # Windows does not remove what is mapped


def segments() -> list[SegmentFile]:
    """All segments of all data sets, the least recently used first."""
    found = []
    for pixels in (cache_folder() / "decoded").glob("*/*.pixels"):
        index = pixels.with_suffix(".index")
        try:
            size, used = pixels.stat().st_size, pixels.stat().st_mtime
            if index.exists():
                size, used = size + index.stat().st_size, index.stat().st_mtime
        except FileNotFoundError:  # another process makes room too
            continue
        found.append(SegmentFile(pixels.with_suffix(""), size, used))
    return sorted(found, key=lambda segment: (segment.used, segment.path))


def clear() -> int:
    """Remove all decoded images; answers how many bytes that were."""
    everything = segments()
    for segment in everything:
        segment.remove()
    left = segments()
    for folder in (cache_folder() / "decoded").glob("*"):
        if not any(segment.path.parent == folder for segment in left):
            shutil.rmtree(folder, ignore_errors=True)
    return sum(segment.size for segment in everything) - sum(segment.size for segment in left)


class Cache:
    """The decoded images of one data set and one size.

    Attributes:
        shape: height, width and channels of each image.
        trouble: why nothing more is stored, in a sentence; None while all is well.
    """

    def __init__(self, root: str, preprocess: Preprocess, *, crop: bool) -> None:
        size = preprocess.size if crop else preprocess.uncropped_size
        self.shape = (*size, preprocess.channels)
        self.trouble: str | None = None
        scaler = "" if crop else version("torch")
        how = json.dumps([
            DECODER_VERSION, PIL.__version__, features.version("jpg"), not crop, scaler, self.shape,
            preprocess.resize, preprocess.shorter_side, preprocess.interpolation,
        ])  # fmt: skip
        self._seed = hashlib.blake2b(f"{how}\0{root}".encode("utf-8", "surrogateescape"))
        word = re.sub(r"[^A-Za-z0-9_-]+", "", Path(root).name)[:40] or "images"
        kind = f"{word}-{'x'.join(map(str, self.shape))}-{self._seed.hexdigest()[:16]}"
        self.folder = cache_folder() / "decoded" / kind
        self._bytes = math.prod(self.shape)
        self._lock, self._publishing = threading.Lock(), threading.Lock()
        self._names: list[str] = []  # of the segments, by their number
        self._maps: list[Uint8Array] = []  # by their number
        self._seen: list[int] = []  # entries of their index that are known, by their number
        self._used: set[str] = set()  # segments that this run reads or writes
        self._known: dict[bytes, int] = {}  # digest -> place
        self._writer: _Writer | None = None

    def digest(self, stamp: Stamp) -> bytes:
        """What an image is asked for by: all that determines its pixels, in 16 bytes."""
        digest = self._seed.copy()
        digest.update(repr(tuple(stamp)).encode("utf-8", "surrogateescape"))
        return digest.digest()[:_DIGEST]

    def find(self, digests: Sequence[bytes | None]) -> Places:
        """Where each of these images is, -1 for nowhere; looks at what other processes have written."""
        self._refresh()
        places = np.fromiter(
            (-1 if digest is None else self._known.get(digest, -1) for digest in digests),
            np.int64, len(digests),
        )  # fmt: skip
        for number in np.unique(places[places >= 0] >> 32).tolist():
            self._used.add(self._names[number])
            with contextlib.suppress(OSError):  # removed meanwhile, or in a folder that may only be read
                os.utime(self.folder / f"{self._names[number]}.index")
        return places

    def copy(self, place: int, out: Uint8Array) -> bool:
        """Write the image at `place` into `out`; answers whether it is still there."""
        number, position = place >> 32, place & 0xFFFFFFFF
        if position >= len(self._maps[number]):  # not mapped yet, or the file has outgrown the mapping
            try:
                with (self.folder / f"{self._names[number]}.pixels").open("rb") as file:
                    rows = os.fstat(file.fileno()).st_size // self._bytes
                    self._maps[number] = np.memmap(file, np.uint8, "r", shape=(rows, *self.shape))
            except OSError:  # another process has made room
                return False
        out[:] = self._maps[number][position]
        return True

    def add(self, digests: Sequence[bytes], images: Uint8Array) -> Places | None:
        """Store images, by several threads at once; answers where, or None if that is not possible."""
        with self._lock:
            if self.trouble is not None:
                return None
            try:
                if self._writer is None or self._writer.removed():
                    self._writer = _Writer(self.folder)
                    self._used.add(self._writer.name)
                first = self._writer.append(digests, images)
            except OSError as error:
                self._give_up(error)
                return None
            number, due = self._number(self._writer.name), self._writer.due()
        if due:
            self.publish(wait=False)
        return (number << 32) + np.arange(first, first + len(images))

    def publish(self, *, wait: bool = True) -> None:
        """Make what was stored known to later runs and other processes."""
        if self._writer is None or not self._publishing.acquire(blocking=wait):
            return
        try:
            self._writer.publish(self._lock)
        except OSError as error:
            with self._lock:
                self._give_up(error)
        finally:
            self._publishing.release()

    def make_room(self, count: int) -> bool:
        """Remove what was used least recently until `count` more images are within the limit.

        Returns:
            Whether they are; nothing is removed for more than could ever be.
        """
        allowed, needed = limit(), count * (self._bytes + _DIGEST)
        everything = segments()
        mine = [s for s in everything if s.path.parent == self.folder and s.path.name in self._used]
        if needed + sum(s.size for s in mine) > allowed:
            return False
        used = sum(s.size for s in everything)
        for segment in everything:
            if used + needed <= allowed:
                break
            if segment not in mine:
                segment.remove()
                used -= segment.size
        return True

    def _refresh(self) -> None:
        """Read the entries that the indices have gained."""
        try:
            names = sorted(path.stem for path in self.folder.glob("*.index"))
        except OSError:
            return
        for name in names:
            try:
                data = (self.folder / f"{name}.index").read_bytes()
                # An index may be longer than it should be only if a disk has lost pixels.
                whole = (self.folder / f"{name}.pixels").stat().st_size // self._bytes
            except OSError:
                continue
            number = self._number(name)
            start, self._seen[number] = self._seen[number], min(len(data) // _DIGEST, whole)
            for i in range(start, self._seen[number]):
                self._known[data[i * _DIGEST : (i + 1) * _DIGEST]] = (number << 32) + i

    def _number(self, name: str) -> int:
        if name not in self._names:
            self._names.append(name)
            self._maps.append(np.empty((0, *self.shape), np.uint8))
            self._seen.append(0)
        return self._names.index(name)

    def _give_up(self, error: OSError) -> None:
        self.trouble = f"{self.folder}: {error.strerror or error}"


class _Writer:
    """A segment that grows. Its caller holds a lock around `append` and `due`."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.name = f"{time.time_ns():x}-{uuid.uuid4().hex[:8]}"
        # Without buffers: what is written is there for this process's own mapping at once.
        self._pixels: IO[bytes] = (folder / f"{self.name}.pixels").open("xb", buffering=0)
        self._index: IO[bytes] = (folder / f"{self.name}.index").open("xb", buffering=0)
        self._waiting: list[bytes] = []
        self._count, self._bytes, self._last = 0, 0, time.monotonic()

    def __del__(self) -> None:
        for file in (getattr(self, "_pixels", None), getattr(self, "_index", None)):
            if file is not None:
                file.close()

    def append(self, digests: Sequence[bytes], images: Uint8Array) -> int:
        """Write images; answers the position of the first."""
        first = self._count
        _write(self._pixels, np.ascontiguousarray(images))
        self._waiting += digests
        self._count += len(digests)
        self._bytes += images.nbytes
        return first

    def removed(self) -> bool:
        """Whether somebody has removed the file, so that what is written would be lost."""
        return os.fstat(self._pixels.fileno()).st_nlink == 0

    def due(self) -> bool:
        """Whether it is time to publish."""
        return self._bytes >= _PUBLISH_BYTES or time.monotonic() - self._last >= _PUBLISH_SECONDS

    def publish(self, lock: threading.Lock) -> None:
        """Bring the pixels to the disk, and only then write the index."""
        with lock:
            digests, self._waiting = self._waiting, []
            self._bytes, self._last = 0, time.monotonic()
        if digests:
            os.fsync(self._pixels.fileno())
            _write(self._index, np.frombuffer(b"".join(digests), np.uint8))


def _write(file: IO[bytes], array: npt.NDArray[np.uint8]) -> None:
    """Write all of it: on a disk that is nearly full, a write may take a part and say nothing."""
    rest = memoryview(array.data).cast("B")
    while len(rest):
        rest = rest[file.write(rest) :]
