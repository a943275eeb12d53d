"""The loop: what is decayed, what is averaged, what stops it."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

from striate import models
from striate.data import Loaded
from striate.errors import TrainingError
from striate.progress import SILENT
from striate.training.config import TrainConfig
from striate.training.loop import fit, make_optimizer, moving_average
from striate.transforms.preprocess import Preprocess

PRE = Preprocess.for_size(32)
CPU = torch.device("cpu")


def loaded(n, seed=0):
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % 2
    images = rng.integers(0, 120, (n, 32, 32, 3)) + labels[:, None, None, None] * 130
    return Loaded(images.astype(np.uint8), labels.astype(np.int64), ("x",) * n, ())


def small():
    """A network with all that matters here: a kernel, a norm with buffers, a classifier with a bias."""
    torch.manual_seed(0)
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 2)]
    return nn.Sequential(nn.Conv2d(3, 8, 3, 4), nn.BatchNorm2d(8), nn.ReLU(), *head)


def train(network, n=20, on_epoch=None, **options):
    config = TrainConfig(data="x", model="resnet20", **{"epochs": 2, "batch": 4, **options})
    rows = []

    def after(result, measured):
        rows.append(result)
        return True if on_epoch is None else on_epoch(result, measured)

    fit(network, PRE, loaded(n), loaded(10, 1), config, CPU, SILENT, after)
    return rows


def test_it_learns_and_counts():
    rows = train(small(), epochs=3, lr=0.05)
    assert [row.epoch for row in rows] == [1, 2, 3]
    assert rows[-1].step == 15
    assert rows[-1].train_loss < rows[0].train_loss
    assert rows[-1].val_top1 == 1.0
    assert rows[0].images_per_second > 0


def test_one_step_of_sgd_is_the_formula():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(3072, 2))
    before = copy.deepcopy(network)
    train(
        network, n=4, epochs=1, opt="sgd", lr=0.1, weight_decay=0.5, augment="none", sched="constant",
        warmup=0.0, label_smoothing=0.1,
    )  # fmt: skip
    data = loaded(4)
    order = np.random.Generator(np.random.Philox(key=[0, 0])).permutation(4)
    x = PRE.normalize(torch.from_numpy(data.images[order]))
    target = nn.functional.one_hot(torch.from_numpy(data.labels[order]), 2) * 0.9 + 0.05
    loss = -(target * torch.log_softmax(before(x), 1)).sum(1).mean()
    weight, bias = torch.autograd.grad(loss, (before[1].weight, before[1].bias))
    expected = before[1].weight - 0.1 * (weight + 0.5 * before[1].weight)
    assert torch.allclose(network[1].weight, expected, atol=1e-7)
    assert torch.allclose(network[1].bias, before[1].bias - 0.1 * bias, atol=1e-7)  # not decayed


def test_biases_and_norms_are_not_decayed():
    network = models.build("resnet20")
    names = {id(p): name for name, p in network.named_parameters()}
    decayed, free = make_optimizer(network, TrainConfig(data="x")).param_groups
    assert {names[id(p)] for p in free["params"]} == {
        name for name in names.values() if ".bn" in name or name.startswith("bn") or name.endswith("bias")
    }
    assert (decayed["weight_decay"], free["weight_decay"]) == (0.01, 0.0)
    assert len(decayed["params"]) + len(free["params"]) == len(names)


def test_the_moving_average_is_the_formula():
    network = nn.BatchNorm1d(1)
    average = moving_average(network, 0.5)
    values = [1.0, 3.0, -2.0, 5.0, 8.0]
    expected = None
    for t, value in enumerate(values):
        with torch.no_grad():
            network.weight.fill_(value)
            network.running_mean.fill_(-value)
            network.num_batches_tracked.fill_(t)
        average.update_parameters(network)
        kept = min(0.5, (1 + t) / (10 + t))
        expected = value if expected is None else kept * expected + (1 - kept) * value
    assert average.module.weight.item() == pytest.approx(expected)
    assert average.module.running_mean.item() == pytest.approx(-expected)
    assert average.module.num_batches_tracked.item() == 4


def test_the_average_is_what_is_measured_and_kept():
    network = small()
    seen = []
    train(network, ema=0.9, on_epoch=lambda result, measured: seen.append(measured) or True)
    assert seen[0] is not network
    assert not torch.equal(seen[0][5].weight, network[5].weight)


def test_gradients_are_clipped():
    network = small()
    before = copy.deepcopy(network)
    train(network, n=4, epochs=1, opt="sgd", lr=1.0, grad_clip=0.01, weight_decay=0.0, warmup=0.0)
    moved = sum(((a - b) ** 2).sum() for a, b in zip(network.parameters(), before.parameters(), strict=True))
    assert moved.sqrt().item() == pytest.approx(0.01, rel=1e-3)


def test_a_last_batch_of_one_trains():
    rows = train(small(), n=9, batch=4)
    assert rows[-1].step == 4  # 4 + 5, twice


def test_a_loss_that_is_not_finite_stops_the_run():
    network = small()
    with pytest.raises(
        TrainingError, match=r"step \d+ of epoch 1: the learning rate .* is probably too high"
    ):
        train(network, opt="sgd", lr=1e30, warmup=0.0)


def test_after_epoch_may_stop_it():
    assert len(train(small(), epochs=5, on_epoch=lambda r, m: r.epoch < 2)) == 2
