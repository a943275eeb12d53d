"""The training loop: one optimizer step as a formula, micro-batches, accumulation, and what ends training."""

import copy
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import Messages
from tiny_training import CPU, PREPROCESS, make_training, small_network, two_classes
from torch import nn

from striate.errors import TrainingError, UsageError
from striate.progress import SILENT
from striate.tasks.classification.metrics import ClassificationMetrics, MultiLabelMetrics, validate
from striate.tasks.classification.options import MONITORS
from striate.training.loop import LossNotFiniteError, fit, train_step
from striate.training.optimizer import make_optimizer
from striate.training.schedule import LRSchedule
from striate.transforms.mixing import mix_batch


def training_of(network, n=20, data=None, progress=SILENT, **options):
    """A training of two epochs on `n` small images."""
    return make_training(network, data or two_classes(n), two_classes(10, 1), progress=progress, **options)


def train(network, n=20, **options):
    """Train to the end; returns the state."""
    training = training_of(network, n, **options)
    fit(training)
    return training.state


def gradient(training, samples):
    """The gradients that `train_step` gives the optimizer for one step."""
    found = []
    network = training.state.network
    training.state.optimizer.step = lambda *_: found.extend(p.grad.clone() for p in network.parameters())
    [batch] = training.task.batches(0, [samples])
    train_step(training, batch, len(samples))
    return found


def linear():
    """A network in double precision without BatchNorm, whose statistics are per micro-batch."""
    torch.manual_seed(0)
    layers = [nn.Flatten(), nn.Linear(3072, 8), nn.Tanh(), nn.Linear(8, 2)]
    return nn.Sequential(Double(), nn.Sequential(*layers).double())


class Double(nn.Module):
    def forward(self, x):
        return x.double()


def test_training_lowers_the_loss_and_counts_steps():
    rows = train(small_network(), epochs=3, lr=0.05).rows
    assert [row.epoch for row in rows] == [1, 2, 3]
    assert rows[-1].step == 15
    assert rows[-1].train_loss < rows[0].train_loss
    assert rows[-1].val_top1 == 1.0
    assert rows[0].images_per_second > 0


def test_one_step_of_sgd_equals_the_formula():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(3072, 2))
    before = copy.deepcopy(network)
    train(
        network, n=4, epochs=1, opt="sgd", lr=0.1, weight_decay=0.5, augment="none", sched="constant",
        warmup=0.0, label_smoothing=0.1,
    )  # fmt: skip
    data = two_classes(4)
    order = np.random.Generator(np.random.Philox(key=[0, 0])).permutation(4)
    x = PREPROCESS.normalize(torch.from_numpy(data.images[order]))
    target = nn.functional.one_hot(torch.from_numpy(data.labels[order]), 2) * 0.9 + 0.05
    loss = -(target * torch.log_softmax(before(x), 1)).sum(1).mean()
    weight, bias = torch.autograd.grad(loss, (before[1].weight, before[1].bias))
    expected = before[1].weight - 0.1 * (weight + 0.5 * before[1].weight)
    assert torch.allclose(network[1].weight, expected, atol=1e-7)
    assert torch.allclose(network[1].bias, before[1].bias - 0.1 * bias, atol=1e-7)  # without weight decay


def test_the_moving_average_is_evaluated_and_kept():
    state = train(small_network(), ema=0.9)
    assert not torch.equal(state.evaluated_network[5].weight, state.network[5].weight)
    expected = validate(state.evaluated_network, PREPROCESS, two_classes(10, 1), 4, CPU)
    assert {name: getattr(state.rows[-1], name) for name in expected} == expected
    state.keep_best()
    assert torch.equal(state.best["5.weight"], state.evaluated_network[5].weight)


def test_gradients_are_clipped():
    network = small_network()
    before = copy.deepcopy(network)
    train(network, n=4, epochs=1, opt="sgd", lr=1.0, grad_clip=0.01, weight_decay=0.0, warmup=0.0)
    moved = sum(((a - b) ** 2).sum() for a, b in zip(network.parameters(), before.parameters(), strict=True))
    assert moved.sqrt().item() == pytest.approx(0.01, rel=1e-3)


def test_single_images_and_batchnorm_on_one_pixel_are_a_usage_error():
    network = nn.Sequential(nn.Conv2d(3, 2, 32), nn.BatchNorm2d(2), nn.Flatten())
    with pytest.raises(UsageError, match=r"one image at a time.*Use a larger --batch"):
        fit(training_of(network, 4, batch=1))


