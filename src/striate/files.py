"""Writing a file so that no reader ever sees half of it."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from striate.errors import WriteError


def write_atomic(path: Path, content: bytes | Iterable[bytes | memoryview]) -> None:
    """Write under another name in the same folder, flush to the disk, then rename into place.

    Args:
        path: its folder is made if need be.
        content: at once, or in pieces.

    Raises:
        WriteError: no room, no permission; what stood there before still stands.
    """
    aside = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with aside.open("wb") as file:
                for piece in [content] if isinstance(content, bytes) else content:
                    file.write(piece)
                file.flush()
                os.fsync(file.fileno())
            aside.replace(path)
        except BaseException:
            aside.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise WriteError(
            f"cannot write {str(path)!r}",
            error.strerror or str(error),
            "Make room there or choose another --out",
        ) from error


def remove_partial_files(folder: Path) -> None:
    """Remove what `write_atomic` left in a folder when its process was killed while it wrote."""
    for part in folder.glob(".*.part"):
        part.unlink(missing_ok=True)
