"""Zip and tar archives, read in place: nothing is ever unpacked to a disk.

A member is found by where it lies, so that any image can be read without the others, in any order, by several
threads at once. Only a `.tar.gz` cannot be entered in its middle: it is read through once, when it is opened,
and its files are held in memory as they are, up to `HELD` bytes.

Names of members are names and nothing else: no path of the disk is made from them. What is no plain file is
passed over with a word, so are names that lead out of the archive. A member that says it is larger than any
image may be is refused before it is unpacked, and none is unpacked beyond what it says.
"""

from __future__ import annotations

import bisect
import os
import tarfile
import threading
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np

from striate.data.images.folders import SPLIT_NAMES, read_tree
from striate.data.images.samples import DataSet, Stamp
from striate.errors import DataError, DecodeError
from striate.transforms.decode import MAX_PIXELS, is_image_name

SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz")
MAX_MEMBER_BYTES = 3 * MAX_PIXELS  # bytes of a member: the largest picture that is read, not compressed
MAX_TAR_GZ_BYTES = 2 << 30  # bytes of a .tar.gz's files

_DAMAGE = (zipfile.BadZipFile, tarfile.TarError, zlib.error, EOFError, ValueError, RuntimeError, OSError)


class Archive(Protocol):
    """The plain files of one archive.

    Attributes:
        path: absolute.
        names: of the members, with `/` between their parts; a name that stands there twice is the last one.
        odd: what was passed over, a line each.
    """

    path: str
    names: Sequence[str]
    skipped: Sequence[str]

    def read(self, i: int) -> bytes:
        """The bytes of a member; by several threads at once. Raises DecodeError."""

    def size(self, i: int) -> int:
        """How many bytes it is said to have."""


def is_archive(name: str) -> bool:
    """Whether a file of this name is taken for an archive."""
    return name.lower().endswith(SUFFIXES)


def open_archive(path: Path) -> Archive:
    """Find the members of an archive; of a `.tar.gz`, read them too.

    Raises:
        DataError: it cannot be read, or is a `.tar.gz` of more than may be held in memory.
    """
    name = path.name.lower()
    whole = os.path.abspath(path)  # noqa: PTH100 - as stamps have it
    try:
        if name.endswith(".zip"):
            return _Zip(whole)
        return _Tar(whole) if name.endswith(".tar") else _PackedTar(whole)
    except _DAMAGE as error:
        why = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise DataError(f"cannot read {str(path)!r}", why, "Is it whole? Fetch or pack it again") from error


def read(archive: Archive, source: str) -> DataSet:
    """An archive of class folders, laid out as a folder may be, in a folder of its own or not.

    Args:
        archive: opened.
        source: what the user called it.

    Raises:
        DataError: there are no class folders with images.
    """
    root = _Inside(os.path.basename(archive.path), archive.path, tuple(_sorted(archive.names)))  # noqa: PTH119
    while len(below := root.folders()) == 1 and not root.count_loose():
        if below[0].name.lower() in SPLIT_NAMES or not below[0].folders():
            break
        root = below[0]
    data = read_tree(root, source)
    return attach_store(replace(data, notes=(*archive.skipped, *data.notes)), ArchiveStore([archive]))


def attach_store(data: DataSet, members: ArchiveStore) -> DataSet:
    """A data set whose names are those of members, to be read from there."""
    key = {name: i for i, name in enumerate(members.names())}
    splits = {
        split: replace(samples, store=members, keys=np.array([key[name] for name in samples.names], np.int64))
        for split, samples in data.splits.items()
    }
    return replace(data, splits=splits)


