"""Zip and tar archives, read in place without unpacking to disk.

Members have random access by offset and can be read from several threads. Only a `.tar.gz` has no random
access: it is read once when it is opened, and its files stay in memory, up to `MAX_TAR_GZ_BYTES`.

Member names are never used as paths on disk. Links, devices and names that lead out of the archive (`../`)
are skipped with a note. A member whose stated size exceeds that of any image is rejected before it is read.
"""

from __future__ import annotations

import bisect
import os
import tarfile
import threading
import zipfile
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from pathlib import Path
from typing import IO, TypeVar

import numpy as np

from striate.data.images.folders import HIDDEN, read_tree
from striate.data.images.samples import SPLIT_NAMES, DataSet, Stamp
from striate.errors import DataError, DecodeError
from striate.transforms.decode import MAX_PIXELS, is_image_name

SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz")
MAX_MEMBER_BYTES = 3 * MAX_PIXELS  # of a member: the largest image that is read, uncompressed
MAX_TAR_GZ_BYTES = 2 << 30  # of all files in a .tar.gz

_Content = TypeVar("_Content")
_DAMAGE = (zipfile.BadZipFile, tarfile.TarError, zlib.error, EOFError, ValueError, RuntimeError, OSError)


@dataclass(frozen=True)
class Archive:
    """The regular files of one archive.

    Attributes:
        path: absolute.
        names: of the members, with `/` as separator; of equal names only the last one.
        sizes: of the members in bytes, as the archive states them.
        skipped: what was skipped, one line each.
        read: returns the bytes of the member at a position. Thread-safe. Raises any of `_DAMAGE`.
    """

    path: str
    names: Sequence[str]
    sizes: Sequence[int]
    skipped: Sequence[str]
    read: Callable[[int], bytes]


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
    try:
        if name.endswith(".zip"):
            return _open_zip(whole)
        return _open_tar(whole) if name.endswith(".tar") else _open_tar_gz(whole)
    except _DAMAGE as error:
        why = getattr(error, "strerror", None) or str(error) or type(error).__name__
        fix = "It may be incomplete: download or pack it again"
        raise DataError(f"cannot read {str(path)!r}", why, fix) from error


def read(archive: Archive, source: str) -> DataSet:
    """Read an archive of class folders, with or without an outer folder.

    Args:
        archive: the opened archive.
        source: how the user named it, for messages.

    Raises:
        DataError: there are no class folders with images.
    """
    # In the order of the same files in a folder: the files of a folder before its subfolders.
    members = [tuple(name.split("/")) for name in archive.names]
    members.sort(key=lambda parts: [*((1, part) for part in parts[:-1]), (0, parts[-1])])
    root = _ArchiveFolder(os.path.basename(archive.path), archive.path, members)  # noqa: PTH119
    while len(below := root.folders()) == 1 and not root.count_loose():
        if below[0].name.lower() in SPLIT_NAMES or not below[0].folders():
            break
        root = below[0]
    data = read_tree(root, source)
    return attach_archives(replace(data, notes=(*archive.skipped, *data.notes)), [archive])


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
        except _DAMAGE as error:
            why = f"its archive is damaged ({str(error) or type(error).__name__})"
        raise DecodeError(f"cannot decode {f'{archive.path}/{archive.names[i]}'!r}", why)

    def stamp(self, key: int) -> Stamp:
        """Return the name and size of a member, and the times of its archive."""
        number, i = self._find(key)
        archive, status = self._archives[number], self._status[number]
        path = f"{archive.path}/{archive.names[i]}"
        return Stamp(path, archive.sizes[i], status.st_mtime_ns, status.st_ctime_ns)

    def _find(self, key: int) -> tuple[int, int]:
        """Return the position of a member's archive, and of the member in it."""
        number = bisect.bisect_right(self._starts, key) - 1
        return number, key - self._starts[number]


