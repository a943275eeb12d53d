"""Callbacks: what a program does at the start of a run, after each epoch, at each checkpoint and at the end.

They are called in the main process, for every task. A callback reads; training does not depend on it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from striate.errors import UsageError

if TYPE_CHECKING:
    from striate.training.run_folder import TrainingRun
    from striate.training.state import EpochMetrics


class Callback:
    """The methods that a run calls; each does nothing. A callback may have some of them, in any class."""

    def on_train_start(self, run: TrainingRun) -> None:
        """Before the first step, also of a resumed run.

        Args:
            run: with `folder`, `config` and `description`.
        """

    def on_epoch_end(self, row: EpochMetrics) -> None:
        """After an epoch: it is validated, and its checkpoint is written if one is due.

        Args:
            row: of results.csv, a dataclass: `epoch`, `train_loss`, `val_top1` and others.
        """

    def on_checkpoint(self, path: Path) -> None:
        """After a checkpoint and the bundles that belong to it are written.

        Args:
            path: of the checkpoint. `path.parents[1]` is the run folder, which has `last.safetensors` and
                `best.safetensors` once an epoch has ended.
        """

    def on_train_end(self, run: TrainingRun) -> None:
        """At the end, also after an interruption or an error.

        Args:
            run: with `epochs`, `best_epoch` and `seconds`.
        """


class Callbacks:
    """Several callbacks as one.

    Args:
        callbacks: objects with some of the methods of `Callback`.

    Raises:
        UsageError: an object has none of them.
    """

    def __init__(self, callbacks: Sequence[Any] = ()) -> None:
        names = [name for name in vars(Callback) if name.startswith("on_")]
        for callback in callbacks:
            if not any(callable(getattr(callback, name, None)) for name in names):
                what = f"callbacks= has a {type(callback).__name__}"
                raise UsageError(what, "it has no method of a callback", f"Define {', '.join(names)}")
        self._callbacks = tuple(callbacks)

    def call(self, method: str, argument: Any) -> None:
        """Call a method of those that have it, in their order."""
        for callback in self._callbacks:
            function = getattr(callback, method, None)
            if function is not None:
                function(argument)

    @contextlib.contextmanager
    def around(self, run: TrainingRun) -> Iterator[None]:
        """Call `on_train_start` before, and `on_train_end` after, however it ends."""
        try:
            self.call("on_train_start", run)
            yield
        finally:
            self.call("on_train_end", run)
