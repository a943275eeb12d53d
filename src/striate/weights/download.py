"""The only downloader: official weights, checked, resumed where they broke off, in torch's own cache."""

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

from striate.errors import DataError
from striate.progress import SILENT, Progress
from striate.weights.catalog import Weights

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

_CHUNK = 1 << 18
_ATTEMPTS = 4  # connections for one file; each goes on where the last one broke off
_SECONDS = 30.0  # without a single byte


def cached(weights: Weights) -> Path:
    """Where the file of some weights is or will be: torch's hub directory, which TORCH_HOME moves."""
    import torch

    return Path(torch.hub.get_dir()) / "checkpoints" / weights.file


def get(weights: Weights, progress: Progress = SILENT, seconds: float = _SECONDS) -> Path:
    """The file of some weights, downloaded if it is not in the cache.

    Args:
        weights: an entry of the catalog.
        progress: is told of each megabyte.
        seconds: how long the server may be silent.

    Returns:
        The path of the file, whose SHA-256 begins as it must.

    Raises:
        DataError: no connection, no such file there, no room, or the file is not what it should be. What
            has arrived is kept, and the next call goes on from there.
    """
    path = cached(weights)
    if path.exists():
        if sha256(path).startswith(weights.sha256_prefix):
            return path
        progress.warn(f"{path} is damaged or another file; it is downloaded again")
    part = path.with_name(path.name + ".part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with _alone(part):
            if not (path.exists() and sha256(path).startswith(weights.sha256_prefix)):
                _complete(weights, part, path, progress, seconds)
    except OSError as error:
        raise DataError(
            f"cannot write {str(path)!r}",
            error.strerror or str(error),
            "Make room there, or name another folder in the environment variable TORCH_HOME",
        ) from error
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
    """Wait while another process downloads the same file, as each process of a distributed run would.

    Windows has no such locks: there the SHA-256 tells that two have written into one another.
    """
    if fcntl is None:
        yield
        return
    with part.open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        try:
            yield
        finally:
            if part.exists() and not part.stat().st_size:
                part.unlink()


def _complete(weights: Weights, part: Path, path: Path, progress: Progress, seconds: float) -> None:
    """Download what is missing of `part`, check it, and make it `path`."""
    resumed = part.exists() and part.stat().st_size > 0
    _fetch(weights, part, path, progress, seconds)
    if resumed and not sha256(part).startswith(weights.sha256_prefix):
        part.unlink()  # what was left from an earlier call was no beginning of this file
        _fetch(weights, part, path, progress, seconds)
    found = sha256(part)
    if not found.startswith(weights.sha256_prefix):
        part.unlink()
        raise DataError(
            f"{weights.url} is not what it should be",
            f"its SHA-256 begins with {found[:8]} and not with {weights.sha256_prefix}",
            "Something on the way has changed it (a proxy, a login page); try another connection",
        )
    part.replace(path)


def _fetch(weights: Weights, part: Path, path: Path, progress: Progress, seconds: float) -> None:
    """Bring `part` to its full length, in as many connections as that takes."""
    for attempt in range(_ATTEMPTS):
        before = part.stat().st_size if part.exists() else 0
        try:
            with _open(weights.url, before, seconds) as response, part.open("ab") as file:
                length = _begin(response, file, part, before)
                reason = _receive(response, file, length, weights.name, progress)
            if not reason:
                return
        except urllib.error.HTTPError as error:
            error.close()
            if error.code == 416 and before:  # there is nothing behind our end
                if error.headers.get("Content-Range", "").rpartition("/")[2] == str(before):
                    return
                part.unlink()
                reason = "what was left from an earlier call does not fit"
                continue
            raise _unreachable(weights, path, f"the server says {error.code} {error.reason}") from error
        except (urllib.error.URLError, HTTPException, ConnectionError, TimeoutError) as error:
            reason = _words(error)
        now = part.stat().st_size if part.exists() else 0
        if now <= before and attempt:  # twice without a byte: it will not get better by itself
            break
    have = part.stat().st_size if part.exists() else 0
    kept = f"; {have:,} bytes have arrived and are kept for the next try" if have else ""
    raise _unreachable(weights, path, reason + kept)


def _open(url: str, start: int, seconds: float) -> HTTPResponse:
    headers = {"User-Agent": "striate", "Accept-Encoding": "identity"}
    if start:
        headers["Range"] = f"bytes={start}-"
    response: HTTPResponse = urllib.request.urlopen(
        urllib.request.Request(url, headers=headers), timeout=seconds
    )
    return response


def _begin(response: HTTPResponse, file: BinaryIO, part: Path, start: int) -> int | None:
    """Stand where the response goes on; returns the whole file's length, None if the server keeps it."""
    goes_on = response.status == 206 and response.headers.get("Content-Range", "").startswith(
        f"bytes {start}-"
    )
    if not goes_on:  # a server without ranges sends everything again
        file.truncate(0)
        start = 0
    rest = response.headers.get("Content-Length")
    if rest is None:
        return None
    free = shutil.disk_usage(part.parent).free
    if int(rest) > free:
        raise DataError(
            f"no room for {str(part)!r}",
            f"{int(rest):,} bytes are still to come and {free:,} are free",
            "Make room there, or name another folder in the environment variable TORCH_HOME",
        )
    return start + int(rest)


def _receive(
    response: HTTPResponse, file: BinaryIO, length: int | None, name: str, progress: Progress
) -> str:
    """Write what comes; returns why that is not all, empty if it is."""
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
    """Why a connection failed, in one line."""
    cause = getattr(error, "reason", error)
    if isinstance(cause, TimeoutError):
        return "the server is silent"
    return getattr(cause, "strerror", None) or " ".join(str(cause).split()) or type(cause).__name__


def _unreachable(weights: Weights, path: Path, reason: str) -> DataError:
    return DataError(
        f"cannot download {weights.url}",
        reason,
        f"Try again, or fetch it by other means and put it at {str(path)!r}, where Striate and torch look "
        "for it",
    )
