"""What two processes do together; torchrun starts this, and test_distributed.py looks at what it leaves.

Each part trains anew, so that one start of the processes serves all of them. The last part loses a process,
whereupon torchrun starts both again.
"""

import contextlib
import dataclasses
import io
import json
import os
import signal
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import nn

import striate.cli
from striate import models
from striate.data import InMemoryImages
from striate.data.images.loader import stream
from striate.errors import DataError, StriateError, TrainingError
from striate.progress import Progress
from striate.training import loop, step
from striate.training.config import TrainConfig
from striate.training.distributed import ALONE
from striate.training.joining import joined
from striate.training.keeper import Keeper
from striate.training.loop import Job, validate
from striate.training.schedule import Epochs
from striate.training.session import TrainingInterrupted, resume, train
from striate.training.state import TrainState
from striate.training.step import learn
from striate.training.sync_norm import SyncBatchNorm2d
from striate.transforms.preprocess import Preprocess

RANK = int(os.environ["RANK"])
AGAIN = os.environ["TORCHELASTIC_RESTART_COUNT"] != "0"
CPU = torch.device("cpu")
PRE = Preprocess.for_size(32)


class Words(Progress):
    def __init__(self):
        self.heard = []

    def info(self, message):
        self.heard.append(message)

    warn = info


class Torn(InMemoryImages):
    """Images of which some cannot be read."""

    broken: tuple[int, ...] = ()

    def read(self, which, out):
        return super().read(which, out) & ~np.isin(which, self.broken)


@contextlib.contextmanager
def instead(owner, name, function):
    before = getattr(owner, name)
    setattr(owner, name, function)
    try:
        yield before
    finally:
        setattr(owner, name, before)


def source(n, broken=()):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (n, 32, 32, 3)).astype(np.uint8)
    made = Torn(images, np.arange(n) % 3, ("x",) * n, ())
    object.__setattr__(made, "broken", broken)
    return made


def gradient(world, network, images, which, progress=None, **options):
    """The gradient that `learn` gives the optimizer, of one batch."""
    config = TrainConfig(
        data="x", model="lenet", opt="sgd", lr=1.0, augment="none", **{"batch": 64, **options}
    )
    job = Job(PRE, images, images, config, CPU, Epochs(config, len(images)), world=world)
    state = TrainState.fresh(network, config, CPU)
    found = []
    state.optimizer.step = lambda *_: found.extend(p.grad.clone() for p in network.parameters())
    loop.training_mode(network)
    [batch] = stream(images, [world.share(which)], CPU)
    batch = world.usable(batch)
    learn(state, job, batch, *world.counts(len(batch), batch.weight), progress or Words())
    found.clear()  # the first step is another one: DistributedDataParallel arranges its buckets after it
    state.tally.clear()
    learn(state, job, batch, *world.counts(len(batch), batch.weight), progress or Words())
    return found, state


def plain(network, images, which):
    """The same by torch alone, on all images that can be read."""
    which = which[~np.isin(which, images.broken)]
    network.zero_grad()
    scores = network(PRE.normalize(torch.from_numpy(images.images[which])))
    F.cross_entropy(scores, torch.from_numpy(images.labels[which])).backward()
    return [p.grad.clone() for p in network.parameters()]


def close(mine, other, tolerance=1e-6):
    for a, b in zip(mine, other, strict=True):
        assert torch.allclose(a, b, rtol=1e-5, atol=tolerance), (a - b).abs().max()


def gradients():
    """Even shares, uneven ones, with holes, with nothing but holes, and none at all."""
    shares = ((8, (), 1), (7, (), 2), (7, (0, 5), 2), (7, (0, 1, 2), 1), (6, (4, 5), 2), (2, (), 1))
    for count, broken, parts in shares:
        torch.manual_seed(0)
        images, network = source(count, broken), models.build("lenet", num_classes=3)
        expected = plain(network, images, np.arange(count))
        with joined("cpu") as world:
            found, state = gradient(world, network, images, np.arange(count), accumulate=parts)
        close(found, expected)
        assert state.tally.count == count - len(broken)


def memory():
    """One process has too little memory for four images: both cut their batches, to the same gradient."""
    torch.manual_seed(0)
    images, network, told = source(8), models.build("lenet", num_classes=3), Words()
    expected = plain(network, images, np.arange(8))

    def too_many(module, inputs):
        if RANK == 1 and len(inputs[0]) > 2:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory")

    network.register_forward_pre_hook(too_many)
    with joined("cpu") as world:
        found, state = gradient(world, network, images, np.arange(8), told)
    assert state.parts == 2
    assert "in 2 parts" in told.heard[0]
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
    """BatchNorm over both processes is torch's BatchNorm of the whole batch, also where one has no image."""
    for count, broken, parts in ((9, (), 1), (9, (1,), 1), (6, (3, 4, 5), 1), (8, (), 2), (2, (), 1)):
        torch.manual_seed(1)
        images, whole, network = source(count, broken), Normed(), Normed()
        network.load_state_dict(whole.state_dict())
        with joined("cpu") as world:
            network = world.prepared(network, sync_norm=True)
            assert isinstance(network.norm, SyncBatchNorm2d)
            found, _ = gradient(world, network, images, np.arange(count), accumulate=parts)
        if parts == 1:  # else the statistics are of a part of each share: there is nothing to compare with
            plain(whole, images, np.arange(count))
            close(found, plain(whole, images, np.arange(count)))
            close(network.state_dict().values(), whole.state_dict().values())
    with joined("cpu") as world:  # else each has statistics of its own, and a single image is left alone
        world.prepared(Normed(), sync_norm=False)
        [batch] = stream(source(4, (3,)), [world.share(np.arange(4))], CPU)
        assert len(world.usable(batch)) == (2, 0)[RANK]


