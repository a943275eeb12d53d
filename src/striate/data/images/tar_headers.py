"""Walk the headers of a tar archive strictly: damage is an error that names its position.

Python's `tarfile` takes a damaged header for the end of the archive, reads names and lists of any stated size
into memory, and does not tell whether the end-of-archive marker is there.

Formats: POSIX.1-2024 "pax", which contains ustar, and GNU tar's long names and sparse files
(https://www.gnu.org/software/tar/manual/html_node/Standard.html).
"""

from __future__ import annotations

import contextlib
import os
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import BinaryIO, NamedTuple

BLOCK = 512  # bytes of a header; content is padded to whole blocks
MAX_EXTENSION = 1 << 20  # bytes of a long name or of a pax header; paths have at most 4,096
_CHUNK = 1 << 20
_ZEROS = bytes(_CHUNK)
_GNU_NAMES = (tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK)
_PAX = (tarfile.XHDTYPE, tarfile.SOLARIS_XHDTYPE)
_DIGITS = 20  # of a size
_SPARSE_BLOCKS = 1 << 16  # blocks that list the parts of a sparse file


class Member(NamedTuple):
    """A member of a tar archive.

    Attributes:
        name: its path; bytes that are not UTF-8 are surrogates.
        is_utf8: whether a pax header gives the name, which then is UTF-8.
        kind: `file`, `folder`, `link` (a hard link) or `other`, such as a symbolic link or a sparse file.
        target: of a hard link.
        start: position of its content.
        size: of its content in bytes.
    """

    name: str
    is_utf8: bool
    kind: str
    target: str
    start: int
    size: int


class TarDamageError(ValueError):
    """A header of a tar archive is damaged or truncated; the message has its position."""


@dataclass
class _Names:
    """What extended headers say about the member that follows them; None if they say nothing."""

    path: str | None = None
    linkpath: str | None = None
    size: str | None = None
    is_sparse: bool = False
    is_utf8: bool = False

    def or_else(self, later: _Names) -> _Names:
        """Return the same with what others say where these say nothing."""
        return _Names(
            later.path if self.path is None else self.path,
            later.linkpath if self.linkpath is None else self.linkpath,
            later.size if self.size is None else self.size,
            self.is_sparse or later.is_sparse,
            later.is_utf8 if self.path is None else self.is_utf8,
        )


