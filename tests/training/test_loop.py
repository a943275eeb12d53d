"""The loop: what is decayed, what is averaged, what stops it."""

import copy
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from striate.data import InMemoryImages
from striate.data.images.loader import stream
from striate.errors import TrainingError
from striate.progress import SILENT, Progress
from striate.training.config import TrainConfig
from striate.training.loop import Job, LossNotFiniteError, fit, validate
from striate.training.optimizer import make_optimizer
from striate.training.schedule import Epochs, learning_rate
from striate.training.state import TrainState
from striate.training.step import learn
from striate.transforms.mixing import mix_batch
from striate.transforms.preprocess import Preprocess

PRE = Preprocess.for_size(32)
CPU = torch.device("cpu")


def loaded(n, seed=0):
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % 2
    images = rng.integers(0, 120, (n, 32, 32, 3)) + labels[:, None, None, None] * 130
    return InMemoryImages(images.astype(np.uint8), labels.astype(np.int64), ("x",) * n, ())


def small():
    """A network with all that matters here: a kernel, a norm with buffers, a classifier with a bias."""
    torch.manual_seed(0)
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 2)]
    return nn.Sequential(nn.Conv2d(3, 8, 3, 4), nn.BatchNorm2d(8), nn.ReLU(), *head)


def job(n=20, data=None, **options):
    """A run of two epochs over `n` small images."""
    config = TrainConfig(data="x", model="resnet20", **{"epochs": 2, "batch": 4, **options})
    return Job(PRE, data or loaded(n), loaded(10, 1), config, CPU, Epochs(config, n))


def train(network, n=20, progress=SILENT, **options):
    work = job(n, **options)
    state = TrainState.fresh(network, work.config, CPU)
    fit(state, work, progress)
    return state


def test_it_learns_and_counts():
    rows = train(small(), epochs=3, lr=0.05).rows
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


def test_the_average_is_what_is_measured_and_kept():
    state = train(small(), ema=0.9)
    assert not torch.equal(state.measured[5].weight, state.network[5].weight)
    loss, top1 = validate(state.measured, PRE, loaded(10, 1), 4, CPU)
    assert (state.rows[-1].val_loss, state.rows[-1].val_top1) == (loss, top1)
    state.keep_best()
    assert torch.equal(state.best["5.weight"], state.measured[5].weight)


def test_gradients_are_clipped():
    network = small()
    before = copy.deepcopy(network)
    train(network, n=4, epochs=1, opt="sgd", lr=1.0, grad_clip=0.01, weight_decay=0.0, warmup=0.0)
    moved = sum(((a - b) ** 2).sum() for a, b in zip(network.parameters(), before.parameters(), strict=True))
    assert moved.sqrt().item() == pytest.approx(0.01, rel=1e-3)


def test_a_last_batch_of_one_trains():
    assert train(small(), n=9, batch=4).step == 4  # 4 + 5, twice