def _open_tar(path: str) -> Archive:
    """Open an uncompressed tar archive; members are read by offset and size."""
    with open(path, "rb") as file:  # noqa: PTH123 - a str, as all here
        opened = os.fstat(file.fileno())
        members, skipped = _tar_members(file, "r:", lambda tar, member: (member.offset_data, member.size))
    spans = tuple(members.values())

    def read(i: int) -> bytes:
        start, size = spans[i]
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

    def content(tar: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
        nonlocal total
        total += member.size
        if total > MAX_TAR_GZ_BYTES:
            raise DataError(
                f"cannot read {path!r}",
                "its files must be kept in memory (a .tar.gz has no random access), and they exceed "
                f"{MAX_TAR_GZ_BYTES / 1e9:.1f} GB",
                "Convert it to a .tar (gunzip -k) or a .zip, whose images can be read in any order",
            )
        file = tar.extractfile(member)
        data = file.read() if file is not None else b""
        if len(data) < member.size:
            raise EOFError("it is truncated")
        return data

    with open(path, "rb") as file:  # noqa: PTH123
        members, skipped = _tar_members(file, "r|gz", content)
    files = tuple(members.values())
    return Archive(path, tuple(members), [len(data) for data in files], skipped, files.__getitem__)


def _open_zip(path: str) -> Archive:
    """Open a zip archive."""
    archive = zipfile.ZipFile(path)
    lock = threading.Lock()  # zipfile locks reading, but not its count of open members
    members = {}
    outside = 0
    for info in archive.infolist():
        name = _normalized(info.filename)
        outside += name is None
        if name and not info.is_dir():
            members[name] = info
    infos = tuple(members.values())

    def read(i: int) -> bytes:
        if infos[i].flag_bits & 1:
            raise ValueError("it is encrypted")
        with lock:
            file = archive.open(infos[i])
        try:
            return file.read()
        finally:
            with lock:
                file.close()

    return Archive(path, tuple(members), [info.file_size for info in infos], _notes(outside, 0), read)


def _tar_members(
    file: IO[bytes], mode: str, content: Callable[[tarfile.TarFile, tarfile.TarInfo], _Content]
) -> tuple[dict[str, _Content], tuple[str, ...]]:
    """List the regular files of a tar archive with their content, and what was skipped.

    Args:
        file: the archive.
        mode: of tarfile.
        content: returns what to keep of a file: its bytes, or where they are.
    """
    found: dict[str, _Content] = {}
    outside = links = 0
    with tarfile.open(fileobj=file, mode=mode) as tar:  # type: ignore[call-overload]  # its modes are literals
        while (member := tar.next()) is not None:
            tar.members.clear()  # tarfile would keep a record of each member
            name = _normalized(member.name)
            if name is None:
                outside += 1
            elif member.islnk() and (target := _normalized(member.linkname)) in found:
                found[name] = found[target or ""]
            elif member.isreg() and not member.issparse():
                found.pop(name, None)  # of equal names the last one counts
                found[name] = content(tar, member)
            elif not member.isdir():
                links += 1
    return found, _notes(outside, links)


def _normalized(name: str) -> str | None:
    """Normalise the name of a member; None if it leads out of the archive."""
    if "/" not in name:
        name = name.replace("\\", "/")  # written by some Windows programs
    parts = [part for part in name.split("/") if part not in ("", ".")]
    return None if ".." in parts or "\0" in name else "/".join(parts)


def _notes(outside: int, links: int) -> tuple[str, ...]:
    counts = (
        (outside, "whose names lead out of the archive"),
        (links, "that are not regular files (links, devices)"),
    )
    return tuple(f"skipped {count:,} members {which}" for count, which in counts if count)


@dataclass
class _ArchiveFolder:
    """A folder inside an archive.

    Attributes:
        name: without parents.
        path: full path, starting with that of the archive.
        members: all files below it: the parts of their names relative to this folder.
    """

    name: str
    path: str
    members: list[tuple[str, ...]]

    def folders(self) -> list[_ArchiveFolder]:
        below: dict[str, list[tuple[str, ...]]] = {}
        for parts in self.members:
            if len(parts) > 1 and not parts[0].startswith(HIDDEN):
                below.setdefault(parts[0], []).append(parts[1:])
        return [_ArchiveFolder(name, f"{self.path}/{name}", below[name]) for name in sorted(below)]

    def images(self) -> list[str]:
        return [
            "/".join((self.path, *parts))
            for parts in self.members
            if is_image_name(parts[-1]) and not any(part.startswith(".") for part in parts[:-1])
        ]

    def count_loose(self) -> int:
        return sum(len(parts) == 1 and is_image_name(parts[0]) for parts in self.members)
