"""Bundles, runs and configurations that name code: nothing of it runs unless the caller allows it."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

import striate
from striate import bundle, cli
from striate.errors import BundleError, TrustError
from striate.models.lenet import lenet
from striate.training.config_file import NAME
from striate.transforms.preprocess import Preprocess

NET = """
open('marker', 'w').close()
import os
from torch import nn
class Net(nn.Sequential):
    def __init__(self, num_classes=2):
        open('marker', 'w').close()
        super().__init__(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, num_classes))
"""
ATTACKS = ["subprocess:run", "os:system", "evil_net:Net", "evil_net:os", "builtins:exec", "object:Net"]


def arguments(name):
    call = {"subprocess:run": {"args": ["touch", "marker"]}, "os:system": {"command": "touch marker"}}
    options = {"options": call[name]} if name in call else {}
    return {"num_classes": 2, "in_channels": 3, "input_size": [32, 32], "classifier": "3", **options}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A working folder with a module that leaves a marker, and two images."""
    (tmp_path / "evil_net.py").write_text(NET)
    for label in ("a", "b"):
        (tmp_path / "data" / label).mkdir(parents=True)
        for i in range(3):
            Image.fromarray(np.full((32, 32, 3), 50 * i, np.uint8)).save(tmp_path / f"data/{label}/{i}.png")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend("")  # as with `python -m striate`
    yield tmp_path
    sys.modules.pop("evil_net", None)


def write(path, name):
    description = bundle.Description(
        "classification", name, arguments(name), ("a", "b"), Preprocess.for_size(32)
    )  # fmt: skip
    bundle.write(path, lenet(num_classes=2, in_channels=3), description)
    return str(path)


@pytest.mark.parametrize("name", ATTACKS)
@pytest.mark.parametrize(
    "command",
    [
        ["predict", "{0}", "data/a/0.png"], ["evaluate", "{0}", "data"], ["export", "{0}", "--out", "x.pth"],
        ["anatomy", "{0}"], ["embed", "{0}", "data"], ["explain", "{0}", "data/a/0.png"],
        ["train", "data", "--weights", "{0}", "--epochs", "1"],
    ],
    ids=lambda command: command[0],
)  # fmt: skip
def test_commands_run_nothing(folder, capsys, name, command):
    path = write(folder / "x.safetensors", name)
    assert cli.run([word.format(path) for word in command]) == 2
    *_, error = capsys.readouterr().err.splitlines()
    assert error.startswith(("striate: the network", "striate: cannot build the network"))
    assert not Path("marker").exists()
    assert not Path("x.pth").exists()


@pytest.mark.parametrize("name", ATTACKS)
def test_reading_the_header_runs_nothing(folder, capsys, name):
    path = write(folder / "x.safetensors", name)
    assert cli.run(["weights", "inspect", path, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["architecture"] == name
    assert cli.run(["weights", "import", path]) == 2  # it is a bundle already
    assert not Path("marker").exists()


@pytest.mark.parametrize("name", ATTACKS)
def test_python_runs_nothing(folder, name):
    path = write(folder / "x.safetensors", name)
    for call in (striate.load, lambda file: striate.evaluate(file, "data")):
        with pytest.raises(TrustError):
            call(path)
    with pytest.raises(TrustError):
        striate.load(path, trust="evil")  # another package
    assert not Path("marker").exists()


def test_what_is_trusted_is_built_and_compared(folder):
    path = write(folder / "x.safetensors", "evil_net:Net")
    with pytest.raises(BundleError, match="does not fit"):
        striate.load(path, trust="evil_net")
    assert Path("marker").exists()


def test_runs_and_configurations_run_nothing(folder, capsys):
    import importlib

    network = importlib.import_module("evil_net").Net
    run = striate.train("data", model=network, epochs=1, batch=2, imgsz=32, val=0.34, test=0.34, out="runs")
    assert run.training.description.architecture == "evil_net:Net"
    trained = run.training.folder
    del sys.modules["evil_net"]
    Path("marker").unlink()
    assert cli.run(["resume", str(trained), "--epochs", "2"]) == 2
    assert "evil_net" in capsys.readouterr().err
    assert cli.run(["train", "--config", str(trained), "--out", "again"]) == 2
    values = yaml.safe_load((trained / NAME).read_text())
    (folder / "trusting.yaml").write_text(yaml.safe_dump({**values, "trust": "evil_net"}))
    assert cli.run(["train", "--config", "trusting.yaml"]) == 2
    assert "not an option that a file can hold" in capsys.readouterr().err
    assert not Path("marker").exists()
    assert cli.run(["resume", str(trained), "--epochs", "2", "--trust", "evil_net"]) == 0
    assert Path("marker").exists()
    assert cli.run(["predict", str(trained), "data/a/0.png", "--trust", "evil_net"]) == 0


def test_damaged_references_are_bundle_errors(folder, capsys):
    for change in ({"num_classes": "2"}, {"trust": "evil_net"}, {"input_size": [32]}, {"permission": {}}):
        path = write(folder / "x.safetensors", "evil_net:Net")
        description, state = bundle.read(path)
        description = replace(description, arguments={**description.arguments, **change})
        bundle.write(path, state, description)
        assert cli.run(["weights", "inspect", path]) == 3
        assert "is no bundle" in capsys.readouterr().err


def test_own_networks_take_no_network(folder):
    description = bundle.Description(
        "classification", "lenet", {"num_classes": 2, "in_channels": 3}, ("a", "b"), Preprocess.for_size(32)
    )  # fmt: skip
    network = lenet(num_classes=2, in_channels=3)
    bundle.write(folder / "y.safetensors", network, description)
    with pytest.raises(BundleError, match="Striate builds this network itself"):
        striate.load("y.safetensors", network=network)


def test_the_next_command_says_what_to_trust(folder, capsys):
    """After training a network that the command line has named."""
    options = [
        "--epochs",
        "1",
        "-b",
        "2",
        "--imgsz",
        "32",
        "--val",
        "0.34",
        "--test",
        "0.34",
        "--device",
        "cpu",
    ]
    assert cli.run(["train", "data", "--model", "evil_net:Net", *options]) == 0
    *_, last = capsys.readouterr().out.splitlines()
    assert last == "next    striate predict runs/data-Net/best.safetensors IMAGE.jpg --trust evil_net"
