"""What the engine does for every task, on pairs: EMA, profile, budget, rollbacks, interruptions, cache."""

import csv
import os
import signal
import time
from pathlib import Path

import pytest
import torch
from text_runs import Messages, outcome, rows, train, write_reversed_words

from striate import api, bundle
from striate.data.images import cache
from striate.tasks.seq2seq.task import Seq2Seq
from striate.training import schedule
from striate.training.checkpointer import Checkpointer
from striate.training.interrupts import TrainingInterrupted
from striate.training.loop import LossNotFiniteError
from striate.training.profile import PHASES
from striate.training.task import Loss
from striate.transforms.preprocess import Preprocess


class GoneError(Exception):
    """Stands for the end of the process."""


def stop_after(monkeypatch, step, what=GoneError):
    """The process ends after this step; `monkeypatch` restores it."""
    after = Checkpointer.after_step

    def after_step(checkpointer):
        if checkpointer._state.step == step and what is not GoneError:
            os.kill(os.getpid(), what)
        after(checkpointer)
        if checkpointer._state.step == step and what is GoneError:
            raise GoneError

    monkeypatch.setattr(Checkpointer, "after_step", after_step)


def test_the_moving_average_is_evaluated_and_kept(reversed_words, tmp_path, monkeypatch):
    """Its weights follow from those of each step; a resumed run has the same."""
    options = {"ema": 0.9, "average": 0, "epochs": 2}
    decays, expected = [], {}

    def average(checkpointer):
        state = checkpointer._state
        weights = {name: value.clone() for name, value in state.network.state_dict().items()}
        update = state.step - 1  # the first update copies
        decay = min(0.9, (1 + update) / (10 + update)) if update else 0.0
        decays.append(decay)
        for name, value in weights.items():
            old = expected.get(name, value)
            expected[name] = decay * old + (1 - decay) * value if value.is_floating_point() else value

    with monkeypatch.context() as patch:
        patch.setattr(Checkpointer, "after_step", average)
        whole = train(reversed_words, tmp_path, name="whole", **options)
    assert len(decays) == whole.epochs[-1].step == 8
    saved = bundle.read(whole.last)[1]
    for name, value in saved.items():
        assert torch.allclose(value, expected[name], atol=1e-6), name
    with monkeypatch.context() as patch:
        stop_after(patch, 6)
        with pytest.raises(GoneError):
            train(reversed_words, tmp_path, name="stopped", **options)
    api.resume_training(tmp_path / "stopped")
    assert outcome(tmp_path / "stopped") == outcome(whole.folder)


def test_a_profiled_run_reports_its_phases(reversed_words, tmp_path):
    run = api.train(reversed_words, task="seq2seq", **small(tmp_path, profile=True))
    profile = run.to_json()["profile"]
    assert set(profile) == set(PHASES) - {"frozen layers", "augmentation"}
    assert 0 < sum(profile.values()) <= run.training.seconds
    assert "Training time" in run.report.read_text("utf-8")


def small(out, **options):
    """Options of a run of a second, for the public functions."""
    return {
        "width": 32, "depth": 1, "heads": 2, "hidden": 64, "batch": 400, "epochs": 1, "average": 0,
        "lr": 3e-3, "out": str(out), **options,
    }  # fmt: skip


def test_patience_ends_the_run(reversed_words, tmp_path):
    run = train(reversed_words, tmp_path, epochs=40, lr=1e-12, patience=2, average=0)
    assert len(run.epochs) == run.best_epoch + 2 < 40


def test_a_budget_ends_in_time(reversed_words, tmp_path, monkeypatch):
    monkeypatch.setattr(schedule, "START_AND_REPORT", 0.5)
    monkeypatch.setattr(time, "perf_counter", time.process_time)  # the machine may be busy with other tests
    started = time.process_time()
    run = train(reversed_words, tmp_path, budget="4s", epochs=None)
    assert time.process_time() - started < 4
    assert run.epochs[-1].lr < 0.1 * run.config.lr
    assert len(run.epochs) > 2
    assert api.resume_training(run.folder).epochs == run.epochs


def broken_once(monkeypatch, step, times=1):
    """The loss of this step is infinite, so many times."""
    loss, left = Seq2Seq.loss, [None] * times

    def infinite(task, module, batch, state, index):
        found = loss(task, module, batch, state, index)
        if state.step == step and left:
            left.pop()
            return Loss(found.value * float("inf"), found.correct, found.terms)
        return found

    monkeypatch.setattr(Seq2Seq, "loss", infinite)


def test_a_rollback_halves_the_learning_rate(reversed_words, tmp_path, monkeypatch):
    broken_once(monkeypatch, 5)
    progress = Messages()
    run = train(reversed_words, tmp_path, progress, rollbacks=1, save_every=2)
    assert any("continuing from step 5 with 0.5 of the learning rate" in line for line in progress.warnings)
    assert run.epochs[-1].epoch == 3
    whole = train(reversed_words, tmp_path, name="whole", save_every=2)
    assert run.epochs[-1].lr == pytest.approx(whole.epochs[-1].lr / 2)


def test_a_loss_that_is_not_finite_names_its_pairs(reversed_words, tmp_path, monkeypatch):
    broken_once(monkeypatch, 5)
    with pytest.raises(
        LossNotFiniteError, match=r"at step 6, batch 2 of epoch 2.*reversed\.tsv:\d+"
    ) as error:
        train(reversed_words, tmp_path)
    assert "one of its pairs is unusual" in str(error.value)
    listed = (tmp_path / "run" / "not-finite.txt").read_text().splitlines()
    assert len(listed) == len(error.value.samples) > 3


