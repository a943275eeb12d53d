"""The memory that this process can still use: what cannot fit is refused before it is allocated."""

from __future__ import annotations

import contextlib
import os
import re
from pathlib import Path

from striate.errors import ResourceError

_CGROUP = Path("/sys/fs/cgroup")


def available() -> int | None:
    """Return the bytes of memory that the machine, its container and `ulimit -v` leave; None if unknown."""
    found = [value for value in (_of_machine(), *_of_container(), _of_process()) if value is not None]
    return max(0, min(found)) if found else None


def require(size: float, what: str, fix: str) -> None:
    """Refuse what does not fit into the available memory.

    Args:
        size: estimated bytes, at least.
        what: what needs them.
        fix: what to do.

    Raises:
        ResourceError: it cannot fit; the message has the estimate.
    """
    left = available()
    if left is not None and size > left:
        why = f"it needs at least {in_words(size)}, and {in_words(left)} are available"
        raise ResourceError(f"out of memory for {what}", why, fix)


def in_words(size: float) -> str:
    """A number of bytes, such as 1.5 GB."""
    return f"{size / 1e9:,.1f} GB" if size >= 1e8 else f"{size / 1e6:,.1f} MB"


def _of_machine() -> int | None:
    with contextlib.suppress(OSError):
        found = re.search(
            r"^MemAvailable:\s+(\d+) kB", Path("/proc/meminfo").read_text("utf-8"), re.MULTILINE
        )
        if found:
            return int(found[1]) * 1024
    with contextlib.suppress(OSError, ValueError, AttributeError):
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return None


def _of_container() -> list[int]:
    """What the limits of control groups leave, of version 2 and of version 1; empty without a limit."""
    found = []
    for limit, usage in (
        ("memory.max", "memory.current"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"),
    ):
        with contextlib.suppress(OSError, ValueError):  # "max" is no number
            most, used = (int((_CGROUP / name).read_text("utf-8")) for name in (limit, usage))
            # Cached files count as used, but make room.
            text = (_CGROUP / limit).with_name("memory.stat").read_text("utf-8")
            cached = sum(int(n) for n in re.findall(r"^(?:in)?active_file (\d+)", text, re.MULTILINE))
            found.append(most - used + min(cached, used))
    return found


def _of_process() -> int | None:
    """What `ulimit -v` leaves."""
    with contextlib.suppress(ImportError, OSError, ValueError):
        import resource

        limit = resource.getrlimit(resource.RLIMIT_AS)[0]
        if limit != resource.RLIM_INFINITY:
            pages = int(Path("/proc/self/statm").read_text("utf-8").split()[0])
            return limit - pages * resource.getpagesize()
    return None
