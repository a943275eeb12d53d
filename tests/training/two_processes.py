"""What two processes do together; torchrun starts this script, and test_distributed.py checks its results.

Each part trains anew, so that one start of the processes serves all of them. In the last part one process
dies, and torchrun starts both again.
"""

import dataclasses
import json
import os
import signal
import sys
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from conftest import Messages
from tiny_training import CPU, PREPROCESS, make_training
from torch import nn
from under_torchrun import run_killed

from striate import models
from striate.api import resume_training, run_training
from striate.data import InMemoryImages
from striate.data.images.loader import stream
from striate.errors import DataError, StriateError, TrainingError
from striate.tasks.classification.config import ClassificationConfig
from striate.tasks.classification.loss import Criterion
from striate.tasks.classification.metrics import validate
from striate.training import loop
from striate.training.batchnorm import SyncBatchNorm2d
from striate.training.checkpointer import Checkpointer
from striate.training.distributed import SINGLE, init_distributed
from striate.training.interrupts import TrainingInterrupted
from striate.training.precise_batchnorm import reestimate

RANK = int(os.environ["RANK"])
RESTARTED = os.environ["TORCHELASTIC_RESTART_COUNT"] != "0"


class Torn(InMemoryImages):
    """Images of which some cannot be read."""

    broken: tuple[int, ...] = ()

    def read(self, which, out):
        return super().read(which, out) & ~np.isin(which, self.broken)


def source(n, broken=()):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (n, 32, 32, 3)).astype(np.uint8)
    made = Torn(images, np.arange(n) % 3, ("x",) * n, ())
    object.__setattr__(made, "broken", broken)
    return made


def gradient(distributed, network, images, samples, progress=None, **options):
    """The gradients that `train_step` gives the optimizer for one step, and the state after it."""
    options = {"opt": "sgd", "lr": 1.0, "augment": "none", "batch": 64, **options}
    training = make_training(
        network,
        images,
        images,
        distributed=distributed,
        progress=progress or Messages(),
        model="lenet",
        **options,
    )
    found = []
    training.state.optimizer.step = lambda *_: found.extend(p.grad.clone() for p in network.parameters())
    loop.training_mode(network)
    [batch] = training.task.batches(0, [distributed.shard(samples)])
    loop.train_step(training, batch, len(samples))
    found.clear()  # DistributedDataParallel rearranges its buckets after the first step
    training.state.totals.reset()
    loop.train_step(training, batch, len(samples))
    return found, training.state


def plain_gradient(network, images, which):
    """The same by torch alone, on all readable images."""
    which = which[~np.isin(which, images.broken)]
    network.zero_grad()
    scores = network(PREPROCESS.normalize(torch.from_numpy(images.images[which])))
    F.cross_entropy(scores, torch.from_numpy(images.labels[which])).backward()
    return [p.grad.clone() for p in network.parameters()]


def close(mine, other, tolerance=1e-6):
    for a, b in zip(mine, other, strict=True):
        assert torch.allclose(a, b, rtol=1e-5, atol=tolerance), (a - b).abs().max()


def gradients():
    """Even and uneven shards, shards with some or only unreadable images, and empty shards."""
    cases = ((8, (), 1), (7, (), 2), (7, (0, 5), 2), (7, (0, 1, 2), 1), (6, (4, 5), 2), (2, (), 1))
    for count, broken, parts in cases:
        torch.manual_seed(0)
        images, network = source(count, broken), models.build("lenet", num_classes=3)
        expected = plain_gradient(network, images, np.arange(count))
        with init_distributed("cpu") as distributed:
            found, state = gradient(distributed, network, images, np.arange(count), micro_batches=parts)
        close(found, expected)
        assert state.totals.count == count - len(broken)


def memory():
    """One process has too little memory for four images: both split their batches, for the same gradient."""
    torch.manual_seed(0)
    images, network, messages = source(8), models.build("lenet", num_classes=3), Messages()
    expected = plain_gradient(network, images, np.arange(8))

    def too_many(module, inputs):
        if RANK == 1 and len(inputs[0]) > 2:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory")

    network.register_forward_pre_hook(too_many)
    with init_distributed("cpu") as distributed:
        found, state = gradient(distributed, network, images, np.arange(8), messages)
    assert state.micro_batches == 2
    assert "split into 2 micro-batches" in messages.warnings[0]
    close(found, expected)


