"""Zip and tar archives, read in place without unpacking to disk.

Members have random access by offset and can be read from several threads. Only a `.tar.gz` has no random
access: it is read once when it is opened, and its files stay in memory, up to `MAX_TAR_GZ_BYTES`.

Member names are never used as paths on disk. Links, devices and names that lead out of the archive (`../`)
are skipped with a note. A member whose stated size exceeds that of any image is rejected before it is read.
"""

from __future__ import annotations

import bisect
import io
import os
import struct
import threading
import weakref
import zipfile
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from pathlib import Path
from typing import BinaryIO, Protocol, TypeVar, cast

import numpy as np

from striate.data.images.member_names import decode_names
from striate.data.images.samples import DataSet, Stamp
from striate.data.images.tar_headers import Member, TarHeaders, skip_in_file, skip_in_stream
from striate.errors import DataError, DecodeError
from striate.reading import DAMAGE, RATIO_FREE_BYTES, Inflated, check_ratio, damage_errors, open_file, reason
from striate.transforms.decode import MAX_PIXELS

SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz")
MAX_MEMBER_BYTES = 3 * MAX_PIXELS  # of a member: the largest image that is read, uncompressed
MAX_ZIP_READ_BYTES = 1 << 29  # of the list of members of a zip, which is in memory
MAX_TAR_GZ_BYTES = 2 << 30  # of all files in a .tar.gz

_UTF8_FLAG = 0x800  # of a zip member whose name is UTF-8
_UNICODE_PATH = 0x7075  # extra field of a zip member with its name in UTF-8

_Content = TypeVar("_Content")


class _Read(Protocol):
    def __call__(self, i: int, limit: int | None = None) -> bytes: ...


@dataclass(frozen=True)
class Archive:
    """The regular files of one archive.

    Attributes:
        path: absolute.
        names: of the members, with `/` as separator; of equal names only the last one.
        sizes: of the members in bytes, as the archive states them.
        skipped: what was skipped, one line each.
        read: returns the bytes of the member at a position, or only so many. Thread-safe. Raises any of
            `reading.DAMAGE`.
    """

    path: str
    names: Sequence[str]
    sizes: Sequence[int]
    skipped: Sequence[str]
    read: _Read


def is_archive(name: str) -> bool:
    """Return whether a file name has an archive suffix."""
    return name.lower().endswith(SUFFIXES)


def open_archive(path: Path) -> Archive:
    """Open an archive and list its members; read all members of a `.tar.gz`.

    Raises:
        DataError: the archive is damaged, or is a `.tar.gz` that is too large for memory.
    """
    name = path.name.lower()
    whole = os.path.abspath(path)  # noqa: PTH100 - as stamps have it
    with damage_errors(f"cannot read {str(path)!r}", "It may be incomplete: download or pack it again"):
        if name.endswith(".zip"):
            return _open_zip(whole)
        return _open_tar(whole) if name.endswith(".tar") else _open_tar_gz(whole)


def attach_archives(data: DataSet, archives: Sequence[Archive]) -> DataSet:
    """Let the samples of a dataset be read from the archive members of the same names."""
    names = (f"{archive.path}/{name}" for archive in archives for name in archive.names)
    key = {name: i for i, name in enumerate(names)}
    store, splits = ArchiveStore(archives), {}
    for split, samples in data.splits.items():
        keys = np.array([key[name] for name in samples.names], np.int64)
        splits[split] = replace(samples, store=store, keys=keys)
    return replace(data, splits=splits)


