"""A run gets a new length: `resume --epochs`, `--budget`, `--patience`."""

import dataclasses
import shutil

import pytest
import torch
from conftest import Messages, crash_after
from exact_resume import outcome, start, start_and_crash
from safetensors.torch import load_file
from text_runs import train as train_text

import striate
from striate import bundle, cli
from striate.api import resume_training
from striate.errors import DataError, UsageError
from striate.training import checkpoint
from striate.training.config_file import read_config
from striate.training.schedule import LRSchedule


@pytest.fixture(scope="module")
def three_epochs(few_colors, tmp_path_factory):
    """A finished run of three epochs, of four steps each."""
    return start(few_colors, tmp_path_factory.mktemp("three")).folder


@pytest.fixture
def finished(three_epochs, tmp_path):
    return shutil.copytree(three_epochs, tmp_path / "run")


def rates(run):
    return [row.lr for row in run.epochs]


def test_a_finished_run_continues_at_its_place_in_the_new_schedule(finished):
    progress = Messages()
    before = load_file(finished / "last.safetensors")
    run = resume_training(finished, progress, epochs=5)
    assert [row.epoch for row in run.epochs] == [1, 2, 3, 4, 5]
    assert [row.step for row in run.epochs] == [4, 8, 12, 16, 20]
    # lr 0.002, a warm-up of 5 % of 20 steps, then a cosine: the rates of the last steps of epochs 4 and 5
    schedule = LRSchedule(0.002, "cosine", 0.05)
    assert rates(run)[3:] == pytest.approx([schedule.at(15, 20), schedule.at(19, 20)])
    assert rates(run)[:3] == pytest.approx([schedule.at(step, 12) for step in (3, 7, 11)])
    note = next(note for note in run.notes if "--epochs was 3 and is 5" in note)
    assert note in progress.warnings
    assert note.startswith("since step 12, after epoch 3")
    assert "the learning rate schedule is computed anew for 5 epochs" in note
    assert "its optimizer starts anew from last.safetensors" in note
    assert read_config(finished)["epochs"] == 5
    after = load_file(finished / "last.safetensors")
    assert any(not after[name].equal(before[name]) for name in before)


def test_the_first_step_starts_from_the_last_weights(finished, few_colors):
    before = load_file(finished / "last.safetensors")
    config = read_config(finished)
    with crash_after(13):
        resume_training(finished, epochs=5)
    saved, _ = checkpoint.newest(finished)
    assert saved.values["step"] == 12  # a checkpoint after every second step
    for name, value in before.items():
        assert saved.tensors[f"network.{name}"].equal(value)
        assert saved.tensors[f"ema.module.{name}"].equal(value)
    assert not any(name.startswith("optimizer.") for name in saved.tensors)
    assert saved.facts["config"] == {**config, "epochs": 5}


def test_an_extended_run_resumes_exactly(finished, few_colors, tmp_path):
    other = shutil.copytree(finished, tmp_path / "copy" / "run")
    whole = outcome(resume_training(finished, epochs=5).folder)
    for step in (13, 16, 19):
        with crash_after(step):
            resume_training(other, **({"epochs": 5} if step == 13 else {}))
        torch.manual_seed(step)
    run = resume_training(other)
    assert outcome(other) == whole
    assert sum("--epochs was 3 and is 5" in note for note in run.notes) == 1


