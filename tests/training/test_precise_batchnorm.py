"""Precise BatchNorm: statistics against torch's own, which layers lag, and that training is not disturbed."""

import copy
import os
import signal

import numpy as np
import pytest
import torch
from conftest import Messages, crash_after
from text_runs import config as text_config
from tiny_training import PREPROCESS, make_training, small_network, two_classes
from torch import nn

from striate import bundle, models
from striate.api import resume_training, run_training
from striate.tasks.classification.config import ClassificationConfig
from striate.training import checkpoint, loop, precise_batchnorm
from striate.training.interrupts import TrainingInterrupted
from striate.training.loop import fit
from striate.training.precise_batchnorm import lagging, reestimate
from striate.training.transfer import frozen_state


def statistics(network):
    return {name: b.clone() for name, b in network.named_buffers() if b.is_floating_point()}


def deep_network():
    """Two convolutions with BatchNorm, one without parameters, and dropout between them."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 6, 3, 2), nn.BatchNorm2d(6), nn.ReLU(), nn.Dropout(0.5), nn.Conv2d(6, 8, 3, 2),
        nn.BatchNorm2d(8, affine=False, momentum=None), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(8, 2),
    )  # fmt: skip


def test_one_batch_has_the_statistics_that_torch_has_in_training_mode():
    """BatchNorm with a momentum of 1 takes over the mean and the unbiased variance of a batch."""
    data, network = two_classes(40), deep_network()
    training = make_training(network, data, data, batch=40, augment="none", epochs=1)
    twin = copy.deepcopy(network).train()
    for layer in twin:
        if isinstance(layer, nn.BatchNorm2d):
            layer.momentum = 1.0
    twin[3].p = 0.0
    twin(PREPROCESS.normalize(torch.from_numpy(data.images)))
    weights = copy.deepcopy(dict(network.named_parameters()))
    text = reestimate(training.task, training.state)
    assert "on 40 training images" in text
    expected = statistics(twin)
    for name, value in statistics(network).items():
        torch.testing.assert_close(value, expected[name], rtol=1e-4, atol=1e-5)
    assert all(torch.equal(weights[name], p) for name, p in network.named_parameters())
    assert [int(layer.num_batches_tracked) for layer in (network[1], network[5])] == [0, 0]


def test_several_batches_have_the_moments_of_all_images():
    """The first layer's input does not depend on batches: its moments are NumPy's, whatever their sizes."""
    data, network = two_classes(50), deep_network()
    training = make_training(network, data, data, batch=12, augment="none", micro_batches=2)
    reestimate(training.task, training.state)
    with torch.no_grad():
        maps = network[0](PREPROCESS.normalize(torch.from_numpy(data.images))).double().numpy()
    assert network[1].running_mean.numpy() == pytest.approx(maps.mean((0, 2, 3)), rel=1e-5)
    assert network[1].running_var.numpy() == pytest.approx(maps.var((0, 2, 3), ddof=1), rel=1e-5)


def test_no_more_than_768_images_are_used(monkeypatch):
    monkeypatch.setattr(precise_batchnorm, "SAMPLES", 13)
    data, network = two_classes(40), deep_network()
    training = make_training(network, data, data, batch=6, augment="none", epochs=1)
    reestimate(training.task, training.state)
    which = np.concatenate(training.task.order(0))[:12]  # a thirteenth would be a batch of one image
    with torch.no_grad():
        maps = network[0](PREPROCESS.normalize(torch.from_numpy(data.images[which]))).double().numpy()
    assert network[1].running_mean.numpy() == pytest.approx(maps.mean((0, 2, 3)), rel=1e-5)


def test_layers_lag_until_momentum_times_steps_is_ten():
    layers = {momentum: nn.BatchNorm2d(2, momentum=momentum) for momentum in (0.1, 0.01, None, 0.0)}
    layers["none"] = nn.BatchNorm1d(2, track_running_stats=False)
    layers["frozen"] = nn.BatchNorm3d(2).requires_grad_(False)
    network = nn.ModuleList(layers.values())

    def names(step):
        found = lagging(network, step)
        return [name for name, layer in layers.items() if any(layer is other for other in found)]

    assert names(0) == names(99) == [0.1, 0.01, None]
    assert names(100) == names(999) == [0.01, None]
    assert names(1000) == [None]


def test_a_network_whose_statistics_have_settled_is_left_alone():
    network = small_network()
    training = make_training(network, two_classes(8), two_classes(8))
    training.state.step = 100
    before = statistics(network)
    assert reestimate(training.task, training.state) == ""
    assert all(torch.equal(before[name], value) for name, value in statistics(network).items())
    assert "on 8 training images" in reestimate(training.task, training.state, averaged=True)


@pytest.mark.parametrize("model", ["mobilenet_v3_small", "googlenet"])
def test_every_layer_of_a_network_is_estimated(model):
    """Auxiliary heads, too."""
    network = models.build(model, num_classes=2)
    preprocess = PREPROCESS if model != "googlenet" else PREPROCESS.for_size(96)
    images = two_classes(6)
    if model == "googlenet":
        pixels = np.repeat(np.repeat(images.images, 3, 1), 3, 2)
        images = type(images)(pixels, images.labels, images.names, ())
    training = make_training(network, images, images, preprocess=preprocess, model=model, augment="none")
    reestimate(training.task, training.state)
    norms = [m for m in network.modules() if isinstance(m, nn.BatchNorm2d)]
    assert norms
    assert all(bool((norm.running_mean != 0).any()) for norm in norms)


def test_validation_right_after_the_first_steps_is_that_of_the_weights():
    """As published, MobileNetV3's momentum is 0.01: after twenty steps its running statistics are useless."""
    data, val = two_classes(48), two_classes(40, 1)
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(3, 8, 3, 4), nn.BatchNorm2d(8, momentum=0.01), nn.ReLU(),
        nn.Conv2d(8, 8, 3), nn.BatchNorm2d(8, momentum=0.01), nn.ReLU(), nn.AdaptiveAvgPool2d(1),
        nn.Flatten(), nn.Linear(8, 2),
    )  # fmt: skip
    nn.init.constant_(network[0].bias, 5.0)  # far from the initial statistics, mean 0 and variance 1
    training = make_training(network, data, val, batch=8, epochs=2, lr=0.02, augment="none")
    fit(training)
    rows = training.state.rows
    twin = copy.deepcopy(network).train()
    with torch.no_grad():
        scores = twin(PREPROCESS.normalize(torch.from_numpy(val.images)))
    own = nn.functional.cross_entropy(scores, torch.from_numpy(val.labels)).item()
    assert rows[-1].val_loss == pytest.approx(own, rel=0.2)
    assert rows[-1].val_top1 > 0.95


