"""What training returns: a finished run with the evaluation of its best bundle."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from striate import markup

if TYPE_CHECKING:
    from striate.training.run_folder import TrainingRun

E_co = TypeVar("E_co", covariant=True)


@dataclass(frozen=True)
class Run(Generic[E_co]):
    """A finished run.

    Attributes:
        training: its folder, configuration and epochs.
        evaluation: of the best bundle on the test split, or on val if there is none.
        report: path of the HTML page.
    """

    training: TrainingRun
    evaluation: E_co
    report: Path

    @property
    def best(self) -> Path:
        """The bundle to use."""
        return self.training.best

    def to_json(self) -> dict[str, Any]:
        """What `striate train --json` prints."""
        training = self.training
        return {
            "run": str(training.folder),
            "best": str(training.best),
            "last": str(training.last),
            "report": str(self.report),
            "epochs": training.last_epoch,
            "steps": training.epochs[-1].step if training.epochs else 0,
            "evaluations": len(training.epochs),
            "best_epoch": training.best_epoch,
            "monitor": training.config.monitor,
            **training.task.summary(training, self.evaluation),
            **({"profile": training.profile} if training.profile else {}),
        }

    def __repr__(self) -> str:
        """The folder, the best epoch and the evaluation."""
        training = self.training
        epochs = f"best epoch {training.best_epoch} of {training.last_epoch}"
        return f"Run({str(training.folder)!r}, {epochs}, {self.evaluation!r})"

    def _repr_html_(self) -> str:
        """The run in a notebook: its files, curves and evaluation."""
        training = self.training
        facts = {
            "best epoch": f"{training.best_epoch} of {training.last_epoch}",
            "duration": f"{training.seconds:,.1f} s",
            "model": self.best,
            "report": self.report,
        }
        parts = [markup.title(f"Run {training.folder.name}"), markup.facts(facts), self._curves()]
        parts += [markup.note(f"note: {text}") for text in training.notes]
        return markup.panel(*parts, markup.shown(self.evaluation))

    def _curves(self) -> str:
        """The losses of the epochs, and the monitored metric."""
        rows, monitor = self.training.epochs, self.training.config.monitor
        if len(rows) < 2:
            return ""
        key, _ = rows[0].MONITORS[monitor]
        panels = {"loss": ("train_loss", "val_loss"), key.replace("_", " "): (key,)}
        if key == "val_loss":
            del panels["val loss"]
        charts = [
            markup.curves(
                label, [row.epoch for row in rows], {n: [getattr(row, n) for row in rows] for n in names}
            )
            for label, names in panels.items()
        ]
        return markup.side_by_side(*charts)
