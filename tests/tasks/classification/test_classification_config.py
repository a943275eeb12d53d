"""The options of image classification: what is refused, and defaults that fit the network and the images."""

import dataclasses
import subprocess
import sys

import numpy as np
import pytest
from published import install

from striate.errors import UsageError
from striate.tasks.classification.config import ClassificationConfig
from striate.weights import catalog


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"model": "resnet81"}, "did you mean"),
        ({"augment": "strongest"}, "unknown value for --augment 'strongest'"),
        ({"sched": "noam"}, "unknown value for --sched 'noam'"),
        ({"imgsz": -3}, "--imgsz -3: it must be from 1 to 8192"),
        ({"imgsz": 32.5}, "it must be a whole number"),
        ({"channels": 17}, "--channels 17: it must be from 1 to 16"),
        ({"model": "lenet5", "imgsz": 28}, "reads 32x32 only"),
        ({"layer_decay": 1.1}, "--layer-decay 1.1: it must be above 0 and at most 1"),
        ({"drop_path": 1.0}, "--drop-path 1.0: it must be at least 0 and below 1"),
        ({"lighting": -1.0}, "--lighting -1.0"),
        ({"backbone_lr": 0.0}, "--backbone-lr 0.0: it must be above 0"),
        ({"views": 4}, "--views 4 with --transfer all: no layers are frozen"),
        ({"views": -1, "transfer": "head", "weights": "x"}, "--views -1: it must be from 0 to 10,000"),
        ({"transfer": "head"}, "Give --weights pretrained, or a file, or leave --transfer head out"),
        ({"transfer": "head", "model": "lenet"}, "Give a file or run as --weights, or leave"),
        ({"transfer": "head", "model": "lenet", "weights": "pretrained"}, "Give a file or run as --weights"),
        ({"unfreeze_every": 2, "model": "lenet", "weights": "imagenet"}, "no ImageNet weights are published"),
        ({"val": 20.0}, "--val 20.0: it must be from 0 to 0.5. Did you mean 0.2?"),
        ({"val": 80.0}, "--val 80.0: it must be from 0 to 0.5. Leave it out"),
        ({"transfer": "haed", "weights": "x"}, "did you mean head"),
        ({"transfer": "last", "last_layers": 0, "weights": "x"}, "--last-layers 0"),
        ({"transfer": "head", "model": "lenet5", "weights": "x"}, "output layer is fixed"),
        ({"normalize": "imagnet"}, "did you mean imagenet"),
        ({"reducing_gap": 0.5}, "--reducing-gap 0.5: it must be 0, or at least 1"),
        ({"reducing_gap": -2.0}, "--reducing-gap -2.0: it must be from 0"),
    ],
    ids=str,
)
def test_invalid_options_are_refused_in_one_line(options, message):
    with pytest.raises(UsageError, match=message) as caught:
        ClassificationConfig("x", **options)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "shape", "size", "channels", "augment"),
    [
        ({"model": "resnet18"}, None, 224, 3, "standard"),
        ({"model": "resnet18", "imgsz": 64}, None, 64, 3, "light"),
        ({"model": "resnet20"}, None, 32, 3, "light"),
        ({"model": "lenet"}, (9, 28, 28), 28, 1, "none"),
        ({"model": "lenet"}, (9, 8, 8), 32, 1, "none"),
        ({"model": "lenet"}, (9, 32, 32, 3), 32, 3, "light"),
        ({"model": "lenet", "channels": 3}, (9, 28, 28), 28, 3, "light"),
        ({"model": "lenet5"}, (9, 28, 28), 32, 1, "none"),
        ({"model": "resnet18"}, (9, 28, 28), 224, 1, "none"),
        ({"transfer": "head", "weights": "x"}, None, 224, 3, "none"),
        ({"transfer": "append", "weights": "x"}, None, 224, 3, "none"),
        ({"transfer": "last", "weights": "x"}, None, 224, 3, "standard"),
        ({"transfer": "head", "weights": "x", "views": 2}, None, 224, 3, "standard"),
        ({"transfer": "head", "weights": "x", "mixup": 0.1}, None, 224, 3, "standard"),
    ],
)
def test_defaults_fit_the_network_and_the_images(options, shape, size, channels, augment):
    config = ClassificationConfig("x", **options)
    pre = config.own_preprocess(shape)
    assert (pre.size, pre.channels) == ((size, size), channels)
    assert config.augmentation(pre, 50_000)[0] == augment


