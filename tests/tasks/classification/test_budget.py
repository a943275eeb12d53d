"""A time budget for images: the image size that it allows, and a run that ends in time."""

import time

import numpy as np
import pytest
from conftest import COLORS, Messages, make_images
from hypothesis import given
from hypothesis import strategies as st

from striate.api import finish, resume_training, run_training
from striate.data import Samples
from striate.tasks.classification import budget
from striate.tasks.classification.budget import SIZES, enough_epochs, image_size, read_seconds
from striate.tasks.classification.config import ClassificationConfig
from striate.training import schedule
from striate.training.schedule import START_AND_REPORT
from striate.transforms.preprocess import Preprocess


@given(st.floats(1e-7, 1e-4), st.floats(20, 5000), st.integers(10, 20_000), st.integers(10, 5000))
def test_the_size_is_the_largest_that_leaves_time_for_enough_epochs(step, seconds, train_images, held_out):
    epochs = enough_epochs(train_images, pretrained=False)

    def needed(size):
        return step * size**2 * (epochs * train_images + 0.4 * held_out) / 0.9 + START_AND_REPORT

    size = image_size(step, seconds, train_images, held_out, epochs)
    assert size in SIZES
    fitting = [s for s in SIZES if needed(s) <= seconds * (1 + 1e-9)]
    assert size == max(fitting, default=64) or needed(size) == pytest.approx(seconds)


def test_reading_is_timed(tmp_path):
    make_images(tmp_path / "red", 4, COLORS["red"])
    (tmp_path / "red" / "001.png").write_bytes(b"no image")
    files = tuple(str(path) for path in sorted((tmp_path / "red").iterdir()))
    samples = Samples(files, np.zeros(4, np.int64))
    assert 0 < read_seconds(samples, Preprocess.for_size(32), 2) < 1
    in_memory = Samples(files, np.zeros(4, np.int64), np.zeros((4, 8, 8), np.uint8))
    assert read_seconds(in_memory, Preprocess.for_size(32), 2) == 0


def test_a_run_ends_in_time_and_resumes(colors, tmp_path, monkeypatch):
    """A budget of four seconds, of which nearly nothing is reserved for loading and the report."""
    monkeypatch.setattr(schedule, "START_AND_REPORT", 0.5)
    monkeypatch.setattr(time, "perf_counter", time.process_time)  # the machine may be busy with other tests
    started = time.process_time()
    config = ClassificationConfig(
        str(colors), model="lenet", batch=8, budget="4s", out=str(tmp_path), name="run"
    )
    done = run_training(config)
    assert time.process_time() - started < 4.5
    assert done.epochs[-1].lr < 0.1 * config.peak_lr
    assert done.epochs[-1].epoch > 5
    assert done.seconds > 2
    again = resume_training(tmp_path / "run")
    assert again.epochs == done.epochs


def test_epochs_within_a_budget_are_a_limit_too(colors, tmp_path):
    config = {"model": "lenet", "batch": 8, "out": str(tmp_path), "progress": (messages := Messages())}
    done = run_training(ClassificationConfig(str(colors), budget="1h", epochs=2, **config))
    assert (done.last_epoch, done.epochs[-1].step) == (2, 12)
    assert done.epochs[-1].lr < 0.1 * done.config.peak_lr  # it has decayed
    assert any(line.startswith("epoch 2/2 ") for line in messages.infos)
    assert ClassificationConfig("x", budget="1h").epoch_limit is None
    assert ClassificationConfig("x").epoch_limit == 20


def test_a_budget_for_a_single_step_warns(colors, tmp_path):
    messages = Messages()
    config = ClassificationConfig(
        str(colors), model="lenet", budget="1s", out=str(tmp_path), name="short", progress=messages
    )
    run = run_training(config)
    note = "only 1 optimizer step in the budget of 1s: too few to learn much"
    assert [line for line in messages.warnings if line.startswith(note)]
    assert [line for line in run.notes if line.startswith(note)]
    assert (run.last_epoch, run.epochs[-1].step) == (1, 1)


def test_epochs_are_not_the_evaluated_ones(colors, tmp_path, monkeypatch):
    """Within a budget only some epochs are evaluated: rows are not epochs."""
    monkeypatch.setattr(schedule, "START_AND_REPORT", 0.5)
    monkeypatch.setattr(schedule, "_MIN_EPOCH_SHARE", 0.3)  # of the budget between two evaluations
    config = ClassificationConfig(str(colors), model="lenet", batch=8, budget="1.5s", out=str(tmp_path))
    run = finish(run_training(config))
    rows, found = run.training.epochs, run.to_json()
    assert len(rows) < rows[-1].epoch
    assert (found["epochs"], found["evaluations"]) == (rows[-1].epoch, len(rows))
    assert f"epochs, {len(rows)} of them evaluated, the best is {found['best_epoch']} (by top1)" in (
        run.report.read_text("utf-8")
    )


def test_the_image_size_is_chosen_unless_the_user_has(colors, tmp_path, monkeypatch):
    monkeypatch.setattr(schedule, "START_AND_REPORT", 0.5)
    monkeypatch.setattr(budget, "step_seconds", lambda *args: 1e-7)
    options = {"model": "resnet18", "batch": 8, "budget": "2s", "out": str(tmp_path)}
    assert run_training(ClassificationConfig(str(colors), **options)).config.imgsz == 64
    assert run_training(ClassificationConfig(str(colors), imgsz=32, **options)).config.imgsz == 32
