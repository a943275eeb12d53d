"""A run from where it stands to its end: epochs are told, states are saved, mishaps are met."""

from __future__ import annotations

import signal
from collections.abc import Callable, Sequence
from shlex import quote

from striate.errors import WriteError
from striate.files import write_atomic
from striate.progress import Progress
from striate.training.folder import RunFolder
from striate.training.interrupts import Interrupts, TrainingInterrupted
from striate.training.keeper import Keeper
from striate.training.loop import LossNotFiniteError, Work, fit
from striate.training.state import TrainState
from striate.training.tally import Row

_NAMED = 3  # files of a batch in a message


def advance(
    run: RunFolder,
    state: TrainState,
    job: Work,
    keeper: Keeper,
    names: Sequence[str],
    progress: Progress,
    note_unreadable: Callable[[], None],
) -> None:
    """Train to the end.

    Args:
        run: whose folder is written to; its rows are filled in.
        state: where it stands.
        job: what to do.
        keeper: saves it.
        names: of the training data, one by one.
        progress: is told of each epoch and mishap.
        note_unreadable: writes down the files that turned out to be unreadable so far.

    Raises:
        TrainingInterrupted: once the state is saved.
        LossNotFiniteError: with the names of the batch's files.
        WriteError: the disk is full; says how to go on.
    """

    def after_step() -> None:
        interrupts.check()
        keeper.after_step()

    def after_epoch(row: Row) -> None:
        note_unreadable()
        keeper.after_epoch(row)
        progress.info(_line(row, state, job))

    interrupts = Interrupts(state, progress, job.world)
    try:
        with interrupts:
            while not state.finished:
                try:
                    fit(state, job, progress, after_step, after_epoch)
                except LossNotFiniteError as error:
                    told = _with_files(error, run, names, job)
                    if not keeper.roll_back():
                        raise told from None
                    rate = f"{state.rate_share:g} of the learning rate"
                    progress.warn(f"{told.what}; going on from step {state.step + 1} with {rate}")
            keeper.close()
    except KeyboardInterrupt:
        if not interrupts.agreed or (state.busy and not run.best.exists()):
            raise  # a second signal, before there was anything to keep or the others knew
        note_unreadable()
        if not state.busy:
            keeper.save()
            if job.world.leads:
                _leave_bundles(run, state)
        raise TrainingInterrupted(run, interrupts.heard == signal.SIGTERM) from None
    except WriteError as error:
        fix = f"Make room, then go on where it was: striate resume {quote(str(run.folder))}"
        raise WriteError(error.what, error.why, fix) from error
    finally:
        run.epochs, run.best_epoch, run.seconds = state.rows, state.best_epoch, keeper.seconds


def _leave_bundles(run: RunFolder, state: TrainState) -> None:
    """Bundles of the moment of the interruption; a resumed run writes its own over them."""
    row = state.rows[-1] if state.rows else None
    run.write_bundle(run.last, state.measured, row)
    if row is None:
        run.write_bundle(run.best, state.measured, None)


def _with_files(
    error: LossNotFiniteError, run: RunFolder, names: Sequence[str], job: Work
) -> LossNotFiniteError:
    """The same error with the files of its batch: some in the message, all of them in the run's folder."""
    files = [names[i] for i in error.samples]
    listed = run.folder / "not-finite.txt"
    if job.world.leads:
        write_atomic(listed, "".join(f"{name}\n" for name in files).encode("utf-8", "surrogateescape"))
    some = ", ".join(files[:_NAMED])
    more = f" and {len(files) - _NAMED} more, all in {listed}" if len(files) > _NAMED else ""
    return LossNotFiniteError(
        error.what, f"{error.why}, or one of its {job.unit} is odd: {some}{more}", error.fix, error.samples
    )


def _line(row: Row, state: TrainState, job: Work) -> str:
    """An epoch in one line, the time left with it."""
    of = f"/{job.pace.epochs}" if job.pace.epochs else ""
    better = " *" if state.best_epoch == row.epoch else "  "
    learnt, speed = row.told
    return (
        f"epoch {row.epoch:{max(1, len(of) - 1)}}{of}  {learnt}{better}  {speed}  "
        f"{_clock(job.pace.left(state))} left"
    )


def _clock(seconds: float) -> str:
    minutes, rest = divmod(max(0, round(seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
