"""The options that every task shares, in groups; a task adds its own groups (`striate.tasks`).

A task's configuration inherits from all of its groups, so it is flat, and a function that needs one group
takes that group as its parameter type.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Container, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any, ClassVar

from striate.device import MAX_SEED
from striate.errors import UsageError, unknown_name
from striate.progress import AUTO, Progress
from striate.training.options import (
    Options,
    announce_unit,
    current_names,
    declarations,
    option,
    seconds_of,
    with_unit,
)

if TYPE_CHECKING:
    from typing_extensions import Self

    from striate.training.callbacks import Callbacks

MAX_SIDE = 8192  # pixels of a network's input: more than this is a slip of the finger
MAX_WORKERS = 1024  # threads
MAX_COUNT = 1_000_000  # epochs, for example
MAX_BATCH = 10_000_000  # images or tokens
MAX_STEPS = 1_000_000_000
MAX_RATE = 3.4e38  # of a learning rate or a weight decay: the largest number of float32
MAX_MILESTONES = 10_000
TRACKERS = ("tensorboard", "mlflow", "wandb", "swanlab")
SCHEDULES = ("cosine", "step", "constant", "inverse-sqrt", "noam")
DECAYS = {"adamw": 0.01, "sgd": 1e-4, "rmsprop": 1e-5}  # optimizers, and their default weight decay

EXTENDING = (
    "epochs",
    "budget",
    "patience",
)  # options that decide when a run ends, so that it can be extended


@dataclass(frozen=True, kw_only=True)
class DataOptions(Options):
    """Which part of the data is held out, and how it is read."""

    PANEL: ClassVar[str] = "Data"

    val: float = option(
        0.1, "Fraction held out for validation, if the dataset has no val split", minimum=0, maximum=0.5
    )
    test: float = option(
        0.1, "Fraction held out for testing, if the dataset has no splits", minimum=0, maximum=0.5
    )
    workers: int | None = option(
        None, "Number of threads that decode images", minimum=1, maximum=MAX_WORKERS,
        flags=("--workers", "-j"), unset="one per CPU core",
    )  # fmt: skip
    cache: bool = option(True, "Keep decoded images on disk for the next run", flags=("--cache/--no-cache",))

    def unused_shares(self, splits: Container[str]) -> list[str]:
        """Notes about fractions that have no effect, because the data have these splits of their own."""
        names = [n for n in ("val", "test") if n in splits or (n == "test" and "train" in splits)]
        return [f"{shown} has no effect: the data have splits" for shown in self.changed(names)]

    def check_together(self) -> None:
        """Refuse a run without validation data."""
        if self.val == 0:
            raise UsageError("--val 0", "without validation data there is no best epoch", "Use --val 0.1")
        super().check_together()


@dataclass(frozen=True, kw_only=True)
class Optimization(Options):
    """Steps, learning rate, regularization, and how the weights are averaged."""

    PANEL: ClassVar[str] = "Optimization"

    epochs: int | None = option(
        None, "Passes over the training data", minimum=1, maximum=MAX_COUNT, flags=("--epochs", "-e")
    )
    budget: str | None = option(
        None, "Time limit for training and evaluation, such as 10m; --epochs, if given, is a limit too",
        unset="no limit",
    )  # fmt: skip
    batch: int | None = option(
        None, "Batch size", minimum=1, maximum=MAX_BATCH, flags=("--batch", "--batch-size", "-b")
    )
    accumulate: int = option(
        1, "Gradient accumulation: batches per optimizer step", minimum=1, maximum=MAX_COUNT
    )
    micro_batches: int = option(
        1, "Micro-batches per batch, to save memory; doubled when memory runs out",
        minimum=1, maximum=MAX_COUNT,
    )  # fmt: skip
    opt: str = option("adamw", "Optimizer", choices=tuple(DECAYS))
    momentum: float = option(
        0.9, "Momentum of sgd and rmsprop", minimum=0, below=1, needs=("opt", ("sgd", "rmsprop"))
    )
    nesterov: bool = option(False, "Nesterov momentum for sgd", flags=("--nesterov/--no-nesterov",))
    lr: float | None = option(None, "Peak learning rate", above=0, maximum=MAX_RATE)
    sched: str = option("cosine", "Learning rate schedule", choices=SCHEDULES)
    milestones: str = option(
        "0.5,0.75",
        "For --sched step: when the rate drops, as fractions of the run; 1/75: after each 75th",
        needs=("sched", ("step",)),
    )
    gamma: float = option(
        0.1, "Factor for the learning rate at each milestone", above=0, maximum=1, needs=("sched", ("step",))
    )
    warmup: float = option(
        0.05,
        "Linear warm-up: a fraction of all steps if below 1, else a number of steps",
        minimum=0,
        maximum=MAX_STEPS,
    )
    weight_decay: float | None = option(
        None, "Weight decay, not applied to biases or normalization layers", minimum=0, maximum=MAX_RATE,
        unset="adamw: 0.01; sgd: 0.0001; rmsprop: 0.00001",
    )  # fmt: skip
    label_smoothing: float = option(
        0.0, "Label smoothing: fraction of each label that is spread over all classes", minimum=0, below=1
    )
    dropout: float | None = option(
        None, "Rate of all dropout layers", minimum=0, below=1, unset="the network's own"
    )
    grad_clip: float = option(0.0, "Clip gradients to this norm; 0 for no clipping", minimum=0, maximum=1e9)
    sync_bn: bool = option(False, "Synchronize BatchNorm statistics across processes (SyncBatchNorm)")
    ema: float = option(
        0.0, "Decay of the exponential moving average of the weights; 0 for none", minimum=0, below=1
    )
    average: int = option(
        0,
        "Checkpoint averaging: average the weights of the last N epochs; 0 for none",
        minimum=0,
        maximum=MAX_COUNT,
    )
    amp: bool | None = option(
        None, "Mixed precision", flags=("--amp/--no-amp",), unset="on GPUs that support it"
    )
    compile: bool = option(False, "Compile the network with torch.compile")
    monitor: str | None = option(None, "Metric on val that selects the best epoch, also for --patience")
    patience: int = option(
        0,
        "Early stopping: stop after N epochs without improvement; 0 for never",
        minimum=0,
        maximum=MAX_COUNT,
    )

    def check_together(self) -> None:
        """Refuse combinations that have no meaning."""
        if self.nesterov and (self.opt != "sgd" or not self.momentum):
            raise UsageError("--nesterov", "it needs sgd with momentum", "Use --opt sgd, or leave it out")
        if 0.5 < self.warmup < 1:
            raise UsageError(f"--warmup {self.warmup:g}", "it must be at most 0.5, or a number of steps")
        _ = self.milestone_shares
        if self.budget is not None:
            if not self.budget_seconds > 0:
                raise UsageError(f"--budget {self.budget}", "it must be above 0", "Use a value like 10m")
            if self.warmup >= 1 or self.sched == "noam":
                raise UsageError(
                    f"--budget with --warmup {self.warmup:g} and --sched {self.sched}",
                    "the number of steps is not known in advance",
                    "Give the warm-up as a fraction, such as 0.1, and use another schedule than noam",
                )
        super().check_together()

    @property
    def step_batch(self) -> int:
        """Samples (or tokens) per optimizer step."""
        assert self.batch is not None, "the task fills it in"
        return self.batch * self.accumulate

    @property
    def budget_seconds(self) -> float:
        """The budget in seconds; raises UsageError if it is not a duration."""
        return seconds_of(self.budget or "")

    @property
    def shown_budget(self) -> str:
        """The budget for messages."""
        return with_unit(self.budget or "")

    @property
    def decay(self) -> float:
        """The weight decay, with the optimizer's default filled in."""
        return DECAYS[self.opt] if self.weight_decay is None else self.weight_decay

    @property
    def milestone_shares(self) -> tuple[float, ...]:
        """The milestones as shares of the run; raises UsageError if they cannot be read."""
        try:
            first, *others = self.milestones.split(",")
            if first.startswith("1/") and not others:
                parts = int(first.removeprefix("1/"))
                if not 2 <= parts <= MAX_MILESTONES:
                    raise ValueError
                return tuple(place / parts for place in range(1, parts))
            shares = tuple(float(share) for share in (first, *others))
        except (ValueError, AttributeError):
            shares = ()
        if not 0 < len(shares) <= MAX_MILESTONES or any(not 0 < share < 1 for share in shares):
            raise UsageError(
                f"--milestones {str(self.milestones)[:80]}",
                "they must be fractions of the run",
                "Use 0.5,0.75 or 1/75",
            )
        return shares


