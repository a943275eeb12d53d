"""A run on pairs: data, network and configuration come together, epoch by epoch into a folder."""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import nn

from striate.data.text.batches import bucket_by_length
from striate.data.text.pairs import PairSet
from striate.device import mixed_precision
from striate.errors import DataError
from striate.files import write_atomic
from striate.progress import SILENT, Progress
from striate.training.advance import advance
from striate.training.folder import RunFolder, reserve, writable
from striate.training.keeper import Keeper, alone
from striate.training.resumption import Stopped, circumstances, reopen
from striate.training.schedule import Pace
from striate.training.seq2seq.check import require_learnable
from striate.training.seq2seq.config import Rates, SeqConfig, rates
from striate.training.seq2seq.job import CHECKPOINTS, MOST_ANSWERED, SeqJob, SeqRow, averaged, checkpoints
from striate.training.seq2seq.pace import Clock, Passes
from striate.training.seq2seq.prepare import SeqReady, prepare
from striate.training.state import TrainState
from striate.training.tally import Tally


@dataclass(kw_only=True)
class SeqRun(RunFolder):
    """What a training run on pairs leaves.

    Attributes:
        config: what it was told, with every default filled in.
        data: the divided pairs.
        rates: the schedule in numbers.
    """

    config: SeqConfig
    data: PairSet
    rates: Rates


def train_pairs(config: SeqConfig, progress: Progress = SILENT) -> SeqRun:
    """Train a network on pairs as `config` says, on the CPU the same to the bit for the same seed.

    Args:
        config: everything about the run.
        progress: is told of each stage and batch.

    Raises:
        DataError: nothing there to train on, or too little that can be read.
        UsageError: a device that is not there, tokens that cannot be.
        TrainingError: the loss is no longer finite; the self-check failed.
        TrainingInterrupted: Ctrl-C, once there was something to keep.
    """
    return _run(config, progress, None)


def resume_pairs(folder: str | os.PathLike[str], progress: Progress = SILENT, **options: Any) -> SeqRun:
    """Go on with a run that was stopped, to the end that it would have come to.

    Args:
        folder: `runs/<name>`.
        progress: is told of each stage and batch.
        options: fields of `SeqConfig`; those that decide the weights must be what they were.

    Raises:
        UsageError: it is no run, its configuration is another now, or a process is training in it.
        DataError: its data have changed, or no saved state is whole.
    """
    stopped = reopen(Path(folder).expanduser(), SeqConfig.from_json, **options)
    for note in stopped.notes:
        progress.warn(note)
    kept = stopped.saved.values
    progress.info(
        f"{stopped.folder} is finished: nothing is left to train"
        if kept["finished"]
        else f"going on with {stopped.folder} at step {kept['step']:,}, in epoch {kept['epoch'] + 1}"
    )
    return _run(stopped.config, progress, stopped)


def _run(config: SeqConfig, progress: Progress, stopped: Stopped | None) -> SeqRun:
    """From where a run stands, or its beginning, to its end."""
    started = time.perf_counter()
    config = _anywhere(config)
    before = 0.0 if stopped is None else stopped.saved.values["seconds"]
    if stopped is None:
        writable(config.out)
    ready = prepare(config, progress, None if stopped is None else stopped.description)
    config, place = ready.config, ready.translator.device
    digests = _digests(ready.data)
    if stopped is not None:
        _require_same(stopped, digests)
    if config.check and stopped is None:
        require_learnable(ready, progress)
    pace, numbers = _pace(ready, lambda: before + time.perf_counter() - started)
    run = SeqRun(
        folder=reserve(writable(config.out), _name(config)) if stopped is None else stopped.folder,
        config=config, data=ready.data, rates=numbers, description=ready.translator.description,
        notes=[*ready.notes, *(stopped.notes if stopped else ())],
    )  # fmt: skip
    job = SeqJob(
        ready.train,
        ready.val,
        ready.data.splits["val"],
        ready.translator,
        config,
        place,
        pace,
        run.folder,
        progress,
    )
    state = _fresh(job)
    facts = {"config": config.to_json(), "data": digests, "circumstances": circumstances(place)}
    keeper = Keeper(run, state, job, facts, started)
    with alone(run.folder):
        if stopped is None:
            text = yaml.safe_dump(config.to_json(), sort_keys=False, allow_unicode=True)
            write_atomic(run.folder / "config.yaml", text.encode())
            keeper.begin()
        else:
            keeper.go_on_from(stopped.saved)
        _introduce(run, ready, job, progress)
        advance(run, state, job, keeper, ready.train.names, progress, lambda: None)
        _average(run, state, job, progress)
    return run


def _anywhere(config: SeqConfig) -> SeqConfig:
    """The same, with paths that hold from any folder."""

    def absolute(place: str) -> str:
        return str(Path(place).expanduser().absolute())

    encoder = None if config.encoder_from is None else absolute(config.encoder_from)
    return dataclasses.replace(config, data=tuple(map(absolute, config.data)), encoder_from=encoder)


def _name(config: SeqConfig) -> str:
    """Of the run's folder: as told, else the data's and the network's size."""
    return config.name or f"{Path(config.data[0]).absolute().name.split('.')[0]}-{config.model}"