def test_a_loss_that_is_not_finite_names_step_rate_and_batch():
    """One image makes the loss infinite; the error has the batch that holds it."""

    class Brittle(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = small()

        def forward(self, x):
            scores = self.inner(x)
            bright = (
                x.amax(dim=(1, 2, 3)) > PRE.normalize(torch.full((1, 1, 1, 3), 254, dtype=torch.uint8)).min()
            )
            return torch.where(bright[:, None], torch.inf, scores)

    data = loaded(20)
    data.images.setflags(write=True)
    np.minimum(data.images, 200, out=data.images)
    data.images[13] = 255
    work = job(data=data, augment="none", lr=0.04)
    with pytest.raises(LossNotFiniteError) as caught:
        fit(TrainState.fresh(Brittle(), work.config, CPU), work)
    order = work.order(0)
    at = next(i for i, which in enumerate(order) if 13 in which)
    assert caught.value.samples.tolist() == order[at].tolist()
    rate = learning_rate(at, total=10, peak=0.04, warmup=work.config.warmup)
    text = f"step {at + 1}, batch {at + 1} of epoch 1: the learning rate {rate:.2g} is probably too high"
    assert text in str(caught.value)


def test_weights_that_are_not_finite_stop_the_run_too():
    """The last step of an epoch breaks the weights; no loss is computed with them in training."""
    work = job(n=4, epochs=1, opt="sgd", lr=3e38, warmup=0.0, weight_decay=100.0)
    with pytest.raises(LossNotFiniteError, match="step 1, batch 1 of epoch 1"):
        fit(TrainState.fresh(small(), work.config, CPU), work)


def test_patience_ends_it():
    state = train(small(), epochs=9, patience=2, lr=1e-30)
    assert (len(state.rows), state.best_epoch, state.finished) == (3, 1, True)


@pytest.mark.parametrize("parts", [2, 3, 4])
def test_parts_of_a_batch_have_the_gradient_of_the_whole(parts):
    """Without BatchNorm, whose statistics are of a part."""

    def trained(accumulate):
        torch.manual_seed(0)
        network = nn.Sequential(nn.Flatten(), nn.Linear(3072, 8), nn.Tanh(), nn.Linear(8, 2)).double()
        network = nn.Sequential(Double(), network)
        return train(network, n=18, batch=8, opt="sgd", lr=0.1, accumulate=accumulate, label_smoothing=0.1)

    whole, cut = trained(1), trained(parts)
    for a, b in zip(whole.network.parameters(), cut.network.parameters(), strict=True):
        assert torch.allclose(a, b, atol=1e-12)
    assert cut.rows[-1].train_loss == pytest.approx(whole.rows[-1].train_loss, abs=1e-6)
    assert cut.rows[-1].train_top1 == whole.rows[-1].train_top1


class Double(nn.Module):
    def forward(self, x):
        return x.double()


class Tight(nn.Module):
    """A network on a device that takes so many images at once."""

    def __init__(self, limit):
        super().__init__()
        self.inner, self.limit, self.seen = small(), limit, []

    def forward(self, x):
        if self.training:
            self.seen.append(len(x))
            if len(x) > self.limit:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return self.inner(x)


class Warnings(Progress):
    def __init__(self):
        self.warned = []

    def warn(self, message):
        self.warned.append(message)


def test_without_memory_the_batch_is_cut_until_it_fits():
    words, network = Warnings(), Tight(3)
    state = train(network, n=24, batch=8, epochs=1, progress=words)
    assert network.seen == [8, 4] + [2] * 12
    assert (state.parts, state.step, state.rows[0].step) == (4, 3, 3)
    assert len(words.warned) == 2
    assert "from step 1 each batch of 8 goes through the network in 4 parts" in words.warned[1]


def test_a_device_that_takes_no_two_images_ends_the_run():
    with pytest.raises(TrainingError, match="does not suffice: not even for 2 images at a time"):
        train(Tight(1), n=24, batch=8)


def test_other_errors_pass():
    with pytest.raises(RuntimeError, match="mat1 and mat2"):
        train(nn.Sequential(nn.Flatten(), nn.Linear(5, 2)))


@pytest.mark.parametrize("options", [{"mixup": 0.4}, {"cutmix": 1.0}])
def test_mixed_images_have_the_loss_of_their_mixed_labels(options):
    network, work = small(), job(batch=8, n=8, augment="none", opt="sgd", label_smoothing=0.1, **options)
    twin = copy.deepcopy(network)
    state = TrainState.fresh(network, work.config, CPU)
    state.rate = 0.05
    batch = next(stream(work.train, work.order(0), CPU))
    learn(state, work, batch, [len(batch)], [batch.weight])

    alphas = {"mixup": 0.0, "cutmix": 0.0, **options}
    inputs, own = mix_batch(PRE.normalize(batch.pixels), **alphas, seed=0, step=0)
    shares = own * F.one_hot(batch.labels, 2) + (1 - own) * F.one_hot(batch.labels.roll(1), 2)
    assert 0 < own < 1
    expected = F.cross_entropy(
        twin(inputs), shares.float(), label_smoothing=0.1
    )  # torch's own, of soft labels
    assert math.isclose(state.tally.loss, expected.item(), rel_tol=1e-5)
    expected.backward()
    optimizer = make_optimizer(twin, work.config)
    for group in optimizer.param_groups:
        group["lr"] = state.rate * group["share"]
    optimizer.step()
    for ours, theirs in zip(network.parameters(), twin.parameters(), strict=True):
        assert torch.allclose(ours, theirs, atol=1e-6)