def test_a_process_that_dies_before_config_yaml_is_written(finished, tmp_path, monkeypatch):
    other = shutil.copytree(finished, tmp_path / "copy" / "run")
    whole = outcome(resume_training(finished, epochs=5).folder)
    with monkeypatch.context() as patch:
        patch.setattr("striate.training.run_folder.TrainingRun.write_config", lambda run: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            resume_training(other, epochs=5)
    assert read_config(other)["epochs"] == 3
    resume_training(other)
    assert outcome(other) == whole
    assert read_config(other)["epochs"] == 5


def test_a_stopped_run_gets_another_end_with_its_optimizer(few_colors, tmp_path):
    folder = start_and_crash(few_colors, tmp_path, 6)
    run = resume_training(folder, epochs=2)
    assert rates(run)[-1] == pytest.approx(LRSchedule(0.002, "cosine", 0.05).at(7, 8))
    assert len(run.epochs) == 2
    assert not any("optimizer starts anew" in note for note in run.notes)
    assert any("since step 6, after epoch 2: --epochs was 3 and is 2" in note for note in run.notes)


def test_a_run_without_a_step_gets_another_end(few_colors, tmp_path):
    folder = start_and_crash(few_colors, tmp_path, 1)
    assert resume_training(folder, epochs=1).epochs[-1].step == 4
    assert read_config(folder)["epochs"] == 1


@pytest.mark.parametrize("epochs", [1, 2])
def test_fewer_epochs_than_are_done_are_refused(finished, epochs):
    with pytest.raises(UsageError, match=rf"--epochs {epochs}: epochs done: 3\. Give --epochs 4 or more"):
        striate.resume(finished, epochs=epochs)
    assert read_config(finished)["epochs"] == 3


def test_the_epochs_that_it_has_leave_it_as_it_is(finished, capsys):
    (finished / "report.html").write_text("x")
    assert cli.run(["resume", str(finished), "--epochs", "3"]) == 0
    assert "There is nothing to resume; --epochs N trains it for longer" in capsys.readouterr().out
    assert cli.run(["resume", str(finished), "--patience", "2"]) == 2
    assert "epochs done: 3 of 3. Give --epochs 4 or more" in capsys.readouterr().err


def test_the_command_line_extends_and_evaluates(finished, capsys):
    assert cli.run(["resume", str(finished), "--epochs", "4"]) == 0
    printed = capsys.readouterr()
    assert "the learning rate schedule is computed anew for 4 epochs" in printed.err
    assert "top-1 accuracy" in printed.out
    assert "computed anew for 4 epochs" in (finished / "report.html").read_text("utf-8")


def test_an_early_stopped_run_continues_without_early_stopping(few_colors, tmp_path):
    run = start(few_colors, tmp_path, lr=1e-12, patience=1, epochs=9, ema=0.0)
    stopped = len(run.epochs)
    assert stopped < 9
    again = resume_training(run.folder, patience=0, epochs=stopped + 1)
    assert len(again.epochs) == stopped + 1


def test_a_budget_run_is_extended_by_epochs_or_by_a_longer_budget(few_colors, tmp_path):
    run = start(few_colors, tmp_path, epochs=None, budget="8.4s", imgsz=32)
    done, steps = run.epochs[-1].epoch, run.epochs[-1].step
    with pytest.raises(UsageError, match=r"with a budget of .*: it has taken .* seconds so far, which count"):
        resume_training(run.folder, budget=f"{run.seconds / 2:.3f}s")
    by_budget = shutil.copytree(run.folder, tmp_path / "copy" / "run")
    again = resume_training(run.folder, epochs=done + 2)
    assert again.epochs[-1].epoch == done + 2
    assert again.config.budget is None
    # The unfinished epoch is not completed; two whole epochs of four steps follow.
    assert again.epochs[-1].step == steps + 8
    assert len({row.epoch for row in again.epochs}) == len(again.epochs)
    assert any("--budget was 8.4s and is no limit" in note for note in again.notes)
    seconds = checkpoint.finished(by_budget)["seconds"]
    longer = resume_training(by_budget, budget=f"{seconds + 8.6:.1f}s")
    assert longer.epochs[-1].step > steps


def test_text_runs_are_extended(reversed_words, tmp_path):
    run = train_text(reversed_words, tmp_path, epochs=2, average=2)
    again = resume_training(run.folder, epochs=3)
    assert [row.epoch for row in again.epochs] == [1, 2, 3]
    assert again.epochs[-1].step == 3 * run.epochs[0].step


def test_averaged_weights_stay_the_best_until_they_are_beaten(finished):
    description, weights = bundle.read(finished / "best.safetensors")
    last = checkpoint.finished(finished)["rows"][-1]
    perfect = {**last, "val_top1": 1.0, "val_loss": 0.0}
    average = {name: value + 1 if value.is_floating_point() else value for name, value in weights.items()}
    bundle.write(finished / "best.safetensors", average, dataclasses.replace(description, metrics=perfect))
    with crash_after(14):
        resume_training(finished, epochs=5)
    resume_training(finished)
    found, kept = bundle.read(finished / "best.safetensors")
    assert found.metrics == perfect
    assert all(kept[name].equal(value) for name, value in average.items())


def test_an_average_that_a_later_epoch_beats_is_replaced(finished):
    description, weights = bundle.read(finished / "best.safetensors")
    rows = checkpoint.finished(finished)["rows"]
    poor = {**rows[-1], "val_top1": 0.0, "val_loss": 9.0}
    bundle.write(finished / "best.safetensors", weights, dataclasses.replace(description, metrics=poor))
    run = resume_training(finished, epochs=9)
    better = [row for row in run.epochs if (row.val_top1, -row.val_loss) > max(
        (row["val_top1"], -row["val_loss"]) for row in rows
    )]  # fmt: skip
    metrics = bundle.describe(finished / "best.safetensors").metrics
    assert metrics["epoch"] == (run.best_epoch if better else poor["epoch"])
    assert metrics["val_loss"] == (run.best_row.val_loss if better else 9.0)


def test_the_weights_of_a_finished_run_must_be_there(finished):
    (finished / "last.safetensors").unlink()
    with pytest.raises(DataError, match=r"last\.safetensors"):
        resume_training(finished, epochs=5)
    assert read_config(finished)["epochs"] == 3
