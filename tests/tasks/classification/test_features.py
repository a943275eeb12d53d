"""Features of frozen layers: weights and metrics are those of running the layers in every epoch."""

import copy
import errno
import os
import re

import numpy as np
import pytest
import torch
from conftest import COLORS, Messages, crash_after, make_images
from pretrained import SIZES, build, pretrained
from tiny_training import make_training

import striate
from striate import bundle, models
from striate.api import resume_training, run_training
from striate.bundle import Description
from striate.data import InMemoryImages
from striate.inference.classifier import Classifier
from striate.inference.penultimate import Penultimate
from striate.inference.scores import logits
from striate.tasks.classification import features
from striate.tasks.classification.config import ClassificationConfig
from striate.tasks.classification.features import compute_features
from striate.training import transfer
from striate.training.loop import fit
from striate.transforms.preprocess import Preprocess

MODES = (("head", 1), ("append", 1), ("last", 1), ("last", 2), ("last", 3))


class Patchy(InMemoryImages):
    """Images of which two cannot be read."""

    def read(self, which, out):
        return super().read(which, out) & (which % 7 != 3)


def samples_of(n, size, channels):
    rng = np.random.default_rng(n)
    return Patchy(rng.integers(0, 256, (n, size, size, channels), np.uint8), np.arange(n) % 3, ("x",) * n, ())


def twice(name, mode, last, tmp_path, **options):
    """The same run, with the frozen layers in every epoch and once; and the features of the second one."""
    size, channels = SIZES.get(name, 32), models.MODELS[name].channels
    extra = {"append": 3} if mode == "append" else {}
    extra |= {"auxiliary": False} if name.startswith("googlenet") else {}
    network, _ = build(name, size, num_classes=3, in_channels=channels, **extra)
    head = "head" if mode == "append" else models.MODELS[name].classifier
    transfer.freeze(network, mode, last, head)
    options = {"epochs": 2, "batch": 4, "augment": "none", "lr": 0.01, "ema": 0.9, **options}
    options |= {"model": name, "transfer": mode, "weights": "x", "last_layers": last}
    states, images = [], (samples_of(11, size, channels), samples_of(8, size, channels))
    for once in (False, True):
        training = make_training(
            copy.deepcopy(network), *images, preprocess=Preprocess.for_size(size, channels), head=head,
            folder=tmp_path, **options,
        )  # fmt: skip
        if once:
            note = precompute(training)
            assert training.task.features is not None, note
        fit(training)
        states.append(training.state)
    return (*states, training.task.features)


def precompute(training):
    """Train on features from here on, if they can be computed; returns the note about it."""
    task, network = training.task, training.state.network
    task.features, note = compute_features(task, network)
    training.module = task.training_module(network)
    return note


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
def test_the_weights_are_those_of_a_run_without_features(name, mode, last, tmp_path):
    """Most with SGD: AdamW makes full steps even from gradients that are only rounding errors."""
    is_quick = (name, mode, last) in QUICK
    opt = "adamw" if is_quick and mode != "last" else "sgd"
    ordinary, once, found = twice(name, mode, last, tmp_path, opt=opt)
    assert found.train.readable.tolist() == [i % 7 != 3 for i in range(11)]
    for state in (ordinary, once):
        assert state.step == 6
    # Random weights make features of up to 2,000 in others, of which folding changes some by 3e-4 of that.
    require_equal(ordinary, once, 1e-5 if is_quick else 1e-4)
    require_scores_and_features(found, once.evaluated_network, name, mode, 2e-5 if is_quick else 1e-3)


def require_scores_and_features(found, network, name, mode, tolerance):
    """Those of the validation images are those of the whole network."""
    size, channels = SIZES.get(name, 32), models.MODELS[name].channels
    arguments = {"append": 3} if mode == "append" else {}
    about = Description("classification", name, arguments, tuple("abc"), Preprocess.for_size(size, channels))
    classifier = Classifier(network.eval(), about, torch.device("cpu"))
    scores, features, which = found.scores_and_features(classifier, 4)
    assert (scores.shape[1], features.shape[1] > 0) == (3, True)
    whole, images = Penultimate(copy.deepcopy(network), classifier.last_layer), samples_of(8, size, channels)
    joined, readable = logits(whole.joined(), about.preprocess, images, classifier.device, 4)
    assert np.array_equal(which, readable)
    for one, other in ((scores, joined[:, :3]), (features, joined[:, 3:])):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=tolerance * np.abs(other).max())


def require_equal(a, b, tolerance=1e-5):
    for one, other in ((a.network, b.network), (a.evaluated_network, b.evaluated_network)):
        state = other.state_dict()
        for name, value in one.state_dict().items():
            atol = tolerance * max(1.0, value.abs().max().item())
            torch.testing.assert_close(state[name], value, rtol=tolerance, atol=atol, msg=name)
    for row, same in zip(a.rows, b.rows, strict=True):
        assert (row.step, row.lr) == (same.step, same.lr)
        losses = [same.train_loss, same.val_loss]
        assert [row.train_loss, row.val_loss] == pytest.approx(losses, rel=tolerance)
        assert [row.train_top1, row.val_top1] == [same.train_top1, same.val_top1]


def test_views_repeat_the_augmentations_of_the_first_epochs(tmp_path):
    ordinary, once, found = twice("lenet", "head", 1, tmp_path, augment="light", views=2, epochs=3)
    require_equal(ordinary, once)
    assert len(found.train.values) == 2
    three, _, _ = twice("lenet", "head", 1, tmp_path, augment="light", views=3, epochs=3)
    rows = [row.train_loss for row in three.rows]
    assert rows[:2] == [row.train_loss for row in ordinary.rows[:2]]
    assert rows[2] != ordinary.rows[2].train_loss  # whose third epoch repeats the augmentations of the first


