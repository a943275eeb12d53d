"""Frozen work done once: the weights, figures and files are those of the loop that does it in every epoch."""

import copy
import dataclasses
import errno
import os
import re

import numpy as np
import pytest
import torch
from conftest import COLORS, make_images
from test_transfer import SIZES, build, pretrained

from striate import bundle, models
from striate.data import InMemoryImages
from striate.progress import Progress
from striate.training import features, transfer
from striate.training.config import TrainConfig
from striate.training.keeper import Keeper
from striate.training.loop import Job, fit
from striate.training.schedule import Epochs
from striate.training.session import resume, train
from striate.training.state import TrainState
from striate.transforms.preprocess import Preprocess

CPU = torch.device("cpu")
MODES = (("head", 1), ("append", 1), ("last", 1), ("last", 2), ("last", 3))


class Patchy(InMemoryImages):
    """Images of which two cannot be read."""

    def read(self, which, out):
        return super().read(which, out) & (which % 7 != 3)


def samples(n, size, channels):
    rng = np.random.default_rng(n)
    return Patchy(rng.integers(0, 256, (n, size, size, channels), np.uint8), np.arange(n) % 3, ("x",) * n, ())


def twice(name, mode, last, tmp_path, **options):
    """The same run, with the frozen part computed in every epoch and once; and the second one's job."""
    size, channels = SIZES.get(name, 32), models.MODELS[name].channels
    extra = {"append": 3} if mode == "append" else {}
    extra |= {"auxiliary": False} if name.startswith("googlenet") else {}
    network, _ = build(name, size, num_classes=3, in_channels=channels, **extra)
    head = "head" if mode == "append" else models.MODELS[name].classifier
    transfer.freeze(network, mode, last, head)
    options = {"epochs": 2, "batch": 4, "augment": "none", "lr": 0.01, "ema": 0.9, **options}
    config = TrainConfig(data="x", model=name, transfer=mode, weights="x", last_layers=last, **options)
    pre = Preprocess.for_size(size, channels)
    work = Job(pre, samples(11, size, channels), samples(8, size, channels), config, CPU, Epochs(config, 11))
    states = []
    for once in (False, True):
        own = copy.deepcopy(network)
        if once:
            work, said = features.compute(own, work, tmp_path)
            assert work is not None, said
        state = TrainState.fresh(own, config, CPU, head)
        fit(state, work)
        states.append(state)
    return (*states, work)


QUICK = [
    ("lenet", "last", 2), ("resnet20", "append", 1), ("resnet20", "last", 2),
    ("mobilenet_v3_small", "head", 1), ("vit_ti_16", "last", 2),
]  # fmt: skip
SLOW = [
    (name, *mode)
    for name in models.MODELS
    for mode in MODES
    if (name, *mode) not in QUICK and (name, mode[0]) != ("lenet5", "head")
]


@pytest.mark.parametrize(
    ("name", "mode", "last"), [*QUICK, *(pytest.param(*case, marks=pytest.mark.slow) for case in SLOW)]
)
def test_the_weights_are_those_of_the_ordinary_loop(name, mode, last, tmp_path):
    """In `last` with SGD: AdamW makes steps of one size of gradients that are nothing but rounding."""
    ordinary, once, work = twice(name, mode, last, tmp_path, opt="sgd" if mode == "last" else "adamw")
    assert work.train_features.readable.tolist() == [i % 7 != 3 for i in range(11)]
    for state in (ordinary, once):
        assert state.step == 6
    require_equal(ordinary, once)


def require_equal(a, b):
    for one, other in ((a.network, b.network), (a.measured, b.measured)):
        state = other.state_dict()
        for name, value in one.state_dict().items():
            torch.testing.assert_close(state[name], value, rtol=1e-5, atol=1e-5, msg=name)
    for row, same in zip(a.rows, b.rows, strict=True):
        assert (row.step, row.lr) == (same.step, same.lr)
        assert [row.train_loss, row.val_loss] == pytest.approx([same.train_loss, same.val_loss], rel=1e-5)
        assert [row.train_top1, row.val_top1] == [same.train_top1, same.val_top1]


def test_views_are_the_changes_of_the_first_epochs_come_round(tmp_path):
    ordinary, once, work = twice("lenet", "head", 1, tmp_path, augment="light", views=2, epochs=3)
    require_equal(ordinary, once)
    assert len(work.train_features.values) == 2
    anew, _, _ = twice("lenet", "head", 1, tmp_path, augment="light", views=3, epochs=3)
    rows = [row.train_loss for row in anew.rows]
    assert rows[:2] == [row.train_loss for row in ordinary.rows[:2]]
    assert rows[2] != ordinary.rows[2].train_loss  # which saw the changes of the first epoch again