def _fresh(job: SeqJob) -> TrainState:
    """The state that a run begins with: AdamW as in Vaswani et al. 2017, section 5.3, decay on matrices."""
    config, network = job.config, job.translator.network
    decayed: list[nn.Parameter] = []
    plain: list[nn.Parameter] = []
    for name, parameter in network.named_parameters():
        lookup = "embedding" in name or name.endswith(".table")
        (decayed if parameter.ndim > 1 and not lookup else plain).append(parameter)
    groups = [
        {"params": decayed, "weight_decay": config.weight_decay, "share": 1.0},
        {"params": plain, "weight_decay": 0.0, "share": 1.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=config.peak_rate, betas=(0.9, 0.98), eps=1e-9)
    half = mixed_precision(job.device, config.amp) is torch.float16
    return TrainState(
        network=network,
        optimizer=optimizer,
        scaler=torch.amp.GradScaler(job.device.type, enabled=half),
        average=None,
        tally=Tally(job.device),
        parts=config.accumulate,
        row_kind=SeqRow,
    )


def _pace(ready: SeqReady, elapsed: Callable[[], float]) -> tuple[Pace, Rates]:
    """How large the steps are and when it is over; and the schedule in numbers."""
    config = ready.config
    if config.budget:
        numbers = rates(config, None)
        val = ready.data.splits["val"]
        tokens = int(ready.val.lengths.sum())
        answered = min(MOST_ANSWERED, len(val))
        last = tokens * len(ready.data.splits.get("test", val)) // answered
        if config.average > 1:
            last += tokens  # the averaged weights are measured, too
        clock = Clock(config, elapsed, tokens, last, 0.0)
        clock.rates = numbers
        return clock, numbers
    batches = len(bucket_by_length(ready.train.lengths, config.batch, seed=config.seed, epoch=0))
    numbers = rates(config, config.epochs * batches)
    return Passes(config.epochs, batches, numbers), numbers


def _average(run: SeqRun, state: TrainState, job: SeqJob, progress: Progress) -> None:
    """Average the last epochs' weights, and keep them as the best where they are.

    Whatever is killed here is done again by a resumed run: the checkpoints go last.
    """
    paths = checkpoints(run.folder)
    if len(paths) > 1:
        best = state.best_row
        state.network.load_state_dict(averaged(paths))
        row = dataclasses.replace(state.rows[-1], **job.figures(job.translator.network))
        if row.merit > best.merit:
            run.write_bundle(run.best, state.network, row)
        better = "kept as the best" if row.merit > best.merit else "not better than the best epoch"
        run.notes.append(f"weights averaged over the last {len(paths)} epochs: {row.told[0]}, {better}")
        progress.info(run.notes[-1])
    for path in paths:
        path.unlink()
    if paths:
        (run.folder / CHECKPOINTS).rmdir()


def _digests(data: PairSet) -> dict[str, list[Any]]:
    """For each split how many pairs it has, and a digest; images go by name, size and time of their files."""
    root = Path(data.source).parent

    def stamped(path: str) -> str:
        try:
            status = Path(path).stat()
        except OSError:
            return path
        return f"{os.path.relpath(path, root)} {status.st_size} {status.st_mtime_ns}"

    found = {}
    for name, pairs in data.splits.items():
        if data.kind == "images":
            pairs = dataclasses.replace(pairs, sources=tuple(map(stamped, pairs.sources)))
        found[name] = [len(pairs), pairs.digest]
    return found


def _require_same(stopped: Stopped, digests: dict[str, list[Any]]) -> None:
    old = stopped.saved.facts["data"]
    changed = [name for name in sorted(old.keys() | digests.keys()) if old.get(name) != digests.get(name)]
    if changed:
        counts = "; ".join(
            f"{name} had {old.get(name, [0])[0]:,} pairs and has {digests.get(name, [0])[0]:,}"
            for name in changed
        )
        raise DataError(
            f"cannot resume {str(stopped.folder)!r}",
            f"its data have changed: {counts}",
            "Put them back, or start a new run",
        )


def _introduce(run: SeqRun, ready: SeqReady, job: SeqJob, progress: Progress) -> None:
    """Say what trains on what, and what was chosen."""
    config, numbers = run.config, run.rates
    for note in ready.notes:
        progress.warn(note)
    splits = ", ".join(f"{len(pairs):,} {name}" for name, pairs in run.data.splits.items())
    progress.info(f"pairs: {splits}")
    for line in ready.chosen:
        progress.info(line)
    count = sum(p.numel() for p in job.translator.network.parameters())
    progress.info(
        f"network {config.model}: {run.description.architecture}, width {config.width}, "
        f"{config.depth}+{config.decoder_depth or config.depth} layers, {config.heads} heads, hidden "
        f"{config.hidden}, dropout {config.dropout:g}, positions {config.positions}; {count:,} parameters"
    )
    length = f"budget {config.budget}" if config.budget else f"{config.epochs} epochs"
    if isinstance(job.pace, Passes):
        length += f", {job.pace.steps:,} steps"
    progress.info(
        f"{length} of {config.batch:,} tokens, {config.sched}, effective peak learning rate "
        f"{numbers.peak_rate:.3g}, warm-up {100 * numbers.warmup:.0f} % of the steps, label smoothing "
        f"{config.label_smoothing:g}, on {job.device}"
    )
    if numbers.warning:
        run.notes.append(numbers.warning)
        progress.warn(numbers.warning)
