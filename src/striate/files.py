"""Atomic writes: readers see the old file or the new one, never a part."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

from striate.errors import WriteError


def write_atomic(path: Path, content: bytes | Iterable[bytes | memoryview]) -> None:
    """Write a file atomically: write a temporary file in the same folder, flush it to disk, rename it.

    Args:
        path: of the file; its folder is created.
        content: bytes, or an iterable of chunks.

    Raises:
        WriteError: no space or no permission; an existing file is unchanged.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with temporary.open("wb") as file:
                for chunk in [content] if isinstance(content, bytes) else content:
                    file.write(chunk)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise WriteError(
            f"cannot write {str(path)!r}", error.strerror or str(error),
            "Free some disk space, or choose another --out",
        ) from error  # fmt: skip


def remove_partial_files(folder: Path) -> None:
    """Delete temporary files of `write_atomic` that a killed process left in a folder."""
    for file in folder.glob(".*.part"):
        file.unlink(missing_ok=True)


@contextlib.contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """A temporary folder to fill, which becomes `folder` at the end: no reader sees a part of it.

    Raises:
        WriteError: the folder exists, or cannot be written.
    """
    what = f"cannot write {str(folder)!r}"
    if folder.exists():
        raise WriteError(what, "it exists", "Remove it or choose another folder")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.") as temporary:
            complete = Path(temporary) / folder.name
            complete.mkdir()
            yield complete
            shutil.move(complete, folder)
    except OSError as error:
        raise WriteError(what, error.strerror or str(error), "Choose another folder") from error
