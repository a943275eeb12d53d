"""A training run: data, network and configuration come together, epoch by epoch into a folder."""

from __future__ import annotations

import dataclasses
import datetime
import time
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import torch
from torch import nn

import striate
from striate import models
from striate.bundle import Description
from striate.data import DataSet, Loaded, Problem, SplitPlan, load, open_data, split
from striate.device import choose, cpu_count, seed_everything
from striate.errors import DataError, UsageError
from striate.progress import SILENT, Progress
from striate.training import transfer
from striate.training.config import TrainConfig
from striate.training.folder import TrainedRun, reserve, writable, write_down
from striate.training.loop import Job, fit
from striate.training.schedule import Epochs
from striate.training.state import TrainState
from striate.training.tally import EpochResult
from striate.transforms.preprocess import Preprocess
from striate.weights import open_weights

Start = tuple[Description, dict[str, torch.Tensor]]  # the weights a run starts from, and what they say


class TrainingInterrupted(KeyboardInterrupt):
    """Ctrl-C during training; what was reached is in the run's folder."""

    def __init__(self, run: TrainedRun) -> None:
        super().__init__(f"training was interrupted; what it reached is in {run.folder}")
        self.run = run


def train(config: TrainConfig, progress: Progress = SILENT) -> TrainedRun:
    """Train a network as `config` says, on the CPU the same to the bit for the same seed.

    Args:
        config: everything about the run.
        progress: is told of each stage and batch.

    Returns:
        The finished run.

    Raises:
        DataError: nothing there to train on, or too little that can be read.
        UsageError: a device that is not there, or weights of another network.
        TrainingError: the loss is no longer finite.
        TrainingInterrupted: Ctrl-C, once there was something to keep.
    """
    started = time.perf_counter()
    dataset, notes = _divided(config)
    place = choose(config.device)
    out = writable(config.out)
    start = _start(config, progress)
    preprocess = _preprocess(config, dataset, start, notes)
    for note in notes:
        progress.warn(note)
    margin = config.augmentation(preprocess) != "none"  # room for random crops
    workers = config.workers or cpu_count()
    images = {
        name: load(
            dataset.splits[name], preprocess, canvas=margin and name == "train", workers=workers,
            progress=progress, stage=f"reading {name}",
        )
        for name in ("train", "val")
    }  # fmt: skip
    problems = images["train"].problems + images["val"].problems
    _require_enough(dataset, images["train"], images["val"], notes)
    if problems:
        progress.warn(f"{len(problems)} images cannot be read and are left out: {_first(problems)}")

    seed_everything(config.seed)
    network, arguments, told = _network(config, preprocess, dataset.classes, start)
    notes += told
    for line in told:
        progress.say(line)
    network.to(place)
    run = TrainedRun(
        folder=reserve(out, config),
        config=_filled_in(config, preprocess),
        dataset=dataset,
        description=_describe(config, arguments, dataset, preprocess, len(images["train"])),
        train=len(images["train"]),
        problems=problems,
        notes=notes,
    )
    write_down(run)
    _introduce(run, network, images["val"], place, progress)

    pace = Epochs(config, run.train)
    if pace.steps < 50:
        run.notes.append(
            f"{pace.steps} steps in all are few to learn from (more --epochs, or a smaller --batch)"
        )
        progress.warn(run.notes[-1])

    state = TrainState.fresh(network, config, place, head=None if start is None else _head(config, arguments))
    job = Job(preprocess, images["train"], images["val"], config, place, pace)

    def after_epoch(row: EpochResult) -> None:
        better = run.record(row, state.measured)
        progress.say(_line(row, config, better, run))

    try:
        fit(state, job, progress, after_epoch=after_epoch)
    except KeyboardInterrupt:
        run.write_bundle(run.last, network)
        if not run.best_epoch:
            run.write_bundle(run.best, network)
        raise TrainingInterrupted(run) from None
    finally:
        run.seconds = time.perf_counter() - started
    return run


def _divided(config: TrainConfig) -> tuple[DataSet, list[str]]:
    """The data in train, val and maybe test, with the classes of train; and what was passed over."""
    found = open_data(config.data)
    dataset = split(found, SplitPlan(config.val, config.test, config.seed))
    notes = list(dataset.notes)
    if "val" not in dataset.splits or not len(dataset.splits["train"]):
        raise DataError(
            f"cannot train on {config.data!r}",
            f"with {sum(map(len, found.splits.values()))} images none is left to choose the best epoch by",
            "Give each class at least three images, or make a val folder",
        )
    known = np.unique(dataset.splits["train"].labels)
    dataset, left_out = dataset.with_classes(tuple(dataset.classes[i] for i in known))
    notes += [
        f"class {name!r} has no training images: its {count} others are left out"
        for name, count in left_out.items()
    ]
    if len(dataset.classes) < 2:
        raise DataError(
            f"cannot train on {config.data!r}",
            "; ".join((f"it has one class, {dataset.classes[0]!r}", *notes)),
            "A classifier needs two: add a folder with images of what it is not",
        )
    return dataset, notes


