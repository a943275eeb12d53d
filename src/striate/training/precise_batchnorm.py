"""Precise BatchNorm: the statistics of a network as it is, instead of a running average over its past.

Wu and Johnson 2021, "Rethinking 'Batch' in BatchNorm", arXiv:2105.07576, section 3. BatchNorm's running
statistics lag behind the weights until momentum x updates is large: the initial values still have the weight
(1 - momentum)^updates. Until then they are estimated anew, on training images, before each evaluation.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import closing

import torch
from torch import Tensor, nn

from striate.device import seed_step
from striate.models.layers import set_drop_path, set_dropout
from striate.sections import Remark
from striate.training.distributed import Distributed
from striate.training.schedule import Indices, split_evenly
from striate.training.state import TrainState
from striate.training.task import Task
from striate.training.transfer import training_mode, training_modes

SAMPLES = 768  # of the training data, at most
SETTLED = 10.0  # momentum x steps from which on the running statistics are good: e^-10 is 5e-5

BatchNorm = nn.modules.batchnorm._BatchNorm


def lagging(network: nn.Module, step: int) -> list[nn.Module]:
    """The BatchNorm layers whose running statistics lag behind the weights.

    Frozen layers never do, nor do layers without running statistics or with a momentum of 0. A momentum of
    None means the average over all steps so far, which always lags.

    Args:
        network: partly frozen or not; it is not changed.
        step: optimizer steps that it has been trained for; 0 if its weights are an average of others.
    """
    found = [
        module
        for module in network.modules()
        if isinstance(module, BatchNorm) and module.running_mean is not None
        if module.momentum is None or (module.momentum > 0 and module.momentum * step < SETTLED)
    ]
    modes = training_modes(network) if found else {}
    return [module for module in found if modes[module]]


def reestimate(task: Task, state: TrainState, *, averaged: bool = False) -> str:
    """Estimate the statistics of all lagging BatchNorm layers of the evaluated network, in place.

    The same weights see up to `SAMPLES` training images, augmented as in training, but without dropout and
    stochastic depth, as in evaluation. Each layer normalizes a batch by the batch's own statistics, and the
    mean and variance over all batches become its running statistics. The images, their order and their
    augmentation are those of the first epoch, so the statistics are a function of the seed and the weights,
    and epochs are compared on the same ones. Of several processes each sees its shard, and all of them get
    the same statistics.

    Args:
        task: of the run.
        state: its evaluated network gets the statistics; nothing else changes.
        averaged: whether its weights are an average, so that no running statistics belong to them.

    Returns:
        A sentence about it; empty if no layer lags.
    """
    layers = set(lagging(state.evaluated_network, 0 if averaged else state.step))
    if not layers:
        return ""
    module = task.training_module(state.evaluated_network)
    # A copy with the same parameters and its own buffers and modes, so that training is not disturbed.
    twin = copy.deepcopy(module, {id(parameter): parameter for parameter in module.parameters()})
    training_mode(twin)
    set_drop_path(twin, 0.0)
    set_dropout(twin, 0.0)
    observed: dict[nn.Module, _Moments] = {}
    for original, layer in zip(module.modules(), twin.modules(), strict=True):
        if isinstance(layer, BatchNorm):
            layer.eval()
            if original in layers:
                observed[original] = _Moments(layer)
    count = _pass_through(task, state, twin)
    statistics = _of_all(list(observed.values()), task.context.distributed)
    state.in_step, before = True, state.in_step  # a signal must not leave half of the layers changed
    for original, found in zip(observed, statistics, strict=True):
        if found is not None:
            original.get_buffer("running_mean").copy_(found[0])
            original.get_buffer("running_var").copy_(found[1])
    state.in_step = before
    return _sentence(count, task)


def evaluation_units(task: Task, state: TrainState) -> int:
    """How much `reestimate` adds to an evaluation, in the unit of `EvaluationCost`; 0 if no layer lags."""
    if not lagging(state.evaluated_network, state.step):
        return 0
    order = task.order(0)
    units_per_sample: float = task.config.step_batch * len(order) / sum(map(len, order))
    return round(units_per_sample * sum(map(len, _first(order, SAMPLES))))


def report_notes(task: Task, state: TrainState) -> list[Remark]:
    """The sentence for the report, if the statistics lagged at the first evaluation."""
    if not state.rows or not lagging(state.evaluated_network, state.rows[0].step):
        return []
    return [Remark(_sentence(sum(map(len, _first(task.order(0), SAMPLES))), task))]


class _Moments:
    """The moments of each batch that a BatchNorm layer sees; it normalizes the batch by them.

    Args:
        layer: in evaluation mode, in which it normalizes by its running statistics.

    Attributes:
        counts: values per channel, of each batch.
        means: `[channels]` of each batch.
        variances: `[channels]` of each batch, biased.
    """

    def __init__(self, layer: nn.Module) -> None:
        self.channels = len(layer.get_buffer("running_mean"))
        self.counts: list[int] = []
        self.means: list[Tensor] = []
        self.variances: list[Tensor] = []
        layer.register_forward_pre_hook(self._see)

    def _see(self, layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        x = inputs[0].float()
        if x.device.type == "cpu":  # the kernel of training: 3 to 30 times as fast, errors up to 5e-5
            mean, variance = torch.batch_norm_update_stats(x, None, None, 0.0)
        else:
            axes = [axis for axis in range(x.ndim) if axis != 1]
            variance, mean = torch.var_mean(x, axes, correction=0)
        self.counts.append(x.numel() // x.shape[1])
        self.means.append(mean)
        self.variances.append(variance)
        layer.running_mean, layer.running_var = mean, variance

    def tensors(self) -> tuple[Tensor, Tensor, Tensor]:
        """Counts `[batches, 1]`, means and variances `[batches, channels]`, float64 on the CPU."""
        nothing = torch.zeros(0, self.channels)
        means, variances = (
            (torch.stack(values).cpu() if values else nothing).double()
            for values in (self.means, self.variances)
        )
        return torch.tensor(self.counts, dtype=torch.float64)[:, None], means, variances


def _of_all(observed: Sequence[_Moments], distributed: Distributed) -> list[tuple[Tensor, Tensor] | None]:
    """Mean and unbiased variance of each layer, over all batches of all processes; None without a batch.

    E[mean], and E[variance + (mean - E[mean])^2] n / (n - 1), weighted by the sizes of the batches.
    """
    seen = [moments.tensors() for moments in observed]
    sizes = [moments.channels + 1 for moments in observed]
    sums = torch.cat([torch.cat([n.sum()[None], (n * means).sum(0)]) for n, means, _ in seen])
    distributed.all_reduce(sums)
    totals = [(part[0], part[1:] / part[0]) for part in torch.split(sums, sizes)]
    squares = torch.cat([
        (n * (variances + (means - mean) ** 2)).sum(0)
        for (n, means, variances), (_, mean) in zip(seen, totals, strict=True)
    ])  # fmt: skip
    distributed.all_reduce(squares)
    parts = torch.split(squares, [size - 1 for size in sizes])
    return [
        (mean, square / (n - 1)) if n > 1 else None
        for (n, mean), square in zip(totals, parts, strict=True)
    ]  # fmt: skip


@torch.no_grad()
def _pass_through(task: Task, state: TrainState, twin: nn.Module) -> int:
    """Pass training samples through a copy of the network; returns how many, in all processes."""
    distributed, progress = task.context.distributed, task.context.progress
    state = copy.copy(state)
    state.epoch = state.step = 0
    order = list(_first(task.order(0), SAMPLES))
    seed_step(task.context.device, task.config.seed, distributed.rank)
    progress.begin("BatchNorm statistics", sum(map(len, order)), task.unit)
    shards = [distributed.shard(samples) for samples in order]
    with closing(task.batches(0, shards)) as batches:  # type: ignore[type-var]  # a generator
        for samples, batch in zip(order, batches, strict=True):
            for number, rows in enumerate(split_evenly(len(batch), state.micro_batches)):
                if len(part := batch.part(rows)) > 1:
                    task.loss(twin, part, state, distributed.rank + distributed.size * number)
            progress.advance(len(samples))
    progress.end()
    return sum(map(len, order))


def _first(order: Sequence[Indices], count: int) -> Iterator[Indices]:
    """The first steps of an epoch, up to so many samples; a last step of a single one is left out."""
    for samples in order:
        if count < 2:
            return
        yield samples[:count]
        count -= len(samples)


def _sentence(count: int, task: Task) -> str:
    return (
        f"BatchNorm statistics are estimated on {count:,} training {task.unit} before an evaluation, until "
        f"momentum x steps is {SETTLED:g}: the running ones lag behind the weights"
    )
