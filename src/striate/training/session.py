"""A training run: data, network and configuration come together, epoch by epoch into a folder."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import hashlib
import math
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

import striate
from striate import models
from striate.bundle import Description
from striate.data import DataSet, DecodedImages, Problem, absolute_source
from striate.device import cpu_count, placed, seed_everything
from striate.errors import DataError, UsageError
from striate.models.layers import set_drop_path, set_dropout
from striate.progress import SILENT, Progress
from striate.training import changes, features, saved, transfer
from striate.training.advance import advance
from striate.training.ahead import Ahead, contract
from striate.training.budget import Budget, fit_to, reading_seconds
from striate.training.changes import note_data
from striate.training.config import TrainConfig
from striate.training.distributed import ALONE, World
from striate.training.folder import TrainedRun, name_of, read_problems, reserve, writable, write_down
from striate.training.interrupts import TrainingInterrupted
from striate.training.joining import joined
from striate.training.keeper import Keeper, alone
from striate.training.loop import Job
from striate.training.profile import UNWATCHED, Profile
from striate.training.resumption import Stopped, circumstances, reopen
from striate.training.schedule import Epochs, Pace
from striate.training.state import TrainState
from striate.transforms.preprocess import Preprocess
from striate.weights import open_weights

__all__ = ["TrainingInterrupted", "resume", "train"]

Start = tuple[Description, dict[str, torch.Tensor]]  # the weights a run starts from, and what they say


def resume(folder: str | os.PathLike[str], progress: Progress = SILENT, **options: Any) -> TrainedRun:
    """Go on with a run that was stopped, to the end that it would have come to.

    Args:
        folder: `runs/<name>`.
        progress: is told of each stage and batch.
        options: fields of `TrainConfig`; those that decide the weights must be what they were.

    Raises:
        UsageError: it is no run, its configuration is another now, or a process is training in it.
        DataError: its data have changed, or no saved state is whole.
        TrainingError, TrainingInterrupted: as `train`.
    """
    with joined(options.get("device") or "auto") as world:
        return _go_on(Path(folder).expanduser(), progress if world.leads else SILENT, world, **options)


def train(config: TrainConfig, progress: Progress = SILENT, ahead: Ahead | None = None) -> TrainedRun:
    """Train a network as `config` says, on the CPU the same to the bit for the same seed.

    Where torchrun has started several processes, they train it together; started again, they go on.

    Args:
        config: everything about the run.
        progress: is told of each stage and batch.
        ahead: its data, where they are open already.

    Returns:
        The finished run.

    Raises:
        DataError: nothing there to train on, or too little that can be read.
        UsageError: a device that is not there, or weights of another network.
        TrainingError: the loss is no longer finite, or another process has ended.
        TrainingInterrupted: Ctrl-C, once there was something to keep.
    """
    with joined(config.device) as world:
        progress = progress if world.leads else SILENT
        begun = world.recall(config) if world.leads else None
        if world.first(begun is not None and saved.any_of(begun)):
            return _go_on(begun or Path(), progress, world, ahead, **_free(config))
        return _train(config, progress, world, ahead, folder=begun)


def _go_on(
    folder: Path, progress: Progress, world: World, ahead: Ahead | None = None, **options: Any
) -> TrainedRun:
    """Go on with a run that the first process can read."""
    opened = reopen(folder, world=world, **options) if world.leads else None
    stopped = Stopped.handed_out(opened, world, **options)
    for note in stopped.notes:
        progress.warn(note)
    kept = stopped.saved.values
    progress.info(
        f"{stopped.folder} is finished: nothing is left to train"
        if kept["finished"]
        else f"going on with {stopped.folder} at step {kept['step']:,}, in epoch {kept['epoch'] + 1}"
    )
    return _train(stopped.config, progress, world, ahead, stopped)


def _train(
    config: TrainConfig,
    progress: Progress,
    world: World,
    ahead: Ahead | None,
    stopped: Stopped | None = None,
    folder: Path | None = None,
) -> TrainedRun:
    """Train, in a folder that is there already or in a new one."""
    started = time.perf_counter()
    ready = prepare(config, progress, stopped, ahead, world)
    config, place = ready.config, ready.place
    before = 0.0 if stopped is None else stopped.saved.values["seconds"]
    if stopped is not None:
        folder = stopped.folder
    elif folder is None and world.leads:
        folder = reserve(writable(config.out), name_of(config))
        world.note(folder)
    run = TrainedRun(
        folder=Path(world.first(str(folder))),
        config=_filled_in(config, ready.description.contract, len(ready.train)),
        dataset=ready.dataset,
        description=ready.description,
        train=len(ready.train),
        problems=() if stopped is None else read_problems(stopped.folder),
        notes=[*ready.notes, *(stopped.notes if stopped else ())],
        leads=world.leads,
    )
    pace = _pace(ready, run, lambda: before + time.perf_counter() - started, progress, world)
    state = TrainState.fresh(ready.network, config, place, ready.head)
    if config.compile:
        ready.network.compile(dynamic=False)  # in place: names of layers and weights stay what they are
    watch = Profile(place) if config.profile else UNWATCHED
    job = Job(ready.description.contract, ready.train, ready.val, config, place, pace, watch, world)
    facts = {
        "given": _anywhere(config).to_json(),
        "config": run.config.to_json(),
        "head": ready.head,
        "circumstances": circumstances(place, world),
    }
    keeper = Keeper(run, state, job, facts, started)

    def note_unreadable() -> None:
        _note_unreadable(run, ready.train, ready.val, progress, world)

    with alone(run.folder) if world.leads else contextlib.nullcontext():
        if stopped is None:
            if world.leads:
                write_down(run)
                note_data(run.folder, ready.dataset)
            keeper.begin()
        else:
            keeper.go_on_from(stopped.saved)
        why = config.why_augmented(run.description.contract, run.train)
        _introduce(run, ready.network, len(ready.val), place, progress, why)
        watch.start()
        try:
            if not state.finished:
                job = _frozen_once(run, state, job, progress)
            advance(run, state, job, keeper, ready.train.names, progress, note_unreadable)
        except RuntimeError as error:
            if not type(error).__module__.startswith(("torch._dynamo", "torch._inductor")):
                raise
            why = " ".join(str(error).split())[:300]
            fix = "Leave it out, or install a C++ compiler"
            raise UsageError("--compile does not work here", why, fix) from error
        finally:
            watch.stop()
            run.profile = watch.seconds
    world.all(True)  # the bundles are written
    return run


@dataclass(frozen=True)
class Ready:
    """All that a run begins with.

    Attributes:
        config: what it was told, with what the budget chose.
        dataset: divided.
        description: of the network, for its bundles.
        train: images.
        val: images.
        network: on `place`, with its weights, frozen where it is to be.
        head: name of what trains at the full rate; None where all is fresh.
        place: the device.
        notes: what should be known.
    """

    config: TrainConfig
    dataset: DataSet
    description: Description
    train: DecodedImages
    val: DecodedImages
    network: nn.Module
    head: str | None
    place: torch.device
    notes: list[str]


def prepare(
    config: TrainConfig,
    progress: Progress,
    stopped: Stopped | None = None,
    ahead: Ahead | None = None,
    world: World = ALONE,
) -> Ready:
    """Data, images and network of a run; writes nothing.

    Raises:
        DataError, UsageError: as `train`.
    """
    known = None if stopped is None else stopped.description
    if stopped is not None and known is None:
        config = stopped.given  # it has made no step yet
    ahead = ahead or Ahead(config, progress)
    dataset, notes = ahead.dataset, [*ahead.notes]
    notes += ahead.remarks() if stopped is None else []
    if stopped is not None:
        world.lead(lambda: stopped.require_same(dataset))
    world.require_same(_digest(dataset), f"the data set {config.source!r}")
    place = world.place(config.device)
    if stopped is None:
        world.lead(lambda: writable(config.out))
    if config.budget and known is None:
        config = _sized(config, dataset, place, progress, world)
    start = _start(config, progress) if known is None else None
    if known is None:
        preprocess = contract(config, dataset, start[0].contract if start else None, notes)
    else:
        preprocess = known.contract
    for note in notes:
        progress.warn(note)
    train, val = ahead.images(preprocess, config)
    ahead.stop()
    _require_enough(dataset, train, val)

    seed_everything(config.seed)
    if known is not None and stopped is not None:
        head: str | None = stopped.saved.facts["head"]
        network = models.build(known.architecture, **known.arguments)
        if head is not None:
            transfer.freeze(network, config.transfer, config.last_layers, head)
    else:
        network, arguments, told = _network(config, preprocess, dataset.classes, start)
        head = None if start is None else _head(config, arguments)
        known = _describe(config, arguments, dataset, preprocess, len(train))
        notes += told
        for line in told:
            progress.info(line)
    set_drop_path(network, config.drop_path)
    if config.dropout is not None:
        set_dropout(network, config.dropout)
    network = world.prepared(placed(network, place), config.sync_bn)
    return Ready(config, dataset, known, train, val, network, head, place, notes)


def _digest(dataset: DataSet) -> str:
    """What tells data sets apart: the names of the files below their root, with their classes."""
    digest = hashlib.sha256("\0".join(dataset.classes).encode("utf-8", "surrogateescape"))
    for name, samples in dataset.splits.items():
        names = [os.path.relpath(path, dataset.root) if dataset.root else path for path in samples.names]
        digest.update("\0".join([name, *names]).encode("utf-8", "surrogateescape"))
        digest.update(samples.labels.tobytes())
    return digest.hexdigest()


def _pace(
    ready: Ready, run: TrainedRun, elapsed: Callable[[], float], progress: Progress, world: World
) -> Pace:
    config = ready.config
    if config.budget:
        last = run.dataset.splits.get("test", run.dataset.splits["val"])
        reading = reading_seconds(last, ready.description.contract, config.workers or cpu_count())
        return world.paced(Budget(config, elapsed, len(ready.val), len(last), reading, world.size))
    pace = Epochs(config, run.train)
    if pace.steps < 50:
        run.notes.append(
            f"{pace.steps} steps in all are few to learn from (more --epochs, or a smaller --batch)"
        )
        progress.warn(run.notes[-1])
    return pace


def _frozen_once(run: TrainedRun, state: TrainState, job: Job, progress: Progress) -> Job:
    """The same job, on what the frozen part of the network gives, where that need not be done again."""
    left = job.pace.left(state) if job.config.budget else math.inf
    once, said = features.compute(state.network, job, run.folder, progress, left)
    if said:
        run.notes.append(said)
        progress.info(said)
    if once is not None and isinstance(job.pace, Budget):
        job.pace.image_seconds = once.image_seconds
    state.tally.begin()
    return once or job


def _sized(
    config: TrainConfig, dataset: DataSet, place: torch.device, progress: Progress, world: World
) -> TrainConfig:
    """The configuration with the size of images that the budget allows."""
    train, last = dataset.splits["train"], dataset.splits.get("test", dataset.splits["val"])
    reading = reading_seconds(train, config.preprocess(None), config.workers or cpu_count())
    held_out = len(dataset.splits["val"]) + len(last)
    config, said = fit_to(config, len(train), held_out, len(dataset.classes), reading, place)
    if said:
        progress.info(said)
    return dataclasses.replace(config, imgsz=world.first(config.imgsz))


def _network(
    config: TrainConfig, preprocess: Preprocess, classes: tuple[str, ...], start: Start | None
) -> tuple[nn.Module, dict[str, Any], list[str]]:
    """The network as the run begins: built, loaded, frozen; its arguments; and what is to be said of it."""
    arguments: dict[str, Any] = {"num_classes": len(classes), "in_channels": preprocess.channels}
    if models.MODELS[config.model].sizes == "argument":
        arguments["input_size"] = list(preprocess.size)
    if config.model.startswith("googlenet") and config.transfer != "all":
        arguments["auxiliary"] = False  # heads on frozen maps would train nothing
    if start is None:
        return models.build(config.model, **arguments), arguments, []
    description, state = start
    # What the weights' own network was built with, such as LeNet's widths, is kept.
    arguments = {**description.arguments, **arguments}
    told = []
    if config.transfer == "append":
        state = {f"base.{name}": value for name, value in state.items()}
    if config.transfer == "append" or "append" in description.arguments:
        arguments |= {"num_classes": description.arguments["num_classes"], "append": len(classes)}
    head = _head(config, arguments)
    if config.transfer == "head" or (config.transfer != "append" and description.classes != classes):
        state = {name: value for name, value in state.items() if not name.startswith(f"{head}.")}
        told.append(f"{head}, for {len(description.classes)} classes, is replaced by one for {len(classes)}")
    network = models.build(config.model, **arguments)
    loading = transfer.load(network, state, Path(config.weights).name)
    told += loading.sentences
    trained = transfer.freeze(network, config.transfer, config.last_layers, head)
    noise = set(loading.fresh) & set(transfer.frozen_state(network))
    if noise:
        raise UsageError(
            f"--transfer {config.transfer} with {config.weights!r}",
            f"{', '.join(sorted(noise))} did not fit and would be frozen as noise",
            "Leave out what changes their shapes (--imgsz), or use --transfer all",
        )
    training, frozen = transfer.count(network)
    told.append(f"{training:,} parameters train ({', '.join(trained)}), {frozen:,} are frozen")
    return network, arguments, told


def _head(config: TrainConfig, arguments: dict[str, Any]) -> str:
    return "head" if "append" in arguments else models.MODELS[config.model].classifier


def _require_enough(dataset: DataSet, train: DecodedImages, val: DecodedImages) -> None:
    """Refuse data of which too little can be read; tries no more files than it takes to be sure."""
    left = 0
    for label in range(len(dataset.classes)):
        left += train.any_readable(np.flatnonzero(train.labels == label))
        if left == 2:
            break
    if left < 2 or not val.any_readable(np.arange(len(val))):
        what = "val has no image" if left == 2 else f"only {left} classes have training images"
        problems = train.problems + val.problems
        raise DataError(
            f"cannot train on {dataset.source!r}",
            f"{len(problems)} images cannot be read, and {what} left: {_first(problems)}",
            "Mend or replace them",
        )


def _note_unreadable(
    run: TrainedRun, train: DecodedImages, val: DecodedImages, progress: Progress, world: World
) -> None:
    """Write down the files that turned out to be unreadable: most do in the first epoch."""
    known = {problem.path: problem for problem in run.problems}
    found_by = world.gather([[problem.path, problem.reason] for problem in train.problems + val.problems])
    problems = known | {path: Problem(path, reason) for found in found_by for path, reason in found}
    if len(problems) == len(known):
        return
    found = tuple(problems.values())
    progress.warn(f"{len(found)} images cannot be read and are left out: {_first(found)}")
    readable = np.array([name not in problems for name in train.names])
    run.left_out(found, int(readable.sum()))
    left = np.unique(train.labels[readable])
    for label in set(range(len(run.dataset.classes))) - set(left.tolist()):
        note = f"class {run.dataset.classes[label]!r} has no training image that can be read"
        if note not in run.notes:
            run.notes.append(note)
            progress.warn(note)


def _start(config: TrainConfig, progress: Progress) -> Start | None:
    """The weights to start from, None for fresh ones."""
    if config.weights == "none":
        return None
    description, state = open_weights(config.weights, config.model, progress)
    if config.transfer == "append" and "append" in description.arguments:
        raise UsageError(
            f"cannot append to {config.weights!r}", "it has an appended layer already", "Use --transfer head"
        )
    return description, state


def _filled_in(config: TrainConfig, preprocess: Preprocess, images: int) -> TrainConfig:
    """The configuration with what the defaults came to, to be read and used again."""
    return dataclasses.replace(
        config, data=absolute_source(config.source), imgsz=max(preprocess.size), channels=preprocess.channels,
        lr=config.peak_rate, weight_decay=config.decay,
        augment=config.augmentation(preprocess, images),
    )  # fmt: skip


def _free(config: TrainConfig) -> dict[str, Any]:
    """What decides no weight, as it is asked for now; and the user's own augmentation, which has no name."""
    own = {} if isinstance(config.augment, str) else {"augment": config.augment}
    return {**{name: getattr(config, name) for name in changes.FREE}, **own}


