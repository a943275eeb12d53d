"""From a file to a bundle and back, which network a file is for, and where weights come from."""

import dataclasses
import hashlib
import math

import pytest
import torch
from PIL import Image

import striate
from striate import bundle, models, weights
from striate.bundle import Description
from striate.errors import BundleError, UsageError, WriteError
from striate.inference import classifier as prediction
from striate.models.vit import interpolate_positions
from striate.progress import Progress
from striate.transforms.preprocess import IMAGENET_MEAN, IMAGENET_STD, Preprocess
from striate.weights import catalog

LARGE = [
    name
    for name in models.MODELS
    if name.startswith(("alexnet", "vgg", "vit_b", "vit_l", "vit_s", "resnet1", "efficientnet"))
    and name != "resnet18"
] + ["resnet50", "resnet34"]


def with_slow(names, slow=LARGE):
    return [pytest.param(name, marks=pytest.mark.slow) if name in slow else name for name in names]


def on_meta(name, **arguments):
    with torch.device("meta"):
        return models.build(name, **arguments).state_dict()


def random_state(name, **arguments):
    """Values of no pattern for each tensor of a network, counters too, with outputs of a usual size."""
    generator = torch.Generator().manual_seed(5)

    def value(key, shape, floating):
        if not floating:
            return torch.randint(1, 10**6, shape, generator=generator)
        values = torch.rand(shape, generator=generator)
        if key.endswith("running_var"):
            return values
        fan_in = math.prod(shape[1:])
        return (values - 0.5) * math.sqrt(12 / fan_in) if len(shape) > 1 else values - 0.5

    return {
        key: value(key, tensor.shape, tensor.is_floating_point())
        for key, tensor in on_meta(name, **arguments).items()
    }


def saved(path, state):
    torch.save(state, path)
    return path


class Heard(Progress):
    def __init__(self):
        self.lines = []

    def info(self, message):
        self.lines.append(message)


@pytest.mark.parametrize("name", with_slow(models.MODELS))
def test_round_trip_is_bit_equal(tmp_path, name):
    """Import, bundle, export, torch.load: keys, order, types and bits, for every architecture."""
    state = random_state(name, num_classes=7)
    file = saved(tmp_path / "theirs.pth", {"state_dict": {f"module.{k}": v for k, v in state.items()}})
    path, description = weights.import_weights(file, tmp_path / "b.safetensors", model=name)
    assert (description.architecture, description.arguments["num_classes"]) == (name, 7)
    Image.new("RGB", (64, 64), (200, 90, 30)).save(tmp_path / "x.png")  # one image is enough to compare
    striate.export(path, tmp_path / "out" / "ours.pth", "state-dict", (str(tmp_path / "x.png"),))
    back = torch.load(tmp_path / "out" / "ours.pth", weights_only=True)
    assert list(back) == list(state)
    for key, value in state.items():
        assert back[key].dtype == value.dtype
        assert torch.equal(back[key], value), key
    prediction.load(path, "cpu")  # and it is a model


CIFAR10 = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


@pytest.mark.parametrize(
    ("file", "model", "options", "right"),
    [
        ("weights_resnet_cifar10/resnet20-12fca82f.th", "resnet20", {"model": "resnet20"}, 401),
        ("weights_lenet_cifar10/Lenet.pth", "lenet", {"mean": [0.5], "std": [0.5]}, 322),
    ],
)
def test_real_weights_of_others_answer_as_theirs_do(shared, tmp_path, file, model, options, right):
    """The numbers of images that others' code gets right with these files; 500 at their native 32 px."""
    path, description = weights.import_weights(
        shared / "data" / file, tmp_path / "b.safetensors", classes=CIFAR10, **options
    )
    assert description.architecture == model
    assert (description.preprocess.size, description.preprocess.shorter_side) == ((32, 32), 32)
    classifier = prediction.load(path, "cpu")
    images = sorted((shared / "data" / "cifar10_jpg" / "test").glob("*/*"))
    assert len(images) == 500
    answers = classifier.predict_many(images)
    assert (
        sum(answer.label == image.parent.name for answer, image in zip(answers, images, strict=True)) == right
    )


def test_counters_that_old_files_lack_start_at_zero(tmp_path):
    state = random_state("resnet20")
    old = {k: v for k, v in state.items() if not k.endswith("num_batches_tracked")}
    description, found = weights.open_weights(str(saved(tmp_path / "w.pth", old)), "resnet20")
    assert list(found) == list(state)
    assert all(found[k].item() == 0 for k in state.keys() - old.keys())
    assert any("counters" in note for note in description.provenance["notes"])