@pytest.mark.parametrize(
    ("options", "images", "augment", "why"),
    [
        ({"epochs": 49}, 800, "standard", "above 64 px"),
        ({"epochs": 50}, 9_999, "strong", "overfit 9,999 images in 50 epochs"),
        ({"epochs": 50}, 10_000, "standard", "above 64 px"),
        ({"epochs": 90}, 1_281_167, "standard", "above 64 px"),
        ({"epochs": 90}, 5_000_000, "light", "5,000,000 images vary enough"),
        ({"epochs": 50, "budget": "10m"}, 800, "standard", "above 64 px"),
        ({"epochs": 50, "imgsz": 32}, 800, "strong", "overfit"),
        ({"epochs": 5, "imgsz": 32}, 800, "light", "up to 64 px"),
        ({"epochs": 50, "channels": 1}, 800, "none", "text"),
        ({"epochs": 50, "transfer": "head", "weights": "x"}, 800, "none", "run only once"),
        ({"augment": "shift"}, 800, "shift", ""),
    ],
)
def test_augmentation_fits_the_number_of_images(options, images, augment, why):
    config = ClassificationConfig("x", **options)
    chosen, reason = config.augmentation(config.own_preprocess(None), images)
    assert chosen == augment
    assert why in reason
    assert bool(why) == bool(reason)


def test_default_learning_rates():
    assert ClassificationConfig("x").peak_lr == 1e-3
    assert ClassificationConfig("x", opt="sgd", batch=128).peak_lr == pytest.approx(0.05)
    assert ClassificationConfig("x", opt="sgd").decay == 1e-4
    assert ClassificationConfig("x", lr=0.3).peak_lr == 0.3
    assert ClassificationConfig("x", lr=0.3).backbone_peak_lr == pytest.approx(0.03)
    assert ClassificationConfig("x", lr=0.3, layer_decay=0.75).backbone_peak_lr == 0.3
    assert ClassificationConfig("x", milestones="1/4").milestone_shares == (0.25, 0.5, 0.75)


def test_accumulation_scales_the_default_learning_rate_of_sgd():
    """Goyal et al. 2017, section 2.1: with the size of the step's batch, however it is put together."""
    for opt in ("sgd", "rmsprop"):
        rate = ClassificationConfig("x", opt=opt, batch=32, accumulate=8).peak_lr
        assert rate == ClassificationConfig("x", opt=opt, batch=256).peak_lr
        assert rate == 8 * ClassificationConfig("x", opt=opt, batch=32, micro_batches=8).peak_lr
    assert ClassificationConfig("x", accumulate=8).peak_lr == ClassificationConfig("x").peak_lr
    assert ClassificationConfig("x", batch=32, accumulate=8, micro_batches=2).step_batch == 256


def test_a_warm_up_in_steps_is_a_share_of_all_steps():
    from tiny_training import make_training, small_network, two_classes

    training = make_training(small_network(), two_classes(40), two_classes(4), epochs=5, warmup=20)
    schedule = training.task.lr_schedule(50)
    assert [schedule.at(step, 50) / schedule.peak for step in (0, 9, 19)] == pytest.approx([0.05, 0.5, 1.0])


def test_objects_in_memory_are_opened_and_saved_by_name(tmp_path):
    """Such as a pair of arrays; paths stay text."""
    images = np.zeros((12, 28, 28), np.uint8)
    config = ClassificationConfig((images, np.arange(12) % 2))
    assert config.data.classes == ("0", "1")
    assert config.source == config.to_json()["data"] == "12 images (in memory)"
    assert ClassificationConfig(config.data) == config
    assert config.run_name == "12 images-resnet18"
    assert ClassificationConfig(tmp_path).data == str(tmp_path)


def test_a_configuration_needs_no_torch():
    code = "from striate.tasks.classification.config import ClassificationConfig; ClassificationConfig('x')"
    subprocess.run([sys.executable, "-c", f"import sys; sys.modules['torch'] = None; {code}"], check=True)


def test_transfer_learning_starts_from_pretrained_weights_unless_others_are_named():
    def weights_of(**options):
        return ClassificationConfig.from_user({"data": "x", "model": "resnet18", **options})[0].weights

    assert weights_of() == "none"
    for transfer in ("head", "last", "append"):
        assert weights_of(transfer=transfer) == "pretrained"
    assert weights_of(transfer="head", weights="x.pth") == "x.pth"
    with pytest.raises(UsageError, match="--transfer head without weights"):
        weights_of(transfer="head", weights="none")


def test_without_a_network_transfer_learning_takes_the_installed_one(tmp_path, monkeypatch):
    install(tmp_path, monkeypatch, "efficientnet_lite0.v1")
    config, notes = ClassificationConfig.from_user({"data": "x", "transfer": "head"})
    assert (config.model, config.weights) == ("efficientnet_lite0", "pretrained")
    assert notes == ["no --model: using efficientnet_lite0, whose weights are installed"]
    config, notes = ClassificationConfig.from_user({"data": "x", "transfer": "head", "model": "resnet18"})
    assert (config.model, notes) == ("resnet18", [])
    assert ClassificationConfig.from_user({"data": "x"})[0].model == "resnet18"
    for name, entry in catalog.CATALOG.items():
        monkeypatch.setitem(
            catalog.CATALOG, name, dataclasses.replace(entry, package=entry.package and "no-such")
        )
    config, notes = ClassificationConfig.from_user({"data": "x", "transfer": "head"})
    assert (config.model, config.weights, notes) == ("resnet18", "pretrained", [])
