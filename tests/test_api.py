"""The functions of `striate`, for every task; and how short the call from train to the network is."""

import os
import signal
import time
import traceback
from pathlib import Path

import pytest
from conftest import make_images

import striate
from striate import bundle, models
from striate.errors import UsageError
from striate.progress import Progress


def test_an_unknown_option_has_near_matches(colors):
    with pytest.raises(UsageError, match="unknown option 'modl': did you mean model"):
        striate.train(colors, modl="lenet")
    with pytest.raises(UsageError, match="unknown option 'modl': did you mean model"):
        striate.train_seq2seq("pairs.tsv", modl="tiny")


def test_an_unknown_task_has_near_matches(colors):
    with pytest.raises(UsageError, match="unknown task 'clasification': did you mean classification"):
        striate.train(colors, task="clasification")


def test_a_finished_run_in_json(run):
    values = run.to_json()
    keys = {
        "run",
        "best",
        "last",
        "report",
        "epochs",
        "steps",
        "evaluations",
        "best_epoch",
        "monitor",
        "val_top1",
        "split",
        "n",
        "top1",
        "top1_ci",
        "balanced_accuracy",
        "macro_f1",
        "mcc",
        "majority_top1",
        "only_class",
    }
    assert values.keys() == {*keys, "unreadable", "seconds", "images_per_second"}
    assert (values["epochs"], values["split"], values["n"]) == (3, "test", 12)
    assert values["val_top1"] == run.training.best_row.val_top1
    for name in ("best", "last", "report"):
        assert Path(values[name]).is_file()


def test_the_metrics_of_the_test_split_are_in_the_best_bundle(run):
    metrics = bundle.inspect(run.best).description.metrics
    assert metrics["test"]["top1"] == run.evaluation.top1
    assert metrics["val_top1"] == run.training.best_row.val_top1


def test_one_epoch_chosen_on_val_is_said_to_be_optimistic(colors, tmp_path):
    done = striate.train(colors, model="lenet", epochs=1, test=0, out=str(tmp_path))
    assert done.evaluation.split == "val"
    assert any("slightly optimistic" in note for note in done.evaluation.notes)


def test_resume_finishes_a_run_of_any_task(few_colors, tmp_path):
    (tmp_path / "pairs.tsv").write_text("".join(f"{a}{b}\t{b}{a}\n" for a in "abcde" for b in "abcdefgh"))
    seq2seq = {"width": 16, "depth": 1, "heads": 2, "hidden": 16, "batch": 60, "average": 0}
    runs = (
        ((few_colors,), {"model": "lenet", "batch": 8}),
        ((tmp_path / "pairs.tsv",), {"task": "seq2seq", **seq2seq}),
    )
    for data, options in runs:
        progress = StopAfter(3)
        with pytest.raises(KeyboardInterrupt) as caught:
            striate.train(*data, epochs=2, out=str(tmp_path), progress=progress, **options)
        folder = caught.value.run.folder
        assert (folder / "report.html").exists()  # even an interrupted run has one
        assert caught.value.run.epochs == []
        done = striate.resume(folder)
        assert done.training.folder == folder
        assert [row.epoch for row in done.training.epochs] == [1, 2]
        assert done.to_json()["epochs"] == 2
        assert type(striate.load(folder, device="cpu")).__name__ in ("Classifier", "Translator")


class StopAfter(Progress):
    """Presses Ctrl-C after so many steps."""

    def __init__(self, steps):
        self.steps, self.training = steps, False

    def begin(self, stage, total, unit="images"):
        self.training = stage.startswith("epoch")

    def advance(self, done, **figures):
        self.steps -= self.training
        if self.steps == 0 and self.training:
            signal.raise_signal(signal.SIGINT)


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


def test_the_call_from_train_to_the_network_is_short(tmp_path, monkeypatch):
    """At most 8 frames in 5 files, from `fit` 4 in 2; no return to a file that the call has left."""
    for name, color in (("red", (200, 50, 40)), ("blue", (30, 60, 200))):
        make_images(tmp_path / "data" / name, 10, color)
    network = type(models.build("lenet"))
    package, forward, stacks = Path(striate.__file__).parent, network.forward, []

    def watched(self, *inputs):
        if self.training:
            frames = [(Path(frame.filename), frame.name) for frame in traceback.extract_stack()]
            stacks.append(
                [(str(path.relative_to(package)), name) for path, name in frames if package in path.parents]
            )
        return forward(self, *inputs)

    monkeypatch.setattr(network, "forward", watched)
    striate.train(tmp_path / "data", model="lenet", epochs=1, out=str(tmp_path / "runs"))
    stack = max(stacks, key=len)
    names = [name for _, name in stack]
    for start, most_frames, most_files in (("train", 8, 5), ("fit", 4, 2)):
        frames = stack[names.index(start) :]
        files = [file for i, (file, _) in enumerate(frames) if i == 0 or frames[i - 1][0] != file]
        listing = "\n".join(f"{file}: {name}" for file, name in frames)
        assert len(frames) <= most_frames, listing
        assert len(files) <= most_files, listing
        assert len(files) == len(set(files)), f"returns to a file that it has left:\n{listing}"
    assert stack[0] == ("api.py", "train")


def test_a_module_is_no_model():
    with pytest.raises(UsageError, match="a LeNet is no model of Striate"):
        striate.evaluate(models.build("lenet"), "digits")
