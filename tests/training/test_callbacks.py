import importlib.util
from pathlib import Path

import numpy as np
import pytest

import striate
from striate.errors import UsageError
from striate.training import loggers
from striate.training.callbacks import Callback, Callbacks
from striate.training.config import TRACKERS, RunConfig

LABELS = np.arange(24) % 2
IMAGES = (LABELS[:, None, None] * 150 + np.random.default_rng(0).integers(0, 100, (24, 32, 32))).astype(
    np.uint8
)


class Recorder:
    """Has the methods of a callback, but not its class."""

    def __init__(self):
        self.calls, self.rows, self.paths = [], [], []

    def on_train_start(self, run):
        self.calls.append("start")
        self.folder = run.folder

    def on_epoch_end(self, row):
        self.calls.append("epoch")
        self.rows.append(row)

    def on_checkpoint(self, path):
        self.calls.append("checkpoint")
        assert path.is_file()
        self.paths.append(path)

    def on_train_end(self, run):
        self.calls.append("end")
        self.run = run


@pytest.mark.parametrize("name", TRACKERS)
def test_every_tracker_has_a_logger(name):
    assert issubclass(loggers.LOGGERS[name], Callback)
    assert set(loggers.LOGGERS) == set(TRACKERS)


def test_a_run_calls_them_in_order(tmp_path):
    recorder = Recorder()
    options = {"model": "lenet", "epochs": 2, "batch": 8, "out": str(tmp_path), "save_every": 1}
    run = striate.train((IMAGES, LABELS), callbacks=[recorder], **options)
    assert recorder.calls[0] == "start"
    assert recorder.calls[-1] == "end"
    assert recorder.calls.count("end") == 1
    assert [row.epoch for row in recorder.rows] == [1, 2]
    assert recorder.rows[-1].val_top1 == run.training.epochs[-1].val_top1
    assert recorder.calls.count("checkpoint") >= 2
    assert recorder.run.epochs == run.training.epochs
    assert {path.parents[1] for path in recorder.paths} == {recorder.folder}
    again = Recorder()
    again.on_epoch_end = lambda row: 1 / 0
    with pytest.raises(ZeroDivisionError):
        striate.train((IMAGES, LABELS), callbacks=[again], **options)
    assert again.calls[-1] == "end"


def test_an_object_without_their_methods_is_refused():
    with pytest.raises(UsageError, match=r"callbacks= has a int: it has no method.*on_train_start"):
        Callbacks([3])


@pytest.mark.parametrize("given", [Recorder(), None, {"one": Recorder()}])
def test_callbacks_are_a_list(tmp_path, given):
    with pytest.raises(UsageError, match=r"callbacks= is a \w+: it must be a list"):
        striate.train((IMAGES, LABELS), model="lenet", callbacks=given, out=str(tmp_path))


@pytest.mark.parametrize(("log", "message"), [("tensorbord", "did you mean tensorboard"), ("x,wandb", "'x'")])
def test_unknown_trackers_are_refused(log, message):
    with pytest.raises(UsageError, match=message):
        RunConfig(log=log)


def test_a_package_that_is_missing_is_reported_before_training(tmp_path):
    missing = [name for name in TRACKERS if importlib.util.find_spec(name) is None]
    if not missing:
        pytest.skip("all trackers are installed")
    with pytest.raises(UsageError, match=f"pip install {missing[0]}"):
        striate.train((IMAGES, LABELS), model="lenet", log=missing[0], out=str(tmp_path))
    assert list(Path(tmp_path).iterdir()) == []


def test_a_logger_that_fails_does_not_end_the_run(tmp_path, monkeypatch):
    from conftest import Messages

    class Failing(loggers.Logger):
        package = "json"

        def begin(self, run, options):
            assert options["model"] == "lenet"

        def record(self, numbers, epoch):
            raise ConnectionError("no route to\nhost")

        def end(self):
            pytest.fail("it has failed")

    monkeypatch.setitem(loggers.LOGGERS, "wandb", Failing)
    messages = Messages()
    run = striate.train(
        (IMAGES, LABELS), model="lenet", epochs=2, batch=8, log="wandb", out=str(tmp_path), progress=messages
    )
    assert len(run.training.epochs) == 2
    failures = [m for m in messages.warnings if "records no more" in m]
    assert failures == ["json failed, so it records no more: ConnectionError: no route to host"]
