"""Ctrl-C and SIGTERM: the current step is completed first, so that the state is consistent."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType
from typing import TYPE_CHECKING, Any

from striate.progress import Progress

if TYPE_CHECKING:
    from striate.training.distributed import Distributed
    from striate.training.state import TrainState


class TrainingInterrupted(KeyboardInterrupt):
    """Ctrl-C or SIGTERM during training; the run folder has everything to resume from.

    Attributes:
        run: as far as it got.
        terminated: whether it was SIGTERM, after which there is little time.
    """

    def __init__(self, run: Any, terminated: bool = False) -> None:
        super().__init__(f"training was interrupted; {run.folder} can be resumed")
        self.run, self.terminated = run, terminated


class Interrupts:
    """A context in which the first signal waits until the state is consistent; a second one does not wait.

    With several processes it waits until all of them know, which is after the step.

    Args:
        state: of the training.
        progress: receives a message when a signal arrives.
        distributed: the processes.

    Attributes:
        received: the signal, None while there is none.
        agreed: whether all processes stop for it.
    """

    def __init__(self, state: TrainState, progress: Progress, distributed: Distributed) -> None:
        self._state, self._progress, self._distributed = state, progress, distributed
        self.agreed = distributed.size == 1
        self._previous: dict[int, Any] = {}
        self.received: int | None = None

    def __enter__(self) -> Interrupts:
        """Install the handlers; only a main thread can."""
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._previous[number] = signal.signal(number, self._receive)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Restore the previous handlers."""
        for number, previous in self._previous.items():
            signal.signal(number, previous)

    def check(self) -> None:
        """Stop if any process has received a signal; raises KeyboardInterrupt."""
        if received := self._distributed.maximum(self.received or 0):
            self.received, self.agreed = received, True
            raise KeyboardInterrupt

    def _receive(self, number: int, frame: FrameType | None) -> None:
        again, self.received = self.received is not None, number
        if again or not (self._state.in_step or self._distributed.size > 1):
            raise KeyboardInterrupt
        self._progress.warn("stopping after this step (press Ctrl-C again to stop at once)")
