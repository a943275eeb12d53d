"""When checkpoints are written, and the files that follow from them: results.csv and the bundles."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from striate.errors import DataError, UsageError, environment_error
from striate.files import Fingerprint, remove_partial_files
from striate.training import checkpoint
from striate.training.checkpoint import Checkpoint
from striate.training.config_file import CHECKPOINTS, NAME
from striate.training.ema import keep_epoch
from striate.training.energy import EnergyMeter
from striate.training.loop import Training, require_finite_weights
from striate.training.precise_batchnorm import reestimate
from striate.training.run_folder import TrainingRun
from striate.training.state import EpochMetrics

_INTERVAL = 60.0  # seconds between two checkpoints within an epoch
_MAX_SHARE = 0.02  # of the time, at most, goes into checkpoints at the ends of short epochs


class Checkpointer:
    """Writes checkpoints, from which results.csv and the bundles follow.

    The checkpoint is written first, so whoever resumes from it writes the same files again. All processes
    take part in the decisions; the main process writes.

    Args:
        run: whose folder is written to.
        training: its state is saved.
        facts: what else a resumed run needs.
        started: when this process took over, on the clock of `time.perf_counter`.
        resumed: the checkpoint that the run resumes from, None for a new run.

    Attributes:
        energy: what the processors use, in this process.
    """

    def __init__(
        self,
        run: TrainingRun,
        training: Training,
        facts: Mapping[str, Any],
        started: float,
        resumed: Checkpoint | None = None,
    ) -> None:
        self._run, self._training, self._facts, self._resumed = run, training, facts, resumed
        self._state, self._distributed = training.state, training.context.distributed
        self._started, self._earlier = started, 0.0
        self._last, self._cost = time.perf_counter(), 0.0
        self._returned_to: Path | None = None
        self.energy = EnergyMeter()

    @property
    def seconds(self) -> float:
        """Duration of the run, in this process and those before it."""
        return self._earlier + time.perf_counter() - self._started

    def begin(self) -> None:
        """Restore the state of a resumed run, or write the first files of a new one."""
        run, state = self._run, self._state
        if self._resumed is None:
            if self._distributed.is_main:
                run.write_config()
                self._training.task.write_inputs(run.folder)
                self._record_files(None)
            keep = self._training.config.rollbacks > 0
            self._write(state.tensors() if keep else {}, run.description.to_json() if keep else None)
            return
        if self._distributed.is_main:
            remove_partial_files(run.folder)
            remove_partial_files(run.folder / CHECKPOINTS)
            self._record_files(self._resumed.facts.get("files"))
        self._restore(self._resumed)
        self._earlier = state.seconds
        averaged = self._facts.get("extension", {}).get("averaged")
        state.averaged = None if averaged is None else state.row(**averaged)
        run.epochs, run.best_epoch = state.rows, state.best_epoch
        if self._resumed.extended:
            self._write(state.tensors() if state.step else {}, self._resumed.facts["description"])
            if self._distributed.is_main:
                run.write_config()  # after the checkpoint, whose facts say what this file had before
        elif self._resumed.tensors:
            self._write_results()

    def _restore(self, resumed: Checkpoint) -> None:
        """Restore the state of a checkpoint; raises DataError if it is that of another network."""
        try:
            self._state.restore(resumed.tensors, resumed.values)
        except (LookupError, TypeError, ValueError, RuntimeError) as error:
            why = f"its tensors or values are of another network: {' '.join(str(error).split())[:300]}"
            fix = "Remove this file to resume from the checkpoint before it"
            raise environment_error(error) or DataError(f"{resumed.path} is damaged", why, fix) from error

    def _record_files(self, recorded: Mapping[str, Any] | None) -> None:
        """Tie the files that say what the run trains on to its checkpoints and bundles."""
        run = self._run
        files = run.fingerprints(recorded)
        if self._resumed is not None and self._resumed.extended:  # config.yaml is about to be written again
            old, new = files.get(NAME, {}).get("sha256", ""), Fingerprint.of(run.config_bytes)
            if old != new.sha256:
                files[NAME] = dataclasses.asdict(dataclasses.replace(new, before=old))
        self._facts = {**self._facts, "files": files}
        if inputs := {name: files[name] for name in run.task.inputs if name in files}:
            run.description.provenance["inputs"] = inputs

    def roll_back(self) -> bool:
        """Return to a checkpoint with half the learning rate; returns whether another rollback is allowed.

        The first rollback returns to the newest checkpoint; if that does not help, the next one to the
        checkpoint before it.
        """
        state = self._state
        if state.rollbacks >= self._training.config.rollbacks:
            return False
        lr_scale, rollbacks = state.lr_scale / 2, state.rollbacks + 1
        saved = self._earlier_checkpoint() if self._distributed.is_main else None
        tensors = self._distributed.broadcast_tensors(None if saved is None else saved.tensors)
        state.restore(tensors, self._distributed.broadcast_object(None if saved is None else saved.values))
        state.lr_scale, state.rollbacks = lr_scale, rollbacks
        self.save()  # a resumed run must know of it, too
        return True

    def after_step(self) -> None:
        """Save every `save_every` steps, or once a minute."""
        every = self._training.config.save_every
        if self._state.step % every == 0 if every else self._is_due(_INTERVAL):
            self.save()
        self.energy.update()

    def after_epoch(self, row: EpochMetrics) -> None:
        """Save after each epoch; if epochs are short, as often as that costs little."""
        state, config = self._state, self._training.config
        if config.average > 1 and self._distributed.is_main:
            keep_epoch(self._run.folder, row.epoch, state.evaluated_network, config.average)
        if config.save_every or state.finished or len(state.rows) == 1 or self._is_due(0.0):
            self.save()
        elif state.best_epoch == row.epoch:
            state.keep_best()

    def save(self) -> None:
        """Save now.

        Raises:
            LossNotFiniteError: the state is not worth saving; the checkpoint before it is kept.
            WriteError: no space.
        """
        started = time.perf_counter()
        with self._training.context.stopwatch.phase("saving"):
            require_finite_weights(self._training)
            self._write(self._state.tensors(), self._run.description.to_json())
            self._write_results()
            path = checkpoint.path_of(self._run.folder, self._state.step)
            self._run.callbacks.call("on_checkpoint", path)
        self._last = time.perf_counter()
        self._cost = self._last - started

    def close(self) -> None:
        """Replace the checkpoints of a finished run by a small one that says so."""
        self._write({}, self._run.description.to_json())
        if self._distributed.is_main:
            checkpoint.remove_all_but_newest(self._run.folder)

    def write_interrupted(self) -> None:
        """Write bundles of the moment of an interruption; a resumed run overwrites them."""
        row = self._state.rows[-1] if self._state.rows else None
        if self._state.step > (row.step if row else 0):
            reestimate(self._training.task, self._state)
        if not self._distributed.is_main:
            return
        self._run.write_bundle(self._run.last, self._state.evaluated_network, row)
        if row is None:
            self._run.write_bundle(self._run.best, self._state.evaluated_network, None)

    def _write_results(self) -> None:
        """Write the files that follow from the state: rows and bundles."""
        run, state = self._run, self._state
        if not self._distributed.is_main:
            state.best = None
        if not state.rows or not self._distributed.is_main:
            return
        run.write_results(state.rows, state.best_epoch)
        just_evaluated = state.rows[-1].step == state.step  # the weights are those of the last row
        if state.best is not None:
            run.write_bundle(run.best, state.best, state.best_row)
            state.best = None
        elif just_evaluated and state.best_epoch == state.rows[-1].epoch and not state.best_is_average:
            run.write_bundle(run.best, state.evaluated_network, state.best_row)
        if just_evaluated:
            run.write_bundle(run.last, state.evaluated_network, state.rows[-1])

    def _earlier_checkpoint(self) -> Checkpoint:
        saved, _ = checkpoint.newest(self._run.folder)
        if saved.path == self._returned_to and (older := checkpoint.before(saved)) is not None:
            saved.path.unlink()  # its weights are finite, but already diverging
            saved = older
        self._returned_to = saved.path
        return saved

    def _write(self, tensors: dict[str, torch.Tensor], description: dict[str, Any] | None) -> None:
        self._state.seconds = self.seconds
        if self._distributed.is_main:
            facts = {**self._facts, "description": description}
            checkpoint.write(self._run.folder, tensors, self._state.to_json(), facts)

    def _is_due(self, interval: float) -> bool:
        waited = time.perf_counter() - self._last >= max(interval, self._cost / _MAX_SHARE)
        return bool(self._distributed.maximum(waited))


@contextlib.contextmanager
def locked(run: Path) -> Iterator[None]:
    """Lock a run folder, so that no second process trains in it; the lock ends with the process.

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
                f"cannot train in {str(run)!r}",
                "another process is using it",
                "Wait for it, or stop it first",
            ) from error
        except OSError:
            pass  # a file system without locks
        yield
    finally:
        os.close(handle)
