"""A run from its configuration to its folder: reproducible, complete, and gentle with the data."""

import csv
import hashlib
import os
import shutil
import signal
import time
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from conftest import COLORS, make_images

import striate
from striate import bundle, models
from striate.device import placed
from striate.errors import DataError, UsageError
from striate.progress import Progress
from striate.training.config import TrainConfig
from striate.training.session import train


class Words(Progress):
    def __init__(self):
        self.said, self.warned = [], []

    def info(self, message):
        self.said.append(message)

    def warn(self, message):
        self.warned.append(message)


def fingerprint(root):
    """Names, contents and times of everything below a folder."""
    contents = {p: p.read_bytes() if p.is_file() else b"" for p in sorted(root.rglob("*"))}
    return {p: (p.stat().st_mtime_ns, hashlib.sha256(content).digest()) for p, content in contents.items()}


def run(data, tmp_path, progress=None, **options):
    options = {"model": "lenet", "epochs": 1, "batch": 8, "out": str(tmp_path / "runs"), **options}
    return train(TrainConfig(data=str(data), **options), progress or Words())


def test_the_same_seed_gives_the_same_weights(colors, tmp_path):
    def digest(**options):
        torch.manual_seed(np.random.default_rng().integers(1 << 30))  # whatever ran before
        return bundle.inspect(run(colors, tmp_path, epochs=2, augment="light", **options).last).weights_sha256

    first = digest(seed=5)
    assert digest(seed=5) == first
    assert digest(seed=5, workers=7) == first
    assert digest(seed=6) != first


