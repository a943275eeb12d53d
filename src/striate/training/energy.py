"""The energy that the processors use, where the system lets a program read it (Linux, Intel and AMD)."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path

POWERCAP = Path("/sys/class/powercap")
_SECONDS = 30.0  # between readings; a counter of 260 kJ is full after 20 minutes at 200 W


class EnergyMeter:
    """Adds up the energy counters of all processor packages (powercap, RAPL).

    The counters start again from 0 when they are full, so `update` must be called more often than that.
    """

    def __init__(self, folder: Path = POWERCAP) -> None:
        self._counters = {}
        for path in sorted(folder.glob("intel-rapl:*")):
            if path.name.count(":") == 1:  # a package; others are parts of one
                with contextlib.suppress(OSError, ValueError):
                    self._counters[path] = (_read(path / "energy_uj"), _read(path / "max_energy_range_uj"))
        self._microjoules = 0
        self._read_at = time.monotonic()

    def update(self) -> None:
        """Read the counters if the last reading is half a minute old."""
        if self._counters and time.monotonic() - self._read_at >= _SECONDS:
            self.total()

    def total(self) -> float | None:
        """Joules since the meter was made; None if there is no counter that can be read."""
        self._read_at = time.monotonic()
        try:
            for path, (before, limit) in self._counters.items():
                now = _read(path / "energy_uj")
                self._microjoules += now - before if now >= before else now + limit - before
                self._counters[path] = (now, limit)
        except (OSError, ValueError):
            self._counters = {}
        return self._microjoules / 1e6 if self._counters else None


def _read(path: Path) -> int:
    return int(path.read_text("ascii"))