def _preprocess(config: TrainConfig, dataset: DataSet, start: Start | None, notes: list[str]) -> Preprocess:
    """The contract of the run: that of the weights, unless the user says otherwise, which is remarked on."""
    pixels = dataset.splits["train"].pixels
    own = config.preprocess(None if pixels is None else pixels.shape)
    if start is None:
        return own
    theirs = start[0].preprocess
    size = theirs if config.imgsz is None else own
    channels = config.channels or theirs.channels
    mean, std = (theirs.mean, theirs.std) if config.normalize == "auto" else (own.mean, own.std)
    if len(mean) != channels:  # weights for RGB that are to read grayscale, or the other way round
        mean, std = (fmean(mean),) * channels, (fmean(std),) * channels
    chosen = dataclasses.replace(
        theirs, size=size.size, shorter_side=size.shorter_side, resize=size.resize, channels=channels,
        mean=mean, std=std,
    )  # fmt: skip
    for field in ("size", "channels", "mean", "std", "resize"):
        if getattr(chosen, field) != getattr(theirs, field):
            notes.append(
                f"the weights were trained with {field} {getattr(theirs, field)}; "
                f"this run uses {getattr(chosen, field)}"
            )
    return chosen


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


def _require_enough(dataset: DataSet, train: Loaded, val: Loaded, notes: list[str]) -> None:
    left = {dataset.classes[i] for i in np.unique(train.labels)}
    if len(left) < 2 or not len(val):
        what = "val has no image" if len(left) >= 2 else f"only {len(left)} classes have training images"
        problems = train.problems + val.problems
        raise DataError(
            f"cannot train on {dataset.source!r}",
            f"{len(problems)} images cannot be read, and {what} left: {_first(problems)}",
            "Mend or replace them",
        )
    notes += [
        f"class {name!r} has no training image that can be read"
        for name in dataset.classes
        if name not in left
    ]


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


def _filled_in(config: TrainConfig, preprocess: Preprocess) -> TrainConfig:
    """The configuration with what the defaults came to, to be read and used again."""
    source = str(Path(config.data).absolute()) if Path(config.data).exists() else config.data
    return dataclasses.replace(
        config, data=source, imgsz=max(preprocess.size), channels=preprocess.channels, lr=config.peak_rate,
        weight_decay=config.decay, augment=config.augmentation(preprocess),
    )  # fmt: skip


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
            "data": Path(config.data).absolute().name if Path(config.data).exists() else config.data,
            "training_images": count,
            "seed": config.seed,
            "weights": Path(config.weights).name,
        },
    )


def _introduce(
    run: TrainedRun, network: nn.Module, val: Loaded, place: torch.device, progress: Progress
) -> None:
    config, preprocess = run.config, run.description.preprocess
    count = sum(p.numel() for p in network.parameters())
    height, width = preprocess.size
    test = f", {len(run.dataset.splits['test']):,} to test" if "test" in run.dataset.splits else ""
    progress.say(
        f"{run.train:,} images to train, {len(val):,} to validate{test}; {len(run.dataset.classes)} classes"
    )
    progress.say(
        f"{config.model}: {count:,} parameters, input {preprocess.channels}x{height}x{width}, {config.opt}, "
        f"learning rate {config.lr:g}, augmentation {config.augment}, on {place}"
    )


def _line(result: EpochResult, config: TrainConfig, better: bool, run: TrainedRun) -> str:
    """An epoch in one line, the time left with it."""
    left = sum(row.seconds for row in run.epochs) / result.epoch * (config.epochs - result.epoch)
    return (
        f"epoch {result.epoch:{len(str(config.epochs))}}/{config.epochs}  "
        f"loss {result.train_loss:.4f}  top1 {result.train_top1:.4f}  "
        f"val loss {result.val_loss:.4f}  val top1 {result.val_top1:.4f}{' *' if better else '  '}  "
        f"{result.images_per_second:,.0f} images/s  {_clock(left)} left"
    )


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def _first(problems: tuple[Problem, ...], most: int = 3) -> str:
    """The first few, by name."""
    if not problems:
        return "none is unreadable"
    shown = "; ".join(f"{p.path} ({p.reason})" for p in problems[:most])
    return f"{shown}; and {len(problems) - most} more" if len(problems) > most else shown
