"""What a run is told is checked before any work starts."""

import subprocess
import sys

import pytest

from striate.errors import UsageError
from striate.training.config import TrainConfig


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"model": "resnet81"}, "did you mean"),
        ({"opt": "adam"}, "did you mean adamw"),
        ({"sched": "cos"}, "cosine"),
        ({"augment": "strongest"}, "unknown augment"),
        ({"batch": 0}, "--batch 0: it must be at least 1"),
        ({"epochs": 0}, "--epochs 0"),
        ({"imgsz": -3}, "--imgsz -3"),
        ({"seed": -1}, "--seed -1"),
        ({"lr": 0.0}, "above 0"),
        ({"lr": float("nan")}, "above 0"),
        ({"channels": 2}, "2 channels"),
        ({"warmup": 0.7}, "warmup = 0.7"),
        ({"label_smoothing": 1.0}, "label_smoothing = 1.0"),
        ({"ema": 1.0}, "ema = 1.0"),
        ({"val": 0.0}, "val = 0"),
        ({"test": 0.9}, "test = 0.9"),
        ({"model": "lenet5", "imgsz": 28}, "reads 32x32 only"),
        ({"weight_decay": -0.1}, "--weight-decay"),
        ({"epochs": "2"}, "it must be a number"),
        ({"imgsz": 32.5}, "it must be a whole number"),
        ({"name": "../x"}, "the name of one folder"),
        ({"milestones": "30,60"}, "--milestones 30,60: they are shares of the run"),
        ({"milestones": "half"}, "shares of the run"),
        ({"milestones": ""}, "shares of the run"),
        ({"gamma": 0.0}, "gamma = 0.0"),
        ({"layer_decay": 1.1}, "layer_decay = 1.1"),
        ({"drop_path": 1.0}, "drop_path = 1.0"),
        ({"dropout": -0.1}, "dropout = -0.1"),
        ({"momentum": 1.0}, "momentum = 1.0"),
        ({"lighting": -1.0}, "--lighting"),
        ({"nesterov": True}, "a way of sgd"),
        ({"views": 4}, "--views 4 with --transfer all: nothing is frozen"),
        ({"views": -1, "transfer": "head", "weights": "x"}, "--views -1: it must be at least 0"),
    ],
    ids=str,
)
def test_what_cannot_be_is_refused_in_one_line(options, says):
    with pytest.raises(UsageError, match=says) as caught:
        TrainConfig(data="x", **options)
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
def test_defaults_suit_network_and_images(options, shape, size, channels, augment):
    config = TrainConfig(data="x", **options)
    pre = config.preprocess(shape)
    assert (pre.size, pre.channels) == ((size, size), channels)
    assert config.augmentation(pre, 50_000) == augment


@pytest.mark.parametrize(
    ("options", "images", "augment", "why"),
    [
        ({"epochs": 49}, 800, "standard", "beyond 64 px"),
        ({"epochs": 50}, 9_999, "strong", "9,999 images, each seen 50 times"),
        ({"epochs": 50}, 10_000, "standard", "beyond 64 px"),
        ({"epochs": 90}, 1_281_167, "standard", "beyond 64 px"),
        ({"epochs": 90}, 5_000_000, "light", "5,000,000 images vary enough"),
        ({"epochs": 50, "budget": "10m"}, 800, "standard", "beyond 64 px"),
        ({"epochs": 50, "imgsz": 32}, 800, "strong", "learnt by heart"),
        ({"epochs": 5, "imgsz": 32}, 800, "light", "up to 64 px"),
        ({"epochs": 50, "channels": 1}, 800, "none", "writing"),
        ({"epochs": 50, "transfer": "head", "weights": "x"}, 800, "none", "computes once"),
        ({"augment": "shift"}, 800, "shift", ""),
    ],
)
def test_changes_suit_the_number_of_images(options, images, augment, why):
    config = TrainConfig(data="x", **options)
    assert config.augmentation(config.preprocess(None), images) == augment
    assert why in config.why_augmented(config.preprocess(None), images)
    assert bool(why) == bool(config.why_augmented(config.preprocess(None), images))


def test_default_rates():
    assert TrainConfig(data="x").peak_rate == 1e-3
    assert TrainConfig(data="x", opt="sgd", batch=128).peak_rate == pytest.approx(0.05)
    assert TrainConfig(data="x", opt="sgd").decay == 1e-4
    assert TrainConfig(data="x", lr=0.3).peak_rate == 0.3
    assert TrainConfig(data="x", lr=0.3).backbone_rate == pytest.approx(0.03)
    assert TrainConfig(data="x", lr=0.3, layer_decay=0.75).backbone_rate == 0.3
    assert TrainConfig(data="x", milestones="1/4").drops == (0.25, 0.5, 0.75)


def test_a_configuration_needs_no_torch():
    code = "from striate.training.config import TrainConfig; TrainConfig('x')"
    subprocess.run([sys.executable, "-c", f"import sys; sys.modules['torch'] = None; {code}"], check=True)