def job(mode="head", **options):
    config = TrainConfig(data="x", model="lenet", transfer=mode, weights="x", batch=4, **options)
    network = models.build("lenet", num_classes=3)
    transfer.freeze(network, mode if mode != "append" else "head", 2, "fc3")
    pre = Preprocess.for_size(32)
    return network, Job(pre, samples(11, 32, 3), samples(8, 32, 3), config, CPU, Epochs(config, 11))


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"augment": "none", "mixup": 0.2}, "MixUp and CutMix blend the images"),
        (
            {"augment": "light"},
            r"the images change \(augmentation light\); without that, or with --views 4 of each",
        ),
        ({"augment": "none", "lighting": 0.1}, r"the images change \(lighting 0\.1\)"),
        ({"mode": "last"}, r"the images change \(augmentation light\)"),
    ],
)
def test_what_differs_in_each_epoch_is_computed_in_each(options, says, tmp_path):
    frozen, said = features.compute(*job(**options), tmp_path)
    assert frozen is None
    assert re.search(f"computes anew in every epoch: {says}", said)


def test_where_nothing_is_frozen_nothing_is_said(tmp_path):
    assert features.compute(*job("all"), tmp_path) == (None, "")


def test_what_the_memory_does_not_take_lies_in_a_file_without_a_name(tmp_path, monkeypatch):
    network, work = job()
    inside, _ = features.compute(network, work, tmp_path)
    monkeypatch.setattr(features, "MAX_BYTES_IN_MEMORY", 84 * 4 * 10)
    made, memmap = [], np.memmap
    monkeypatch.setattr(np, "memmap", lambda *a, **k: made.append(k["shape"]) or memmap(*a, **k))
    mapped, _ = features.compute(network, work, tmp_path)
    assert made == [(11 + 8, 84)]
    assert list(tmp_path.iterdir()) == []
    readable = torch.from_numpy(mapped.train_features.readable)
    assert torch.equal(mapped.train_features.values[0][readable], inside.train_features.values[0][readable])
    assert "0.0 GB of features are more than" in features.compute(*job("last", augment="none"), tmp_path)[1]

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    assert re.search("no room for .* GB of features in .*No space", features.compute(*job(), tmp_path)[1])


def test_a_batch_of_which_nothing_can_be_read_is_passed_over(tmp_path):
    network, work = job()
    gone = samples(11, 32, 3)
    gone.read = lambda which, out: np.zeros(len(which), bool) | (which > 5)
    once, _ = features.compute(network, dataclasses.replace(work, train=gone), tmp_path)
    assert once.train_features.readable.tolist() == [i > 5 for i in range(11)]
    assert [len(batch) for batch in once.batches(0, [np.arange(4), np.arange(4, 8)])] == [0, 2]


def test_a_pass_that_the_budget_has_no_time_for_is_not_made(tmp_path):
    frozen, said = features.compute(*job(), tmp_path, left=1e-6)
    assert frozen is None
    assert "and 0 s are left of the budget" in said


class Words(Progress):
    def __init__(self):
        self.said = []

    def info(self, message):
        self.said.append(message)


class GoneError(Exception):
    """The process is no more."""


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    root = tmp_path_factory.mktemp("features") / "data"
    for name, color in COLORS.items():
        make_images(root / name, 8, color)
    (root / "red" / "003.png").write_bytes(b"")
    return root


def test_a_run_is_whole_exact_and_says_what_it_did(data, tmp_path, monkeypatch):
    options = {
        "data": str(data), "model": "resnet20", "weights": pretrained(tmp_path, "resnet20"), "batch": 4,
        "transfer": "head", "epochs": 4, "ema": 0.9, "profile": True, "save_every": 2, "lr": 0.05,
    }  # fmt: skip
    words = Words()
    whole = train(TrainConfig(**options, out=str(tmp_path / "whole")), words)
    assert [p.path for p in whole.problems] == [str(data / "red" / "003.png")]
    assert whole.config.augment == "none"
    assert whole.profile["frozen part"] > 0
    assert sum("has computed once" in line for line in words.said) == 1
    assert any("has computed once" in note for note in whole.notes)
    _, before = bundle.read(options["weights"])
    _, after = bundle.read(whole.best)
    assert after.keys() == before.keys()
    for name in before:
        assert torch.equal(after[name], before[name]) != name.startswith("linear"), name

    steps = []

    def after_step(keeper):
        steps.append(0)
        if len(steps) == 7:
            raise GoneError
        act(keeper)

    act = Keeper.after_step
    stopped = TrainConfig(**options, out=str(tmp_path / "cut"), name="run")
    monkeypatch.setattr(Keeper, "after_step", after_step)
    with pytest.raises(GoneError):
        train(stopped)
    monkeypatch.undo()
    resumed = resume(tmp_path / "cut" / "run", words)
    assert sum("has computed once" in line for line in words.said) == 2
    for a, b in ((whole.last, resumed.last), (whole.best, resumed.best)):
        assert bundle.inspect(a).weights_sha256 == bundle.inspect(b).weights_sha256
    resume(tmp_path / "cut" / "run", words)  # finished: nothing is left to compute
    assert sum("has computed once" in line for line in words.said) == 2
