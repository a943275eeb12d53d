"""Before a long run: check that the network can overfit a few examples.

If it cannot, more data will not help: sources are cropped, or targets do not follow from them.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from striate.data.text.batches import TextBatch
from striate.data.text.tokens import PAD
from striate.device import seed_everything
from striate.errors import TrainingError
from striate.kernels import prepare
from striate.models.seq2seq import build

if TYPE_CHECKING:
    from striate.tasks.seq2seq.task import Seq2Seq

EXAMPLES = 32
STEPS = 400  # at most
_LR = 2e-3
_CHECK_EVERY = 20


def require_overfit(task: Seq2Seq) -> None:
    """Train a copy of the network on 32 examples until it reproduces them all, and throw it away.

    Args:
        task: prepared; it is not changed.

    Raises:
        TrainingError: the network does not learn them.
    """
    started = time.perf_counter()
    device, progress = task.context.device, task.context.progress
    description = task.translator.description
    seed_everything(task.config.seed, device)
    network = build(description.architecture, **{**description.arguments, "dropout": 0.0})
    network = prepare(network, device, training=True).train()
    which = np.linspace(0, len(task.train) - 1, min(EXAMPLES, len(task.train))).astype(np.int64)
    batch = task.train.batch(which, device)
    optimizer = torch.optim.AdamW(network.parameters(), lr=_LR, betas=(0.9, 0.98))
    progress.begin("sanity check", STEPS, "steps")
    step, accuracy = 0, 0.0
    for step in range(1, STEPS + 1):
        for group in optimizer.param_groups:
            group["lr"] = _LR * min(1.0, step / 20)
        loss = network.loss(batch.source, batch.decoder_input, batch.target, 0.0, **batch.encoder_kwargs)
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        progress.advance(1, loss=float(loss.detach()))
        if step % _CHECK_EVERY == 0 and (accuracy := _accuracy(network, batch)) == 1:
            break
    progress.end()
    if accuracy < 1:
        raise TrainingError(
            f"the sanity check failed: after {STEPS} steps {100 * accuracy:.1f} % of the tokens of "
            f"{len(which)} examples are correct",
            "a network of this size overfits so few examples if the target follows from the source",
            "Check the data: equal sources with different targets, wrong pairs, cropped images",
        )
    seconds = time.perf_counter() - started
    progress.info(
        f"sanity check: the network overfits {len(which)} examples in {step} steps, {seconds:.0f} s"
    )


@torch.no_grad()
def _accuracy(network: Any, batch: TextBatch) -> float:
    """Share of correct tokens, given the correct ones before them; BatchNorm is in training mode."""
    predicted = network(batch.source, batch.decoder_input, **batch.encoder_kwargs).argmax(dim=2)
    is_token = batch.target != PAD
    return float((predicted == batch.target)[is_token].float().mean())
