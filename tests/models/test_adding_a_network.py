"""A new network needs one file and one row: everything else works, and the other networks still do."""

import json
import sys
import types

import pytest
import torch
from conftest import COLORS, make_images
from torch import nn

import striate
from striate import anatomy, bundle, cli, models, weights
from striate.inference import classifier
from striate.kernels.folding import fold
from striate.models.layers import check_images
from striate.models.recipe import Recipe
from striate.training import transfer


class Tiny(nn.Module):
    """Two convolutions and a classifier."""

    def __init__(self, num_classes, in_channels):
        super().__init__()
        self.in_channels = in_channels
        self.stem = nn.Conv2d(in_channels, 8, 3, stride=2, padding=1)
        self.bn = nn.BatchNorm2d(8)
        self.body = nn.Conv2d(8, 16, 3, stride=2, padding=1)
        self.head = nn.Linear(16, num_classes)

    def forward(self, x):
        """Scores `[batch, num_classes]`."""
        check_images(x, self.in_channels)
        x = torch.relu(self.bn(self.stem(x)))
        x = torch.relu(self.body(x))
        return self.head(x.mean(dim=(2, 3)))


def tiny(num_classes: int = 10, in_channels: int = 3) -> Tiny:
    """The network's function."""
    return Tiny(num_classes, in_channels)


@pytest.fixture
def row(monkeypatch):
    """The network as a file of the package and a row of the table."""
    file = types.ModuleType("striate.models.tiny_file")
    file.tiny = tiny
    monkeypatch.setitem(sys.modules, file.__name__, file)
    new = models.Architecture("tiny_file", 32, first_conv="stem", classifier="head")
    monkeypatch.setitem(models.MODELS, "tiny", new)
    return file


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    root = tmp_path_factory.mktemp("tiny")
    for name, color in COLORS.items():
        make_images(root / name, 10, color)
    return root


@pytest.fixture
def pretrained(row, tmp_path):
    """A bundle of such a network, imported from a `.pth`."""
    torch.manual_seed(0)
    state = tiny(num_classes=7, in_channels=3).state_dict()
    torch.save({"state_dict": {f"module.{key}": value for key, value in state.items()}}, tmp_path / "w.pth")
    path, description = weights.import_weights(tmp_path / "w.pth")
    assert description.architecture == "tiny"
    assert description.arguments == {"num_classes": 7, "in_channels": 3}
    return path, state


def test_weights_are_imported_and_exported(pretrained, tmp_path):
    path, state = pretrained
    striate.export(path, tmp_path / "out.pth", "state-dict")
    back = torch.load(tmp_path / "out.pth", weights_only=True)
    assert list(back) == list(state)
    assert all(torch.equal(back[key], value) for key, value in state.items())


@pytest.mark.parametrize("name", ["lenet", "lenet5", "resnet20", "mobilenet_v3_small", "vit_ti_16"])
def test_other_networks_still_import(row, name, tmp_path):
    torch.save(models.build(name, num_classes=5).state_dict(), tmp_path / "w.pth")
    _, description = weights.import_weights(tmp_path / "w.pth")
    assert description.architecture == name


def test_training_and_prediction(row, data, tmp_path):
    run = striate.train(data, model="tiny", epochs=1, batch=8, lr=0.01, out=str(tmp_path))
    assert bundle.describe(run.best).architecture == "tiny"
    model = classifier.load(run.best, "cpu")
    assert model.predict(next((data / "red").iterdir())).label in COLORS


@pytest.mark.parametrize(
    ("mode", "trained"), [("head", ["head"]), ("last", ["body", "head"]), ("append", ["head"])]
)
def test_transfer_learning(pretrained, data, tmp_path, mode, trained):
    path, state = pretrained
    run = striate.train(
        data, model="tiny", weights=str(path), transfer=mode, epochs=1, batch=8, out=str(tmp_path / "runs")
    )
    _, after = bundle.read(run.training.last)
    prefix = "base." if mode == "append" else ""
    for key, value in state.items():
        if mode == "append" or not key.startswith(tuple(trained)):
            assert torch.equal(after[prefix + key], value), f"{key} is frozen"


def test_stages(row):
    assert transfer.stages(tiny()) == [["stem", "bn"], ["body"], ["head"]]


def test_folding_and_anatomy(row):
    torch.manual_seed(0)
    network = tiny(3, 3).eval()
    network.bn.running_var.uniform_(0.5, 2)
    folded = fold(network, (3, 32, 32))
    assert folded is not network
    images = torch.rand(2, 3, 32, 32)
    with torch.inference_mode():
        torch.testing.assert_close(folded(images), network(images))
    found = anatomy.trace("tiny")
    assert found.params == sum(p.numel() for p in tiny().parameters())
    assert found.macs == 16 * 16 * 8 * 3 * 9 + 8 * 8 * 16 * 8 * 9 + 16 * 10


def test_recipes_are_optional(row, capsys):
    assert cli.run(["recipes", "tiny", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["recipes"] == {}
    settings = {"opt": "sgd", "lr": 0.1, "batch": 8, "epochs": 1}
    row.RECIPES = {"tiny_file": {"paper": Recipe("a paper", "MNIST", settings)}}
    assert cli.run(["recipes", "tiny", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["recipes"]["paper"]["source"] == "a paper"