def _anywhere(config: TrainConfig) -> TrainConfig:
    """The same, with paths that hold from any folder."""
    weights = str(Path(config.weights).absolute()) if Path(config.weights).exists() else config.weights
    return dataclasses.replace(config, data=absolute_source(config.source), weights=weights)


def _describe(
    config: TrainConfig, arguments: dict[str, Any], dataset: DataSet, preprocess: Preprocess, count: int
) -> Description:
    return Description(
        task="classification",
        architecture=config.model,
        arguments=arguments,
        classes=dataset.classes,
        preprocess=preprocess,
        provenance={
            "striate": striate.__version__,
            "torch": torch.__version__,
            "created": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
            "data": Path(absolute_source(config.source)).name,
            "training_images": count,
            "seed": config.seed,
            "weights": Path(config.weights).name,
        },
    )


def _introduce(
    run: TrainedRun, network: nn.Module, val: int, place: torch.device, progress: Progress, why: str
) -> None:
    config, preprocess = run.config, run.description.contract
    count = sum(p.numel() for p in network.parameters())
    height, width = preprocess.size
    test = f", {len(run.dataset.splits['test']):,} to test" if "test" in run.dataset.splits else ""
    progress.info(
        f"{run.train:,} images to train, {val:,} to validate{test}; {len(run.dataset.classes)} classes"
    )
    recipe = config.to_json()["augment"] + (f" ({why})" if why else "")
    progress.info(
        f"{config.model}: {count:,} parameters, input {preprocess.channels}x{height}x{width}, {config.opt}, "
        f"learning rate {config.lr:g}, augmentation {recipe}, on {place}"
    )


def _first(problems: tuple[Problem, ...], most: int = 3) -> str:
    """The first few, by name."""
    if not problems:
        return "none is unreadable"
    shown = "; ".join(f"{p.path} ({p.reason})" for p in problems[:most])
    return f"{shown}; and {len(problems) - most} more" if len(problems) > most else shown
