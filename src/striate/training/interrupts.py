"""Ctrl-C and SIGTERM: the step that is under way is finished first, so that the state is whole."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType
from typing import TYPE_CHECKING, Any

from striate.progress import Progress

if TYPE_CHECKING:
    from striate.training.distributed import World
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

    Where several processes train together, it waits until all have been told, which is after the step.

    Args:
        state: that is being advanced.
        progress: is told that the signal was heard.
        world: the processes.

    Attributes:
        heard: the signal, None while there is none.
        agreed: all processes stop for it.
    """

    def __init__(self, state: TrainState, progress: Progress, world: World) -> None:
        self._state, self._progress, self._world = state, progress, world
        self.agreed = world.size == 1
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
        """Stop here if a signal was heard, by whichever process; raises KeyboardInterrupt."""
        if heard := self._world.largest(self.heard or 0):
            self.heard, self.agreed = heard, True
            raise KeyboardInterrupt

    def _hear(self, number: int, frame: FrameType | None) -> None:
        again, self.heard = self.heard is not None, number
        if again or not (self._state.busy or self._world.size > 1):
            raise KeyboardInterrupt
        self._progress.warn("stopping after this step (at once, if asked again)")