@pytest.mark.parametrize("step", [2, 6])
def test_ctrl_c_leaves_bundles_and_resumes_exactly(reversed_words, text_run, tmp_path, monkeypatch, step):
    """Before and after the first evaluation."""
    with monkeypatch.context() as patch:
        stop_after(patch, step, signal.SIGINT)
        with pytest.raises(TrainingInterrupted) as stop:
            train(reversed_words, tmp_path)
    run = stop.value.run
    assert not stop.value.terminated
    assert run.best.exists()
    assert run.last.exists()
    assert len(run.epochs) == step // 4
    api.resume_training(run.folder)
    assert outcome(run.folder) == outcome(text_run.folder)


def test_ctrl_c_still_evaluates_and_reports(reversed_words, tmp_path, monkeypatch):
    stop_after(monkeypatch, 2, signal.SIGINT)
    with pytest.raises(TrainingInterrupted):
        api.train(reversed_words, task="seq2seq", name="run", **small(tmp_path))
    assert (tmp_path / "run" / "report.html").exists()


def test_images_come_from_the_cache_in_the_next_run(text_lines, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "caches"))
    monkeypatch.setattr("striate.data.images.decoded._CLOCK_NS", 0)  # the files of this test are new
    options = {"epochs": 1, "average": 0, "height": 16, "encoder_channels": 8}
    first = train(text_lines, tmp_path, name="first", cache=False, **options)
    assert not cache.segments()
    train(text_lines, tmp_path, name="second", **options)
    assert sum(segment.size for segment in cache.segments()) > 0
    read, decoded = Preprocess.read, []

    def watched(preprocess, source, **more):
        decoded.append(str(source))
        return read(preprocess, source, **more)

    monkeypatch.setattr(Preprocess, "read", watched)
    again = train(text_lines, tmp_path, name="again", **options)
    translated = [f"{i}.png" for i in range(70, 80)]  # the translator reads files
    assert sorted(Path(path).name for path in decoded) == [*translated, "broken.png"]
    assert rows(again.folder) == rows(first.folder)


def test_memory_that_runs_out_splits_the_step(reversed_words, text_run, tmp_path, monkeypatch):
    """Its gradient is the same, up to rounding."""
    loss = Seq2Seq.loss

    def limited(task, module, batch, state, index):
        if len(batch) > 20:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory")
        return loss(task, module, batch, state, index)

    plain = train(reversed_words, tmp_path, name="plain", dropout=0.0)
    monkeypatch.setattr(Seq2Seq, "loss", limited)
    progress = Messages()
    split = train(reversed_words, tmp_path, progress, name="split", dropout=0.0)
    assert any("each step is split into 2 micro-batches" in line for line in progress.warnings)
    for mine, theirs in zip(split.epochs, plain.epochs, strict=True):
        assert mine.train_loss == pytest.approx(theirs.train_loss, rel=1e-5)
        assert mine.val_loss == pytest.approx(theirs.val_loss, rel=1e-5)


def test_the_same_seed_gives_the_same_weights(reversed_words, tmp_path):
    def digest(**options):
        run = train(reversed_words, tmp_path, epochs=1, **options)
        return bundle.inspect(run.last).weights_sha256

    first = digest(seed=5)
    assert digest(seed=5, profile=True) == first
    assert digest(seed=6) != first


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of torch's compiler, about itself
@pytest.mark.parametrize("kind", ["text", "images"])
def test_a_compiled_network_trains_the_same(kind, reversed_words, text_lines, tmp_path):
    """Batches differ in shape, and are compiled once."""
    data = reversed_words if kind == "text" else text_lines
    images = {"height": 16, "encoder_channels": 8} if kind == "images" else {}
    eager, compiled = (
        train(data, tmp_path, compile=compile, dropout=0.0, name=f"run-{compile}", **images)
        for compile in (False, True)
    )
    for one, other in zip(eager.epochs, compiled.epochs, strict=True):
        assert other.train_loss == pytest.approx(one.train_loss, rel=1e-4)
    assert bundle.inspect(eager.last).tensors == bundle.inspect(compiled.last).tensors


@pytest.mark.slow
def test_killed_processes_end_with_the_same_weights(tmp_path, warm):
    """SIGKILL at any moment, resumed until they are done."""
    data = write_reversed_words(tmp_path / "reversed.tsv")
    flags = [
        "--width=32",
        "--depth=1",
        "--heads=2",
        "--hidden=64",
        "--batch=100",
        "--epochs=12",
        "--lr=0.003",
    ]
    flags += ["--average=2", "--save-every=3", "--ema=0.9"]
    command = ["seq2seq", "train", data, "--out", tmp_path, *flags]
    assert warm.run(*command, "--name", "whole") == 0
    code = warm.run(*command, "--name", "killed", after=1.5)
    for seconds in (0.7, 1.1, 0.9, 1.3, 60):
        assert code in (-signal.SIGKILL, 0)
        code = warm.run("resume", tmp_path / "killed", after=None if seconds == 60 else seconds)
    assert code == 0
    assert outcome(tmp_path / "killed") == outcome(tmp_path / "whole")
    with (tmp_path / "killed" / "results.csv").open() as file:
        assert len(list(csv.DictReader(file))) == 12