class ArchiveStore:
    """The members of several archives as one `Store`; keys count through all archives."""

    def __init__(self, archives: Sequence[Archive]) -> None:
        self._archives = archives
        self._starts = [0, *accumulate(len(archive.names) for archive in archives[:-1])]
        self._status = [os.stat(archive.path) for archive in archives]  # noqa: PTH116

    def fetch(self, key: int) -> bytes:
        """Return the bytes of a member; raises DecodeError."""
        number, i = self._find(key)
        archive = self._archives[number]
        try:
            if archive.sizes[i] > MAX_MEMBER_BYTES:
                why = f"it has {archive.sizes[i]:,} bytes, more than the largest image that can be read"
            else:
                return archive.read(i)
        except DAMAGE as error:
            why = f"its archive is damaged ({reason(error)})"
        raise DecodeError(f"cannot decode {f'{archive.path}/{archive.names[i]}'!r}", why)

    def stamp(self, key: int) -> Stamp:
        """Return the name and size of a member, and the times of its archive."""
        number, i = self._find(key)
        archive, status = self._archives[number], self._status[number]
        path = f"{archive.path}/{archive.names[i]}"
        return Stamp(path, archive.sizes[i], status.st_mtime_ns, status.st_ctime_ns, status.st_ino)

    def _find(self, key: int) -> tuple[int, int]:
        """Return the position of a member's archive, and of the member in it."""
        number = bisect.bisect_right(self._starts, key) - 1
        return number, key - self._starts[number]


def _open_tar(path: str) -> Archive:
    """Open an uncompressed tar archive; members are read by offset and size."""
    with open_file(path) as buffered:
        file = cast(BinaryIO, buffered.raw)  # headers are far apart
        opened = os.fstat(file.fileno())
        headers = TarHeaders(file, skip_in_file(file))
        members, skipped = _tar_members(headers, lambda member: (member.start, member.size))
    spans = tuple(members.values())

    def read(i: int, limit: int | None = None) -> bytes:
        start, size = spans[i]
        size = size if limit is None else min(size, limit)
        # Open for each read: there may be more archives than file descriptors.
        with open(path, "rb", buffering=0) as file:  # noqa: PTH123
            status = os.fstat(file.fileno())
            if (status.st_size, status.st_mtime_ns) != (opened.st_size, opened.st_mtime_ns):
                raise OSError("it changed after it was opened")
            file.seek(start)
            data = file.read(size)
        if len(data) < size:
            raise EOFError("it is truncated")
        return data

    return Archive(path, tuple(members), [size for _, size in spans], skipped, read)


def _open_tar_gz(path: str) -> Archive:
    """Open a gzipped tar archive; reads all its files into memory."""
    total = 0

    def content(member: Member) -> bytes:
        nonlocal total
        total += member.size
        if total > MAX_TAR_GZ_BYTES:
            raise DataError(
                f"cannot read {path!r}",
                "its files must be kept in memory (a .tar.gz has no random access), and they exceed "
                f"{MAX_TAR_GZ_BYTES / 1e9:.1f} GB",
                "Convert it to a .tar (gunzip -k) or a .zip, whose images can be read in any order",
            )
        return headers.read(member)

    with open_file(path) as file:
        limit = 2 * MAX_TAR_GZ_BYTES + RATIO_FREE_BYTES  # headers, and what is not kept, take time only
        stream = cast(BinaryIO, io.BufferedReader(Inflated(file, limit), 1 << 17))
        headers = TarHeaders(stream, skip_in_stream(stream))
        members, skipped = _tar_members(headers, content)
    files = tuple(members.values())
    return Archive(
        path, tuple(members), [len(data) for data in files], skipped, lambda i, limit=None: files[i][:limit]
    )


def _open_zip(path: str) -> Archive:
    """Open a zip archive."""
    file = _LimitedReads(open_file(path).detach())
    try:
        archive = zipfile.ZipFile(file)
    except BaseException:
        file.close()
        raise
    weakref.finalize(archive, file.close)  # which zipfile leaves to those who opened it
    lock = threading.Lock()  # zipfile locks reading, but not its count of open members
    entries = [info for info in archive.infolist() if not info.is_dir()]
    named = [(*_zip_name(info), info) for info in entries]
    members, skipped = _with_names(named, "cp437")
    infos = tuple(members.values())

    def read(i: int, limit: int | None = None) -> bytes:
        info = infos[i]
        if info.flag_bits & 1:
            raise ValueError("it is encrypted")
        if limit is None:
            check_ratio(info.file_size, info.compress_size)
        with lock:
            file = archive.open(info)
        try:
            return file.read(-1 if limit is None else limit)
        finally:
            with lock:
                file.close()

    return Archive(path, tuple(members), [info.file_size for info in infos], skipped, read)


