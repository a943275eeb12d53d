"""Files of torch's archive formats, written by way of memory."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path


def write_archive(path: Path, save: Callable[[io.BytesIO], object]) -> None:
    """Write what a function of torch saves.

    To a path, torch reports a full disk as an error of its archive, or ends the process.

    Args:
        path: of the file.
        save: writes to an open file.

    Raises:
        OSError: the file cannot be written.
    """
    content = io.BytesIO()
    save(content)
    path.write_bytes(content.getbuffer())