class ArchiveStore:
    """The members of one or several archives, one after the other: what samples are read from."""

    def __init__(self, archives: Sequence[Archive]) -> None:
        self._archives = archives
        self._starts = [0]
        for archive in archives[:-1]:
            self._starts.append(self._starts[-1] + len(archive.names))
        self._status = [os.stat(archive.path) for archive in archives]  # noqa: PTH116

    def names(self) -> Iterator[str]:
        """The path of each: that of its archive, and its own in it."""
        for archive in self._archives:
            yield from (f"{archive.path}/{name}" for name in archive.names)

    def fetch(self, key: int) -> bytes:
        """The bytes of a member; raises DecodeError."""
        archive, i = self._find(key)
        if archive.size(i) > MAX_MEMBER_BYTES:
            raise _bad(archive, i, f"it has {archive.size(i):,} bytes, more than any image that is read")
        try:
            return archive.read(i)
        except _DAMAGE as error:
            raise _bad(
                archive, i, f"its archive is damaged ({str(error) or type(error).__name__})"
            ) from error

    def stamp(self, key: int) -> Stamp:
        """The name and size of a member, and the times of its archive."""
        archive, i = self._find(key)
        status = self._status[bisect.bisect_right(self._starts, key) - 1]
        path = f"{archive.path}/{archive.names[i]}"
        return Stamp(path, archive.size(i), status.st_mtime_ns, status.st_ctime_ns)

    def _find(self, key: int) -> tuple[Archive, int]:
        number = bisect.bisect_right(self._starts, key) - 1
        return self._archives[number], key - self._starts[number]


class _Place(NamedTuple):
    start: int
    size: int


class _Tar:
    """An uncompressed tar archive: a member is so many bytes from there on."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.skipped: Sequence[str]
        with open(path, "rb") as file:  # noqa: PTH123 - a str, as all here
            self._status = os.fstat(file.fileno())
            places, self.skipped = _tar_members(file, "r:")
        self.names: Sequence[str] = tuple(places)
        self._places = tuple(places.values())

    def read(self, i: int) -> bytes:
        start, size = self._places[i]
        # Opened each time: there may be more archives than a process may have files.
        with open(self.path, "rb", buffering=0) as file:  # noqa: PTH123
            status = os.fstat(file.fileno())
            if (status.st_size, status.st_mtime_ns) != (self._status.st_size, self._status.st_mtime_ns):
                raise OSError("it has changed since it was opened")
            file.seek(start)
            data = file.read(size)
        if len(data) < size:
            raise EOFError("it is cut short")
        return data

    def size(self, i: int) -> int:
        return self._places[i].size


class _PackedTar:
    """A tar archive within gzip: its files, as they were when it was read through."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.skipped: Sequence[str]
        self._held: list[bytes] = []
        with open(path, "rb") as file:  # noqa: PTH123
            places, self.skipped = _tar_members(file, "r|gz", self._held)
        self.names: Sequence[str] = tuple(places)
        self._places = tuple(places.values())

    def read(self, i: int) -> bytes:
        return self._held[self._places[i].start]

    def size(self, i: int) -> int:
        return self._places[i].size


