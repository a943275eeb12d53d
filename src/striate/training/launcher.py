"""What torchrun, or another launcher, says in environment variables about the processes that it started."""

from __future__ import annotations

import os
from dataclasses import dataclass

from striate.errors import UsageError

_MOST = 1 << 20  # processes
_MOST_PORT = 65_535
_REQUIRED = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


@dataclass(frozen=True)
class Launch:
    """The place of this process among those that train together.

    Attributes:
        rank: of this process, from 0.
        size: number of processes.
        local_rank: of this process among those of this machine.
        local_size: number of processes of this machine.
        address: of the machine of the first process.
        port: of the store there.
        has_agent: whether the launcher keeps the store.
    """

    rank: int
    size: int
    local_rank: int
    local_size: int
    address: str
    port: int
    has_agent: bool


def read_environment() -> Launch | None:
    """Read the variables of a launcher; None if there is none.

    Raises:
        UsageError: some of the variables are missing, or their values are impossible.
    """
    missing = [name for name in _REQUIRED if not os.environ.get(name)]
    if "RANK" in missing and "WORLD_SIZE" in missing:
        return None  # clusters set the address for other programs
    if missing:
        given = ", ".join(name for name in _REQUIRED if name not in missing)
        why = f"{', '.join(missing)} {'is' if len(missing) == 1 else 'are'} not"
        raise UsageError(f"the environment variables {given} are set", why, _FIX)
    size = _number("WORLD_SIZE", 1, _MOST)
    local_size = _number("LOCAL_WORLD_SIZE", 1, size, 1)
    return Launch(
        rank=_number("RANK", 0, size - 1), size=size,
        local_rank=_number("LOCAL_RANK", 0, size - 1, 0), local_size=local_size,
        address=os.environ["MASTER_ADDR"], port=_number("MASTER_PORT", 1, _MOST_PORT),
        has_agent=os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True",
    )  # fmt: skip


_FIX = "Start the processes with torchrun, or unset RANK and WORLD_SIZE to train with one process"


def _number(name: str, low: int, high: int, default: int | None = None) -> int:
    """A variable in a range; raises UsageError."""
    text = os.environ.get(name, "")
    if not text and default is not None:
        return default
    if not (text.isdecimal() and len(text) <= 10 and low <= int(text) <= high):
        raise UsageError(f"{name}={text[:40]}", f"it must be a whole number from {low} to {high:,}", _FIX)
    return int(text)
