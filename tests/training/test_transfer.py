"""Transfer learning: frozen parts stay the same bit for bit, and notes say which weights were loaded."""

import copy

import numpy as np
import pytest
import torch
from conftest import COLORS, make_images
from pretrained import SIZES, build, pretrained
from tiny_training import make_training
from torch import nn

import striate
from striate import bundle, models
from striate.data import InMemoryImages
from striate.errors import UsageError
from striate.models.vit import interpolate_positions
from striate.sections import Remark
from striate.training import transfer
from striate.training.loop import fit
from striate.transforms.preprocess import NORMALIZATIONS, Preprocess

MODES = ("all", "last", "head", "append")
QUICK = ("lenet", "googlenet", "googlenet_2014", "resnet18", "resnet20", "mobilenet_v3_small", "vit_ti_16")
HUGE = ("alexnet", "vgg11_bn")  # their fully connected layers take seconds


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    root = tmp_path_factory.mktemp("transfer")
    for name, color in COLORS.items():
        make_images(root / name, 5, color)
    return root


def on_meta(name, **arguments):
    """A network without weights."""
    with torch.device("meta"):
        return models.build(name, **arguments)


CASES = [(name, mode) for name in QUICK for mode in MODES] + [(name, "head") for name in HUGE]
ALL_CASES = [(name, mode) for name in models.MODELS for mode in MODES if (name, mode) not in CASES]


@pytest.mark.parametrize(
    ("name", "mode"), [*CASES, *(pytest.param(*case, marks=pytest.mark.slow) for case in ALL_CASES)]
)
def test_frozen_means_parameters_and_buffers(name, mode):
    size, channels = SIZES.get(name, 32), models.MODELS[name].channels
    extra = {"append": 3} if mode == "append" else {}
    extra |= {"auxiliary": False} if name.startswith("googlenet") and mode != "all" else {}
    network, _ = build(name, size, num_classes=3, in_channels=channels, **extra)
    head = "head" if mode == "append" else models.MODELS[name].classifier
    trained = transfer.freeze(network, mode, 2, head)
    frozen = {key: value.clone() for key, value in transfer.frozen_state(network).items()}
    before = {key: value.clone() for key, value in network.state_dict().items()}
    inside = tuple(f"{module}." for module in trained)
    constant = ("output.codes",) if name == "lenet5" else ()
    if mode != "all":
        assert set(frozen) >= {
            k for k in before if not k.startswith(inside) and not k.endswith(constant or " ")
        }

    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (6, size, size, channels), np.uint8)
    samples = InMemoryImages(images, np.arange(6) % 3, ("x",) * 6, ())
    options = {"epochs": 1, "batch": 3, "opt": "sgd", "lr": 0.05, "augment": "none", "warmup": 0.0}
    preprocess = Preprocess.for_size(size, channels)
    fit(make_training(network, samples, samples, preprocess=preprocess, head=head, model=name, **options))

    after = network.state_dict()
    for key, value in frozen.items():
        assert torch.equal(after[key], value), f"{key} is frozen but has changed"
    changed = {key for key in before if not torch.equal(after[key], before[key])}
    assert all(any(key.startswith(module) for key in changed) for module in inside), (
        "every trained module has changed"
    )


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", ["resnet20", "mobilenet_v3_small"])
def test_a_run_keeps_the_frozen_part_of_its_weights(name, mode, data, tmp_path):
    source = pretrained(tmp_path, name)
    run = striate.train(
        data,
        model=name,
        weights=source,
        transfer=mode,
        epochs=2,
        batch=4,
        lr=0.05,
        out=str(tmp_path / "runs"),
    )
    _, before = bundle.read(source)
    description, after = bundle.read(run.training.last)
    if mode == "append":
        assert (description.arguments["num_classes"], description.arguments["append"]) == (7, 3)
    network = models.build(name, **description.arguments)
    head = "head" if mode == "append" else models.MODELS[name].classifier
    transfer.freeze(network, mode, 2, head)
    for key in transfer.frozen_state(network):
        assert torch.equal(after[key], before[key.removeprefix("base.")]), f"{key} is frozen but has changed"
    assert striate.load(run.best, device="cpu").classes == tuple(COLORS)
    trained = next(note for note in run.training.notes if "parameters are trained" in note)
    assert isinstance(trained, Remark)


def test_stages():
    assert transfer.stages(on_meta("resnet18")) == [
        ["conv1", "bn1"], ["layer1"], ["layer2"], ["layer3"], ["layer4"], ["fc"]
    ]  # fmt: skip
    assert transfer.stages(on_meta("vit_ti_16", input_size=32))[-2:] == [
        ["encoder.layers.encoder_layer_11", "encoder.ln"], ["heads.head"]
    ]  # fmt: skip
    assert transfer.stages(on_meta("vgg11_bn", num_classes=2))[:2] == [
        ["features.0", "features.1"], ["features.4", "features.5"]
    ]  # fmt: skip
    assert transfer.stages(on_meta("mobilenet_v3_small"))[-2:] == [["classifier.0"], ["classifier.3"]]


def test_dropout_has_the_mode_of_the_layer_it_feeds():
    network = on_meta("alexnet", num_classes=2)
    transfer.freeze(network, "head", 1, "classifier.6")
    transfer.training_mode(network)
    assert [layer.training for layer in network.classifier if not isinstance(layer, nn.ReLU)] == [
        False, False, False, False, True
    ]  # fmt: skip
    network = on_meta("mobilenet_v3_small", num_classes=2)
    transfer.freeze(network, "head", 1, "classifier.3")
    transfer.training_mode(network)
    assert [layer.training for layer in network.classifier][::2] == [False, True]  # the first, the dropout
    assert network.classifier[3].training
    assert not network.features.training


