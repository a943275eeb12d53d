"""The exponential moving average of the weights, and checkpoint averaging."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

from striate import tensor_file
from striate.errors import DataError
from striate.files import write_atomic

if TYPE_CHECKING:
    from striate.training.state import EpochMetrics

FOLDER = "checkpoints"  # of the epochs that are averaged at the end
_FIX = "Remove it, and resume the run: the other epochs are averaged"


def moving_average(network: nn.Module, decay: float) -> AveragedModel:
    """An exponential moving average of weights and buffers, with a warm-up of the decay.

    The decay of update t is min(decay, (1 + t) / (10 + t)), so that the random initial weights are soon
    forgotten (as in TensorFlow's ExponentialMovingAverage). Integer counters are copied.
    """

    def mix(old: torch.Tensor, new: torch.Tensor, updates: torch.Tensor | int) -> torch.Tensor:
        if not old.is_floating_point():
            return new
        weight = min(decay, (1 + int(updates)) / (10 + int(updates)))
        return torch.lerp(new, old, weight)

    return AveragedModel(network, avg_fn=mix, use_buffers=True)


def keep_epoch(folder: Path, epoch: int, network: nn.Module, count: int) -> None:
    """Write the weights of an epoch, and remove those older than the last `count` epochs."""
    content = tensor_file.encode(network.state_dict(), {})
    write_atomic(folder / FOLDER / f"{epoch:06}.safetensors", content)
    for old in kept_epochs(folder)[:-count]:
        old.unlink()


def kept_epochs(folder: Path) -> list[Path]:
    """The weights of epochs that a run has kept, oldest first."""
    return sorted((folder / FOLDER).glob("[0-9]*.safetensors"))


def average_checkpoints(paths: Sequence[Path]) -> dict[str, torch.Tensor]:
    """The mean of several epochs' weights (Vaswani et al. 2017, section 6.1); counters are the last one's.

    Raises:
        DataError: a file is missing or damaged.
    """
    states = [_weights(path) for path in paths]
    return {
        name: torch.stack([state[name].double() for state in states]).mean(dim=0).to(last.dtype)
        if last.is_floating_point()
        else last
        for name, last in states[-1].items()
    }


def _weights(path: Path) -> dict[str, torch.Tensor]:
    try:
        return tensor_file.read_tensors(path, tensor_file.read_header(path, _FIX))
    except DataError as error:
        raise DataError(f"cannot average {str(path)!r}", error.why, _FIX) from error


def remove_kept_epochs(folder: Path) -> None:
    """Remove the weights of single epochs once they have been averaged."""
    for path in kept_epochs(folder):
        path.unlink()
    if (folder / FOLDER).exists():
        (folder / FOLDER).rmdir()


def verdict(row: EpochMetrics, best: EpochMetrics, monitor: str, *, kept: bool) -> str:
    """What became of averaged weights, and why they are kept if their monitored metric is worse.

    Args:
        row: their metrics.
        best: those of the best epoch.
        monitor: a metric of `MONITORS`.
        kept: whether they are the best weights now.
    """
    if not kept:
        return "worse than the best epoch"
    own, other = row.monitored(monitor)[0], best.monitored(monitor)[0]
    if own >= other:
        return "kept as the best"
    return (
        f"kept as the best: the {monitor} of {abs(own):.4f} is within one standard error of that of epoch "
        f"{best.epoch}, {abs(other):.4f}"
    )
