"""What two processes do together with pairs; torchrun starts this for test_distributed_seq2seq.py.

The last part loses a process, so torchrun starts both again.
"""

import dataclasses
import json
import os
import signal
import sys
from pathlib import Path
from unittest.mock import patch

import pytest
import torch.distributed as dist
from under_torchrun import run_killed

from striate import api
from striate.tasks.seq2seq.config import Seq2SeqConfig
from striate.tasks.seq2seq.task import Seq2Seq
from striate.training.checkpointer import Checkpointer
from striate.training.interrupts import TrainingInterrupted

RANK = int(os.environ["RANK"])
RESTARTED = os.environ["TORCHELASTIC_RESTART_COUNT"] != "0"


def empty_shards(config):
    """Some steps have a single pair, so the second process has none of them, and the answers are the same."""
    seen, loss = [], Seq2Seq.loss

    def watched(task, module, batch, state, index):
        seen.append(len(batch))
        return loss(task, module, batch, state, index)

    with patch.object(Seq2Seq, "loss", watched):
        api.run_training(dataclasses.replace(config, name="whole"))
    assert (0 in seen) == (RANK == 1), seen


def interrupted(config):
    """SIGTERM to one of them: both stop after the same step, and resume together."""
    after = Checkpointer.after_step

    def after_step(checkpointer):
        if RANK == 1 and checkpointer._state.step == 4:
            os.kill(os.getpid(), signal.SIGTERM)
        after(checkpointer)

    with patch.object(Checkpointer, "after_step", after_step), pytest.raises(TrainingInterrupted) as stop:
        api.run_training(dataclasses.replace(config, name="interrupted"))
    assert stop.value.terminated
    done = api.resume_training(stop.value.run.folder)
    assert done.is_main == (RANK == 0)


def main(pairs, lines, out, options, images):
    out, options = Path(out), json.loads(options)
    config = Seq2SeqConfig(pairs, out=str(out), **options)
    if not RESTARTED:
        empty_shards(config)
        api.run_training(dataclasses.replace(config, name="micro", micro_batches=2))
        interrupted(config)
        for name, more in json.loads(images).items():
            api.run_training(Seq2SeqConfig(lines, out=str(out), name=name, **{**options, **more}))
        (out / f"passed-{RANK}").touch()
    assert (out / f"passed-{RANK}").exists()  # the loss of a process is the only reason to be here again
    flags = [f"--{key.replace('_', '-')}={value}" for key, value in options.items()]
    run_killed(["seq2seq", "train", pairs, "--out", str(out), *flags], out)
    assert not dist.is_initialized()


main(*sys.argv[1:])