def test_the_weights_are_those_of_training_without_it(monkeypatch):
    """The running statistics play no part in training, and dropout draws the same numbers."""
    found = []
    for estimate in (loop.reestimate, lambda *args: ""):
        monkeypatch.setattr(loop, "reestimate", estimate)
        training = make_training(deep_network(), two_classes(20), two_classes(8, 1), ema=0.9)
        fit(training)
        found.append(dict(training.state.network.named_parameters()))
    for name, value in found[0].items():
        assert torch.equal(value, found[1][name])


def test_the_moving_average_gets_its_own_statistics():
    data = two_classes(20)
    training = make_training(small_network(), data, data, ema=0.9, batch=20, epochs=3, augment="none")
    fit(training)
    state = training.state
    average, live = state.evaluated_network, state.network
    with torch.no_grad():
        maps = average[0](PREPROCESS.normalize(torch.from_numpy(data.images))).double()
    assert average[1].running_mean.double().numpy() == pytest.approx(maps.mean((0, 2, 3)).numpy(), rel=1e-4)
    assert not torch.allclose(live[1].running_mean, average[1].running_mean, rtol=1e-3)


OPTIONS = {
    "model": "mobilenet_v3_small", "imgsz": 32, "batch": 16, "epochs": 2, "save_every": 1, "name": "run"
}  # fmt: skip


