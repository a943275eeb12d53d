"""The table of official weights says what torchvision's own table says."""

import json

import pytest

from striate import models
from striate.errors import UsageError
from striate.transforms.preprocess import Preprocess
from striate.weights.catalog import CATALOG, default, find, imagenet_classes, official


def test_every_entry_is_torchvisions(shared):
    recorded = json.loads((shared / "oracle" / "facts.json").read_text("utf-8"))["torchvision_models"]
    expected = {}
    for name in recorded.keys() & models.MODELS.keys():
        for tag, entry in recorded[name]["weights"].items():
            if entry["n_categories"] == 1000:
                short = tag.removeprefix("IMAGENET1K_").lower()
                expected[f"{name}.{short.removesuffix('_v1') if 'swag' in short else short}"] = entry
    official = {name for name, entry in CATALOG.items() if entry.source == "torchvision"}
    assert official == expected.keys()
    for name, entry in expected.items():
        ours, pre = CATALOG[name], entry["preprocess"]
        assert (ours.url, ours.sha256_prefix) == (entry["url"], entry["sha256_prefix8"]), name
        figures = entry["metrics"]["ImageNet-1K"]
        assert (ours.top1, ours.top5) == (figures["acc@1"], figures["acc@5"]), name
        assert (ours.mib, ours.default) == (entry["file_size_MB_meta"], entry["is_default"]), name
        assert [ours.crop] == pre["crop_size"]
        assert [ours.resize] == pre["resize_size"]
        assert ours.interpolation == pre["interpolation"].removeprefix("InterpolationMode.").lower()
        if name != "googlenet.v1":
            assert (list(ours.preprocess.mean), list(ours.preprocess.std)) == (pre["mean"], pre["std"])


def test_googlenets_preprocessing_is_what_torchvision_does_inside_the_network():
    """transform_input: x * (std / 0.5) + (mean - 0.5) / 0.5 of images normalized with ImageNet's values."""
    entry = CATALOG["googlenet.v1"].preprocess
    usual = Preprocess()
    for pixel in (0.0, 0.3, 1.0):
        for channel in range(3):
            normalised = (pixel - usual.mean[channel]) / usual.std[channel]
            inside = normalised * (usual.std[channel] / 0.5) + (usual.mean[channel] - 0.5) / 0.5
            ours = (pixel - entry.mean[channel]) / entry.std[channel]
            assert ours == pytest.approx(inside, abs=1e-12)


def test_each_architecture_has_one_default_at_most():
    with_weights = [w.architecture for w in CATALOG.values() if w.default]
    assert len(with_weights) == len(set(with_weights))
    assert set(with_weights) == {w.architecture for w in CATALOG.values()} <= set(models.MODELS)


def test_names():
    assert find("resnet50").name == default("resnet50").name == "resnet50.v2"
    assert find("resnet50.v1").file == "resnet50-0676ba61.pth"
    with pytest.raises(UsageError, match=r"unknown weights 'resnet50.v3': did you mean resnet50.v"):
        find("resnet50.v3")
    with pytest.raises(UsageError, match="no ImageNet weights for lenet: torchvision publishes none"):
        default("lenet")


def test_official_files_are_known_by_their_digest():
    assert official("f37072fd" + "0" * 56, "resnet18") is CATALOG["resnet18.v1"]
    assert official("f37072fd" + "0" * 56, "resnet34") is None
    assert official("0" * 64, "resnet18") is None


def test_imagenet_classes(shared):
    recorded = json.loads(
        (shared / "data" / "imagenet_labels" / "imagenet_class_index.json").read_text("utf-8")
    )
    names = imagenet_classes()
    assert len(set(names)) == len(names) == len(recorded) == 1000
    changed = {int(i) for i, (_, name) in recorded.items() if names[int(i)] != name.replace("_", " ")}
    assert {i: names[i] for i in changed} == {
        134: "crane (bird)", 517: "crane (machine)", 639: "maillot (tank suit)",
    }  # fmt: skip
