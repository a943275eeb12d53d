"""The files of `benchmarks/results`."""

from __future__ import annotations

import datetime
import json
import os
import platform
from pathlib import Path
from typing import Any


def write_results(
    record: Any, folder: Path, kind: str, *, cpus: int | None = None, keep_others: bool = False
) -> Path:
    """Write `<date>_<machine>_<cpus>cpu_<kind>.json`.

    Args:
        record: of JSON values.
        folder: created if it does not exist.
        kind: what was measured.
        cpus: threads that were used; None for the processors of the machine.
        keep_others: keep the keys of a file of today that `record` does not have.
    """
    folder.mkdir(parents=True, exist_ok=True)
    machine = f"{platform.machine()}_{cpus or os.cpu_count()}cpu"
    path = folder / f"{datetime.date.today().isoformat()}_{machine}_{kind}.json"
    before = json.loads(path.read_text("utf-8")) if keep_others and path.exists() else {}
    path.write_text(json.dumps({**before, **record} if before else record, indent=2) + "\n", "utf-8")
    return path
