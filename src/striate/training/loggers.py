"""Callbacks that send the rows of a run to TensorBoard, MLflow, Weights & Biases or SwanLab.

Each uses the settings of its package (environment variables, login, offline mode). A resumed run continues
the same record. If the package fails during a run, a warning says so and training continues.
"""

from __future__ import annotations

import dataclasses
import hashlib
import importlib
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from striate.errors import UsageError
from striate.progress import Progress
from striate.training.callbacks import Callback, Callbacks

if TYPE_CHECKING:
    from striate.training.config import RunConfig
    from striate.training.run_folder import TrainingRun
    from striate.training.state import EpochMetrics

PROJECT = "striate"  # of runs, unless the package's own settings name another


class Logger(Callback, ABC):
    """A callback that passes numbers on; subclasses say how.

    Args:
        progress: receives a warning if the package fails.
    """

    package: str  # to import

    def __init__(self, progress: Progress) -> None:
        try:
            self.module: Any = importlib.import_module(self.package)
        except ImportError as error:
            name, why = self.package.partition(".")[0], " ".join(str(error).split())
            name = "tensorboard" if name == "torch" else name
            raise UsageError(f"--log {name}", why, f"pip install {name}") from error
        self._progress, self._failed = progress, False

    def on_train_start(self, run: TrainingRun) -> None:
        """Begin or continue the record of a run, with its configuration."""
        self._try(lambda: self.begin(run, {k: v for k, v in run.config.to_json().items() if v is not None}))

    def on_epoch_end(self, row: EpochMetrics) -> None:
        """Record the numbers of an epoch."""
        values = {name: value for name, value in dataclasses.asdict(row).items() if name != "epoch"}
        numbers = {n: float(v) for n, v in values.items() if isinstance(v, (int, float)) and math.isfinite(v)}
        self._try(lambda: self.record(numbers, row.epoch))

    def on_train_end(self, run: TrainingRun) -> None:
        """End the record."""
        self._try(self.end)

    @abstractmethod
    def begin(self, run: TrainingRun, options: Mapping[str, Any]) -> None:
        """Begin or continue the record of a run with these options."""

    @abstractmethod
    def record(self, numbers: Mapping[str, float], epoch: int) -> None:
        """Record the numbers of an epoch."""

    @abstractmethod
    def end(self) -> None:
        """End the record."""

    def _try(self, step: Callable[[], None]) -> None:
        """Take a step; after the first failure, no more."""
        if self._failed:
            return
        try:
            step()
        except Exception as error:  # a package that talks to a server may raise anything
            self._failed = True
            why = " ".join(str(error).split())[:300]
            self._progress.warn(
                f"{self.package} failed, so it records no more: {type(error).__name__}: {why}"
            )


class TensorBoard(Logger):
    """Event files in the run folder: `tensorboard --logdir runs`."""

    package = "torch.utils.tensorboard"

    def begin(self, run: TrainingRun, options: Mapping[str, Any]) -> None:
        """Open an event file."""
        self._writer = self.module.SummaryWriter(str(run.folder / "tensorboard"))
        table = "\n".join(f"| {name} | {value} |" for name, value in options.items())
        self._writer.add_text("config", f"| option | value |\n|---|---|\n{table}", 0)

    def record(self, numbers: Mapping[str, float], epoch: int) -> None:
        """Add a scalar for each number."""
        for name, value in numbers.items():
            self._writer.add_scalar(name, value, epoch)
        self._writer.flush()

    def end(self) -> None:
        """Close the file."""
        self._writer.close()


class MLflow(Logger):
    """A run of an MLflow experiment, at MLFLOW_TRACKING_URI or where MLflow keeps them by default."""

    package = "mlflow"

    def begin(self, run: TrainingRun, options: Mapping[str, Any]) -> None:
        """Create the run, or find that of a resumed run by its tag."""
        client, tag = self.module.MlflowClient(), identity(run)
        experiment = client.get_experiment_by_name(PROJECT)
        number = client.create_experiment(PROJECT) if experiment is None else experiment.experiment_id
        known = client.search_runs([number], f"tags.striate_run = '{tag}'", max_results=1)
        if known:
            self._run = known[0].info.run_id
            client.set_terminated(self._run, "RUNNING")
        else:
            created = client.create_run(number, run_name=run.folder.name, tags={"striate_run": tag})
            self._run = created.info.run_id
            for name, value in options.items():
                client.log_param(self._run, name, str(value)[:500])
        self._client = client

    def record(self, numbers: Mapping[str, float], epoch: int) -> None:
        """Log a metric for each number."""
        for name, value in numbers.items():
            self._client.log_metric(self._run, name, value, step=epoch)

    def end(self) -> None:
        """Mark the run as finished."""
        self._client.set_terminated(self._run, "FINISHED")


class WandB(Logger):
    """A run of Weights & Biases, in the project WANDB_PROJECT; WANDB_MODE=offline needs no account."""

    package = "wandb"

    def begin(self, run: TrainingRun, options: Mapping[str, Any]) -> None:
        """Begin or continue the run."""
        project = self.module.setup().settings.project or PROJECT
        self._run = self.module.init(
            project=project, name=run.folder.name, id=identity(run), resume="allow", config=dict(options),
            dir=str(run.folder), reinit="create_new",
        )  # fmt: skip

    def record(self, numbers: Mapping[str, float], epoch: int) -> None:
        """Log the numbers; the epoch is one of them, because steps cannot be repeated."""
        self._run.log({"epoch": epoch, **numbers})

    def end(self) -> None:
        """Finish the run."""
        self._run.finish()


class SwanLab(Logger):
    """An experiment of SwanLab; SWANLAB_MODE=local or offline needs no account."""

    package = "swanlab"

    def begin(self, run: TrainingRun, options: Mapping[str, Any]) -> None:
        """Begin the experiment."""
        self.module.init(
            project=PROJECT, experiment_name=run.folder.name, config=dict(options),
            logdir=str(run.folder / "swanlab"),
        )  # fmt: skip

    def record(self, numbers: Mapping[str, float], epoch: int) -> None:
        """Log the numbers."""
        self.module.log(dict(numbers), step=epoch)

    def end(self) -> None:
        """Finish the experiment."""
        self.module.finish()


LOGGERS: dict[str, type[Logger]] = {
    "tensorboard": TensorBoard, "mlflow": MLflow, "wandb": WandB, "swanlab": SwanLab
}  # fmt: skip


def identity(run: TrainingRun) -> str:
    """A name of a run that stays the same when it is resumed, and differs from that of every other run."""
    created = run.description.provenance.get("created", "")
    return hashlib.sha256(f"{run.folder.name}\0{created}".encode()).hexdigest()[:16]


def callbacks_of(config: RunConfig | None) -> Callbacks:
    """The callbacks of a configuration: those of the user, then the trackers of `--log`; none for None.

    Raises:
        UsageError: a package is not installed, or an object is no callback.
    """
    if config is None:
        return Callbacks()
    given = config.callbacks
    if not isinstance(given, (list, tuple)):
        what = f"callbacks= is a {type(given).__name__}"
        raise UsageError(what, "it must be a list of objects", "Give callbacks=[...]")
    return Callbacks((*given, *(LOGGERS[name](config.progress) for name in config.log_names)))