class _LimitedReads(io.BufferedReader):
    """A file without very large reads: zipfile reads the list of members whole, whatever its stated size."""

    def read(self, size: int | None = -1, /) -> bytes:
        """Read so many bytes; raises ValueError if they are too many."""
        if size is not None and size > MAX_ZIP_READ_BYTES:
            raise ValueError(f"its list of members has {size:,} bytes")
        return super().read(size)


def _zip_name(info: zipfile.ZipInfo) -> tuple[bytes, bool]:
    """Return the bytes of a member's name, and whether they are known to be UTF-8."""
    if info.flag_bits & _UTF8_FLAG:
        return info.orig_filename.encode("utf-8", "surrogateescape").partition(b"\0")[0], True
    raw, extra = info.orig_filename.encode("cp437"), info.extra
    while len(extra) >= 4:
        kind, size = struct.unpack_from("<HH", extra)
        if kind == _UNICODE_PATH and extra[5:9] == zlib.crc32(raw).to_bytes(4, "little"):
            return extra[9 : 4 + size], True
        extra = extra[4 + size :]
    return raw.partition(b"\0")[0], False


def _tar_members(
    headers: TarHeaders, content: Callable[[Member], _Content]
) -> tuple[dict[str, _Content], tuple[str, ...]]:
    """List the regular files of a tar archive with their content, and what was skipped.

    Args:
        headers: of the archive.
        content: returns what to keep of a file: its bytes, or where they are.
    """
    found: list[tuple[bytes, bool, _Content]] = []
    by_name: dict[str | None, _Content] = {}  # for hard links
    outside = links = 0
    for member in headers:
        name = _normalized(member.name)
        if name is None:
            outside += 1
            continue
        if member.kind == "link" and _normalized(member.target) in by_name:
            kept = by_name[_normalized(member.target)]
        elif member.kind == "file":
            kept = content(member)
        else:
            links += member.kind != "folder"
            continue
        by_name[name] = kept
        found.append((member.name.encode("utf-8", "surrogateescape"), member.is_utf8, kept))
    members, skipped = _with_names(found, "utf-8", outside)
    notes = [f"skipped {links:,} members that are not regular files (links, devices)"] if links else []
    if not headers.has_end:
        notes.append(
            "the archive has no end-of-archive marker, so it may be incomplete: pack or download it again"
        )
    return members, (*skipped, *notes)


def _with_names(
    found: Sequence[tuple[bytes, bool, _Content]], default: str, outside: int = 0
) -> tuple[dict[str, _Content], tuple[str, ...]]:
    """Decode and normalize the names of members; of equal names the last one counts.

    Args:
        found: name, whether it is known to be UTF-8, and content of each member.
        default: the encoding of names in an encoding that is not recognized.
        outside: number of members that were skipped because their names lead out of the archive.

    Returns:
        The members by name, and what was skipped or guessed.
    """
    guessed, note = decode_names([name for name, is_utf8, _ in found if not is_utf8], default)
    rest = iter(guessed)
    members: dict[str, _Content] = {}
    replaced = 0
    for raw, is_utf8, content in found:
        name = _normalized(raw.decode("utf-8", "surrogateescape") if is_utf8 else next(rest))
        if name is None:
            outside += 1
        elif name:
            replaced += name in members
            members.pop(name, None)
            members[name] = content
    counts = (
        (outside, "whose names lead out of the archive"),
        (replaced, "that have the name of a later one"),
    )
    notes = (f"skipped {count:,} members {which}" for count, which in counts if count)
    return members, (*([note] if note else ()), *notes)


def _normalized(name: str) -> str | None:
    """Normalize the name of a member; None if it leads out of the archive."""
    if "/" not in name:
        name = name.replace("\\", "/")  # written by some Windows programs
    parts = [part for part in name.split("/") if part not in ("", ".")]
    return None if ".." in parts or "\0" in name else "/".join(parts)