@pytest.mark.parametrize("options", [{"ema": 0.5, "average": 2}, pytest.param({}, marks=pytest.mark.slow)])
def test_a_resumed_run_has_the_same_statistics(few_colors, tmp_path, options):
    def start(out, **more):
        return run_training(ClassificationConfig(str(few_colors), out=str(out), **OPTIONS, **options, **more))

    messages = Messages()
    whole = start(tmp_path / "whole", progress=messages)
    [line] = [line for line in messages.infos if "BatchNorm statistics are estimated on" in line]
    with crash_after(3):
        start(tmp_path)
    again = resume_training(tmp_path / "run")
    for mine, other in ((again.best, whole.best), (again.last, whole.last)):
        assert bundle.inspect(mine).weights_sha256 == bundle.inspect(other).weights_sha256
    assert line in whole.notes
    assert line in again.notes
    averaged = [text for text in whole.notes if "BatchNorm statistics estimated again" in text]
    assert len(averaged) == ("average" in options)


class Stopping(Messages):
    """Sends SIGINT after the first step."""

    stopped = False

    def advance(self, done, **figures):
        if not self.stopped:
            self.stopped = True
            os.kill(os.getpid(), signal.SIGINT)


def test_the_bundle_of_an_interrupted_run_has_estimated_statistics(few_colors, tmp_path):
    """Its checkpoint has the running ones, with which training continues."""
    options = {**OPTIONS, "out": str(tmp_path), "progress": Stopping()}
    with pytest.raises(TrainingInterrupted):
        run_training(ClassificationConfig(str(few_colors), **options))
    live, _ = checkpoint.newest(tmp_path / "run")
    _, written = bundle.read(tmp_path / "run" / "last.safetensors")
    assert live.values["step"] == 1
    for name, value in written.items():
        same = torch.equal(value, live.tensors[f"network.{name}"])
        assert same != name.endswith(("running_mean", "running_var")), name


def test_frozen_layers_keep_their_statistics(few_colors, tmp_path):
    first = {**OPTIONS, "out": str(tmp_path), "epochs": 1}
    source = run_training(ClassificationConfig(str(few_colors), **{**first, "name": "source"}))
    options = {"transfer": "last", "last_layers": 4, "weights": str(source.best), "augment": "none"}
    done = run_training(ClassificationConfig(str(few_colors), **{**first, **options}))
    _, before = bundle.read(source.best)
    _, after = bundle.read(done.last)
    frozen = frozen_state(done.task.setup.network)
    assert any("running_mean" in name for name in frozen)
    assert all(torch.equal(before[name], after[name]) for name in frozen)
    trained = [name for name in after if name.endswith("running_mean") and name not in frozen]
    assert trained
    assert not any(torch.equal(before[name], after[name]) for name in trained)
    assert done.task.features is not None  # the trainable layers saw features instead of images


def test_the_image_encoder_of_a_reader_is_estimated(text_lines, tmp_path):
    """After one epoch, the loss on val is about as low as with the statistics of its own batch."""
    messages = Messages()
    options = {"epochs": 1, "average": 0, "batch": 60, "save_every": 0, "lr": 1e-2, "progress": messages}
    done = run_training(text_config(text_lines, tmp_path, **options))
    assert any("on 70 training pairs" in line for line in messages.infos)
    network, task = done.task.setup.network, done.task
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    steps = done.epochs[-1].step
    assert norms
    assert steps * norms[0].momentum < 5
    batch = task.val.batch(np.arange(len(task.val)), torch.device("cpu"))
    module = task.training_module(network)

    def loss():
        with torch.no_grad():
            return float(module(batch.source, batch.decoder_input, batch.target, batch.widths))

    network.eval()
    evaluated = loss()
    for norm in norms:
        norm.train()
    assert evaluated == pytest.approx(loss(), rel=0.1)