@dataclass(frozen=True, kw_only=True)
class RunOptions(Options):
    """Where a run executes, what it writes, and when."""

    PANEL: ClassVar[str] = "Run"

    seed: int = option(
        0, "Random seed for initial weights, order, augmentation and splits", minimum=0, maximum=MAX_SEED
    )
    seeds: int = option(
        1, "Number of runs, with the seeds SEED, SEED + 1, ...; the result is a mean with an interval",
        minimum=1, maximum=1000,
    )  # fmt: skip
    device: str = option("auto", "Device: auto, cpu, cuda, cuda:1 or mps")
    save_every: int = option(
        0, "Steps between checkpoints; 0 for once a minute and after each epoch", minimum=0, maximum=MAX_STEPS
    )
    rollbacks: int = option(
        0, "Maximum number of times to return to a checkpoint with half the learning rate when the loss is "
        "not finite", minimum=0, maximum=MAX_COUNT,
    )  # fmt: skip
    profile: bool = option(False, "Profile training: time per phase")
    log: str = option(
        "", "Trackers that receive the metrics of each epoch, separated by commas: tensorboard, mlflow, "
        "wandb, swanlab",
    )  # fmt: skip
    callbacks: Any = option(
        (), "Objects with methods of striate.training.callbacks.Callback", in_cli=False, saved=False
    )
    name: str | None = option(None, "Name of the run folder", unset="DATA-MODEL")
    out: str = option("runs", "Folder in which the run folder is created")
    figures: bool = option(
        False, "Write the figures of the report as PNG files, too", flags=("--figures/--no-figures",)
    )
    full: bool = option(
        False, "Put a small copy of every image into the report, not only as many as fit in 5 MB",
        flags=("--full/--no-full",),
    )  # fmt: skip
    parquet: bool = option(
        False, "Write predictions.parquet next to predictions.csv; needs pyarrow",
        flags=("--parquet/--no-parquet",),
    )  # fmt: skip
    progress: Progress = option(AUTO, "Receives progress updates", in_cli=False, saved=False)

    @property
    def log_names(self) -> tuple[str, ...]:
        """The trackers of `log`; raises UsageError for unknown ones."""
        names = tuple(filter(None, (name.strip() for name in self.log.split(","))))
        for name in names:
            if name not in TRACKERS:
                raise unknown_name("value for --log", name, TRACKERS)
        return names

    def check_together(self) -> None:
        """Refuse a name that is a path, and unknown trackers."""
        _ = self.log_names
        if self.seed + self.seeds - 1 > MAX_SEED:
            raise UsageError(f"--seed {self.seed} with --seeds {self.seeds}", f"the largest is {MAX_SEED}")
        if self.name is not None and (self.name in ("", ".", "..") or PurePath(self.name).name != self.name):
            raise UsageError(
                f"--name {self.name!r}", "it must be the name of one folder", "Use --out for its parent"
            )
        super().check_together()


