"""Paths that users give, and atomic writes: readers see the old file or the new one, never a part."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
import shutil
import stat
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import BinaryIO

from striate.errors import DataError, WriteError, access_error, environment_error

_LONGEST = 60  # letters of a file's name in the name of its temporary file; 255 bytes are the limit


@dataclass(frozen=True)
class Fingerprint:
    """What ties a file to the run that wrote it.

    Attributes:
        lines: number of line breaks.
        sha256: of its bytes, in hexadecimal.
        before: SHA-256 of the content before the last change, which the file has until that is written.
    """

    lines: int
    sha256: str
    before: str = ""

    @classmethod
    def of(cls, content: bytes, before: str = "") -> Fingerprint:
        """The fingerprint of a file's content."""
        return cls(content.count(b"\n"), hashlib.sha256(content).hexdigest(), before)

    def error(self, path: Path, content: bytes, fix: str) -> DataError | None:
        """The error for a file that has changed, with the line if one is missing; None if it has not.

        Args:
            path: of the file.
            content: its present content.
            fix: what to do.
        """
        now = Fingerprint.of(content)
        if now.sha256 in (self.sha256, self.before):
            return None
        if now.lines < self.lines:
            why = f"the file ends after {now.lines:,} of the {self.lines:,} lines that the run wrote"
            return DataError(f"{path}:{now.lines + 1}", why, fix)
        if now.lines > self.lines:
            return DataError(f"{path}:{self.lines + 1}", f"the run wrote only {self.lines:,} lines", fix)
        return DataError(f"{str(path)!r} has changed", "it is not as the run wrote it", fix)


def cache_folder() -> Path:
    """Striate's cache folder (in XDG_CACHE_HOME, else ~/.cache)."""
    base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")  # noqa: PTH111 - never raises
    return Path(base) / "striate"


def expanded(path: str | os.PathLike[str]) -> Path:
    """A path with `~` replaced by the home folder, if that is known."""
    return Path(os.path.expanduser(path))  # noqa: PTH111 - Path.expanduser raises an error if it is not


def probe(path: str | os.PathLike[str]) -> os.stat_result | None:
    """State of a file or folder; None if there is none.

    Raises:
        DataError: it cannot be reached: no permission, too long a name, a loop of symbolic links.
    """
    try:
        return os.stat(path)  # noqa: PTH116 - a str or a Path
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise access_error(error, f"cannot open {os.fspath(path)!r}") from error
    except ValueError as error:  # a zero byte, or letters that the system's encoding lacks
        raise environment_error(error) or error from error


def is_folder(path: str | os.PathLike[str]) -> bool:
    """Whether there is a folder at a path; raises DataError as `probe`."""
    status = probe(path)
    return status is not None and stat.S_ISDIR(status.st_mode)


def why_missing(path: str | os.PathLike[str], fix: str, names: Iterable[str] = ()) -> tuple[str, str]:
    """Why there is no file or folder at a path, and what to do next.

    Args:
        path: as the user wrote it.
        fix: what to do if the path itself says nothing.
        names: valid names that are no paths.
    """
    text = os.fspath(path)
    if re.match(r"[a-z][a-z0-9+-]+:/*[^/\\]", text, re.IGNORECASE) and not Path(text).parent.is_dir():
        if text.lower().startswith(("http:", "https:", "ftp:")):
            text = re.sub(r":/+", "://", text, count=1)  # a Path has lost a slash
            return "it is a web address, and Striate reads files", f"Download it first: curl -LO '{text}'"
        return "it is an address, and Striate reads files", "Download it first, and give the path of the file"
    if "\\" in text:
        folder = re.sub(r"^([A-Za-z]):", lambda drive: f"/mnt/{drive[1].lower()}", text.replace("\\", "/"))
        fix = f"Write {folder!r}" if os.path.exists(folder) else fix  # noqa: PTH110 - raises no error
        return "no such file or folder; here `/` separates folders, not a backslash", fix
    parent = Path(text).parent
    if not os.path.isdir(expanded(parent)):  # noqa: PTH112 - raises no error
        return f"there is no folder {str(parent)!r}", fix
    with contextlib.suppress(OSError):
        names = [*os.listdir(expanded(parent)), *names]  # noqa: PTH208 - names alone
    near = get_close_matches(Path(text).name, names, n=1)
    return f"no such file or folder{f'; did you mean {near[0]!r}?' if near else ''}", fix