def validation():
    torch.manual_seed(0)
    images, network = source(23, (4, 20)), models.build("lenet", num_classes=3)
    for batch in (4, 64):
        alone = validate(network, PRE, images, batch, CPU)
        with joined("cpu") as world:
            assert validate(network, PRE, images, batch, CPU, world=world) == alone


def stopped(config, expected):
    """SIGTERM to one of them: both stop after the same step, and together they come to the same end."""
    whole = Keeper.after_step

    def after_step(keeper):
        if RANK == 1 and keeper._state.step == 4:
            os.kill(os.getpid(), signal.SIGTERM)
        whole(keeper)

    told = Words()
    with instead(Keeper, "after_step", after_step), pytest.raises(TrainingInterrupted) as stop:
        train(dataclasses.replace(config, name="stopped"), told)
    assert stop.value.terminated
    done = resume(stop.value.run.folder, told)
    assert done.leads == (RANK == 0)
    if RANK == 0:
        assert any("at step 5," in line for line in told.heard)
        assert [row.val_loss for row in done.epochs] == [row.val_loss for row in expected.epochs]
    else:
        assert not told.heard  # one of them speaks


def rolled_back(config):
    """A loss that is not finite in one of them sets both back."""
    whole, left = loop.loss_of, [1]

    def loss_of(output, truth, smoothing):
        loss, scores = whole(output, truth, smoothing)
        if RANK == 1 and left and len(truth) == 7:
            left.pop()
            loss = loss * float("inf")
        return loss, scores

    told = Words()
    with instead(loop, "loss_of", loss_of), instead(step, "_rehearse", lambda *_: None):
        done = train(dataclasses.replace(config, name="rolled", rollbacks=1, batch=14, save_every=1), told)
    assert done.epochs[-1].epoch == config.epochs
    assert RANK == 1 or any("going on from step" in line for line in told.heard)


def failed(config):
    """An error of one ends both, with its words."""

    def after_step(keeper):
        if RANK == 1 and keeper._state.step == 2:
            raise DataError("the disk of process 1 is gone", "it was pulled out")

    with instead(Keeper, "after_step", after_step), pytest.raises(StriateError) as error:
        train(dataclasses.replace(config, name="failed"))
    assert type(error.value) is (DataError if RANK == 1 else TrainingError)
    assert "the disk of process 1 is gone: it was pulled out" in str(error.value)


def in_time(config):
    """Clocks differ; the first process's holds."""
    done = train(dataclasses.replace(config, name="timed", budget="9s", epochs=20))
    assert done.epochs
    with joined("cpu") as world:
        assert len(set(world.gather(done.epochs[-1].step))) == 1


def killed(arguments, out):
    """The second process is no more after seven steps; torchrun starts both again."""
    whole = Keeper.after_step

    def after_step(keeper):
        if RANK == 1 and keeper._state.step == 7 and not AGAIN:
            os.kill(os.getpid(), signal.SIGKILL)
        whole(keeper)

    printed = io.StringIO()
    with instead(Keeper, "after_step", after_step), contextlib.redirect_stdout(printed):
        code = striate.cli.run([*arguments, "--name", "killed", "--json"])
    (out / f"printed-{RANK}").write_text(printed.getvalue())
    assert code == 0, code


def main(data, torn, out, options):
    out = Path(out)
    options = json.loads(options)
    config = TrainConfig(data=data, out=str(out), name="whole", **options)
    whole = train(config)  # after the restart this is found finished
    if AGAIN:
        assert (out / f"passed-{RANK}").exists()  # the loss of a process is the only reason to be here
    else:
        assert ALONE.size == 1
        gradients()
        memory()
        norms()
        validation()
        stopped(config, whole)
        rolled_back(config)
        failed(config)
        in_time(config)
        sgd = {"opt": "sgd", "lr": 0.01, "ema": 0.0, "batch": 13, "epochs": 7}
        train(TrainConfig(data=torn, out=str(out), name="torn", **{**options, **sgd}))
        (out / f"passed-{RANK}").touch()
    flags = [text for key, value in options.items() for text in (f"--{key.replace('_', '-')}", str(value))]
    killed(["train", data, "--out", str(out), *flags], out)
    assert not dist.is_initialized()


main(*sys.argv[1:])
