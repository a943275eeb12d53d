"""Where the time of a training run goes (`--profile`)."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable, Iterator, Mapping
from typing import TypeVar

import torch

T = TypeVar("T")

PHASES = (
    "waiting for data", "frozen layers", "augmentation", "forward", "backward", "optimizer", "validation",
    "saving", "other",
)  # fmt: skip


class Stopwatch:
    """Measures nothing and costs nothing; `Profile` measures.

    Attributes:
        seconds: by phase.
    """

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    def phase(self, name: str) -> contextlib.AbstractContextManager[None]:
        """A context whose time counts as phase `name`."""
        return _NOTHING

    def start(self) -> None:
        """Training begins."""

    def stop(self) -> None:
        """Training has ended."""

    def each(self, name: str, items: Iterable[T]) -> Iterable[T]:
        """The same items; the time until each is ready counts as phase `name`."""
        return items


class Profile(Stopwatch):
    """Measures seconds by phase. On a GPU each phase is synchronized, which slows training slightly.

    Args:
        device: where the network runs.
    """

    def __init__(self, device: torch.device) -> None:
        super().__init__()
        self._device = device
        self._began = time.perf_counter()

    @contextlib.contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Count the time inside."""
        started = time.perf_counter()
        try:
            yield
        finally:
            if self._device.type == "cuda":
                torch.cuda.synchronize(self._device)
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - started

    def start(self) -> None:
        """Count from here on."""
        self._began = time.perf_counter()

    def stop(self) -> None:
        """Count the rest of the time as other."""
        self.seconds["other"] = time.perf_counter() - self._began - sum(self.seconds.values())

    def each(self, name: str, items: Iterable[T]) -> Iterator[T]:
        """Count the time until each item is ready."""
        iterator = iter(items)
        while True:
            with self.phase(name):
                try:
                    item = next(iterator)
                except StopIteration:
                    return
            yield item


def shares(profile: Mapping[str, float]) -> list[tuple[str, float, float]]:
    """Name, seconds and share of the total of each phase, in the order of a step.

    Args:
        profile: `Stopwatch.seconds`.
    """
    whole = max(sum(profile.values()), 1e-9)
    order = [name for name in PHASES if name in profile] + [name for name in profile if name not in PHASES]
    return [(name, profile[name], profile[name] / whole) for name in order]


_NOTHING = contextlib.nullcontext()
OFF = Stopwatch()