def write_atomic(path: Path, content: bytes | Iterable[bytes | memoryview]) -> None:
    """Write a file atomically: write a temporary file in the same folder, flush it to disk, rename it.

    A symbolic link stays, and the file that it leads to is replaced. A pipe, a terminal and `/dev/null`
    stay too, and are written to directly.

    Args:
        path: of the file; its folder is created.
        content: bytes, or an iterable of chunks.

    Raises:
        WriteError: no space or no permission, or the path is that of a folder, a socket or another device;
            an existing file is unchanged.
    """
    chunks = [content] if isinstance(content, bytes) else content
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if not _is_replaceable(path):
            with _open_stream(path) as stream:
                stream.writelines(chunks)
            return
        path = path.resolve() if path.is_symlink() else path
        temporary = path.with_name(f".{path.name[:_LONGEST]}.{os.getpid()}.part")
        try:
            temporary.unlink(missing_ok=True)
            with temporary.open("xb") as file:  # never through a link that someone else has put there
                file.writelines(chunks)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
    except OSError as error:
        what, fix = f"cannot write {str(path)!r}", "Free some disk space, or choose another --out"
        raise access_error(error, what, fix, WriteError) from error


def _is_replaceable(path: Path) -> bool:
    """Whether a path is free or of a regular file: a file renamed to it would remove anything else."""
    try:
        return stat.S_ISREG(path.stat().st_mode)
    except FileNotFoundError:
        return True


def _open_stream(path: Path) -> BinaryIO:
    """Open a pipe with a reader, a terminal or the null device; raises WriteError for anything else."""
    what, mode = f"cannot write {str(path)!r}", path.stat().st_mode
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if not (stat.S_ISFIFO(mode) or stat.S_ISCHR(mode)):
        raise WriteError(what, "it is a device or a socket, not a file", "Choose another --out")
    try:
        # Without a reader, opening a pipe would wait for one.
        descriptor = os.open(path, os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY)
    except OSError as error:
        if error.errno != errno.ENXIO:
            raise
        raise WriteError(what, "no program reads this pipe", "Start its reader first") from error
    stream = os.fdopen(descriptor, "wb")
    is_null = stat.S_ISCHR(mode) and os.fstat(descriptor).st_rdev == os.stat(os.devnull).st_rdev  # noqa: PTH116
    if stat.S_ISCHR(mode) and not (is_null or os.isatty(descriptor)):
        stream.close()
        raise WriteError(what, "it is a device, not a file", "Choose another --out")
    os.set_blocking(descriptor, True)
    return stream


def remove_partial_files(folder: Path) -> None:
    """Delete temporary files of `write_atomic` that a killed process left in a folder."""
    for file in folder.glob(".*.part"):
        file.unlink(missing_ok=True)


@contextlib.contextmanager
def new_path(path: Path) -> Iterator[Path]:
    """A path in a temporary folder, of the same name; the file or folder there becomes `path` at the end.

    Raises:
        WriteError: `path` exists, or cannot be written.
    """
    what = f"cannot write {str(path)!r}"
    if probe(path) is not None:
        raise WriteError(what, "it exists", "Remove it or choose another path")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name[:_LONGEST]}.") as temporary:
            complete = Path(temporary) / path.name
            yield complete
            shutil.move(complete, path)
    except OSError as error:
        raise access_error(error, what, "Choose another folder", WriteError) from error


@contextlib.contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """A temporary folder to fill, which becomes `folder` at the end: no reader sees a part of it.

    Raises:
        WriteError: the folder exists, or cannot be written.
    """
    with new_path(folder) as complete:
        complete.mkdir()
        yield complete
