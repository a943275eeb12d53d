"""Where the time of a run goes."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

import torch

T = TypeVar("T")


class Stopwatch:
    """Not watched: costs nothing."""

    def phase(self, name: str) -> contextlib.AbstractContextManager[None]:
        """What is inside counts as `name`."""
        return _NOTHING

    def each(self, name: str, items: Iterable[T]) -> Iterable[T]:
        """The same items; waiting for one counts as `name`."""
        return items


class Profile(Stopwatch):
    """Seconds by phase. On a GPU each phase is waited for, which slows the run down a little.

    Args:
        device: that the work is done on.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self.seconds: dict[str, float] = {}

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

    def each(self, name: str, items: Iterable[T]) -> Iterator[T]:
        """Count the time until each item is there."""
        iterator = iter(items)
        while True:
            with self.phase(name):
                try:
                    item = next(iterator)
                except StopIteration:
                    return
            yield item


_NOTHING = contextlib.nullcontext()
UNWATCHED = Stopwatch()
