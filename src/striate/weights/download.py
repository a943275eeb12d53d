"""Download official weights into torch's cache: checked by SHA-256, and resumed after a broken connection."""

from __future__ import annotations

import hashlib
import os
import shutil
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from typing import BinaryIO

from striate.errors import DataError, access_error
from striate.progress import SILENT, Progress
from striate.weights.catalog import Weights

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

_CHUNK = 1 << 18
_ATTEMPTS = 4  # connections for one file; each resumes the previous one
_SECONDS = 30.0  # timeout without a single byte
_MAKE_ROOM = "Make room there, or name another folder in the environment variable TORCH_HOME"


def cached(weights: Weights) -> Path:
    """The path of a file of weights in torch's cache, which the environment variable TORCH_HOME moves."""
    import torch

    return Path(torch.hub.get_dir()) / "checkpoints" / weights.file


def get(weights: Weights, progress: Progress = SILENT, seconds: float = _SECONDS) -> Path:
    """Download a file of weights unless it is in the cache.

    Args:
        weights: an entry of the catalog.
        progress: receives one update per megabyte.
        seconds: timeout while the server sends nothing.

    Returns:
        The path of the file; its SHA-256 has been checked.

    Raises:
        DataError: no connection, no such file on the server, disk full, or a wrong SHA-256. Received
            bytes are kept, and the next call resumes from them.
    """
    path = cached(weights)
    part = path.with_name(path.name + ".part")
    try:
        if path.exists():
            if sha256(path).startswith(weights.sha256_prefix):
                return path
            progress.warn(f"{path} has a wrong SHA-256: downloading it again")
        path.parent.mkdir(parents=True, exist_ok=True)
        with _alone(part):
            if not (path.exists() and sha256(path).startswith(weights.sha256_prefix)):
                _complete(weights, part, path, progress, seconds)
    except OSError as error:
        raise access_error(error, f"cannot write {str(path)!r}", _MAKE_ROOM) from error
    return path


def sha256(path: str | os.PathLike[str]) -> str:
    """SHA-256 of a file, in hexadecimal digits."""
    digest = hashlib.sha256()
    with Path(path).open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


@contextmanager
def _alone(part: Path) -> Iterator[None]:
    """Wait while another process downloads the same file, which happens in distributed runs.

    Windows has no such lock. There, the SHA-256 reveals that two processes wrote to the same file.
    """
    if fcntl is None:
        yield
        return
    with part.open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        try:
            yield
        finally:
            if not _size(part):
                part.unlink(missing_ok=True)


def _complete(weights: Weights, part: Path, path: Path, progress: Progress, seconds: float) -> None:
    """Download the missing bytes of `part`, check its SHA-256, and rename it to `path`."""
    resumed = _size(part) > 0
    _fetch(weights, part, path, progress, seconds)
    if resumed and not sha256(part).startswith(weights.sha256_prefix):
        part.unlink()  # the bytes of an earlier call were from another file
        _fetch(weights, part, path, progress, seconds)
    found = sha256(part)
    if not found.startswith(weights.sha256_prefix):
        part.unlink()
        raise DataError(
            f"{weights.url} is not the expected file",
            f"its SHA-256 starts with {found[:8]}, not with {weights.sha256_prefix}",
            "A proxy or a login page may have replaced it; try another network connection",
        )
    part.replace(path)


def _fetch(weights: Weights, part: Path, path: Path, progress: Progress, seconds: float) -> None:
    """Download the missing bytes of `part`, with several connections if necessary."""
    for attempt in range(_ATTEMPTS):
        before = _size(part)
        try:
            with _open(weights.url, before, seconds) as response, part.open("ab") as file:
                length = _begin(response, file, part, before)
                reason = _receive(response, file, length, weights.name, progress)
            if not reason:
                return
        except urllib.error.HTTPError as error:
            error.close()
            if error.code == 416 and before:  # the server has no bytes after ours
                if error.headers.get("Content-Range", "").rpartition("/")[2] == str(before):
                    return
                part.unlink()
                reason = "the bytes of an earlier call are from another file"
                continue
            raise _unreachable(weights, path, f"the server says {error.code} {error.reason}") from error
        except (urllib.error.URLError, HTTPException, ConnectionError, TimeoutError) as error:
            reason = _words(error)
        if _size(part) <= before and attempt:  # two attempts without a byte: give up
            break
    have = _size(part)
    kept = f"; {have:,} bytes have arrived; the next try resumes from them" if have else ""
    raise _unreachable(weights, path, reason + kept)


def _size(part: Path) -> int:
    return part.stat().st_size if part.exists() else 0


def _open(url: str, start: int, seconds: float) -> HTTPResponse:
    headers = {"User-Agent": "striate", "Accept-Encoding": "identity"}
    if start:
        headers["Range"] = f"bytes={start}-"
    response: HTTPResponse = urllib.request.urlopen(
        urllib.request.Request(url, headers=headers), timeout=seconds
    )
    return response


def _begin(response: HTTPResponse, file: BinaryIO, part: Path, start: int) -> int | None:
    """Seek to where the response starts. Returns the file's full length, None if the server omits it."""
    given = response.headers.get("Content-Range", "") if response.status == 206 else ""
    if not given.startswith(f"bytes {start}-"):  # a server without range requests sends the whole file
        file.truncate(0)
        start = 0
    rest = response.headers.get("Content-Length")
    if rest is None:
        return None
    free = shutil.disk_usage(part.parent).free
    if int(rest) > free:
        raise DataError(
            f"disk full: no room for {str(part)!r}",
            f"{int(rest):,} more bytes are needed and {free:,} are free",
            _MAKE_ROOM,
        )
    return start + int(rest)


def _receive(
    response: HTTPResponse, file: BinaryIO, length: int | None, name: str, progress: Progress
) -> str:
    """Write the response to the file. Returns why it is incomplete, or an empty string."""
    have = file.seek(0, os.SEEK_END)
    progress.begin(f"downloading {name}", -(-(length or have) // 10**6), "MB")
    shown = have // 10**6
    progress.advance(shown)
    try:
        while True:
            try:
                chunk = response.read1(_CHUNK)
            except (OSError, HTTPException) as error:
                return _words(error)
            if not chunk:
                break
            file.write(chunk)
            have += len(chunk)
            if have // 10**6 > shown:
                progress.advance(have // 10**6 - shown)
                shown = have // 10**6
    finally:
        progress.end()
    if length is not None and have < length:
        return f"the connection ended after {have:,} of {length:,} bytes"
    return ""


def _words(error: Exception) -> str:
    """One line about a failed connection."""
    cause = getattr(error, "reason", error)
    if isinstance(cause, TimeoutError):
        return "the server does not answer"
    return getattr(cause, "strerror", None) or " ".join(str(cause).split()) or type(cause).__name__


def _unreachable(weights: Weights, path: Path, reason: str) -> DataError:
    return DataError(
        f"cannot download {weights.url}",
        reason,
        f"Try again, or download it in another way and put it at {str(path)!r}, where Striate and torch "
        "look for it",
    )
