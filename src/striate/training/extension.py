"""Training a run for longer than it was meant to be: `striate resume RUN --epochs N`.

The learning rate schedule is computed anew for the new length, and the run continues at its place in that
schedule. A finished run has kept its weights, in last.safetensors, but not the state of its optimizer.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from striate import bundle
from striate.errors import UsageError
from striate.training.checkpoint import Checkpoint
from striate.training.config import EXTENDING
from striate.training.options import flag, seconds_of, with_unit


def completed(values: Mapping[str, Any], saved: Checkpoint) -> tuple[dict[str, Any], Checkpoint]:
    """The values of config.yaml and the checkpoint, which is written first when a run gets a new length.

    If the process died in between, the file still has the values that the checkpoint says it had.
    """
    before = saved.facts.get("extension", {}).get("before", {})
    config = saved.facts["config"]
    behind = {n: config[n] for n, old in before.items() if values.get(n) == old != config[n]}
    return {**values, **behind}, dataclasses.replace(saved, extended=bool(behind))


def extend(
    folder: Path, values: Mapping[str, Any], saved: Checkpoint, changed: Mapping[str, Any]
) -> tuple[dict[str, Any], Checkpoint]:
    """The configuration and the checkpoint of a run that gets a new length.

    Args:
        folder: of the run.
        values: of its config.yaml.
        saved: its newest checkpoint.
        changed: the options of `EXTENDING` that the user gave. Epochs alone replace a time budget.

    Returns:
        Both with the changes. If the run is finished, the checkpoint has the weights of last.safetensors and
        no state of the optimizer. If nothing changes, both as they are.

    Raises:
        UsageError: the run is already longer.
        BundleError: last.safetensors of a finished run is missing or damaged.
    """
    finished = saved.values["finished"]
    new = {**values, **changed}
    if "epochs" in changed and "budget" not in changed:
        new["budget"] = None
    before = {name: values.get(name) for name in EXTENDING if new[name] != values.get(name)}
    if not before:
        return dict(values), saved
    _require_more(folder, new, saved.values, changed)
    note = _note(saved.values, before, new)
    earlier = saved.facts.get("extension", {})
    state, tensors, averaged = dict(saved.values), saved.tensors, earlier.get("averaged")
    cuts = list(earlier.get("cuts", ()))
    if finished:
        note += "; its optimizer starts anew from last.safetensors"
        tensors, averaged = _tensors(folder, state), _averaged_row(folder, saved)
        if state["position"]:  # a time budget ended the run within an epoch; its rest is left out
            cuts.append([state["epoch"], state["position"]])
        state |= {"finished": False, "epoch": _begun_epochs(state), "position": 0}
    facts = {
        **saved.facts,
        "config": {**saved.facts["config"], **{name: new[name] for name in before}},
        "given": {**saved.facts["given"], **{name: new[name] for name in before}},
        "extension": {
            "before": before, "notes": [*earlier.get("notes", ()), note], "averaged": averaged, "cuts": cuts,
        },
    }  # fmt: skip
    return new, dataclasses.replace(saved, values=state, facts=facts, tensors=tensors, extended=True)


def _begun_epochs(state: Mapping[str, Any]) -> int:
    return int(state["epoch"]) + int(state["position"] > 0)


def _require_more(
    folder: Path, new: Mapping[str, Any], state: Mapping[str, Any], changed: Mapping[str, Any]
) -> None:
    """Refuse an end that lies before what is done, or that leaves nothing to train."""
    done, seconds = _begun_epochs(state), state["seconds"]
    least = done + 1 if state["finished"] else max(1, done)
    if new["epochs"] is not None and new["epochs"] < least:
        given = f"--epochs {changed['epochs']}" if "epochs" in changed else flag(next(iter(changed)))
        raise UsageError(
            f"cannot resume {str(folder)!r} with {given}",
            f"epochs done: {done}" + (f" of {new['epochs']}" if "epochs" not in changed else ""),
            f"Give --epochs {least} or more",
        )
    if new["budget"] is not None and seconds_of(new["budget"]) <= seconds:
        raise UsageError(
            f"cannot resume {str(folder)!r} with a budget of {with_unit(new['budget'])}",
            f"it has taken {seconds:,.0f} seconds so far, which count",
            "Give a longer --budget, or --epochs",
        )


def _note(state: Mapping[str, Any], before: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    """What changes, for the report."""
    words = [f"{flag(name)} was {_limit(old)} and is {_limit(new[name])}" for name, old in before.items()]
    note = f"since step {state['step']:,}, after epoch {_begun_epochs(state)}: {', '.join(words)}"
    ends = [f"a budget of {with_unit(new['budget'])}"] if new["budget"] else []
    ends += [f"{new['epochs']} epochs"] if new["epochs"] else []
    if "epochs" in before or "budget" in before:
        note += f"; the learning rate schedule is computed anew for {' and at most '.join(ends)}"
    return note


def _limit(value: Any) -> Any:
    return "no limit" if value is None else value


def _tensors(folder: Path, state: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    """The tensors of a checkpoint with the weights of the last epoch, also as the moving average."""
    _, weights = bundle.read(folder / "last.safetensors")
    tensors = {f"network.{name}": value for name, value in weights.items()}
    tensors |= {f"ema.module.{name}": value for name, value in weights.items()}
    return {**tensors, "ema.n_averaged": torch.tensor(state["step"])}


def _averaged_row(folder: Path, saved: Checkpoint) -> dict[str, Any] | None:
    """The metrics of best.safetensors if it is an average of several epochs; otherwise None."""
    metrics = bundle.describe(folder / "best.safetensors").metrics
    best = next(row for row in saved.values["rows"] if row["epoch"] == saved.values["best_epoch"])
    row = {name: metrics.get(name) for name in best}
    return None if row == best or None in (row["epoch"], row["step"]) else row
