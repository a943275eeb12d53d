"""Cache of decoded images on disk: uint8 pixels in memory-mapped files in the user's cache folder.

`<cache>/striate/decoded/<kind>/` contains the images of one dataset and one size, in segments. Each segment
is written by one process and only grows:

    <segment>.pixels    the images one after the other, each of the same size in bytes
    <segment>.index     for each image a 16-byte key, a digest of everything that determines its pixels, and
                        the CRC32 of the key and the pixels

The first time that a process reads an image, it compares the CRC32; a damaged image is decoded again. The
index is written after the pixels have reached the disk, so a process that is killed leaves at most pixels
without an index entry. Concurrent processes write separate segments and read each other's without locks. A
file that changes gets a new digest, so its old pixels are not read again. The least recently used segments
are deleted when room is needed.
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
import zlib
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
from striate.files import cache_folder
from striate.transforms.decode import DECODER_VERSION, Uint8Array
from striate.transforms.preprocess import Preprocess

Places = npt.NDArray[np.int64]  # segment number * 2**32 + position in the segment; -1 if not cached

LIMIT_VARIABLE = "STRIATE_CACHE_LIMIT"  # in GB
_DEFAULT_LIMIT = 20 * 10**9
_DIGEST = 16
_ENTRY = np.dtype([("key", f"V{_DIGEST}"), ("crc", "<u4")])  # of an index
_KNOWN = np.dtype([*_ENTRY.descr, ("verified", "?")])  # whether this process has compared the pixels
_FORMAT = 2  # of the segments
_STAMPED = 4  # fields of a stamp that determine the pixels; the change time stands for the inode
_PUBLISH_BYTES, _PUBLISH_SECONDS = 64 << 20, 5.0  # a killed process loses about this much work


def limit() -> int:
    """Return the cache limit in bytes, for all datasets together.

    20 GB, or half of the free disk space if that is less; or `STRIATE_CACHE_LIMIT`, in GB.

    Raises:
        UsageError: the variable is not a number.
    """
    value = os.environ.get(LIMIT_VARIABLE)
    if value:
        try:
            gigabytes = float(value)
        except ValueError:
            gigabytes = math.nan
        if not gigabytes >= 0:
            fix = "Set it to a number such as 20"
            raise UsageError(f"{LIMIT_VARIABLE}={value}", "it must be a number of GB", fix)
        return int(min(gigabytes * 1e9, 2**62))
    place = cache_folder()
    while not os.path.exists(place) and place != place.parent:  # noqa: PTH110 - raises no error
        place = place.parent
    try:
        free = shutil.disk_usage(place).free
    except OSError:
        return 0
    return min(_DEFAULT_LIMIT, (free + sum(segment.size for segment in segments())) // 2)


@dataclass(frozen=True)
class SegmentFile:
    """A segment on disk: path without suffix, size in bytes, time of last use."""

    path: Path
    size: int
    used: float

    def remove(self) -> None:
        """Delete the segment; processes that have it mapped can still read it."""
        # The index first: pixels without an index are harmless, an index without pixels is not.
        for suffix in (".index", ".pixels"):
            try:
                self.path.with_suffix(suffix).unlink(missing_ok=True)
            except OSError:
                return  # Windows cannot delete mapped files


def segments() -> list[SegmentFile]:
    """List the segments of all datasets, least recently used first."""
    found = []
    for pixels in _matching(cache_folder() / "decoded", "*/*.pixels"):
        index = pixels.with_suffix(".index")
        try:
            size, used = pixels.stat().st_size, pixels.stat().st_mtime
            if index.exists():
                size, used = size + index.stat().st_size, index.stat().st_mtime
        except OSError:  # deleted by another process, or no permission
            continue
        found.append(SegmentFile(pixels.with_suffix(""), size, used))
    return sorted(found, key=lambda segment: (segment.used, segment.path))


def _matching(folder: Path, pattern: str) -> list[Path]:
    """The paths in a folder that match a pattern; [] for a folder that cannot be read."""
    try:
        return list(folder.glob(pattern))
    except OSError:
        return []


def clear() -> int:
    """Delete all decoded images; return the number of bytes freed."""
    existing = segments()
    for segment in existing:
        segment.remove()
    left = segments()
    for folder in _matching(cache_folder() / "decoded", "*"):
        if not any(segment.path.parent == folder for segment in left):
            shutil.rmtree(folder, ignore_errors=True)
    return sum(segment.size for segment in existing) - sum(segment.size for segment in left)


class Cache:
    """Cache of the decoded images of one dataset and one size.

    Attributes:
        shape: height, width and channels of each image.
        error: why writing failed, after which nothing more is stored; None without an error.
    """

    def __init__(self, root: str, preprocess: Preprocess, shape: tuple[int, int, int], *, crop: bool) -> None:
        self.shape = shape
        self.error: str | None = None
        scaler = "" if crop else version("torch")
        how = json.dumps([
            _FORMAT, DECODER_VERSION, PIL.__version__, features.version("jpg"), not crop, scaler, self.shape,
            preprocess.resize, preprocess.shorter_side, preprocess.interpolation, preprocess.reducing_gap,
        ])  # fmt: skip
        self._seed = hashlib.blake2b(f"{how}\0{root}".encode("utf-8", "surrogateescape"))
        label = re.sub(r"[^A-Za-z0-9_-]+", "", Path(root).name)[:40] or "images"
        kind = f"{label}-{'x'.join(map(str, self.shape))}-{self._seed.hexdigest()[:16]}"
        self.folder = cache_folder() / "decoded" / kind
        self._bytes = math.prod(self.shape)
        self._lock, self._publishing = threading.Lock(), threading.Lock()
        self._names: list[str] = []  # of the segments, by segment number
        self._maps: list[Uint8Array] = []  # by segment number
        self._entries: list[npt.NDArray[np.void]] = []  # `_KNOWN`, by segment number, with room for more
        self._counts: list[int] = []  # of known entries, by segment number
        self._damaged: set[int] = set()  # places
        self._used: set[str] = set()  # segments that this process reads or writes
        self._known: dict[bytes, int] = {}  # digest -> place
        self._writer: _Writer | None = None

    def digest(self, stamp: Stamp) -> bytes:
        """Return the 16-byte key of an image: a digest of everything that determines its pixels."""
        digest = self._seed.copy()
        digest.update(repr(tuple(stamp[:_STAMPED])).encode("utf-8", "surrogateescape"))
        return digest.digest()[:_DIGEST]

    def find(self, digests: Sequence[bytes | None]) -> Places:
        """Return the position of each image, -1 if not cached; includes images of other processes."""
        self._refresh()
        known = (-1 if digest is None else self._known.get(digest, -1) for digest in digests)
        places = np.fromiter(known, np.int64, len(digests))
        for number in np.unique(places[places >= 0] >> 32).tolist():
            self._used.add(self._names[number])
            with contextlib.suppress(OSError):  # deleted meanwhile, or in a read-only folder
                os.utime(self.folder / f"{self._names[number]}.index")
        return places

    def copy(self, place: int, out: Uint8Array) -> bool:
        """Copy the image at `place` into `out`; return whether it still exists and is undamaged."""
        number, position = place >> 32, place & 0xFFFFFFFF
        if place in self._damaged:
            return False
        if position >= len(self._maps[number]):  # not mapped yet, or the file has grown
            try:
                with (self.folder / f"{self._names[number]}.pixels").open("rb") as file:
                    rows = os.fstat(file.fileno()).st_size // self._bytes
                    self._maps[number] = np.memmap(file, np.uint8, "r", shape=(rows, *self.shape))
            except (OSError, ValueError):  # deleted by another process, or cut to nothing
                return False
            if position >= len(self._maps[number]):
                return False
        out[:] = self._maps[number][position]
        return self._is_intact(number, position, out)

    def add(self, digests: Sequence[bytes], images: Uint8Array) -> Places | None:
        """Store images and return their positions; None if writing failed. Thread-safe."""
        entries = _entries(digests, images) if self.error is None else np.zeros(0, _ENTRY)
        with self._lock:
            if self.error is not None:
                return None
            try:
                if self._writer is None or self._writer.removed():
                    self._writer = _Writer(self.folder)
                    self._used.add(self._writer.name)
                first = self._writer.append(entries, images)
            except OSError as error:
                self._fail(error)
                return None
            number, due = self._number(self._writer.name), self._writer.due()
            self._note(number, first, entries)
            places = (number << 32) + np.arange(first, first + len(images))
            self._known.update(zip(digests, places.tolist(), strict=True))
        if due:
            self.publish(wait=False)
        return places

    def publish(self, *, wait: bool = True) -> None:
        """Write the index, so that other processes and later runs find the stored images."""
        if self._writer is None or not self._publishing.acquire(blocking=wait):
            return
        try:
            self._writer.publish(self._lock)
        except OSError as error:
            with self._lock:
                self._fail(error)
        finally:
            self._publishing.release()

    def make_room(self, count: int) -> bool:
        """Delete the least recently used segments until `count` more images fit into the limit.

        Returns:
            Whether they fit; if they can never fit, nothing is deleted.
        """
        allowed, needed = limit(), count * (self._bytes + _ENTRY.itemsize)
        existing = segments()
        own = [s for s in existing if s.path.parent == self.folder and s.path.name in self._used]
        if needed + sum(s.size for s in own) > allowed:
            return False
        used = sum(s.size for s in existing)
        for segment in existing:
            if used + needed <= allowed:
                break
            if segment not in own:
                segment.remove()
                used -= segment.size
        return True

    def _refresh(self) -> None:
        """Read new index entries."""
        for name in sorted(path.stem for path in _matching(self.folder, "*.index")):
            try:
                data = (self.folder / f"{name}.index").read_bytes()
                # An index has more entries than pixels only if the disk lost data.
                whole = (self.folder / f"{name}.pixels").stat().st_size // self._bytes
            except OSError:
                continue
            number = self._number(name)
            start, stop = self._counts[number], min(len(data) // _ENTRY.itemsize, whole)
            if stop > start:
                self._note(number, start, np.frombuffer(data, _ENTRY, stop)[start:])
            for i in range(start, stop):
                at = i * _ENTRY.itemsize
                self._known[data[at : at + _DIGEST]] = (number << 32) + i

    def _number(self, name: str) -> int:
        if name not in self._names:
            self._names.append(name)
            self._maps.append(np.empty((0, *self.shape), np.uint8))
            self._entries.append(np.zeros(0, _KNOWN))
            self._counts.append(0)
        return self._names.index(name)

    def _note(self, number: int, first: int, entries: npt.NDArray[np.void]) -> None:
        """Remember the index entries of a segment, so that its pixels can be compared with them."""
        known, count = self._entries[number], first + len(entries)
        if count > len(known):
            self._entries[number] = np.zeros(max(count, 2 * len(known)), _KNOWN)
            self._entries[number][: len(known)] = known
            known = self._entries[number]
        for name in ("key", "crc"):
            known[name][first:count] = entries[name]
        self._counts[number] = count

    def _is_intact(self, number: int, position: int, pixels: Uint8Array) -> bool:
        """Return whether pixels are as they were stored; they are compared once per process."""
        entry = self._entries[number][position]
        if not entry["verified"]:
            if _crc(entry["key"].tobytes(), pixels) != entry["crc"]:
                self._damaged.add((number << 32) + position)
                return False
            entry["verified"] = True
        return True

    def _fail(self, error: OSError) -> None:
        self.error = f"{self.folder}: {error.strerror or error}"


class _Writer:
    """Appends to one segment. The caller holds a lock around `append` and `due`."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.name = f"{time.time_ns():x}-{uuid.uuid4().hex[:8]}"
        # Unbuffered, so that this process's own mapping sees the data immediately.
        self._pixels: IO[bytes] = (folder / f"{self.name}.pixels").open("xb", buffering=0)
        self._index: IO[bytes] = (folder / f"{self.name}.index").open("xb", buffering=0)
        self._pending: list[npt.NDArray[np.void]] = []
        self._count, self._bytes, self._last = 0, 0, time.monotonic()

    def __del__(self) -> None:
        for file in (getattr(self, "_pixels", None), getattr(self, "_index", None)):
            if file is not None:
                file.close()

    def append(self, entries: npt.NDArray[np.void], images: Uint8Array) -> int:
        """Write images; return the position of the first one."""
        first = self._count
        _write(self._pixels, np.ascontiguousarray(images))
        self._pending.append(entries)
        self._count += len(entries)
        self._bytes += images.nbytes
        return first

    def removed(self) -> bool:
        """Return whether the file was deleted, so that writes would be lost."""
        return os.fstat(self._pixels.fileno()).st_nlink == 0

    def due(self) -> bool:
        """Return whether it is time to publish."""
        return self._bytes >= _PUBLISH_BYTES or time.monotonic() - self._last >= _PUBLISH_SECONDS

    def publish(self, lock: threading.Lock) -> None:
        """Flush the pixels to disk, then write the index."""
        with lock:
            entries, self._pending = self._pending, []
            self._bytes, self._last = 0, time.monotonic()
        if entries:
            os.fsync(self._pixels.fileno())
            _write(self._index, np.concatenate(entries).view(np.uint8))


def _crc(key: bytes, pixels: Uint8Array) -> int:
    """The checksum of an image under its key: another image's pixels do not have it."""
    return zlib.crc32(pixels.data, zlib.crc32(key))


def _entries(digests: Sequence[bytes], images: Uint8Array) -> npt.NDArray[np.void]:
    """The index entries of images."""
    rows = [(digest, _crc(digest, image)) for digest, image in zip(digests, images, strict=True)]
    return np.array(rows, _ENTRY)


def _write(file: IO[bytes], array: npt.NDArray[np.uint8]) -> None:
    """Write the whole array; a single write may be partial if the disk is nearly full."""
    rest = memoryview(array.data).cast("B")
    while len(rest):
        rest = rest[file.write(rest) :]
