"""Writing a file so that no reader ever sees half of it."""

from __future__ import annotations

import os
from pathlib import Path

from striate.errors import DataError


def write_aside(path: Path, content: bytes) -> None:
    """Write under another name in the same folder, flush to the disk, then rename into place.

    Raises:
        DataError: no room, no permission; what stood there before still stands.
    """
    aside = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with aside.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            aside.replace(path)
        except BaseException:
            aside.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise DataError(
            f"cannot write {str(path)!r}",
            error.strerror or str(error),
            "Make room there or choose another --out",
        ) from error
