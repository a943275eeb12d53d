"""What the scripts share that build an environment of their own."""

from __future__ import annotations

import contextlib
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"


@contextlib.contextmanager
def temporary_folder(kind: str, *, keep: bool) -> Iterator[Path]:
    """A new folder, which is deleted at the end unless it is to be kept; then its path is printed."""
    folder = Path(tempfile.mkdtemp(prefix=f"striate-{kind}-"))
    try:
        yield folder
    finally:
        if keep:
            print(f"kept: {folder}", file=sys.stderr)
        else:
            shutil.rmtree(folder, ignore_errors=True)
