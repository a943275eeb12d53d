"""A training run, from opened data to its last bundle: for every task, one process or several."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Any

from striate.csv_file import csv_line
from striate.errors import UsageError, WriteError
from striate.files import expanded, write_atomic
from striate.printable import counted, first_few
from striate.training import checkpoint, ema
from striate.training.checkpointer import Checkpointer, locked
from striate.training.distributed import init_distributed
from striate.training.interrupts import Interrupts, TrainingInterrupted
from striate.training.loop import LossNotFiniteError, Training, fit
from striate.training.precise_batchnorm import evaluation_units, reestimate, report_notes
from striate.training.preparation import set_up
from striate.training.resume import open_run
from striate.training.run_folder import TrainingRun
from striate.training.schedule import TimeBudget

if TYPE_CHECKING:
    from striate.training.config import RunConfig
    from striate.training.task import Task

_NAMED_FILES = 3  # in a message about a batch


def train(kind: type[Task], config: RunConfig, data: Any) -> TrainingRun:
    """Train a network; on a CPU, the same seed gives the same weights, bit for bit.

    Processes that torchrun has started train it together. If torchrun restarts them, they resume.

    Args:
        kind: the task.
        config: its configuration.
        data: what `config.open_data` returned.

    Raises:
        DataError: nothing to train on, or too little of it can be read.
        UsageError: a device that is not available, weights of another network, ...
        TrainingError: the loss is not finite, or another process has ended.
        TrainingInterrupted: Ctrl-C or SIGTERM, after a checkpoint.
    """
    with init_distributed(config.device) as distributed:
        restarted = distributed.find_run(config) if distributed.is_main else None
        resumed = None
        if distributed.broadcast_object(restarted is not None and checkpoint.exists(restarted)):
            resumed = open_run(restarted or Path(), type(config), config.unsaved, distributed)
            config = resumed.config
        with distributed.caller_unaffected(config.device):
            return _train(*set_up(kind, config, data, distributed, resumed, restarted))


def resume(
    kind: type[Task], config_kind: type[RunConfig], folder: str | os.PathLike[str], changed: Mapping[str, Any]
) -> TrainingRun:
    """Resume a run that was stopped; on a CPU it ends with the weights of an uninterrupted run.

    Args:
        kind: the task.
        config_kind: the class of its configuration.
        folder: `runs/<name>`.
        changed: options that the user gives anew; those that decide the weights must be unchanged.

    Raises:
        UsageError: not a run, a changed configuration, or another process is training in it.
        DataError: changed data, or no intact checkpoint.
        TrainingError, TrainingInterrupted: as `train`.
    """
    with init_distributed(changed.get("device") or "auto") as distributed:
        resumed = open_run(expanded(folder), config_kind, changed, distributed)
        with (
            resumed.config.open_data(resumed.folder) as data,
            distributed.caller_unaffected(resumed.config.device),
        ):
            return _train(*set_up(kind, resumed.config, data, distributed, resumed))


def _train(training: Training, run: TrainingRun, checkpointer: Checkpointer) -> TrainingRun:
    """Train to the end; handle signals, losses that are not finite, and full disks."""
    state, context = training.state, training.context

    def after_step() -> None:
        interrupts.check()
        checkpointer.after_step()

    def after_epoch(row: Any) -> None:
        training.task.after_epoch(row)
        _warn_of_rewritten_files(training, run)
        checkpointer.after_epoch(row)
        context.progress.info(_log_line(training, row))
        run.callbacks.call("on_epoch_end", row)

    interrupts = Interrupts(state, context.progress, context.distributed)
    with _locked_and_timed(training, run), _compiler_errors(), run.callbacks.around(run):
        checkpointer.begin()
        try:
            with interrupts:
                _prepare_first_step(training, run)
                while not state.finished:
                    try:
                        fit(training, after_step, after_epoch)
                    except LossNotFiniteError as error:
                        error = _with_files(error, training, run)
                        if not checkpointer.roll_back():
                            raise error from None
                        context.progress.warn(
                            f"{error.what}; continuing from step {state.step + 1} with {state.lr_scale:g} "
                            "of the learning rate"
                        )
                checkpointer.close()
        except KeyboardInterrupt:
            if not interrupts.agreed or (state.in_step and not run.best.exists()):
                raise  # a second signal, before there was anything to keep or before the other processes knew
            training.task.after_epoch(None)
            if not state.in_step:
                checkpointer.save()
                checkpointer.write_interrupted()
            raise TrainingInterrupted(run, interrupts.received == signal.SIGTERM) from None
        except WriteError as error:
            fix = f"Free some space, then resume: striate resume {quote(str(run.folder))}"
            raise WriteError(error.what, error.why, fix) from error
        finally:
            run.epochs, run.best_epoch, run.seconds = state.rows, state.best_epoch, checkpointer.seconds
            run.joules = checkpointer.energy.total()
            run.notes += report_notes(training.task, state)
        _warn_of_few_steps(training, run)
        _average(training, run)
    context.distributed.all_true(True)  # wait until the bundles are written
    return run


@contextlib.contextmanager
def _locked_and_timed(training: Training, run: TrainingRun) -> Iterator[None]:
    """Lock the run folder, and measure the time for `--profile`."""
    stopwatch = training.context.stopwatch
    with locked(run.folder) if run.is_main else contextlib.nullcontext():
        stopwatch.start()
        try:
            yield
        finally:
            stopwatch.stop()
            run.profile = stopwatch.seconds


def _prepare_first_step(training: Training, run: TrainingRun) -> None:
    """Introduce the run, precompute what every epoch would repeat, and compile the rest if asked."""
    task, state, config = training.task, training.state, training.config
    for line in task.introduce():
        training.context.progress.info(line)
    if state.finished:
        return
    task.precompute(state, training.schedule.seconds_left(state) if config.budget else float("inf"))
    training.module = task.training_module(state.network)
    if isinstance(training.schedule, TimeBudget):
        cost = task.evaluation_cost()
        training.schedule.cost = replace(cost, val=cost.val + evaluation_units(task, state))
    if config.compile:
        training.module.compile(dynamic=task.dynamic_shapes)  # in place: names stay the same
    state.totals.start_clock()


def _warn_of_rewritten_files(training: Training, run: TrainingRun) -> None:
    """Warn if files changed while they were read: then the weights depend on when each was read."""
    names = training.task.rewritten() if run.is_main else []
    if names:
        run.notes.append(
            f"{len(names):,} {'file' if len(names) == 1 else 'files'} changed while this run was reading "
            f"them, so it cannot be repeated or resumed exactly: {first_few(names)}"
        )
        training.context.progress.warn(run.notes[-1])


def _warn_of_few_steps(training: Training, run: TrainingRun) -> None:
    """Warn if a time budget ended the run after few steps; without one, that is known before the first."""
    steps, config = training.state.step, training.config
    if config.budget is None or steps >= training.task.few_steps:
        return
    count = counted(steps, "optimizer step")
    run.notes.append(
        f"only {count} in the budget of {config.shown_budget}: too few to learn much (try a longer --budget, "
        "or a smaller network or --batch)"
    )
    training.context.progress.warn(run.notes[-1])


def _average(training: Training, run: TrainingRun) -> None:
    """Average the weights of the last epochs, and keep them as the best if they are not worse.

    If the process is killed here, a resumed run does it again: the epochs' weights are removed last.
    """
    task, state, distributed = training.task, training.state, training.context.distributed
    paths = ema.kept_epochs(run.folder) if distributed.is_main else []
    count = distributed.broadcast_object(len(paths))
    if count > 1:
        averaged = ema.average_checkpoints(paths) if distributed.is_main else None
        state.evaluated_network.load_state_dict(distributed.broadcast_tensors(averaged))
        again = ", BatchNorm statistics estimated again" if reestimate(task, state, averaged=True) else ""
        row = replace(state.rows[-1], **task.evaluate(state.evaluated_network))
        better = state.is_better(row, task.averaging_margin(state.best_row))
        if better and run.is_main:
            run.write_bundle(run.best, state.evaluated_network, row)
        run.averaged = count if better else 0
        verdict = ema.verdict(row, state.best_row, state.monitor, kept=better)
        what = f"weights averaged over the last {count} epochs{again}"
        run.notes += training.context.inform(f"{what}: {row.log_line[0]}, {verdict}")
    if run.is_main:
        ema.remove_kept_epochs(run.folder)


def _with_files(error: LossNotFiniteError, training: Training, run: TrainingRun) -> LossNotFiniteError:
    """The same error with the files of its batch: a few in the message, all of them in the run folder."""
    if not len(error.samples):
        return error
    files = training.task.names_of(error.samples)
    listed = run.folder / "not-finite.txt"
    if run.is_main:
        text = "".join(f"{csv_line([name])}\n" for name in files)  # quoted if it contains a line break
        write_atomic(listed, text.encode("utf-8", "surrogateescape"))
    some = ", ".join(files[:_NAMED_FILES])
    more = f" and {len(files) - _NAMED_FILES} more, all in {listed}" if len(files) > _NAMED_FILES else ""
    why = f"{error.why}, or one of its {training.task.unit} is unusual: {some}{more}"
    return LossNotFiniteError(error.what, why, error.fix, error.samples)


@contextlib.contextmanager
def _compiler_errors() -> Iterator[None]:
    """Report a failure of torch.compile as a usage error."""
    try:
        yield
    except RuntimeError as error:
        if not type(error).__module__.startswith(("torch._dynamo", "torch._inductor")):
            raise
        why = " ".join(str(error).split())[:300]
        raise UsageError(
            "--compile does not work here", why, "Leave it out, or install a C++ compiler"
        ) from error


def _log_line(training: Training, row: Any) -> str:
    """An epoch in one line, with the time left."""
    epochs = training.schedule.epochs
    total = f"/{epochs}" if epochs else ""
    best = " *" if training.state.best_epoch == row.epoch else "  "
    metrics, speed = row.log_line
    left = _clock(training.schedule.seconds_left(training.state))
    return f"epoch {row.epoch:{max(1, len(total) - 1)}}{total}  {metrics}{best}  {speed}  {left} left"


def _clock(seconds: float) -> str:
    minutes, rest = divmod(max(0, round(seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