def test_a_last_batch_of_one_image_trains():
    assert train(small_network(), n=9, batch=4).step == 4  # 4 + 5, twice


def test_a_loss_that_is_not_finite_names_step_rate_and_batch():
    """One image makes the loss infinite; the error has the samples of its batch."""

    class Brittle(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = small_network()

        def forward(self, x):
            scores = self.inner(x)
            white = PREPROCESS.normalize(torch.full((1, 1, 1, 3), 254, dtype=torch.uint8)).min()
            return torch.where((x.amax(dim=(1, 2, 3)) > white)[:, None], torch.inf, scores)

    data = two_classes(20)
    data.images.setflags(write=True)
    np.minimum(data.images, 200, out=data.images)
    data.images[13] = 255
    training = training_of(Brittle(), data=data, augment="none", lr=0.04)
    with pytest.raises(LossNotFiniteError) as caught:
        fit(training)
    order = training.task.order(0)
    at = next(i for i, samples in enumerate(order) if 13 in samples)
    assert caught.value.samples.tolist() == order[at].tolist()
    lr = LRSchedule(0.04, warmup=training.config.warmup).at(at, 10)
    text = f"step {at + 1}, batch {at + 1} of epoch 1: the learning rate {lr:.2g} is probably too high"
    assert text in str(caught.value)


def test_weights_that_are_not_finite_end_training():
    """The last step of an epoch breaks the weights, and no training loss is computed with them."""
    training = training_of(small_network(), n=4, epochs=1, opt="sgd", lr=3e38, warmup=0.0, weight_decay=100.0)
    with pytest.raises(LossNotFiniteError, match="step 1, batch 1 of epoch 1"):
        fit(training)


@pytest.mark.parametrize(("monitor", "best"), [("top1", 2), ("macro-f1", 3), ("loss", 4)])
def test_the_monitored_metric_selects_the_best_epoch(monitor, best):
    assert {*ClassificationMetrics.MONITORS, *MultiLabelMetrics.MONITORS} == set(MONITORS)
    state = training_of(small_network(), monitor=monitor).state
    metrics = [(0.5, 0.5, 1.0), (0.7, 0.4, 0.9), (0.6, 0.6, 0.8), (0.6, 0.5, 0.7)]  # top-1, macro F1, loss
    for epoch, (top1, f1, loss) in enumerate(metrics, 1):
        state.record(ClassificationMetrics(epoch, epoch, 0.1, 1.0, 0.5, loss, top1, 1.0, 1.0, f1))
    assert state.best_epoch == best


def test_a_row_that_is_not_finite_is_never_the_best():
    state = train(small_network(), epochs=1)
    better = replace(state.rows[0], val_top1=2.0)
    assert state.is_better(better)
    for column in ("val_loss", "val_top1", "val_macro_f1"):
        assert not state.is_better(replace(better, **{column: math.inf}))
        assert not state.is_better(replace(better, **{column: math.nan}))


def test_patience_ends_training():
    state = train(small_network(), epochs=9, patience=2, lr=1e-30)
    assert (len(state.rows), state.best_epoch, state.finished) == (3, 1, True)


@pytest.mark.parametrize("parts", [2, 3, 4])
def test_micro_batches_have_the_gradient_of_the_whole_batch(parts):
    options = {"n": 18, "batch": 8, "opt": "sgd", "lr": 0.1, "label_smoothing": 0.1}
    whole, split = train(linear(), **options), train(linear(), micro_batches=parts, **options)
    assert split.micro_batches == parts
    for a, b in zip(whole.network.parameters(), split.network.parameters(), strict=True):
        assert torch.allclose(a, b, atol=1e-12)
    assert split.rows[-1].train_loss == pytest.approx(whole.rows[-1].train_loss, abs=1e-6)
    assert split.rows[-1].train_top1 == whole.rows[-1].train_top1


@pytest.mark.parametrize(("batch", "count"), [(4, 2), (3, 3), (2, 4)])
def test_accumulated_gradients_are_those_of_one_large_batch(batch, count):
    """N batches of B images per step: the mean loss over N * B images, differentiated by torch alone."""
    network = linear()
    twin = copy.deepcopy(network)
    training = training_of(network, n=20, batch=batch, accumulate=count, augment="none", label_smoothing=0.1)
    samples = training.task.order(0)[0]
    assert len(samples) == batch * count
    forwards = []
    network.register_forward_hook(lambda module, inputs, output: forwards.append(len(output)))
    found = gradient(training, samples)
    assert forwards == [batch] * count  # no more than one batch in memory
    data = two_classes(20)
    scores = twin(PREPROCESS.normalize(torch.from_numpy(data.images[samples])))
    F.cross_entropy(scores, torch.from_numpy(data.labels[samples]), label_smoothing=0.1).backward()
    for mine, parameter in zip(found, twin.parameters(), strict=True):
        assert torch.allclose(mine, parameter.grad, rtol=1e-10, atol=1e-12)


def test_accumulation_trains_as_a_batch_of_that_size():
    """The same steps, learning rates and weights; `micro_batches` split each batch further."""
    options = {"n": 21, "opt": "sgd", "label_smoothing": 0.1, "augment": "light"}
    large = train(linear(), batch=8, **options)
    for small in ({"batch": 4, "accumulate": 2}, {"batch": 4, "accumulate": 2, "micro_batches": 2}):
        state = train(linear(), **small, **options)
        assert state.micro_batches == 2 * small.get("micro_batches", 1)
        assert [row.step for row in state.rows] == [row.step for row in large.rows] == [3, 6]
        assert [row.lr for row in state.rows] == [row.lr for row in large.rows]
        for a, b in zip(state.network.parameters(), large.network.parameters(), strict=True):
            assert torch.allclose(a, b, atol=1e-12)


class Tight(nn.Module):
    """A network on a device with memory for so many images at once."""

    def __init__(self, limit):
        super().__init__()
        self.inner, self.limit, self.seen = small_network(), limit, []

    def forward(self, x):
        if self.training:
            self.seen.append(len(x))
            if len(x) > self.limit:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return self.inner(x)


def test_out_of_memory_splits_batches_until_they_fit():
    messages, network = Messages(), Tight(3)
    state = train(network, n=24, batch=8, epochs=1, progress=messages)
    assert network.seen == [8, 4] + [2] * 12
    assert (state.micro_batches, state.step, state.rows[0].step) == (4, 3, 3)
    assert len(messages.warnings) == 2
    assert (
        "out of memory on cpu: from step 1 on, each step is split into 4 micro-batches"
        in messages.warnings[1]
    )


def test_out_of_memory_even_for_two_images_ends_training():
    with pytest.raises(TrainingError, match="out of memory on cpu: not even 2 images at a time fit"):
        train(Tight(1), n=24, batch=8)


def test_other_errors_pass():
    with pytest.raises(RuntimeError, match="mat1 and mat2"):
        train(nn.Sequential(nn.Flatten(), nn.Linear(5, 2)))


@pytest.mark.parametrize("options", [{"mixup": 0.4}, {"cutmix": 1.0}])
def test_mixed_images_have_the_loss_of_their_mixed_labels(options):
    network = small_network()
    training = training_of(network, batch=8, n=8, augment="none", opt="sgd", label_smoothing=0.1, **options)
    twin, state = copy.deepcopy(network), training.state
    state.lr = 0.05
    batch = next(training.task.batches(0, training.task.order(0)))
    train_step(training, batch, len(batch))

    alphas = {"mixup": 0.0, "cutmix": 0.0, **options}
    inputs, own = mix_batch(PREPROCESS.normalize(batch.pixels), **alphas, seed=0, step=0)
    shares = own * F.one_hot(batch.labels, 2) + (1 - own) * F.one_hot(batch.labels.roll(1), 2)
    assert 0 < own < 1
    expected = F.cross_entropy(
        twin(inputs), shares.float(), label_smoothing=0.1
    )  # torch's own, of soft labels
    assert math.isclose(state.totals.loss, expected.item(), rel_tol=1e-5)
    expected.backward()
    optimizer = make_optimizer(training.task.parameter_groups(twin), training.config, {})
    for group in optimizer.param_groups:
        group["lr"] = state.lr * group["lr_scale"]
    optimizer.step()
    for ours, theirs in zip(network.parameters(), twin.parameters(), strict=True):
        assert torch.allclose(ours, theirs, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
def test_one_weight_that_is_not_finite_is_found(dtype):
    state = make_training(small_network(), two_classes(8), two_classes(4)).state
    state.network.to(dtype)
    state.network.register_buffer("empty", torch.zeros(0))
    state.network[0].weight.data[0, 0, 0, 0] = torch.finfo(dtype).max
    assert state.all_finite
    for value in (math.nan, math.inf, -math.inf):
        for tensor in (state.network[0].weight, state.network[1].running_var):
            before = tensor.detach().clone()
            tensor.data.view(-1)[-1] = value
            assert not state.all_finite
            tensor.data.copy_(before)
    assert state.all_finite