@dataclass(frozen=True, kw_only=True)
class RunConfig(DataOptions, Optimization, RunOptions):
    """All common options; the configuration of every task is one.

    The options in `FREE` do not decide the weights, so a resumed run may change them. (The data are compared
    file by file instead.)
    """

    FREE: ClassVar[tuple[str, ...]] = (
        "data", "device", "workers", "cache", "save_every", "profile", "rollbacks", "out", "name", "log",
        "figures", "full", "parquet",
    )  # fmt: skip
    task: str = option("", "Task", in_cli=False)

    @classmethod
    def from_user(cls, values: Mapping[str, Any]) -> tuple[Self, list[str]]:
        """The configuration for what a user gave, and messages about it; old names are accepted.

        Raises:
            UsageError: an unknown option or an invalid value.
        """
        known, notes = current_names(cls, values)
        return cls(**known), notes

    def announce_budget(self) -> None:
        """Say that a budget without a unit is in seconds."""
        announce_unit(self.budget, self.progress)

    @classmethod
    def given(cls, values: Mapping[str, Any]) -> dict[str, Any]:
        """The options that the user gives, before those of a file join them, with what they imply."""
        return dict(values)

    @property
    def unsaved(self) -> dict[str, Any]:
        """The options that config.yaml cannot restore: free ones, callables, and those that are not saved."""
        values = {
            name: getattr(self, name) for name in ("data", *(n for n, _, _ in declarations(type(self))))
        }
        lost = {name for name, declared, _ in declarations(type(self)) if not declared.saved}
        return {n: v for n, v in values.items() if n in (*self.FREE, *lost) or callable(v)}

    def open_callbacks(self, is_main: bool) -> Callbacks:
        """The callbacks of a run: none but in the main process.

        Raises:
            UsageError: the package of a tracker is not installed, or an object is no callback.
        """
        from striate.training.loggers import callbacks_of

        return callbacks_of(self if is_main else None)

    @property
    def source(self) -> str:
        """Name of the data: a path, or a name."""
        raise NotImplementedError

    @property
    def run_name(self) -> str:
        """Name of the run folder."""
        raise NotImplementedError

    @property
    def is_named(self) -> bool:
        """Whether the name of the run folder is known before the data are read."""
        return True

    def open_data(self, run: Path | None = None) -> AbstractContextManager[Any]:
        """Open the data; imports no torch.

        Args:
            run: the folder of the run that is being resumed; None for a new one.

        Raises:
            DataError, UsageError: nothing to train on.
        """
        raise NotImplementedError

    def placed(self, folder: Path, name: str) -> Self:
        """The configuration of a run of this name in a folder of runs."""
        return dataclasses.replace(self, out=str(folder), name=name)

    def renamed(self, suffix: str) -> Self:
        """The same configuration, with a suffix of the run's name."""
        name = self.run_name if self.is_named else dataset_name(self.source.split(" ")[0])
        return dataclasses.replace(self, name=f"{name}-{suffix}")

    @property
    def is_repeated(self) -> bool:
        """Whether these options describe several runs."""
        return self.describes_several(self.to_json())

    @classmethod
    def describes_several(cls, values: Mapping[str, Any]) -> bool:
        """Whether the options of a config.yaml describe several runs, as `is_repeated`."""
        return bool(values.get("seeds", 1) > 1 or (values.get("folds") and values.get("fold") is None))

    def repeats(self) -> Iterator[tuple[str, Self]]:
        """The runs that these options describe: the name of each, and its configuration."""
        for seed in range(self.seed, self.seed + self.seeds):
            yield f"seed-{seed}", dataclasses.replace(self, seed=seed, seeds=1)

    def absolute(self) -> Self:
        """The same configuration with absolute paths, valid in any folder."""
        raise NotImplementedError


def dataset_name(source: str) -> str:
    """A short name for data, for the run folder: the file or folder without suffixes and braces."""
    name = re.sub(r"\.(tar|tar\.gz|tgz)$|\{.*?\}", "", Path(source).absolute().name)
    return Path(name).stem.strip("-_. ") or "data"
