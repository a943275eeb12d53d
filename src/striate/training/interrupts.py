"""Ctrl-C and SIGTERM: the step that is under way is finished first, so that the state is whole."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType
from typing import TYPE_CHECKING, Any

from striate.progress import Progress

if TYPE_CHECKING:
    from striate.training.state import TrainState


class TrainingInterrupted(KeyboardInterrupt):
    """Ctrl-C or SIGTERM during training; what was reached is in the run's folder, to be resumed.

    Attributes:
        run: what was reached.
        terminated: SIGTERM asked for it, which leaves little time.
    """

    def __init__(self, run: Any, terminated: bool = False) -> None:
        super().__init__(f"training was interrupted; what it reached is in {run.folder}")
        self.run, self.terminated = run, terminated


class Interrupts:
    """While this is entered, a first signal waits until `state` is whole; a second one does not.

    Args:
        state: that is being advanced.
        progress: is told that the signal was heard.

    Attributes:
        heard: the signal, None while there is none.
    """

    def __init__(self, state: TrainState, progress: Progress) -> None:
        self._state, self._progress = state, progress
        self._others: dict[int, Any] = {}
        self.heard: int | None = None

    def __enter__(self) -> Interrupts:
        """Listen; only a main thread can."""
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._others[number] = signal.signal(number, self._hear)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Let the signals do again what they did before."""
        for number, other in self._others.items():
            signal.signal(number, other)

    def check(self) -> None:
        """Stop here if a signal was heard; raises KeyboardInterrupt."""
        if self.heard is not None:
            raise KeyboardInterrupt

    def _hear(self, number: int, frame: FrameType | None) -> None:
        again, self.heard = self.heard is not None, number
        if again or not self._state.busy:
            raise KeyboardInterrupt
        self._progress.warn("stopping after this step (at once, if asked again)")