def test_a_module_trains_if_one_of_its_parameters_does():
    """Against a count of each module by itself, also for a layer in two places."""
    network = on_meta("googlenet", num_classes=2)
    network.again = nn.Sequential(network.inception5b, nn.Linear(1024, 2, device="meta"))
    rng = np.random.default_rng(0)
    for parameter in network.parameters():
        parameter.requires_grad_(bool(rng.random() < 0.02))
    modes = transfer.training_modes(network)
    assert list(modes) == list(network.modules())
    for module, trains in modes.items():
        if parameters := list(module.parameters()):
            assert trains == any(parameter.requires_grad for parameter in parameters)
    assert set(modes.values()) == {True, False}


def test_a_new_network_is_entirely_in_training_mode():
    for name in ("resnet18", "googlenet", "vit_ti_16", "alexnet"):
        network = on_meta(name)
        transfer.training_mode(network)
        assert all(module.training for module in network.modules())


def test_a_first_layer_for_rgb_is_summed_for_grayscale_images():
    torch.manual_seed(0)
    rgb = models.build("resnet20").eval()
    gray = models.build("resnet20", in_channels=1).eval()
    loading = transfer.load(gray, rgb.state_dict(), "x")
    assert "conv1.weight: summed" in loading.notes[1]
    assert loading.fresh == ()
    x = torch.randn(2, 1, 32, 32)
    torch.testing.assert_close(gray(x), rgb(x.expand(-1, 3, -1, -1)), atol=1e-5, rtol=1e-5)


def test_positions_are_interpolated_for_another_image_size():
    old, new = (models.build("vit_ti_16", num_classes=3, input_size=size) for size in (32, 48))
    loading = transfer.load(new, old.state_dict(), "x")
    assert any("interpolated for 3x3 patches" in line for line in loading.notes)
    expected = interpolate_positions(old.encoder.pos_embedding, (3, 3))
    assert torch.equal(new.encoder.pos_embedding, expected)


def test_weights_that_do_not_fit_are_named():
    small, large = (models.build("lenet", num_classes=n) for n in (3, 5))
    before = copy.deepcopy(large.state_dict())
    loading = transfer.load(large, small.state_dict(), "three.safetensors")
    assert loading.fresh == ("fc3.weight", "fc3.bias")
    assert (
        loading.notes[0]
        == "three.safetensors: 8 of 10 tensors loaded; initialized at random: fc3.weight, fc3.bias"
    )
    assert "fc3.weight: not loaded because its shape is [3, 84], not [5, 84]" in loading.notes
    assert torch.equal(large.fc3.weight, before["fc3.weight"])


def test_the_preprocessing_of_the_weights_is_kept_and_a_mismatch_is_noted(data, tmp_path):
    source = pretrained(tmp_path, "resnet20")
    options = {"model": "resnet20", "weights": source, "epochs": 1, "out": str(tmp_path / "runs")}
    run = striate.train(data, **options)
    assert run.training.description.preprocess == Preprocess.for_size(32, reducing_gap=2.0)
    assert not any("were trained with" in note for note in run.training.notes)
    run = striate.train(data, normalize="vgg", imgsz=48, **options)
    pre = run.training.description.preprocess
    assert (pre.mean, pre.std) == NORMALIZATIONS["vgg"]
    for field in ("size", "mean", "std"):
        assert any(f"the weights were trained with {field} " in note for note in run.training.notes)
    run = striate.train(data, channels=1, **options)
    assert run.training.description.preprocess.mean == (pytest.approx((0.485 + 0.456 + 0.406) / 3),)


def test_a_replaced_classifier_is_noted(data, tmp_path):
    source = pretrained(tmp_path, "lenet", classes=3)  # three classes as well, but different ones
    run = striate.train(data, model="lenet", weights=source, epochs=1, out=str(tmp_path / "runs"))
    assert "fc3, for 3 classes, is replaced by one for 3" in run.training.notes


def test_more_last_layers_than_the_network_has(data, tmp_path):
    source = pretrained(tmp_path, "resnet20")
    options = {"model": "resnet20", "weights": source, "out": str(tmp_path / "runs")}
    with pytest.raises(UsageError, match="has 5 stages"):
        striate.train(data, transfer="last", last_layers=9, **options)


def test_random_weights_are_not_frozen(data, tmp_path):
    source = pretrained(tmp_path, "lenet")
    options = {"model": "lenet", "weights": source, "imgsz": 48, "out": str(tmp_path / "runs")}
    with pytest.raises(UsageError, match=r"fc1\.weight did not fit and would be frozen with random values"):
        striate.train(data, transfer="head", **options)
    assert striate.train(data, transfer="all", epochs=1, **options).evaluation.n


def test_an_appended_network_can_be_trained_but_not_appended_to_again(data, tmp_path):
    source = pretrained(tmp_path, "resnet20")
    options = {"model": "resnet20", "epochs": 1, "out": str(tmp_path / "runs")}
    first = striate.train(data, weights=source, transfer="append", **options)
    again = striate.train(data, weights=str(first.best), transfer="head", **options)
    assert again.training.description.arguments["append"] == 3
    with pytest.raises(UsageError, match="already has an appended layer"):
        striate.train(data, weights=str(first.best), transfer="append", **options)
