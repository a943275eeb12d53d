"""Before a long run: can this network learn a handful of examples by heart?

If it cannot, something is wrong that more data will not mend: sources cut off, targets that do not follow
from them.
"""

from __future__ import annotations

import time

import numpy as np
import torch
from torch import nn

from striate.data.text.batches import TextBatch
from striate.data.text.tokens import PAD
from striate.device import seed_everything
from striate.errors import TrainingError
from striate.models.seq2seq import SequenceToSequence, build
from striate.progress import Progress
from striate.training.seq2seq.prepare import SeqReady

EXAMPLES = 32
STEPS = 400  # most that it is given
_RATE = 2e-3
_LOOK = 20  # steps between two looks


def require_learnable(ready: SeqReady, progress: Progress) -> None:
    """Let a network like the run's learn 32 of its examples until it writes them all; throw it away.

    Args:
        ready: what the run begins with; nothing of it is changed.
        progress: is told how it went.

    Raises:
        TrainingError: it does not learn them.
    """
    started = time.perf_counter()
    device, description = ready.translator.device, ready.translator.description
    seed_everything(ready.config.seed)
    network = build(description.architecture, **{**description.arguments, "dropout": 0.0})
    assert isinstance(network, SequenceToSequence)
    network.to(device).train()
    which = np.linspace(0, len(ready.train) - 1, min(EXAMPLES, len(ready.train))).astype(np.int64)
    batch = ready.train.batch(which, device)
    optimizer = torch.optim.AdamW(network.parameters(), lr=_RATE, betas=(0.9, 0.98))
    progress.begin("self-check", STEPS, "steps")
    step, right = 0, 0.0
    for step in range(1, STEPS + 1):
        for group in optimizer.param_groups:
            group["lr"] = _RATE * min(1.0, step / 20)
        loss = network.loss(batch.source, batch.decoder_input, batch.target, 0.0, **batch.encoder_kwargs)
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        progress.advance(1, loss=float(loss.detach()))
        if step % _LOOK == 0 and (right := _share(network, batch)) == 1:
            break
    progress.end()
    if right < 1:
        raise TrainingError(
            f"the self-check failed: after {STEPS} steps {100 * right:.1f} % of the tokens of "
            f"{len(which)} examples are right",
            "a network of this size learns so few by heart where the target follows from the source",
            "Look at the data: equal sources with different targets, wrong pairs, images that are cut",
        )
    seconds = time.perf_counter() - started
    progress.info(f"self-check: {len(which)} examples learnt by heart in {step} steps, {seconds:.0f} s")


@torch.no_grad()
def _share(network: SequenceToSequence, batch: TextBatch) -> float:
    """Of the tokens that are right, given the right ones before; BatchNorm sees the batch as in training."""
    said = network(batch.source, batch.decoder_input, **batch.encoder_kwargs).argmax(dim=2)
    asked = batch.target != PAD
    return float((said == batch.target)[asked].float().mean())