def head_training(mode="head", folder=None, **options):
    """A LeNet with frozen layers that is about to train."""
    network = models.build("lenet", num_classes=3)
    transfer.freeze(network, mode if mode != "append" else "head", 2, "fc3")
    options |= {"model": "lenet", "transfer": mode, "weights": "x"}
    return make_training(network, samples_of(11, 32, 3), samples_of(8, 32, 3), folder=folder, **options)


def computed(training, *seconds_left):
    return compute_features(training.task, training.state.network, *seconds_left)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"augment": "none", "mixup": 0.2}, "MixUp and CutMix mix the images"),
        (
            {"augment": "light"},
            r"the images vary \(augmentation light\); without that, or with --views 4, they would run once",
        ),
        ({"augment": "none", "lighting": 0.1}, r"the images vary \(lighting 0\.1\)"),
        ({"mode": "last"}, r"the images vary \(augmentation light\)"),
    ],
)
def test_layers_whose_input_varies_run_in_every_epoch(options, reason, tmp_path):
    found, note = computed(head_training(folder=tmp_path, **options))
    assert found is None
    assert re.search(f"the frozen layers run in every epoch: {reason}", note)


def test_without_frozen_layers_there_is_no_note():
    training = head_training("all")
    training.task.precompute(training.state, float("inf"))
    assert training.task.features is None
    assert training.task.setup.notes == []


def test_features_that_exceed_the_memory_are_in_an_unnamed_file(tmp_path, monkeypatch):
    training = head_training(folder=tmp_path)
    in_memory, _ = computed(training)
    monkeypatch.setattr(features, "MAX_BYTES_IN_MEMORY", 84 * 4 * 10)
    made, memmap = [], np.memmap
    monkeypatch.setattr(np, "memmap", lambda *a, **k: made.append(k["shape"]) or memmap(*a, **k))
    mapped, _ = computed(training)
    assert made == [(11 + 8, 84)]
    assert list(tmp_path.iterdir()) == []
    readable = torch.from_numpy(mapped.train.readable)
    assert torch.equal(mapped.train.values[0][readable], in_memory.train.values[0][readable])
    assert (
        "0.0 GB of features are more than"
        in computed(head_training("last", folder=tmp_path, augment="none"))[1]
    )

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    assert re.search("no space for .* GB of features in .*No space", computed(training)[1])


def test_a_batch_without_a_readable_image_has_no_features(tmp_path):
    training = head_training(folder=tmp_path)
    broken = samples_of(11, 32, 3)
    broken.read = lambda which, out: np.zeros(len(which), bool) | (which > 5)
    training.task.train = broken
    found, _ = computed(training)
    assert found.train.readable.tolist() == [i > 5 for i in range(11)]
    batches = found.train.batches([np.arange(4), np.arange(4, 8)], torch.device("cpu"))
    assert [len(batch) for batch in batches] == [0, 2]


def test_features_are_not_computed_without_time_for_them(tmp_path):
    found, note = computed(head_training(folder=tmp_path), 1e-6)
    assert found is None
    assert "and 0 s of the budget are left" in note


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    root = tmp_path_factory.mktemp("features") / "data"
    for name, color in COLORS.items():
        make_images(root / name, 8, color)
    (root / "red" / "003.png").write_bytes(b"")
    return root


def notes_about_features(lines):
    return sum("the frozen layers ran once" in line for line in lines)


def test_a_run_on_features_is_complete_and_resumes_exactly(data, tmp_path):
    options = {
        "model": "resnet20", "weights": pretrained(tmp_path, "resnet20"), "batch": 4, "transfer": "head",
        "epochs": 4, "ema": 0.9, "profile": True, "save_every": 2, "lr": 0.05,
    }  # fmt: skip
    messages = Messages()
    config = ClassificationConfig(str(data), **options, out=str(tmp_path / "whole"), progress=messages)
    whole = run_training(config)
    assert [p.path for p in whole.task.problems] == [str(data / "red" / "003.png")]
    assert whole.config.augment == "none"
    assert whole.profile["frozen layers"] > 0
    assert notes_about_features(messages.infos) == notes_about_features(whole.notes) == 1
    _, before = bundle.read(options["weights"])
    _, after = bundle.read(whole.best)
    assert after.keys() == before.keys()
    for name in before:
        assert torch.equal(after[name], before[name]) != name.startswith("linear"), name

    with crash_after(7):
        run_training(ClassificationConfig(str(data), **options, out=str(tmp_path / "cut"), name="run"))
    resumed = resume_training(tmp_path / "cut" / "run", messages)
    assert notes_about_features(messages.infos) == 2
    for a, b in ((whole.last, resumed.last), (whole.best, resumed.best)):
        assert bundle.inspect(a).weights_sha256 == bundle.inspect(b).weights_sha256
    resume_training(tmp_path / "cut" / "run", messages)  # finished: nothing left to compute
    assert notes_about_features(messages.infos) == 2


def test_validation_images_do_not_pass_the_frozen_layers_again(data, tmp_path, monkeypatch):
    options = {"model": "resnet20", "weights": pretrained(tmp_path, "resnet20"), "transfer": "head"}
    options |= {"batch": 4, "epochs": 1, "val": 0.3, "test": 0.0, "out": str(tmp_path / "runs")}
    monkeypatch.setattr(Classifier, "scores_and_features", None)
    run = striate.train(str(data), **options)
    again = striate.evaluate(run.best, split="val")  # by the whole network
    assert run.evaluation.n == again.n > 4
    assert run.evaluation.names == again.names
    np.testing.assert_allclose(run.evaluation.probabilities, again.probabilities, rtol=1e-4, atol=1e-6)
