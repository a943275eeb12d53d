"""Training on images: unreadable files are listed, and the data folder is not written to."""

import csv
import hashlib

import numpy as np
from conftest import COLORS, Messages, make_images

import striate
from striate import bundle
from striate.api import finish, run_training
from striate.tasks.classification.config import ClassificationConfig


class Stages(Messages):
    """Collects the stages, too."""

    def __init__(self):
        super().__init__()
        self.stages = []

    def begin(self, name, total, unit="images"):
        self.stages.append(name)


def fingerprint(root):
    """Names, contents and times of everything below a folder."""
    contents = {p: p.read_bytes() if p.is_file() else b"" for p in sorted(root.rglob("*"))}
    return {p: (p.stat().st_mtime_ns, hashlib.sha256(content).digest()) for p, content in contents.items()}


def run(data, tmp_path, progress=None, **options):
    options = {"model": "lenet", "epochs": 1, "batch": 8, "out": str(tmp_path / "runs"), **options}
    return run_training(ClassificationConfig(str(data), progress=progress or Messages(), **options))


def test_unreadable_files_are_listed_and_the_data_folder_is_not_changed(tmp_path):
    data = tmp_path / "data"
    for split, count in (("train", 8), ("val", 4)):
        for name in ("red", "blue"):
            make_images(data / split / name, count, COLORS[name])
    whole = (data / "train" / "red" / "000.png").read_bytes()
    (data / "train" / "red" / "000.png").write_bytes(whole[: len(whole) // 2])
    (data / "train" / "red" / "001.png").write_bytes(b"")
    (data / "val" / "blue" / "002.jpg").write_text("this is a text")
    before = fingerprint(data)
    messages = Stages()
    done = run(data, tmp_path, messages)
    bad = [str(data / p) for p in ("train/red/000.png", "train/red/001.png", "val/blue/002.jpg")]
    assert [p.path for p in done.task.problems] == bad
    assert done.task.train_count == 14
    assert (
        "images that are in two splits (data leakage): 'train/blue/000.png' and 'val/blue/000.png'"
        in messages.warnings[0]
    )
    assert any(line.startswith("3 images cannot be read") for line in messages.warnings)
    assert bundle.inspect(done.best).description.provenance["training_images"] == 14
    with (done.folder / "problems.csv").open() as file:
        assert [row["path"] for row in csv.DictReader(file)] == bad
    messages.stages.clear()
    finished = finish(done)
    assert messages.stages == ["calibrating"], "the same pass through val serves calibration and evaluation"
    assert finished.evaluation.calibration == bundle.describe(done.best).calibration
    again = striate.evaluate(done.best, split="val")
    assert finished.evaluation.names == again.names
    np.testing.assert_allclose(finished.evaluation.probabilities, again.probabilities, atol=1e-6)
    assert finished.to_json()["unreadable"] == bad, "each once"
    assert "Unreadable images (3)" in finished.report.read_text()
    assert fingerprint(data) == before


def test_an_unreadable_test_image_is_listed_too(tmp_path):
    for split, count in (("train", 3), ("val", 1), ("test", 2)):
        for name in ("red", "blue"):
            make_images(tmp_path / "data" / split / name, count, COLORS[name], seed=count)
    bad = [tmp_path / "data" / split / "red" / "000.png" for split in ("train", "test")]
    for path in bad:
        path.write_bytes(b"")
    done = run(tmp_path / "data", tmp_path)
    finish(done)
    with (done.folder / "problems.csv").open() as file:
        assert [row["path"] for row in csv.DictReader(file)] == list(map(str, bad))


def test_a_read_only_data_folder_works(tmp_path):
    for name in ("red", "blue"):
        make_images(tmp_path / "data" / name, 6, COLORS[name])
    for path in [*(tmp_path / "data").rglob("*"), tmp_path / "data"]:
        path.chmod(0o555 if path.is_dir() else 0o444)
    assert run(tmp_path / "data", tmp_path).epochs
    for path in [tmp_path / "data", *(tmp_path / "data").iterdir()]:
        path.chmod(0o755)


def test_an_unreadable_file_is_listed_once(tmp_path, monkeypatch):
    """Although it is read ahead, in training and for the report."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for name, color in COLORS.items():
        make_images(tmp_path / "data" / name, 6, color)
    (tmp_path / "data" / "red" / "bad.png").write_bytes(b"no image")
    done = run(tmp_path / "data", tmp_path, val=0.2, test=0)
    assert [problem.path for problem in done.task.problems] == [str(tmp_path / "data" / "red" / "bad.png")]
