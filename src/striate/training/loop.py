"""The training loop, for every task: epochs, optimizer steps, micro-batches, and their failures."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from striate.device import seed_step
from striate.errors import TrainingError, UsageError, is_out_of_memory
from striate.training.config import RunConfig
from striate.training.precise_batchnorm import reestimate
from striate.training.schedule import Indices, Schedule, split_evenly
from striate.training.state import TrainState
from striate.training.task import Batch, Context, Task
from striate.training.transfer import training_mode

_NONE: Indices = np.empty(0, np.int64)


class LossNotFiniteError(TrainingError):
    """The loss or a weight is infinite or NaN; earlier checkpoints are sound.

    Attributes:
        samples: int64, of `Task.order`, of the batch with which it happened; empty if it
            happened in validation.
    """

    def __init__(self, what: str, why: str, fix: str, samples: Indices) -> None:
        super().__init__(what, why, fix)
        self.samples = samples


@dataclass
class Training:
    """What the loop works on.

    Attributes:
        task: gives batches, losses and metrics.
        config: the options that every task has.
        state: advanced in place.
        schedule: learning rates, and when training ends.
        module: the network as its loss is computed, from `Task.training_module`.
        context: device, processes, progress.
    """

    task: Task
    config: RunConfig
    state: TrainState
    schedule: Schedule
    module: nn.Module
    context: Context


def fit(
    training: Training,
    after_step: Callable[[], None] = lambda: None,
    after_epoch: Callable[[Any], None] = lambda row: None,
) -> None:
    """Train to the end, from wherever the state stands.

    Args:
        training: its state is fresh or restored.
        after_step: called after each optimizer step, when the state is consistent.
        after_epoch: called after each evaluation with its row; the state is consistent here, too.

    Raises:
        LossNotFiniteError: with the step, the learning rate and the batch.
        TrainingError: out of memory even for two samples.
    """
    task, state, schedule, context = training.task, training.state, training.schedule, training.context
    while not state.finished:
        order = task.order(state.epoch)
        steps = order[state.position :]
        shards = [context.distributed.shard(samples) for samples in steps]
        if task.start_epoch(state.network, state.epoch):
            context.distributed.unwrap()
        training_mode(state.network)
        name = f"epoch {state.epoch + 1}" + (f"/{schedule.epochs}" if schedule.epochs else "")
        context.progress.begin(name, sum(map(len, steps)), task.unit)
        with closing(task.batches(state.epoch, shards)) as batches:  # type: ignore[type-var]  # a generator
            for samples, batch in zip(
                steps, context.stopwatch.each("waiting for data", batches), strict=True
            ):
                state.lr = state.lr_scale * schedule.lr(state)
                state.in_step = True
                train_step(training, batch, len(samples))
                state.position += 1
                state.step += 1
                state.in_step = False
                context.progress.advance(len(samples), **state.totals.figures(state.step))
                _require_finite(training, state.totals.first_nonfinite_step(state.step))
                after_step()
                if schedule.ended(state):
                    break
        context.progress.end()
        require_finite_weights(training)

        ended = schedule.ended(state)
        row = _evaluate(training) if ended or schedule.should_evaluate(state) else None
        state.in_step = True
        if state.position == len(order):
            state.epoch, state.position = state.epoch + 1, 0
        if row is not None:
            state.record(row)
            waited = row.epoch - state.best_epoch
            state.finished = ended or 0 < training.config.patience <= waited
            after_epoch(row)
        state.in_step = False


def train_step(training: Training, batch: Batch, requested: int) -> None:
    """Take one optimizer step.

    Args:
        training: advanced.
        batch: this process's share of the step.
        requested: samples of the step in all processes, before unreadable ones were left out.
    """
    state, config, distributed = training.state, training.config, training.context.distributed
    batch = distributed.usable(batch)
    counts, terms = distributed.all_gather(len(batch), batch.terms)
    if sum(counts) < min(2, requested):  # BatchNorm has no statistics of one image
        return
    if distributed.must_rehearse(counts):
        _rehearse(training, batch, counts, terms)
    while (sums := forward_backward(training, batch, counts, terms)) is None:
        if distributed.size > 1:
            fix = f"Use --micro-batches {2 * state.micro_batches // config.accumulate}"
            raise _out_of_memory(training, "in the middle of a joint step", fix)
        _split_further(training, counts)
    distributed.all_reduce(sums)
    state.totals.add(sums, sum(terms), state.step)
    with training.context.stopwatch.phase("optimizer"):
        for group in state.optimizer.param_groups:
            group["lr"] = state.lr * group["lr_scale"]
        if config.grad_clip:
            state.scaler.unscale_(state.optimizer)
            nn.utils.clip_grad_norm_(state.network.parameters(), config.grad_clip)
        state.scaler.step(state.optimizer)
        state.scaler.update()
        state.optimizer.zero_grad(set_to_none=True)
        if state.ema_model is not None:
            state.ema_model.update_parameters(state.network)


def forward_backward(
    training: Training, batch: Batch, counts: Sequence[int], terms: Sequence[int]
) -> torch.Tensor | None:
    """Accumulate the gradient of the step's mean loss, micro-batch by micro-batch.

    Args:
        training: its parameters receive the gradients.
        batch: this process's share of the step.
        counts: samples of each process.
        terms: images or tokens that the loss of each process is a mean over.

    Returns:
        float64 `[2]`, this process's loss and correct answers, summed; None if memory ran out.
    """
    state, context, distributed = training.state, training.context, training.context.distributed
    module = distributed.wrap(training.module)
    seed_step(context.device, training.config.seed, state.step * distributed.size + distributed.rank)
    slices = distributed.split(counts, state.micro_batches)
    sums = torch.zeros(2, dtype=torch.float64, device=context.device)
    try:
        for number, rows in enumerate(slices):
            micro_batch = batch.part(rows) if len(slices) > 1 else batch
            index = distributed.rank + distributed.size * number
            with distributed.no_sync(number + 1 < len(slices)):
                loss = training.task.loss(module, micro_batch, state, index)
                share = distributed.size * loss.terms / sum(terms)  # DDP averages over the processes
                with context.stopwatch.phase("backward"):
                    torch.autograd.backward(state.scaler.scale(loss.value * share))
            if loss.terms:
                sums[0] += loss.value.detach().double() * loss.terms
                sums[1] += 0 if loss.correct is None else loss.correct
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        return None
    except ValueError as error:
        if "more than 1 value per channel" not in str(error):
            raise
        raise UsageError(
            "cannot train on one image at a time",
            "its last feature maps have 1x1 pixels, and BatchNorm needs two values for each channel",
            "Use a larger --batch, fewer --micro-batches, or a larger --imgsz",
        ) from error
    return sums


def require_finite_weights(training: Training) -> None:
    """Refuse a state that is not worth saving.

    Raises:
        LossNotFiniteError: a loss since the last evaluation, or a weight, is infinite or NaN.
    """
    state = training.state
    _require_finite(training, state.totals.first_nonfinite_step(state.step, now=True))
    if not training.context.distributed.all_true(state.all_finite):
        _require_finite(training, state.step - 1)


@contextlib.contextmanager
def norms_in_evaluation(network: nn.Module) -> Iterator[None]:
    """Keep BatchNorm's statistics as they are for forward passes that do not count."""
    norms = [m for m in network.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm) and m.training]
    for norm in norms:
        norm.eval()
    try:
        yield
    finally:
        for norm in norms:
            norm.train()


