"""Opening a run that was stopped."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml

import striate
from striate.bundle import Description
from striate.data import DataSet
from striate.errors import DataError, UsageError
from striate.training import changes, saved
from striate.training.config import TrainConfig
from striate.training.distributed import ALONE, World
from striate.training.saved import Saved


@dataclass(frozen=True)
class Stopped:
    """A run as it was left.

    Attributes:
        folder: of the run.
        config: what it was told: a `TrainConfig`, or the `SeqConfig` of a run on pairs.
        saved: its newest whole state.
        notes: what is to be said of going on from there.
    """

    folder: Path
    config: Any
    saved: Saved
    notes: tuple[str, ...]

    @property
    def description(self) -> Description | None:
        """What its bundles say of themselves; None of a run that was stopped before its first save."""
        says = self.saved.facts.get("description")
        return None if says is None else Description.from_json(says)

    @property
    def given(self) -> TrainConfig:
        """What the user told it, before any default was filled in."""
        free = {name: getattr(self.config, name) for name in changes.FREE}
        return TrainConfig(**{**self.saved.facts["given"], **free})

    @classmethod
    def handed_out(cls, stopped: Stopped | None, world: World, **options: Any) -> Stopped:
        """The run as the first process has opened it, in all of them.

        Args:
            stopped: None in the others.
            world: the processes.
            options: that the user named anew.
        """
        says = None if stopped is None else [str(stopped.folder), stopped.config.to_json(), stopped.notes]
        folder, values, notes = world.first(says)
        kept = world.hand_out(None if stopped is None else stopped.saved)
        given = {name: value for name, value in options.items() if value is not None}
        return cls(Path(folder), TrainConfig(**{**values, **given}), kept, tuple(notes))

    def require_same(self, dataset: DataSet) -> None:
        """Refuse data that are not those it was trained on.

        Raises:
            DataError: with what has changed.
        """
        if found := changes.of_data(self.folder, dataset):
            raise DataError(
                f"cannot resume {str(self.folder)!r}",
                f"its data have changed: {'; '.join(found)}",
                "Put them back, or start a new run from it: striate train DATA --weights "
                f"{self.folder / 'last.safetensors'}",
            )


def reopen(
    folder: Path,
    parse: Callable[[dict[str, Any]], Any] = lambda values: TrainConfig(**values),
    world: World = ALONE,
    **options: Any,
) -> Stopped:
    """Open a run that was stopped, to go on with it.

    Args:
        folder: `runs/<name>`.
        parse: makes the configuration of what config.yaml says.
        world: the processes that are going to.
        options: fields of the configuration that the user names anew.

    Raises:
        UsageError: no run, or one whose configuration is another now.
        DataError: no state that is whole.
    """
    path = folder / "config.yaml"
    try:
        values = yaml.safe_load(path.read_text("utf-8"))
        config = parse(values)
    except OSError as error:
        raise UsageError(
            f"cannot resume {str(folder)!r}", f"it has no {path.name}, so it is no run", "Give runs/NAME"
        ) from error
    except (TypeError, AttributeError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UsageError(f"cannot resume {str(folder)!r}", f"{path} is damaged: {error}") from error
    state, damaged = saved.newest(folder)
    asked = dataclasses.replace(config, **{k: v for k, v in options.items() if v is not None})
    if found := changes.of_config(state.facts["config"], asked.to_json()):
        raise UsageError(
            f"cannot resume {str(folder)!r} with another configuration",
            "; ".join(found),
            "Leave that as it was, or start a new run",
        )
    notes = [f"{sentence}; going on from the state before it" for sentence in damaged]
    now = circumstances(world.place(asked.device), world)
    notes += [
        f"{name} was {was} and is {now[name]}: the weights will not be those of one run to the last bit"
        for name, was in state.facts["circumstances"].items()
        if now.get(name, was) != was
    ]
    return Stopped(folder, asked, state, tuple(notes))


def circumstances(device: torch.device, world: World = ALONE) -> dict[str, Any]:
    """What else decides how sums are rounded."""
    return {
        "Striate": striate.__version__,
        "PyTorch": torch.__version__,
        "threads": torch.get_num_threads(),
        "device": device.type,
        "processes": world.size,
    }
