"""The optimizer's groups in transfer learning: pretrained layers at a lower rate than the new classifier."""

import pickle

import numpy as np
import pytest
import torch
from conftest import crash_after
from torch import nn
from write_tiffs import write_tiff

import striate
from striate import bundle, models
from striate.errors import LayoutError, TrainingError, TrustError, UsageError
from striate.tasks.classification.config import ClassificationConfig
from striate.tasks.classification.data import choose_preprocess
from striate.tasks.classification.network import build, parameter_groups


def test_learning_rates_of_backbone_and_head():
    network = models.build("resnet20", num_classes=2)
    groups = parameter_groups(ClassificationConfig("x", lr=0.5, backbone_lr=0.02), network, "linear")
    scale = {id(p): group["lr_scale"] for group in groups for p in group["params"]}
    for name, parameter in network.named_parameters():
        assert scale[id(parameter)] == pytest.approx(1.0 if name.startswith("linear") else 0.04)
    assert ClassificationConfig("x", lr=0.5).backbone_peak_lr == pytest.approx(0.05)


def test_without_pretrained_weights_all_layers_have_the_full_rate():
    network = models.build("resnet20", num_classes=2)
    groups = parameter_groups(ClassificationConfig("x", lr=0.5), network, None)
    assert {group["lr_scale"] for group in groups} == {1.0}


def test_the_backbones_rate_is_combined_with_layer_decay():
    with torch.device("meta"):
        network = models.build("resnet18")
    config = ClassificationConfig("x", lr=1.0, layer_decay=0.5, backbone_lr=0.1)
    scales = {group["lr_scale"] for group in parameter_groups(config, network, "fc")}
    assert sorted(scales, reverse=True) == pytest.approx([1.0, *(0.1 * 0.5**k for k in range(1, 6))])


LABELS = np.arange(30) % 2


def bands(count, kind=np.uint8):
    """Small images of two classes: in one, the last band is bright."""
    images = np.random.default_rng(0).integers(0, 120, (30, 32, 32, count)).astype(kind)
    images[LABELS == 1, :, :, -1] += 130
    return images


def small(num_classes):
    """A convolution and a classifier for RGB."""
    return nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(8, num_classes),
    )  # fmt: skip


OPTIONS = {"epochs": 2, "batch": 8, "imgsz": 32, "lr": 0.05, "save_every": 1}


def test_a_module_is_trained_frozen_and_resumed_exactly(tmp_path):
    """From its own weights: the head only, on features that are computed once."""
    torch.manual_seed(1)
    network = small(7)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    options = {"model": network, "transfer": "head", "ema": 0.5, **OPTIONS}
    whole = striate.train((bands(3), LABELS), name="a", out=str(tmp_path), **options)
    description, state = bundle.read(whole.training.last)
    assert description.architecture == "object:Sequential"
    assert description.arguments["classifier"] == "5"
    assert any("the frozen layers ran once" in note for note in whole.training.notes)
    for name, value in before.items():
        assert torch.equal(network.state_dict()[name], value), "the caller's module does not change"
        assert name.startswith("5.") or torch.equal(state[name], value), "frozen means frozen"
    with crash_after(5):
        striate.train((bands(3), LABELS), name="b", out=str(tmp_path), **options)
    with pytest.raises(TrustError, match=r"Give it again in Python: network="):
        striate.resume(tmp_path / "b", data=(bands(3), LABELS))
    again = striate.resume(tmp_path / "b", data=(bands(3), LABELS), network=network)
    digests = [bundle.inspect(run.training.last).weights_sha256 for run in (whole, again)]
    assert digests[0] == digests[1]
    classifier = striate.load(tmp_path / "b", network=small)  # a function that makes the same layers
    copied = pickle.loads(pickle.dumps(classifier))
    probabilities = classifier.predict(bands(3)[0]).probabilities
    assert np.array_equal(copied.predict(bands(3)[0]).probabilities, probabilities)
    written, data = tmp_path / "x.pth", (bands(3), LABELS)
    parity = striate.export(tmp_path / "b", written, "state-dict", data=data, network=network)
    assert parity.equal == parity.n


def test_images_of_eight_bands(tmp_path):
    run = striate.train((bands(8), LABELS), model=small, out=str(tmp_path), **OPTIONS)
    description = bundle.describe(run.best)
    assert description.preprocess.channels == description.arguments["in_channels"] == 8
    assert description.preprocess.mean == (0.5,) * 8
    assert run.training.config.augment == "light"
    model = striate.load(run.best, network=small)
    assert model.predict(bands(8)[1]).label in ("0", "1")
    with pytest.raises(LayoutError, match="it has 3 channels; this model reads images of 8"):
        model.predict(bands(3)[0])
    for option in ({"augment": "strong"}, {"lighting": 0.1}):
        with pytest.raises(UsageError, match="it needs RGB images; these have 8 channels"):
            striate.train((bands(8), LABELS), model=small, out=str(tmp_path), **OPTIONS, **option)


class Odd(nn.Module):
    """Works in evaluation; in training it fails, or returns a tuple."""

    def __init__(self, fails):
        super().__init__()
        self.layer, self.fails = nn.Linear(3, 2), fails

    def forward(self, x):
        scores = self.layer(x.mean((2, 3)))
        if self.training and self.fails:
            raise ValueError("more than 1 value")
        return (scores, scores) if self.training else scores


@pytest.mark.parametrize(
    ("fails", "kind", "message"),
    [(True, TrainingError, "object:Odd failed in training: ValueError: more than 1 value"),
     (False, UsageError, "returns a tuple in training")],
)  # fmt: skip
def test_networks_that_fail_in_training_only(tmp_path, fails, kind, message):
    with pytest.raises(kind, match=message):
        striate.train((bands(3), LABELS), model=Odd(fails), out=str(tmp_path), **OPTIONS)


def test_tiffs_say_how_many_bands_they_have(tmp_path):
    for i, (image, label) in enumerate(zip(bands(6), LABELS, strict=True)):
        folder = tmp_path / "data" / str(label)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{i}.tif").write_bytes(write_tiff(image))
    config = ClassificationConfig(str(tmp_path / "data"), model="lenet", cache=False)
    with config.open_data() as data:
        preprocess, _ = choose_preprocess(config, data.dataset, None)
        train, _ = data.images(preprocess, config)
    assert preprocess.channels == 6
    out = np.empty((1, *train.shape), np.uint8)
    assert train.read(np.array([0]), out).all()


def test_networks_that_come_with_weights_have_two_rates_only_if_a_part_is_replaced_or_frozen(tmp_path):
    for classes, more, expected in ((2, {}, None), (7, {}, "5"), (2, {"transfer": "head"}, "5")):
        config = ClassificationConfig((bands(3), LABELS), model=small(classes), **OPTIONS, **more)
        preprocess = config.own_preprocess((30, 32, 32, 3))
        assert build(config, preprocess, ("0", "1"), None).head == expected