class TarHeaders:
    """The members of a tar archive, read once from its start to its end.

    Attributes:
        has_end: whether the archive ends with a marker, two blocks of zeros; known after the last member.
    """

    def __init__(self, file: BinaryIO, skip: Callable[[int], None]) -> None:
        """Start at the beginning.

        Args:
            file: at the start of the archive.
            skip: moves forward in the file by a number of bytes; raises EOFError beyond the end.
        """
        self._file, self._skip_bytes, self._at = file, skip, 0
        self._zeros: int | None = None  # where the zeros at the end start
        self._global = _Names()
        self.has_end = False

    def __iter__(self) -> Iterator[Member]:
        """Yield the members in their order.

        Raises:
            TarDamageError: a header is damaged, or the file ends within a header or a member.
        """
        names: _Names | None = None
        while (header := self._header()) is not None:
            place, info = header
            if info.type == tarfile.XGLTYPE:
                self._global = self._extension(info, place).or_else(self._global)
            elif info.type in _GNU_NAMES or info.type in _PAX:
                # Of several the first one counts, as in tarfile.
                names = (names or _Names()).or_else(self._extension(info, place))
            else:
                member = self._member(info, (names or _Names()).or_else(self._global), place)
                yield member
                end = member.start + member.size + -member.size % BLOCK
                self._skip(end - self._at, member.start)
                names = None
        if names is not None:
            raise TarDamageError(f"the archive ends at byte {self._at:,}, after an extended header")
        self._check_end()

    def read(self, member: Member) -> bytes:
        """Read the content of the member that was yielded last, once; raises TarDamageError."""
        return self._read(member.size, member.start)

    def _header(self) -> tuple[int, tarfile.TarInfo] | None:
        """Read the next header; returns its position too. None at the end of the archive."""
        place, block = self._at, self._file.read(BLOCK)
        self._at += len(block)
        if not block:
            if place == 0:
                raise TarDamageError("the archive is empty (0 bytes)")
            return None
        if not any(block):
            self._zeros = place
            return None
        if len(block) < BLOCK:
            raise TarDamageError(f"the archive ends within the header at byte {place:,}: it is truncated")
        try:
            info = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
        except (tarfile.TarError, ValueError) as error:
            raise TarDamageError(f"the header at byte {place:,} is damaged ({error})") from error
        if info.size < 0:
            raise TarDamageError(f"the header at byte {place:,} is damaged (a negative size)")
        if info.type == tarfile.GNUTYPE_SPARSE:
            self._skip_sparse_lists(block, place)
        return place, info

    def _extension(self, info: tarfile.TarInfo, place: int) -> _Names:
        """Read a long name or a pax header."""
        if info.size > MAX_EXTENSION:
            why = f"it states {info.size:,} bytes for names, and the limit is {MAX_EXTENSION:,}"
            raise TarDamageError(f"the header at byte {place:,} is not usable ({why})")
        data = self._read(info.size, place)
        self._skip(-info.size % BLOCK, place)
        if info.type in _GNU_NAMES:
            name = _text(data.partition(b"\0")[0])
            return _Names(name) if info.type == tarfile.GNUTYPE_LONGNAME else _Names(linkpath=name)
        try:
            records = dict(_pax_records(data))
        except ValueError as error:
            raise TarDamageError(f"the pax header at byte {place:,} is damaged ({error})") from error
        is_sparse = any(key.startswith("GNU.sparse.") for key in records)
        size = records.get("size")
        if size is not None and not (size.isdecimal() and len(size) <= _DIGITS):
            raise TarDamageError(f"the pax header at byte {place:,} is damaged (a size of {size[:40]!r})")
        return _Names(records.get("path"), records.get("linkpath"), size, is_sparse, "path" in records)

    def _member(self, info: tarfile.TarInfo, names: _Names, place: int) -> Member:
        """Combine a header with the extended headers before it."""
        is_sparse = info.type == tarfile.GNUTYPE_SPARSE or names.is_sparse
        kind = "other"
        if info.isdir():
            kind = "folder"
        elif info.islnk():
            kind = "link"
        elif info.isreg() and not is_sparse:
            kind = "file"
        size = info.size if names.size is None else int(names.size)
        if not (info.isreg() or info.type not in tarfile.SUPPORTED_TYPES):
            size = 0  # links, folders and devices have no content, whatever their size says
        name = info.name if names.path is None else names.path
        target = info.linkname if names.linkpath is None else names.linkpath
        return Member(name, names.is_utf8, kind, target, self._at, size)

    def _skip_sparse_lists(self, block: bytes, place: int) -> None:
        """Skip the blocks that list further parts of a sparse file of GNU tar."""
        more, count = block[482], 0
        while more:
            block, count = self._read(BLOCK, place), count + 1
            more = block[504]
            if count > _SPARSE_BLOCKS:
                raise TarDamageError(f"the header at byte {place:,} is followed by too many sparse headers")

    def _read(self, size: int, place: int) -> bytes:
        parts, left = [], size
        while left and (part := self._file.read(min(left, _CHUNK))):  # at most what the file contains
            parts.append(part)
            left -= len(part)
        self._at += size - left
        if left:
            raise TarDamageError(
                f"the archive ends at byte {self._at:,}, within what starts at byte {place:,}"
            )
        return b"".join(parts)

    def _skip(self, size: int, place: int) -> None:
        try:
            self._skip_bytes(size)
        except EOFError as error:
            why = f"the archive ends within the file whose content starts at byte {place:,}: it is truncated"
            raise TarDamageError(why) from error
        self._at += size

    def _check_end(self) -> None:
        """Check the end-of-archive marker, and that nothing follows: else a header was lost."""
        start = self._zeros
        if start is None:
            return  # the file ends after a member
        while block := self._file.read(_CHUNK):
            if block != _ZEROS[: len(block)]:
                first = self._at + len(block) - len(block.lstrip(b"\0"))
                why = f"zeros at byte {start:,} end the archive, but data follow at byte {first:,}"
                raise TarDamageError(f"{why}: a header is damaged, or several archives were joined")
            self._at += len(block)
            if len(block) == _CHUNK:
                self._at += _skip_hole(self._file)
        self.has_end = self._at - start >= 2 * BLOCK


def _pax_records(data: bytes) -> Iterator[tuple[str, str]]:
    """Yield keys and values: each record is its own length, a blank, `key=value` and a line break."""
    at = 0
    while at < len(data) and data[at]:
        digits, blank, _ = data[at : at + 20].partition(b" ")
        if not (blank and digits.isdigit()):
            raise ValueError(f"no record at its byte {at}")
        end = at + int(digits)
        if end > len(data) or data[end - 1 : end] != b"\n" or end <= at + len(digits) + 1:
            raise ValueError(f"the record at its byte {at} has a wrong length")
        key, equals, value = data[at + len(digits) + 1 : end - 1].partition(b"=")
        if not (key and equals):
            raise ValueError(f"the record at its byte {at} has no key")
        yield _text(key), _text(value)
        at = end


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "surrogateescape")


def _skip_hole(file: BinaryIO) -> int:
    """Skip the hole of a sparse file, which holds zeros; returns the number of bytes, 0 if there is none."""
    with contextlib.suppress(OSError, AttributeError, ValueError):  # not a file, or not on this system
        at, end = file.tell(), os.fstat(file.fileno()).st_size
        try:
            data = os.lseek(file.fileno(), at, os.SEEK_DATA)
        except OSError:  # no data follow
            data = end
        file.seek(max(at, data))
        return max(0, data - at)
    return 0


def skip_in_file(file: BinaryIO) -> Callable[[int], None]:
    """Return a function that skips bytes of a file by seeking."""
    end = os.fstat(file.fileno()).st_size

    def skip(size: int) -> None:
        if file.tell() + size > end:
            raise EOFError
        file.seek(size, os.SEEK_CUR)

    return skip


def skip_in_stream(stream: BinaryIO) -> Callable[[int], None]:
    """Return a function that skips bytes of a stream by reading."""

    def skip(size: int) -> None:
        while size > 0:
            part = stream.read(min(size, _CHUNK))
            if not part:
                raise EOFError
            size -= len(part)

    return skip