class Normed(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.norm = nn.Conv2d(3, 4, 5, stride=3), nn.BatchNorm2d(4)
        self.second, self.other = nn.Conv2d(4, 5, 3, stride=2), nn.BatchNorm2d(5)
        self.last = nn.Linear(5, 3)

    def forward(self, x):
        x = F.relu(self.norm(self.first(x)))
        return self.last(F.relu(self.other(self.second(x))).mean((2, 3)))


def norms():
    """BatchNorm over both processes is torch's BatchNorm of the whole batch, even if one has no image."""
    for count, broken, parts in ((9, (), 1), (9, (1,), 1), (6, (3, 4, 5), 1), (8, (), 2), (2, (), 1)):
        torch.manual_seed(1)
        images, whole, network = source(count, broken), Normed(), Normed()
        network.load_state_dict(whole.state_dict())
        with init_distributed("cpu") as distributed:
            network = distributed.sync_batchnorm(network, True)
            assert isinstance(network.norm, SyncBatchNorm2d)
            found, _ = gradient(distributed, network, images, np.arange(count), micro_batches=parts)
        if parts == 1:  # otherwise the statistics are per micro-batch, and there is nothing to compare with
            plain_gradient(whole, images, np.arange(count))
            close(found, plain_gradient(whole, images, np.arange(count)))
            close(network.state_dict().values(), whole.state_dict().values())
    with init_distributed(
        "cpu"
    ) as distributed:  # without it, each process has its own statistics, and a single image has none
        distributed.sync_batchnorm(Normed(), False)
        [batch] = stream(source(4, (3,)), [distributed.shard(np.arange(4))], CPU)
        assert len(distributed.usable(batch)) == (2, 0)[RANK]


def validation():
    torch.manual_seed(0)
    images, network = source(23, (4, 20)), models.build("lenet", num_classes=3)
    for batch in (4, 64):
        alone = validate(network, PREPROCESS, images, batch, CPU)
        with init_distributed("cpu") as distributed:
            assert validate(network, PREPROCESS, images, batch, CPU, distributed=distributed) == alone


def statistics():
    """Both processes estimate the same: the moments of all readable images, by NumPy."""
    for broken, sync in (((), False), ((0, 1, 2, 11), False), ((3,), True)):
        torch.manual_seed(0)
        images, network = source(21, broken), Normed()
        with init_distributed("cpu") as distributed:
            network = distributed.sync_batchnorm(network, sync)
            training = make_training(
                network, images, images, distributed=distributed, model="lenet", batch=8, augment="none"
            )
            assert "on 21 training images" in reestimate(training.task, training.state)
            found = [network.norm.running_mean.tolist(), network.norm.running_var.tolist()]
            assert distributed.all_gather_object(found) == [found, found]
        readable = images.images[~np.isin(np.arange(21), broken)]
        with torch.no_grad():
            maps = network.first(PREPROCESS.normalize(torch.from_numpy(readable))).double().numpy()
        assert found[0] == pytest.approx(maps.mean((0, 2, 3)), rel=1e-5)
        assert found[1] == pytest.approx(maps.var((0, 2, 3), ddof=1), rel=1e-5)


def interrupted(config, expected):
    """SIGTERM to one of them: both stop after the same step, and the resumed run ends as ever."""
    after_step = Checkpointer.after_step

    def terminating(checkpointer):
        if RANK == 1 and checkpointer._state.step == 4:
            os.kill(os.getpid(), signal.SIGTERM)
        after_step(checkpointer)

    messages = Messages()
    with patch.object(Checkpointer, "after_step", terminating), pytest.raises(TrainingInterrupted) as stop:
        run_training(dataclasses.replace(config, name="stopped", progress=messages))
    assert stop.value.terminated
    done = resume_training(stop.value.run.folder, messages)
    assert done.is_main == (RANK == 0)
    if RANK == 0:
        assert any("at step 5," in line for line in messages.infos)
        assert [row.val_loss for row in done.epochs] == [row.val_loss for row in expected.epochs]
    else:
        assert not messages.infos + messages.warnings  # only the main process reports


def rolled_back(config):
    """A loss that is not finite in one process returns both to the checkpoint."""
    criterion, left = Criterion.__call__, [1]

    def infinite(self, output, labels, share):
        loss, scores = criterion(self, output, labels, share)
        if RANK == 1 and left and len(labels) == 7:
            left.pop()
            loss = loss * float("inf")
        return loss, scores

    messages = Messages()
    config = dataclasses.replace(
        config, name="rolled", rollbacks=1, batch=14, save_every=1, progress=messages
    )
    with patch.object(Criterion, "__call__", infinite), patch.object(loop, "_rehearse", lambda *_: None):
        done = run_training(config)
    assert done.epochs[-1].epoch == config.epochs
    assert RANK == 1 or any("continuing from step" in line for line in messages.warnings)


def failed(config):
    """An error in one process ends both, with its message."""

    def failing(checkpointer):
        if RANK == 1 and checkpointer._state.step == 2:
            raise DataError("the disk of process 1 is gone", "it was pulled out")

    with patch.object(Checkpointer, "after_step", failing), pytest.raises(StriateError) as error:
        run_training(dataclasses.replace(config, name="failed"))
    assert type(error.value) is (DataError if RANK == 1 else TrainingError)
    assert "the disk of process 1 is gone: it was pulled out" in str(error.value)


def in_time(config):
    """Clocks differ; that of the main process counts."""
    done = run_training(dataclasses.replace(config, name="timed", budget="3s", epochs=20))
    assert done.epochs
    with init_distributed("cpu") as distributed:
        assert len(set(distributed.all_gather_object(done.epochs[-1].step))) == 1


def main(data, torn, out, options):
    out = Path(out)
    options = json.loads(options)
    config = ClassificationConfig(data, out=str(out), name="whole", **options)
    whole = run_training(config)  # after the restart this run is found finished
    if RESTARTED:
        assert (out / f"passed-{RANK}").exists()  # the death of a process is the only reason to be here
    else:
        assert SINGLE.size == 1
        gradients()
        memory()
        norms()
        validation()
        statistics()
        interrupted(config, whole)
        rolled_back(config)
        failed(config)
        in_time(config)
        sgd = {"opt": "sgd", "lr": 0.01, "ema": 0.0, "batch": 13, "epochs": 7}
        run_training(ClassificationConfig(torn, out=str(out), name="torn", **{**options, **sgd}))
        accumulated = {"batch": 4, "accumulate": 2, "sampler": "balanced", "loss": "focal"}
        run_training(
            ClassificationConfig(data, out=str(out), name="accumulated", **{**options, **accumulated})
        )
        (out / f"passed-{RANK}").touch()
    flags = [text for key, value in options.items() for text in (f"--{key.replace('_', '-')}", str(value))]
    run_killed(["train", data, "--out", str(out), *flags], out)
    assert not dist.is_initialized()


main(*sys.argv[1:])
