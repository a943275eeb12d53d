"""When checkpoints and bundles are written: at interruptions, with a full disk, and after rollbacks."""

import resource
import signal

import pytest
import torch
from conftest import Messages, crash_after
from exact_resume import outcome, start, start_and_crash

from striate import bundle
from striate.api import resume_training
from striate.errors import UsageError, WriteError
from striate.training import checkpoint
from striate.training.checkpointer import Checkpointer, locked
from striate.training.interrupts import TrainingInterrupted
from striate.training.loop import LossNotFiniteError


def interrupt_after(step, few_colors, tmp_path, monkeypatch, **options):
    """Press Ctrl-C after a step; returns the run and the weights of that moment."""
    after_step, weights = Checkpointer.after_step, {}

    def interrupting(checkpointer):
        after_step(checkpointer)
        state = checkpointer._state
        if state.step == step:
            weights.update({n: v.clone() for n, v in state.evaluated_network.state_dict().items()})
            signal.raise_signal(signal.SIGINT)

    with monkeypatch.context() as patch:
        patch.setattr(Checkpointer, "after_step", interrupting)
        with pytest.raises(TrainingInterrupted) as caught:
            start(few_colors, tmp_path, **options)
    return caught.value.run, weights


def require_weights(path, weights):
    _, found = bundle.read(path)
    assert found.keys() == weights.keys()
    for name, value in weights.items():
        assert torch.equal(found[name], value), name


@pytest.mark.parametrize("save_every", [0, 2])
def test_an_interruption_before_the_first_epoch_leaves_both_bundles(
    few_colors, uninterrupted, tmp_path, monkeypatch, save_every
):
    """Both hold the weights of that moment (here of the moving average), without metrics."""
    run, weights = interrupt_after(3, few_colors, tmp_path, monkeypatch, save_every=save_every)
    for path in (run.best, run.last):
        require_weights(path, weights)
        assert bundle.inspect(path).description.metrics == {}
    assert not (run.folder / "results.csv").exists()
    resume_training(run.folder, save_every=2)
    assert outcome(run.folder) == uninterrupted


@pytest.mark.parametrize("save_every", [0, 2])
def test_an_interruption_after_the_first_epoch_leaves_the_best_epoch(
    few_colors, uninterrupted, tmp_path, monkeypatch, save_every
):
    """last holds the weights of that moment; best is still that of the best epoch, whatever came since."""
    expected = {}
    after_epoch = Checkpointer.after_epoch

    def recording(checkpointer, row):
        after_epoch(checkpointer, row)
        state = checkpointer._state
        expected[row.epoch] = {n: v.clone() for n, v in state.evaluated_network.state_dict().items()}

    monkeypatch.setattr(Checkpointer, "after_epoch", recording)
    run, weights = interrupt_after(11, few_colors, tmp_path, monkeypatch, save_every=save_every)
    assert [row.epoch for row in run.epochs] == [1, 2]
    require_weights(run.last, weights)
    require_weights(run.best, expected[run.best_epoch])
    assert bundle.inspect(run.best).description.metrics["epoch"] == run.best_epoch
    assert bundle.inspect(run.last).description.metrics["epoch"] == 2
    assert not torch.equal(weights["conv1.weight"], expected[run.best_epoch]["conv1.weight"])
    resume_training(run.folder, save_every=2)
    assert outcome(run.folder) == uninterrupted


def test_an_interrupted_run_that_is_resumed_and_crashes_keeps_the_best_epoch(
    few_colors, uninterrupted, tmp_path, monkeypatch
):
    run, _ = interrupt_after(7, few_colors, tmp_path, monkeypatch)
    with crash_after(9):
        resume_training(run.folder)
    assert bundle.inspect(run.best).description.metrics["epoch"] in (1, 2)
    resume_training(run.folder)
    assert outcome(run.folder) == uninterrupted


def test_a_full_disk_and_then_space(few_colors, uninterrupted, tmp_path, monkeypatch):
    """From some step on no file may grow over 64 KiB, and a checkpoint is larger."""
    after_step = Checkpointer.after_step

    def limited(checkpointer):
        if checkpointer._state.step == 6:
            resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, hard))
        after_step(checkpointer)

    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    monkeypatch.setattr(Checkpointer, "after_step", limited)
    try:
        with pytest.raises(WriteError, match="Free some space, then resume: striate resume"):
            start(few_colors, tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        monkeypatch.undo()
    folder = tmp_path / "run"
    assert not list(folder.rglob("*.part"))
    resume_training(folder)
    assert outcome(folder) == uninterrupted


def test_one_process_at_a_time(few_colors, tmp_path):
    folder = start_and_crash(few_colors, tmp_path, 3)
    with locked(folder), pytest.raises(UsageError, match="another process is using it"):
        resume_training(folder)


def test_rollbacks_lower_the_learning_rate_until_training_succeeds(few_colors, tmp_path):
    messages = Messages()
    options = {"opt": "sgd", "lr": 1e25, "warmup": 0.0, "save_every": 0, "epochs": 1, "sched": "constant"}
    done = start(few_colors, tmp_path, messages, rollbacks=90, **options)
    halvings = [line for line in messages.warnings if "of the learning rate" in line]
    assert len(halvings) > 20
    assert done.epochs[0].lr == pytest.approx(1e25 / 2 ** len(halvings))
    with pytest.raises(LossNotFiniteError):
        start(few_colors, tmp_path, rollbacks=2, **options)
    assert checkpoint.newest(tmp_path / "run-2")[0].values["rollbacks"] == 2