class _Zip:
    """A zip archive."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._zip = zipfile.ZipFile(path)
        self._lock = threading.Lock()  # zipfile's own covers reading, not the count of what is open
        names = {}
        strange = 0
        for info in self._zip.infolist():
            name = _clean(info.filename)
            strange += name is None
            if name and not info.is_dir():
                names[name] = info
        self.skipped: Sequence[str] = _told(strange, 0)
        self.names: Sequence[str] = tuple(names)
        self._infos = tuple(names.values())

    def read(self, i: int) -> bytes:
        info = self._infos[i]
        if info.flag_bits & 1:
            raise ValueError("it is encrypted")
        with self._lock:
            file = self._zip.open(info)
        try:
            return file.read()
        finally:
            with self._lock:
                file.close()

    def size(self, i: int) -> int:
        return self._infos[i].file_size


def _tar_members(
    file: object, mode: str, held: list[bytes] | None = None
) -> tuple[dict[str, _Place], tuple[str, ...]]:
    """The plain files of a tar archive, each with its place; and what was passed over.

    Args:
        file: open for reading bytes.
        mode: of tarfile.
        held: is given the bytes of each; a place then is a position in it.
    """
    found: dict[str, _Place] = {}
    strange = links = total = 0
    with tarfile.open(fileobj=file, mode=mode) as tar:  # type: ignore[call-overload]  # its modes are literals
        while (member := tar.next()) is not None:
            tar.members.clear()  # tarfile would keep all it has seen
            total += member.size
            if held is not None and total > MAX_TAR_GZ_BYTES:
                raise DataError(
                    f"cannot read {getattr(file, 'name', '')!r}",
                    "its files must be kept in memory (a .tar.gz has no random access), and they exceed "
                    f"{MAX_TAR_GZ_BYTES / 1e9:.1f} GB",
                    "Convert it to a .tar (gunzip -k) or a .zip, whose images can be read in any order",
                )
            name = _clean(member.name)
            if name is None:
                strange += 1
            elif member.islnk() and (target := _clean(member.linkname)) in found:
                found[name] = found[target or ""]
            elif member.isreg() and not member.issparse():
                place = _Place(member.offset_data, member.size)
                if held is not None:
                    place = _hold(tar, member, held)
                found.pop(name, None)  # the last one of a name is the one that counts
                found[name] = place
            elif not member.isdir():
                links += 1
    return found, _told(strange, links)


def _hold(tar: tarfile.TarFile, member: tarfile.TarInfo, held: list[bytes]) -> _Place:
    file = tar.extractfile(member)
    data = file.read() if file is not None else b""
    if len(data) < member.size:
        raise EOFError("it is cut short")
    held.append(data)
    return _Place(len(held) - 1, member.size)


def _clean(name: str) -> str | None:
    """A member's name without what makes no difference; None where it leads out of the archive."""
    if "/" not in name:
        name = name.replace("\\", "/")  # as some programs of Windows pack
    parts = [part for part in name.split("/") if part not in ("", ".")]
    return None if ".." in parts or "\0" in name else "/".join(parts)


def _told(strange: int, links: int) -> tuple[str, ...]:
    lines = []
    if strange:
        lines.append(f"{strange:,} members whose names lead out of the archive are passed over")
    if links:
        lines.append(f"{links:,} members that are no plain files (links, devices) are passed over")
    return tuple(lines)


def _sorted(names: Sequence[str]) -> list[tuple[tuple[str, ...], str]]:
    """Names with their parts, in the order in which the same files would be found in a folder."""
    split = ((tuple(name.split("/")), name) for name in names)
    return sorted(split, key=lambda pair: [*((1, part) for part in pair[0][:-1]), (0, pair[0][-1])])


@dataclass(frozen=True)
class _Inside:
    """A folder within an archive.

    Attributes:
        name: its own.
        path: where it is.
        members: what is below it: the parts of the name from there on, and the whole name.
    """

    name: str
    path: str
    members: tuple[tuple[tuple[str, ...], str], ...] = field(repr=False)

    def folders(self) -> list[_Inside]:
        below: dict[str, list[tuple[tuple[str, ...], str]]] = {}
        for parts, name in self.members:
            if len(parts) > 1 and not parts[0].startswith((".", "__")):
                below.setdefault(parts[0], []).append((parts[1:], name))
        return [
            _Inside(name, f"{self.path}/{name}", tuple(members)) for name, members in sorted(below.items())
        ]

    def images(self) -> list[str]:
        return [
            "/".join((self.path, *parts))
            for parts, _ in self.members
            if is_image_name(parts[-1]) and not any(part.startswith(".") for part in parts[:-1])
        ]

    def count_loose(self) -> int:
        return sum(len(parts) == 1 and is_image_name(parts[0]) for parts, _ in self.members)


def _bad(archive: Archive, i: int, why: str) -> DecodeError:
    return DecodeError(f"cannot decode {f'{archive.path}/{archive.names[i]}'!r}", why)