def test_what_a_file_does_not_say_is_assumed_and_said(tmp_path):
    heard = Heard()
    file = saved(tmp_path / "w.pth", random_state("resnet20"))
    description, state = weights.open_weights(str(file), "resnet20", heard)
    assert description.task == "classification"
    assert description.classes == tuple("0123456789")
    assert description.preprocess == Preprocess.for_size(32)
    assert (description.preprocess.mean, description.preprocess.std) == (IMAGENET_MEAN, IMAGENET_STD)
    assert description.provenance["imported_from"] == "w.pth"
    assert description.provenance["sha256"] == hashlib.sha256(file.read_bytes()).hexdigest()
    notes = description.provenance["notes"]
    assert any("class names are not in the file" in note for note in notes)
    assert any("ImageNet's mean and standard deviation assumed" in note for note in notes)
    assert heard.lines == [f"w.pth: {note}" for note in notes]
    models.build(description.architecture, **description.arguments).load_state_dict(state)


def test_what_the_user_says_goes_before(tmp_path):
    file = saved(tmp_path / "w.pth", random_state("resnet20", num_classes=2))
    path, description = weights.import_weights(
        file, classes=["猫", "dog"], mean=[0.1, 0.2, 0.3], std=[0.5], imgsz=128
    )
    assert path == tmp_path / "w.safetensors"
    assert bundle.read(path)[0] == description
    assert description.classes == ("猫", "dog")
    assert description.preprocess == Preprocess(
        size=(128, 128), shorter_side=146, mean=(0.1, 0.2, 0.3), std=(0.5, 0.5, 0.5)
    )
    assert description.provenance["notes"] == []


def test_grayscale(tmp_path):
    file = saved(tmp_path / "w.pth", random_state("lenet5"))
    description, _ = weights.open_weights(str(file), "lenet5")
    assert description.preprocess == Preprocess.for_size(32, channels=1)


def test_a_thousand_scores_are_imagenets(tmp_path):
    file = saved(tmp_path / "w.pth", random_state("mobilenet_v3_small"))
    description, _ = weights.open_weights(str(file), "mobilenet_v3_small")
    assert description.classes == catalog.imagenet_classes()
    assert any("ImageNet's are assumed" in note for note in description.provenance["notes"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"classes": ["a", "b"]}, "--classes with 2 names: the weights have 10 scores"),
        ({"classes": ["a"] * 10}, "a name is there twice"),
        ({"mean": [0.5, 0.5]}, "each needs 3 values"),
        ({"std": [0.0]}, "every value must be above 0"),
        ({"imgsz": 64}, "these weights are for images of 32 px"),
        ({"model": "lenett"}, "unknown model 'lenett'"),
        ({"part": "model_ema"}, "no weights under 'model_ema'"),
    ],
)
def test_values_that_contradict_the_weights(tmp_path, options, message):
    file = saved(tmp_path / "w.pth", random_state("lenet"))
    with pytest.raises(UsageError) as caught:
        weights.import_weights(file, **options)
    assert message in str(caught.value)
    assert not (tmp_path / "w.safetensors").exists()


def test_channels_that_are_no_images(tmp_path):
    file = saved(tmp_path / "w.pth", random_state("lenet", in_channels=4))
    with pytest.raises(UsageError, match="images of 4 channels"):
        weights.import_weights(file)


def test_a_size_that_leaves_the_same_for_lenets_layers(tmp_path):
    file = saved(tmp_path / "w.pth", random_state("lenet"))
    path, description = weights.import_weights(file, imgsz=35)
    assert description.arguments["input_size"] == [35, 35]
    assert prediction.load(path, "cpu").preprocess.size == (35, 35)


def test_a_vits_positions_follow_the_size(tmp_path):
    state = random_state("vit_ti_16", num_classes=2, input_size=32)
    file = saved(tmp_path / "w.pth", state)
    path, description = weights.import_weights(file, imgsz=48)
    assert description.arguments["input_size"] == [48, 48]
    assert description.preprocess.size == (48, 48)
    assert "encoder.pos_embedding: interpolated for 3x3 patches" in description.provenance["notes"]
    own = bundle.read(path)[1]["encoder.pos_embedding"]
    assert torch.equal(own, interpolate_positions(state["encoder.pos_embedding"], (3, 3)))
    prediction.load(path, "cpu")
    with pytest.raises(UsageError, match="patches of 16x16"):
        weights.import_weights(file, tmp_path / "other.safetensors", imgsz=50)