def _evaluate(training: Training) -> Any:
    task, state = training.task, training.state
    network, seconds = state.evaluated_network, state.totals.seconds
    message = reestimate(task, state)
    if message and not state.rows:
        training.context.progress.info(message)
    with training.context.stopwatch.phase("validation"):
        training.context.distributed.broadcast_buffers(network)
        metrics = task.evaluate(network)
    row = task.make_row(state, metrics, state.totals.count / seconds)
    if not row.is_finite:
        raise _not_finite(training, f"the validation loss is not finite after step {state.step}")
    return row


def _rehearse(training: Training, batch: Batch, counts: Sequence[int], terms: Sequence[int]) -> None:
    """Find the number of micro-batches with which every process has enough memory.

    In a joint step the other processes would wait for gradients that never come, so each tries alone first.
    BatchNorm layers use their running statistics meanwhile: same memory, no synchronization.
    """
    state, distributed = training.state, training.context.distributed
    with norms_in_evaluation(state.network), distributed.alone():
        while not distributed.all_true(forward_backward(training, batch, counts, terms) is not None):
            _split_further(training, counts)
    state.optimizer.zero_grad(set_to_none=True)


def _split_further(training: Training, counts: Sequence[int]) -> None:
    """Double the number of micro-batches after memory ran out."""
    state, device = training.state, training.context.device
    state.optimizer.zero_grad(set_to_none=True)
    largest = max(counts)
    parts = len(split_evenly(largest, state.micro_batches))
    if parts == len(split_evenly(largest, 2 * parts)):
        why = f"not even {-(-largest // parts)} {training.task.unit} at a time fit"
        raise _out_of_memory(training, why, training.task.memory_hint)
    state.micro_batches = 2 * parts
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
    training.context.progress.warn(
        f"out of memory on {device}: from step {state.step + 1} on, each step is split into "
        f"{state.micro_batches} micro-batches and their gradients are summed; BatchNorm statistics are per "
        "micro-batch"
    )


def _require_finite(training: Training, step: int | None) -> None:
    if step is None:
        return
    state = training.state
    batch = step - (state.step - state.position)  # in this epoch; earlier ones were checked at their end
    what = f"the loss is not finite at step {step + 1}, batch {batch + 1}"
    raise _not_finite(training, what, training.task.order(state.epoch)[batch])


def _not_finite(training: Training, what: str, samples: Indices = _NONE) -> LossNotFiniteError:
    state = training.state
    return LossNotFiniteError(
        f"{what} of epoch {state.epoch + 1}",
        f"the learning rate {state.lr:.2g} is probably too high",
        f"Try --lr {state.lr_scale * training.schedule.peak_lr / 10:.2g}, or --grad-clip 1",
        samples,
    )


def _out_of_memory(training: Training, why: str, fix: str) -> TrainingError:
    return TrainingError(f"out of memory on {training.context.device}", why, fix)
