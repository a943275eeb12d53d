"""Keeping a run safe: when its state is saved, and the files that follow from it."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from striate.errors import UsageError
from striate.files import remove_partial_files
from striate.training import saved
from striate.training.folder import RunFolder
from striate.training.loop import Work, require_sound
from striate.training.saved import Saved
from striate.training.state import TrainState
from striate.training.tally import Row

_SECONDS = 60.0  # between two saves within an epoch
_SHARE = 0.02  # of the time, at most, goes into saving at the ends of short epochs


class Keeper:
    """Saves a run's state, from which results.csv and the bundles follow.

    The state is the truth: it is written first, and whoever resumes from it writes the same files again. Of
    several processes all are asked, so that they decide together; the first one writes.

    Args:
        run: whose folder is written to.
        state: what is saved.
        job: what it is advanced by.
        facts: what else a resumed run must know.
        began: when this process took over, on `time.perf_counter`'s clock.
    """

    def __init__(
        self, run: RunFolder, state: TrainState, job: Work, facts: dict[str, Any], began: float
    ) -> None:
        self._run, self._state, self._job, self._facts = run, state, job, facts
        self._began, self._before = began, 0.0
        self._since, self._cost = time.perf_counter(), 0.0
        self._went_back_to: Path | None = None

    @property
    def seconds(self) -> float:
        """That the run has taken, in this process and those before it."""
        return self._before + time.perf_counter() - self._began

    def begin(self) -> None:
        """Note that the run has begun, so that one that is killed before its first save can be resumed."""
        if self._job.config.rollbacks:
            self._write(self._state.tensors(), self._description())
        else:
            self._write({}, None)

    def go_on_from(self, kept: Saved) -> None:
        """Restore the state, and write once more what follows from it."""
        run, state = self._run, self._state
        if self._job.world.leads:
            remove_partial_files(run.folder)
            remove_partial_files(run.folder / saved.FOLDER)
        state.restore(kept.tensors, kept.values)
        self._before = state.seconds
        run.epochs, run.best_epoch = state.rows, state.best_epoch
        if kept.tensors:
            self.settle()

    def roll_back(self) -> bool:
        """Go back to a saved state with half the learning rate; answers whether that was allowed.

        It is the newest one; where that did not help, the one before it.
        """
        state = self._state
        if state.rollbacks >= self._job.config.rollbacks:
            return False
        share, rollbacks = state.rate_share / 2, state.rollbacks + 1
        kept = self._job.world.hand_out(self._earlier() if self._job.world.leads else None)
        state.restore(kept.tensors, kept.values)
        state.rate_share, state.rollbacks = share, rollbacks
        self.save()  # the next process must know of it, too
        return True

    def _earlier(self) -> Saved:
        kept, _ = saved.newest(self._run.folder)
        if kept.path == self._went_back_to and (older := saved.before(kept)) is not None:
            kept.path.unlink()  # finite, but on its way out already
            kept = older
        self._went_back_to = kept.path
        return kept

    def after_step(self) -> None:
        """Save every so many steps, or once a minute."""
        every = self._job.config.save_every
        if self._state.step % every == 0 if every else self._waited(_SECONDS):
            self.save()

    def after_epoch(self, row: Row) -> None:
        """Save after each epoch; where epochs are short, as often as it costs little."""
        state = self._state
        if self._job.config.save_every or state.finished or len(state.rows) == 1 or self._waited(0.0):
            self.save()
        elif state.best_epoch == row.epoch:
            state.keep_best()

    def save(self) -> None:
        """Save now.

        Raises:
            LossNotFiniteError: the state is not worth it; the one before it is kept.
            DataError: there is no room.
        """
        started = time.perf_counter()
        with self._job.watch.phase("saving"):
            require_sound(self._state, self._job)
            self._write(self._state.tensors(), self._description())
            self.settle()
        self._since = time.perf_counter()
        self._cost = self._since - started

    def settle(self) -> None:
        """Write the files that follow from the state: rows and bundles."""
        run, state = self._run, self._state
        if not self._job.world.leads:
            state.best = None
        if not state.rows or not self._job.world.leads:
            return
        run.write_results(state.rows, state.best_epoch)
        as_measured = state.rows[-1].step == state.step  # the weights are those of the last row
        if state.best is not None:
            run.write_bundle(run.best, state.best, state.best_row)
            state.best = None
        elif as_measured and state.best_epoch == state.rows[-1].epoch:
            run.write_bundle(run.best, state.measured, state.best_row)
        if as_measured:
            run.write_bundle(run.last, state.measured, state.rows[-1])

    def close(self) -> None:
        """Leave of a finished run's states only that it is finished."""
        self._write({}, self._description())
        if self._job.world.leads:
            saved.forget_all_but_newest(self._run.folder)

    def _write(self, tensors: dict[str, torch.Tensor], description: dict[str, Any] | None) -> None:
        self._state.seconds = self.seconds
        if not self._job.world.leads:
            return
        facts = {**self._facts, "description": description}
        saved.write(self._run.folder, tensors, self._state.to_json(), facts)

    def _description(self) -> dict[str, Any]:
        return self._run.description.to_json()

    def _waited(self, least: float) -> bool:
        waited = time.perf_counter() - self._since >= max(least, self._cost / _SHARE)
        return bool(self._job.world.largest(waited))


@contextlib.contextmanager
def alone(run: Path) -> Iterator[None]:
    """Hold a run's folder, so that no second process trains in it; the hold ends with the process.

    Raises:
        UsageError: another process holds it.
    """
    try:
        import fcntl
    except ImportError:  # Windows has other locks
        yield
        return
    handle = os.open(run, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UsageError(
                f"cannot train in {str(run)!r}", "another process is at it", "Wait for it, or end it first"
            ) from error
        except OSError:
            pass  # a file system without locks
        yield
    finally:
        os.close(handle)
