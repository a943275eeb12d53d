"""Ctrl-C and SIGTERM leave a run that can be resumed."""

import signal

import pytest
from exact_resume import outcome, start

from striate import bundle
from striate.api import resume_training
from striate.tasks.classification import task
from striate.tasks.classification.loss import Criterion
from striate.training import checkpoint
from striate.training.interrupts import TrainingInterrupted


@pytest.mark.parametrize("where", ["step", "validation"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_leaves_a_run_that_resumes(few_colors, uninterrupted, tmp_path, monkeypatch, where, number):
    """Within a step it waits for the end of the step; elsewhere it does not wait."""
    owner, name, calls = (Criterion, "__call__", 9) if where == "step" else (task, "validate", 2)
    inner, seen, before = getattr(owner, name), [], signal.getsignal(signal.SIGINT)

    def signalling(*args):
        seen.append(1)
        if len(seen) == calls:
            signal.raise_signal(number)
        return inner(*args)

    with monkeypatch.context() as patch:
        patch.setattr(owner, name, signalling)
        with pytest.raises(TrainingInterrupted) as caught:
            start(few_colors, tmp_path)
    assert caught.value.terminated == (number == signal.SIGTERM)
    assert len(seen) == (calls + 1 if where == "step" else calls)  # a step has two micro-batches
    folder = tmp_path / "run"
    assert checkpoint.newest(folder)[0].values["step"] == (5 if where == "step" else 8)
    assert bundle.inspect(folder / "best.safetensors")
    resume_training(folder)
    assert outcome(folder) == uninterrupted
    assert signal.getsignal(signal.SIGINT) is before


def test_a_second_signal_does_not_wait(few_colors, tmp_path, monkeypatch):
    """The unfinished step is not saved; the checkpoint before it is there."""

    def impatient(*args):
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(Criterion, "__call__", impatient)
    with pytest.raises(KeyboardInterrupt) as caught:
        start(few_colors, tmp_path)
    assert not isinstance(caught.value, TrainingInterrupted)
    assert checkpoint.newest(tmp_path / "run")[0].values["step"] == 0