@pytest.fixture
def official(tmp_path, monkeypatch):
    """The catalog's entries of two networks as files of our own, in the cache."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    folder = tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    for name in ("googlenet.v1", "mobilenet_v3_large.v1"):
        entry = catalog.CATALOG[name]
        content = saved(tmp_path / "w.pth", random_state(entry.architecture)).read_bytes()
        file = f"{entry.architecture}-{hashlib.sha256(content).hexdigest()[:8]}.pth"
        (folder / file).write_bytes(content)
        monkeypatch.setitem(catalog.CATALOG, name, dataclasses.replace(entry, file=file))
    return folder


def test_official_weights_by_name(official):
    description, state = weights.open_weights("imagenet", "googlenet")
    assert description.arguments == {"num_classes": 1000, "in_channels": 3, "auxiliary": True}
    assert description.classes == catalog.imagenet_classes()
    assert description.preprocess == Preprocess(mean=(0.5,) * 3, std=(0.5,) * 3)
    assert description.provenance["weights"] == "googlenet.v1"
    assert description.provenance["published"] == {"top1": 0.69778, "top5": 0.8953}
    assert description.metrics == {}, "nobody has measured it here"
    assert description.provenance["notes"] == ["this is googlenet.v1, published by torchvision"]
    assert state.keys() == on_meta("googlenet").keys()
    description, _ = weights.open_weights("mobilenet_v3_large.v1", "mobilenet_v3_large")
    assert description.provenance["weights"] == "mobilenet_v3_large.v1"


def test_an_official_file_is_known_whatever_its_name(official, tmp_path):
    renamed = (official / catalog.CATALOG["googlenet.v1"].file).rename(tmp_path / "my net.pth")
    path, description = weights.import_weights(renamed)
    assert description.preprocess.mean == (0.5,) * 3
    assert description.provenance["weights"] == "googlenet.v1"
    assert path.name == "my net.safetensors"


def test_sources_of_another_architecture(tmp_path):
    file = saved(tmp_path / "w.pth", random_state("resnet20"))
    path, _ = weights.import_weights(file)
    for source, held in ((file, "resnet20"), (path, "resnet20"), ("resnet50.v1", "resnet50")):
        with pytest.raises(UsageError, match=f"use --model {held}|Use --model {held}"):
            weights.open_weights(str(source), "lenet")
    with pytest.raises(UsageError, match="no ImageNet weights for lenet"):
        weights.open_weights("imagenet", "lenet")
    with pytest.raises(
        UsageError, match=r"cannot start from 'imagenett': no such file or folder; did you mean 'imagenet'\?"
    ):
        weights.open_weights("imagenett", "lenet")
    with pytest.raises(UsageError, match="unknown model 'lenett'"):
        weights.open_weights("imagenet", "lenett")


@pytest.mark.parametrize("source", ["pretrained", "imagenet"])
def test_only_libraries_publish_weights_of_other_networks(source):
    with pytest.raises(UsageError, match=f"--weights {source} with package:make: only networks of Striate"):
        weights.open_weights(source, "package:make")


def test_a_bundle_and_a_runs_folder(tmp_path, run):
    description, state = weights.open_weights(str(run.training.folder), "lenet")
    assert (description, list(state)) == (bundle.read(run.best)[0], list(bundle.read(run.best)[1]))
    with pytest.raises(UsageError, match="is a bundle already"):
        weights.import_weights(run.best)
    with pytest.raises(WriteError, match="it exists"):
        striate.export(run.training.folder, run.best, "state-dict")


def test_import_onto_the_file_itself(tmp_path):
    import safetensors.torch

    file = tmp_path / "w.safetensors"
    safetensors.torch.save_file(random_state("lenet"), file)
    with pytest.raises(UsageError, match="onto itself"):
        weights.import_weights(file)
    path, _ = weights.import_weights(file, tmp_path / "b.safetensors")
    assert bundle.is_bundle(path)
    assert not bundle.is_bundle(file)


def test_a_bundle_is_not_replaced_unasked(tmp_path):
    file = saved(tmp_path / "best.pth", random_state("lenet"))
    there = tmp_path / "best.safetensors"
    there.write_bytes(b"a model that took days")
    with pytest.raises(UsageError, match=r"best\.safetensors' exists already"):
        weights.import_weights(file)
    assert there.read_bytes() == b"a model that took days"
    weights.import_weights(file, there)
    assert bundle.is_bundle(there)


def test_export_of_a_bundle_that_does_not_fit(tmp_path):
    network = models.build("lenet", num_classes=3)
    description = Description(
        "classification", "lenet", {"num_classes": 4}, tuple("abcd"), Preprocess.for_size(32)
    )
    bundle.write(tmp_path / "b.safetensors", network, description)
    with pytest.raises(BundleError, match="does not fit lenet"):
        striate.export(tmp_path / "b.safetensors", tmp_path / "w.pth", "state-dict")
    assert not (tmp_path / "w.pth").exists()
