"""From a configuration to everything that the training loop needs, for every task."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from striate.errors import DataError
from striate.progress import SILENT
from striate.training import ema
from striate.training.checkpointer import Checkpointer
from striate.training.config import RunConfig
from striate.training.distributed import Distributed
from striate.training.loop import Training
from striate.training.optimizer import make_optimizer
from striate.training.profile import OFF, Profile
from striate.training.resume import Resumed, environment, given_config
from striate.training.run_folder import TrainingRun, writable
from striate.training.run_names import announce_taken, create
from striate.training.schedule import EpochSchedule, Schedule, TimeBudget
from striate.training.state import RunningTotals, TrainState
from striate.training.task import Context, Setup, Task


def set_up(
    kind: type[Task],
    config: RunConfig,
    data: Any,
    distributed: Distributed,
    resumed: Resumed | None = None,
    folder: Path | None = None,
) -> tuple[Training, TrainingRun, Checkpointer]:
    """Check the data, build the network, and open the run folder.

    Args:
        kind: the task.
        config: as given, or that of the run that is being resumed.
        data: opened.
        distributed: the processes.
        resumed: the run to resume, None for a new one.
        folder: of a new run that torchrun has restarted before its first checkpoint.
    """
    started = time.perf_counter()
    progress = config.progress if distributed.is_main else SILENT
    if resumed is not None:
        _announce(resumed, progress)
        config = config if resumed.has_begun else given_config(resumed)
    callbacks = config.open_callbacks(distributed.is_main)  # before anything slow
    device = distributed.device(config.device)
    stopwatch = Profile(device) if config.profile else OFF
    task = kind(config, data, Context(device, distributed, progress, stopwatch))
    if distributed.is_main and resumed is not None:
        _require_same_data(task, resumed)
    elif distributed.is_main:
        writable(config.out)
    distributed.require_same(task.fingerprint(), f"the dataset {config.source!r}")
    setup = task.setup = task.prepare(resumed.checkpoint.facts if resumed and resumed.has_begun else None)
    setup.notes += [*_precision_notes(task), *(resumed.notes if resumed else ())]
    if resumed is not None:
        folder = resumed.folder
    elif folder is None and distributed.is_main:
        if not config.is_named:
            announce_taken(setup.config)
        folder = create(writable(config.out), setup.config.run_name)
        distributed.remember_run(folder)
    run = TrainingRun(
        folder=Path(distributed.broadcast_object(str(folder))), config=setup.config,
        description=setup.description, notes=setup.notes,
        is_main=distributed.is_main, task=task, callbacks=callbacks,
    )  # fmt: skip
    task.folder = run.folder
    saved = None if resumed is None else resumed.checkpoint
    extension = {} if saved is None else saved.facts.get("extension", {})
    earlier = 0.0 if saved is None else saved.values["seconds"]
    training = Training(
        task, setup.config, initial_state(task, setup, device),
        _schedule(task, run, lambda: earlier + time.perf_counter() - started, extension),
        task.training_module(setup.network), task.context,
    )  # fmt: skip
    facts = {
        "given": config.absolute().to_json(), "config": setup.config.to_json(), "setup": setup.facts,
        "environment": environment(device, distributed), **({"extension": extension} if extension else {}),
    }  # fmt: skip
    return training, run, Checkpointer(run, training, facts, started, saved)


def _schedule(task: Task, run: TrainingRun, clock: Any, extension: Mapping[str, Any]) -> Schedule:
    config, context = task.setup.config, task.context
    skipped = sum(len(task.order(epoch)) - position for epoch, position in extension.get("cuts", ()))
    if config.budget:
        cost, lr = task.evaluation_cost(), task.lr_schedule(None)
        return TimeBudget(
            config.budget_seconds, config.step_batch, lr, clock, cost, context.distributed, config.epochs,
            len(task.order(0)), skipped,
        )  # fmt: skip
    steps_per_epoch = len(task.order(0))
    steps = config.epochs * steps_per_epoch - skipped
    if steps < task.few_steps:
        run.notes.append(f"only {steps} optimizer steps in total: too few to learn much (try more --epochs)")
        context.progress.warn(run.notes[-1])
    return EpochSchedule(config.epochs, steps_per_epoch, task.lr_schedule(steps), skipped)


def _precision_notes(task: Task) -> list[str]:
    if not task.config.amp or task.precision is not None:
        return []
    note = f"--amp has no effect on {task.context.device.type}: mixed precision needs CUDA"
    task.context.progress.warn(note)
    return [note]


def initial_state(task: Task, setup: Setup, device: torch.device) -> TrainState:
    """The state before the first step."""
    config, network = setup.config, setup.network
    half = task.precision is torch.float16
    return TrainState(
        network=network, optimizer=make_optimizer(task.parameter_groups(network), config, task.adam),
        scaler=torch.amp.GradScaler(device.type, enabled=half),
        ema_model=ema.moving_average(network, config.ema) if config.ema else None,
        totals=RunningTotals(device), row=task.row, monitor=config.monitor,
        micro_batches=config.accumulate * config.micro_batches,
    )  # fmt: skip


def _announce(resumed: Resumed, progress: Any) -> None:
    for note in resumed.notes:
        progress.warn(note)
    values = resumed.checkpoint.values
    progress.info(
        f"{resumed.folder} is finished: there is nothing left to train"
        if values["finished"]
        else f"resuming {resumed.folder} at step {values['step']:,}, in epoch {values['epoch'] + 1}"
    )


def _require_same_data(task: Task, resumed: Resumed) -> None:
    if changes := task.changes(resumed.folder, resumed.checkpoint.facts):
        raise DataError(
            f"cannot resume {str(resumed.folder)!r}",
            f"its data have changed: {'; '.join(changes)}",
            "Restore them, or start a new run from it: striate train DATA --weights "
            f"{resumed.folder / 'last.safetensors'}",
        )
