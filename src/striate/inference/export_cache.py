"""Cache of exports, with which bundles run in other engines than torch. This module does not load torch.

`<cache>/striate/exports/<key>-<crc32><suffix>` is a file or a folder that an exporter wrote. The key is a
digest of the bundle (`striate.bundle.identity`), of Striate's version and of the form of the export. The
CRC32 is that of the content; a damaged export is deleted and made anew. An export is moved to its name when
it is complete, so that no process reads a part of one. Those that were not used for 30 days, and the least
recently used ones beyond the limit, are deleted when another one is added.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import tempfile
import time
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from striate.errors import WriteError, access_error
from striate.files import cache_folder
from striate.version import __version__

_MOST = 4 * 10**9  # bytes
_DAYS = 30
_HOUR = 3600
_EXPORTERS = 2  # raise it when another export of the same bundle is needed
_PIECE = 1 << 20


@dataclass(frozen=True)
class Entry:
    """An export in the cache: its path, size in bytes and time of last use."""

    path: Path
    size: int
    used: float

    def remove(self) -> None:
        """Delete it; processes that have opened it can still read it, on most systems."""
        _remove(self.path)


def folder() -> Path:
    """The folder of the cache."""
    return cache_folder() / "exports"


def key(digest: str, form: str) -> str:
    """The key of an export.

    Args:
        digest: of the bundle.
        form: what distinguishes exports of the same bundle.
    """
    text = f"{__version__} {_EXPORTERS} {digest} {form}"
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:32]


def find(key: str, suffix: str) -> Path | None:
    """The intact export with this key; None if there is none. A damaged one is deleted."""
    for path in sorted(_matching(f"{key}-*{suffix}")):
        try:
            intact = path.name == _name(key, path, suffix)
        except OSError:  # deleted by another process, or no permission
            continue
        if intact:
            with contextlib.suppress(OSError):  # a folder that is read-only
                os.utime(path)
            return path
        _remove(path)
    return None


def add(key: str, suffix: str, write: Callable[[Path], object], what: str) -> Path:
    """Write an export into the cache.

    Args:
        key: of the export.
        suffix: of its name.
        write: writes a file or a folder at a path, and compares it with the original.
        what: what needs the export, for errors.

    Raises:
        WriteError: the folder of the cache cannot be written, or the export differs from the original.
    """
    try:
        folder().mkdir(parents=True, exist_ok=True, mode=0o700)
        with tempfile.TemporaryDirectory(dir=folder(), prefix=".") as temporary:
            new = Path(temporary) / f"model{suffix}"
            write(new)
            path = folder() / _name(key, new, suffix)
            if not path.is_dir():  # equal content, which another process has written meanwhile
                new.replace(path)
    except OSError as error:
        where, fix = f"cannot write to {str(folder())!r}", "Set XDG_CACHE_HOME to another folder"
        raise access_error(error, where, fix, WriteError) from error
    except WriteError as error:  # it names a temporary path
        why = f"it cannot be exported: {error.why}"
        raise WriteError(what, why, f"Use --engine torch. {error.fix}") from error
    return path


def entries() -> list[Entry]:
    """All exports, least recently used first."""
    found = []
    for path in _matching("[!.]*"):
        with contextlib.suppress(OSError):  # deleted by another process
            found.append(Entry(path, sum(file.stat().st_size for file in _files(path)), path.stat().st_mtime))
    return sorted(found, key=lambda entry: (entry.used, entry.path))


def prune() -> None:
    """Delete exports that were not used for long or exceed the limit, and parts that a killed process left.

    Raises:
        UsageError: the variable with the limit is no number.
    """
    from striate.data.images.cache import limit  # slow to import, with all formats of data

    now, most, total = time.time(), min(_MOST, limit()), 0
    for entry in reversed(entries()):
        total += entry.size
        if total > most or now - entry.used > _DAYS * 24 * _HOUR:
            entry.remove()
    for path in _matching(".*"):
        with contextlib.suppress(OSError):
            if now - path.stat().st_mtime > _HOUR:
                _remove(path)


def clear() -> int:
    """Delete all exports; return the number of bytes freed."""
    existing = entries()
    for path in _matching("*"):
        _remove(path)
    return sum(entry.size for entry in existing) - sum(entry.size for entry in entries())


def _matching(pattern: str) -> list[Path]:
    try:
        return list(folder().glob(pattern))
    except OSError:  # no permission
        return []


def _files(path: Path) -> list[Path]:
    return sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]


def _name(key: str, path: Path, suffix: str) -> str:
    """The name of an export, with the CRC32 of its content."""
    crc = 0
    for part in _files(path):
        with part.open("rb") as file:
            while piece := file.read(_PIECE):
                crc = zlib.crc32(piece, crc)
    return f"{key}-{crc:08x}{suffix}"


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)