def test_bad_files_are_named_and_the_data_folder_is_not_touched(tmp_path):
    data = tmp_path / "data"
    for split, count in (("train", 8), ("val", 4)):
        for name in ("red", "blue"):
            make_images(data / split / name, count, COLORS[name])
    whole = (data / "train" / "red" / "000.png").read_bytes()
    (data / "train" / "red" / "000.png").write_bytes(whole[: len(whole) // 2])
    (data / "train" / "red" / "001.png").write_bytes(b"")
    (data / "val" / "blue" / "002.jpg").write_text("this is a text")
    before = fingerprint(data)
    words = Words()
    done = run(data, tmp_path, words)
    bad = [str(data / p) for p in ("train/red/000.png", "train/red/001.png", "val/blue/002.jpg")]
    assert [p.path for p in done.problems] == bad
    assert done.train == 14
    assert "images of one split in another: 'train/blue/000.png' and 'val/blue/000.png'" in words.warned[0]
    assert any(line.startswith("3 images cannot be read") for line in words.warned)
    assert bundle.inspect(done.best).description.provenance["training_images"] == 14
    with (done.folder / "problems.csv").open() as file:
        assert [row["path"] for row in csv.DictReader(file)] == bad
    assert fingerprint(data) == before


def test_a_read_only_data_folder_works(tmp_path):
    for name in ("red", "blue"):
        make_images(tmp_path / "data" / name, 6, COLORS[name])
    for path in [*(tmp_path / "data").rglob("*"), tmp_path / "data"]:
        path.chmod(0o555 if path.is_dir() else 0o444)
    assert run(tmp_path / "data", tmp_path).epochs
    for path in [tmp_path / "data", *(tmp_path / "data").iterdir()]:
        path.chmod(0o755)


def test_too_little_to_train_on_ends_with_an_error(tmp_path):
    for name in ("red", "blue"):
        make_images(tmp_path / "data" / name, 5, COLORS[name])
    for path in (tmp_path / "data" / "red").iterdir():
        path.write_bytes(b"")
    with pytest.raises(DataError, match="only 1 classes have training images left"):
        run(tmp_path / "data", tmp_path)
    shutil.rmtree(tmp_path / "data" / "red")
    with pytest.raises(DataError, match="it has one class, 'blue'"):
        run(tmp_path / "data", tmp_path)
    make_images(tmp_path / "two" / "a", 1, COLORS["red"])
    make_images(tmp_path / "two" / "b", 1, COLORS["red"])
    with pytest.raises(DataError, match="at least three images"):
        run(tmp_path / "two", tmp_path)
    assert not list((tmp_path / "runs").iterdir())  # no empty folders of runs that never began


def test_the_folder_of_a_run(colors, tmp_path):
    done = run(colors, tmp_path, epochs=2, name="first")
    assert sorted(p.name for p in done.folder.iterdir()) == [
        "best.safetensors", "config.yaml", "last.safetensors", "problems.csv", "results.csv", "split.csv",
        "state",
    ]  # fmt: skip
    config = yaml.safe_load((done.folder / "config.yaml").read_text("utf-8"))
    assert TrainConfig(**config) == done.config
    assert (config["lr"], config["imgsz"], config["data"]) == (2e-3, 32, str(colors))
    with (done.folder / "results.csv").open() as file:
        assert [row["epoch"] for row in csv.DictReader(file)] == ["1", "2"]
    with (done.folder / "split.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 60
    assert {row["split"] for row in rows} == {"train", "val", "test"}
    for row in rows:
        assert Path(row["path"]).exists()
        assert row["label"] == Path(row["path"]).parent.name
    says = bundle.inspect(done.best).description
    assert says.provenance["data"] == colors.name  # no path of the user's machine
    assert says.metrics["epoch"] == done.best_epoch
    assert run(colors, tmp_path, name="first").folder.name == "first-2"


def test_an_unknown_option_has_its_near_names(colors):
    with pytest.raises(UsageError, match="unknown option 'modl': did you mean model"):
        striate.train(colors, modl="lenet")


def test_early_stopping(colors, tmp_path):
    done = run(colors, tmp_path, epochs=40, lr=1e-12, patience=3)
    assert len(done.epochs) == done.best_epoch + 3 < 40


def test_starting_from_a_bundle(colors, tmp_path):
    first = run(colors, tmp_path, epochs=2)
    words = Words()
    run(colors, tmp_path, words, weights=str(first.best), lr=1e-12)
    assert any("10 of 10 tensors loaded" in line for line in words.said)
    for name, color in list(COLORS.items())[:2]:
        make_images(tmp_path / "two" / name, 5, color)
    words = Words()
    second = run(tmp_path / "two", tmp_path, words, weights=str(first.best), lr=1e-12)
    assert any("fresh are fc3.weight, fc3.bias" in line for line in words.said)
    _, old = bundle.read(first.best)
    _, new = bundle.read(second.last)
    assert torch.allclose(old["conv1.weight"], new["conv1.weight"], atol=1e-9)
    with pytest.raises(UsageError, match="it holds a lenet"):
        run(colors, tmp_path, model="resnet20", weights=str(first.best))
    with pytest.raises(UsageError, match="no such file"):
        run(colors, tmp_path, weights="imagenett")


def test_classes_without_training_images_are_left_out_by_name(tmp_path):
    for split, names in (("train", ("red", "blue")), ("val", ("red", "blue", "green"))):
        for name in names:
            make_images(tmp_path / "data" / split / name, 4, COLORS[name])
    words = Words()
    done = run(tmp_path / "data", tmp_path, words)
    assert done.dataset.classes == ("blue", "red")
    assert any("class 'green' has no training images: its 4 others" in line for line in words.warned)


def test_ctrl_c_leaves_a_usable_run(colors, tmp_path, warm):
    streams = {name: tmp_path / name for name in ("stdout", "stderr")}
    options = ["--model", "lenet", "--epochs", 100_000, "--name", "stopped", "--out", tmp_path]
    pid = warm.start("train", colors, *options, **streams)
    results = tmp_path / "stopped" / "results.csv"
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and not (results.exists() and results.read_text().count("\n") > 3):
        time.sleep(0.05)
    os.kill(pid, signal.SIGINT)
    code = warm.end()
    out, err = (path.read_text("utf-8") for path in streams.values())
    assert code == 130, err
    assert "interrupted" in err
    assert "Traceback" not in err
    assert "report" in out
    names = {p.name for p in (tmp_path / "stopped").iterdir()}
    assert {"best.safetensors", "last.safetensors", "report.html", "results.csv"} <= names
    assert not [name for name in names if name.endswith(".part")]
    assert bundle.inspect(tmp_path / "stopped" / "last.safetensors").description.metrics["epoch"] >= 3


def test_wide_convolutions_train_with_channels_last_and_are_written_as_ever(colors, tmp_path):
    """The layout is of the memory alone: the bundle of a run is that of its values, whatever lies where."""
    done = run(colors, tmp_path, model="resnet20", imgsz=32, epochs=1)
    _, written = bundle.read(done.last)
    assert all(value.is_contiguous() for value in written.values())
    network = placed(models.build("resnet20", **done.description.arguments), torch.device("cpu"))
    wide = network.layer1[0].conv1.weight
    assert wide.is_contiguous(memory_format=torch.channels_last)
    assert not wide.is_contiguous()
    network.load_state_dict(written)
    plain = models.build("resnet20", **done.description.arguments)
    plain.load_state_dict(written)
    images = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.allclose(network.eval()(images), plain.eval()(images), rtol=1e-4, atol=1e-5)
    narrow = placed(models.build("lenet"), torch.device("cpu"))
    assert all(value.is_contiguous() for value in narrow.state_dict().values())


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of torch's compiler, about itself
def test_a_compiled_network_learns_the_same_under_the_same_names(colors, tmp_path):
    eager, compiled = (
        run(colors, tmp_path, name=f"run-{compile}", compile=compile, epochs=1) for compile in (False, True)
    )
    assert compiled.epochs[-1].train_loss == pytest.approx(eager.epochs[-1].train_loss, rel=1e-4)
    one, other = (bundle.inspect(done.last).tensors for done in (eager, compiled))
    assert one == other  # names, types and shapes


def test_where_compiling_fails_it_is_a_mistake_that_can_be_mended(colors, tmp_path, monkeypatch):
    def refuse(network, **options):
        def forward(images):
            raise torch._dynamo.exc.InternalTorchDynamoError("no compiler\nwas found")

        network._compiled_call_impl = forward

    import torch._dynamo.exc

    monkeypatch.setattr(torch.nn.Module, "compile", refuse)
    with pytest.raises(UsageError, match="no compiler was found"):
        run(colors, tmp_path, compile=True)
