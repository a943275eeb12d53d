"""One step of the optimizer, of one process or of several together, in as many parts as the memory wants."""

from __future__ import annotations

import gc
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from striate.device import seed_step
from striate.errors import TrainingError
from striate.progress import SILENT, Progress
from striate.training.schedule import slices
from striate.training.state import TrainState
from striate.training.transfer import training_mode

if TYPE_CHECKING:
    from striate.training.loop import Work


def learn(
    state: TrainState,
    job: Work,
    batch: Any,
    counts: Sequence[int],
    weights: Sequence[int],
    progress: Progress = SILENT,
) -> None:
    """One step of the optimizer on one batch, in as many parts as the memory wants.

    Args:
        state: is advanced.
        job: how.
        batch: this process's share of it.
        counts: how much of it each process has.
        weights: over how many terms its mean loss is taken, in each process.
        progress: is told where the memory does not suffice.
    """
    if job.world.untried(counts):
        _rehearse(state, job, batch, counts, weights, progress)
    while (sums := _gradients(state, job, batch, counts, weights)) is None:
        if job.world.size > 1:
            raise _no_memory(job, "in the middle of a joint step", f"Use --accumulate {2 * state.parts}")
        _halve(state, job, counts, progress)
    job.world.add_up(sums)
    state.tally.add(sums, sum(weights), state.step)
    with job.watch.phase("optimizer"):
        for group in state.optimizer.param_groups:
            group["lr"] = state.rate * group["share"]
        if job.config.grad_clip:
            state.scaler.unscale_(state.optimizer)
            nn.utils.clip_grad_norm_(state.network.parameters(), job.config.grad_clip)
        state.scaler.step(state.optimizer)
        state.scaler.update()
        state.optimizer.zero_grad(set_to_none=True)
        if state.average is not None:
            state.average.update_parameters(state.network)


def _rehearse(
    state: TrainState,
    job: Work,
    batch: Any,
    counts: Sequence[int],
    weights: Sequence[int],
    progress: Progress,
) -> None:
    """Cut batches so that the memory of every process suffices; leaves no trace but that.

    In a joint step the others would wait for gradients that never come. The norms stand still meanwhile,
    which takes as much memory: so they neither learn nor wait for each other.
    """
    for module in state.network.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.eval()
    with job.world.rehearsing():
        while not job.world.all(_gradients(state, job, batch, counts, weights) is not None):
            _halve(state, job, counts, progress)
    state.optimizer.zero_grad(set_to_none=True)
    training_mode(state.network)


def _gradients(
    state: TrainState, job: Work, batch: Any, counts: Sequence[int], weights: Sequence[int]
) -> torch.Tensor | None:
    """The gradients of a batch's mean loss, summed over its parts.

    Returns:
        float64 `[2]`, the loss and the hits of the share, summed; None if the memory did not suffice.
    """
    world = job.world
    world.joint(state.network)  # before the first part, which it may have to hold back
    # Dropout draws from torch's generator.
    seed_step(job.device, job.config.seed, state.step * world.size + world.rank)
    parts = world.parts(counts, state.parts)
    losses = job.losses(state, batch, parts)
    sums = torch.zeros(2, dtype=torch.float64, device=job.device)
    try:
        for number in range(len(parts)):
            with world.holding_back(number + 1 < len(parts)):
                part = next(losses)
                share = world.size * part.weight / sum(weights)  # the processes' gradients are averaged
                with job.watch.phase("backward"):
                    torch.autograd.backward(state.scaler.scale(part.loss * share))
            if part.weight:
                sums[0] += part.loss.detach().double() * part.weight
                sums[1] += 0 if part.hits is None else part.hits
    except (RuntimeError, MemoryError) as error:
        if not _memory_ran_out(error):
            raise
        return None
    return sums


def _halve(state: TrainState, job: Work, counts: Sequence[int], progress: Progress) -> None:
    """Cut batches into twice as many parts, after the memory did not suffice."""
    state.optimizer.zero_grad(set_to_none=True)
    count = max(counts)
    parts = len(slices(count, state.parts))
    if parts == len(slices(count, 2 * parts)):
        raise _no_memory(job, f"not even for {-(-count // parts)} {job.unit} at a time", job.smaller)
    state.parts = 2 * parts
    gc.collect()
    if job.device.type == "cuda":
        torch.cuda.empty_cache()
    progress.warn(
        f"the memory of {job.device} does not suffice: from step {state.step + 1} each batch of "
        f"{job.config.batch} goes through the network in {state.parts} parts, whose gradients are summed; "
        "BatchNorm's statistics are of a part"
    )


def _no_memory(job: Work, why: str, fix: str) -> TrainingError:
    return TrainingError(f"the memory of {job.device} does not suffice", why, fix)


def _memory_ran_out(error: BaseException) -> bool:
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    text = str(error)  # torch has no class of its own for the CPU's memory
    return any(words in text for words in ("out of memory", "not enough memory", "can't allocate memory"))
