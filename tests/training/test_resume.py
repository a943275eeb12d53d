"""A run that was stopped, whichever way, ends with the weights of one that was not."""

import csv
import os
import random
import resource
import shutil
import signal
from pathlib import Path

import pytest
import torch
import yaml
from conftest import COLORS, make_images

from striate import bundle
from striate.errors import DataError, UsageError, WriteError
from striate.progress import Progress
from striate.training import loop, saved
from striate.training.advance import TrainingInterrupted
from striate.training.config import TrainConfig
from striate.training.keeper import Keeper, alone
from striate.training.loop import LossNotFiniteError
from striate.training.session import resume, train

# A moving average, random crops, a batch in parts: all that must go on where it was.
OPTIONS = {
    "model": "lenet", "epochs": 3, "batch": 8, "ema": 0.9, "accumulate": 2, "augment": "standard",
    "save_every": 2, "name": "run",
}  # fmt: skip


class Words(Progress):
    def __init__(self):
        self.said, self.warned = [], []

    def info(self, message):
        self.said.append(message)

    def warn(self, message):
        self.warned.append(message)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    root = tmp_path_factory.mktemp("resume") / "data"
    for name, color in COLORS.items():
        make_images(root / name, 12, color)
    return root


def start(source, out, progress=None, **options):
    options = {"data": str(source), "out": str(out), **OPTIONS, **options}
    return train(TrainConfig(**options), progress or Words())


def outcome(folder):
    """What must be equal: weights, and all of results.csv that is not a time."""
    with (folder / "results.csv").open() as file:
        rows = [{k: v for k, v in row.items() if "second" not in k} for row in csv.DictReader(file)]
    digests = [bundle.inspect(folder / f"{name}.safetensors").weights_sha256 for name in ("last", "best")]
    return digests, rows


@pytest.fixture(scope="module")
def expected(data, tmp_path_factory):
    """The outcome of a run that is never stopped."""
    return outcome(start(data, tmp_path_factory.mktemp("whole")).folder)


class GoneError(Exception):
    """The process is no more."""


@pytest.fixture
def stopped(data, tmp_path, monkeypatch):
    """Makes a run that stops without a word after a step; answers its folder."""

    def make(step, act=None, **options):
        whole = Keeper.after_step

        def after_step(keeper):
            whole(keeper)
            if keeper._state.step == step:
                raise GoneError

        with monkeypatch.context() as patch:
            patch.setattr(Keeper, "after_step", after_step)
            with pytest.raises(GoneError):
                start(data, tmp_path, **options)
        return tmp_path / "run"

    return make


@pytest.mark.parametrize("step", [1, 2, 3, 4, 7])
def test_resumed_after_a_step(stopped, expected, step):
    """Before the first save, in an epoch, and at the end of one (4 steps each; a state every 2)."""
    folder = stopped(step)
    torch.manual_seed(step + 99)  # whatever was drawn before
    resume(folder)
    assert outcome(folder) == expected


def test_dropout_and_batch_norm_resume(data, stopped, tmp_path):
    """And the momenta of RMSprop, stochastic depth, the changes of light, and rates layer by layer."""
    options = {
        "model": "mobilenet_v3_small", "imgsz": 32, "epochs": 2, "ema": 0.0, "opt": "rmsprop",
        "drop_path": 0.3, "dropout": 0.1, "lighting": 0.1, "layer_decay": 0.9,
    }  # fmt: skip
    whole = outcome(start(data, tmp_path / "whole", **options).folder)
    folder = stopped(5, **options)
    torch.manual_seed(99)
    resume(folder)
    assert outcome(folder) == whole


def test_resumed_with_other_saves(stopped, expected):
    """How often states are saved, and with how many threads files are read, changes nothing."""
    folder = stopped(5, save_every=0, workers=1)
    resume(folder, save_every=1, workers=3)
    assert outcome(folder) == expected


def test_sgd_and_frozen_layers_resume(data, stopped, tmp_path):
    options = {"opt": "sgd", "transfer": "last", "weights": str(tmp_path / "first/run/best.safetensors")}
    start(data, tmp_path / "first", epochs=1)
    whole = outcome(start(data, tmp_path / "whole", **options).folder)
    folder = stopped(6, **options)
    (tmp_path / "first/run/best.safetensors").unlink()  # no longer needed
    resume(folder)
    assert outcome(folder) == whole


def test_early_stopping_resumes(data, stopped, tmp_path):
    options = {"lr": 1e-12, "patience": 2, "epochs": 9, "ema": 0.0}
    whole = start(data, tmp_path / "whole", **options)
    assert len(whole.epochs) == whole.best_epoch + 2 < 9
    folder = stopped(9, **options)
    resume(folder)
    assert outcome(folder) == outcome(whole.folder)


@pytest.fixture
def two_threads():
    """More than the one that tests have otherwise: a run must be exact with several too."""
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(threads)


@pytest.mark.usefixtures("two_threads")
def test_killed_at_random_instants(data, tmp_path, warm):
    """SIGKILL to real processes, from their first moment on; benchmarks/bench_resume.py does it at length."""
    expected = outcome(start(data, tmp_path / "whole", epochs=12).folder)
    folder, rng, kills = tmp_path / "run", random.Random(0), 0
    flags = [
        text for k, v in {**OPTIONS, "epochs": 12}.items() for text in (f"--{k.replace('_', '-')}", str(v))
    ]

    def run(after):
        begun = list(folder.glob("state/0*.safetensors"))
        if not begun and folder.exists():
            shutil.rmtree(folder)
        arguments = ["resume", folder] if begun else ["train", data, "--out", tmp_path, *flags]
        return warm.run(*arguments, after=after, threads=2)

    for _ in range(3):
        kills += run(rng.uniform(0.05, 0.6)) == -signal.SIGKILL
    assert run(None) == 0
    assert kills == 3
    assert outcome(folder) == expected


@pytest.mark.parametrize("where", ["step", "validation"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_leaves_a_run_that_resumes(data, expected, tmp_path, monkeypatch, where, number):
    """In the middle of a step it waits for the step's end; elsewhere it does not wait."""
    name, calls = ("loss_of", 9) if where == "step" else ("validate", 2)
    inner, seen, before = getattr(loop, name), [], signal.getsignal(signal.SIGINT)

    def signalling(*args):
        seen.append(1)
        if len(seen) == calls:
            signal.raise_signal(number)
        return inner(*args)

    with monkeypatch.context() as patch:
        patch.setattr(loop, name, signalling)
        with pytest.raises(TrainingInterrupted) as caught:
            start(data, tmp_path)
    assert caught.value.terminated == (number == signal.SIGTERM)
    assert len(seen) == (calls + 1 if where == "step" else calls)  # a step has two parts
    folder = tmp_path / "run"
    assert saved.newest(folder)[0].values["step"] == (5 if where == "step" else 8)
    assert bundle.inspect(folder / "best.safetensors")
    resume(folder)
    assert outcome(folder) == expected
    assert signal.getsignal(signal.SIGINT) is before  # which a shell's background job ignores


def test_a_second_signal_does_not_wait(data, tmp_path, monkeypatch):
    """The half-made step is not saved; the state before it is."""

    def impatient(*args):
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(loop, "loss_of", impatient)
    with pytest.raises(KeyboardInterrupt) as caught:
        start(data, tmp_path)
    assert not isinstance(caught.value, TrainingInterrupted)
    assert saved.newest(tmp_path / "run")[0].values["step"] == 0


def test_a_full_disk_and_then_room(data, expected, tmp_path, monkeypatch):
    """From some step on no file may grow over 64 KiB; a state has more."""
    whole = Keeper.after_step

    def after_step(keeper):
        if keeper._state.step == 6:
            resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, hard))
        whole(keeper)

    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    monkeypatch.setattr(Keeper, "after_step", after_step)
    try:
        with pytest.raises(WriteError, match="go on where it was: striate resume"):
            start(data, tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        monkeypatch.undo()
    folder = tmp_path / "run"
    assert not list(folder.rglob("*.part"))
    resume(folder)
    assert outcome(folder) == expected


@pytest.mark.parametrize("harm", ["a bit", "the end"])
def test_a_damaged_state_falls_back_to_the_one_before(stopped, expected, harm):
    folder = stopped(7)
    before, newest = sorted(folder.glob("state/0*.safetensors"))
    content = bytearray(newest.read_bytes())
    if harm == "a bit":
        content[len(content) // 2] ^= 1
    else:
        del content[-1000:]
    newest.write_bytes(content)
    words = Words()
    resume(folder, words)
    assert f"{newest} is damaged" in words.warned[0]
    assert "going on from the state before it" in words.warned[0]
    assert f"at step {int(before.stem)}, in epoch" in words.said[0]
    assert outcome(folder) == expected


def test_without_a_whole_state_there_is_nothing_to_resume(stopped):
    folder = stopped(5)
    for path in folder.glob("state/0*.safetensors"):
        path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(DataError, match=r"cannot resume .* is damaged.* is damaged"):
        resume(folder)


def test_two_states_are_kept_and_of_a_finished_run_a_small_one(data, stopped, expected):
    folder = stopped(7)
    assert [int(path.stem) for path in sorted(folder.glob("state/0*"))] == [4, 6]
    (folder / ".best.safetensors.1.part").write_bytes(b"half")
    resume(folder)
    (state,) = folder.glob("state/0*")
    assert state.stat().st_size < 10_000
    assert not list(folder.rglob("*.part"))
    words = Words()
    again = resume(folder, words)
    assert "is finished: nothing is left to train" in words.said[0]
    assert (len(again.epochs), outcome(folder)) == (3, expected)


def test_changed_data_are_refused(data, stopped, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(data, copy)
    folder = stopped(3, data=str(copy))
    (copy / "red" / "000.png").unlink()
    os.utime(copy / "red" / "001.png", (1, 1))
    content = (copy / "red" / "002.png").read_bytes()
    (copy / "red" / "002.png").write_bytes(content + b"!")
    shutil.copy(copy / "blue" / "000.png", copy / "blue" / "012.png")
    with pytest.raises(DataError) as caught:
        resume(folder)
    message = str(caught.value)
    assert "1 gone: red/000.png" in message
    assert "red/001.png (written to since)" in message
    assert f"red/002.png ({len(content):,} bytes, now {len(content) + 1:,})" in message
    assert "1 new: blue/012.png" in message


def test_data_may_move(data, stopped, expected, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(data, copy)
    folder = stopped(3, data=str(copy))
    copy.rename(tmp_path / "elsewhere")
    resume(folder, data=str(tmp_path / "elsewhere"))
    assert outcome(folder) == expected


def test_a_changed_configuration_is_refused(stopped):
    folder = stopped(3)
    path = folder / "config.yaml"
    config = yaml.safe_load(path.read_text("utf-8"))
    path.write_text(yaml.safe_dump({**config, "lr": 0.5, "epochs": 4}), "utf-8")
    with pytest.raises(
        UsageError, match=r"another configuration: epochs was 3 and is 4; lr was 0\.002 and is 0\.5"
    ):
        resume(folder)
    path.write_text(yaml.safe_dump(config), "utf-8")
    with pytest.raises(UsageError, match="batch was 8 and is 4"):
        resume(folder, batch=4)


def test_other_threads_are_remarked_on(stopped, request):
    folder, words = stopped(3), Words()
    request.getfixturevalue("two_threads")
    resume(folder, words)
    assert (
        "threads was 1 and is 2: the weights will not be those of one run to the last bit" in words.warned[0]
    )


def test_what_is_no_run(tmp_path):
    with pytest.raises(UsageError, match=r"it has no config\.yaml"):
        resume(tmp_path)


def test_one_process_at_a_time(stopped):
    folder = stopped(3)
    with alone(folder), pytest.raises(UsageError, match="another process is at it"):
        resume(folder)


def test_a_loss_that_is_not_finite_keeps_the_last_good_state(data, tmp_path):
    with pytest.raises(LossNotFiniteError) as caught:
        start(data, tmp_path, opt="sgd", lr=1e25, warmup=0.0, save_every=1, augment="none")
    folder = tmp_path / "run"
    files = (folder / "not-finite.txt").read_text("utf-8").split("\n")[:-1]
    assert files
    assert all(Path(name).exists() for name in files)
    assert files[0] in str(caught.value)
    assert all(tensor.isfinite().all() for tensor in saved.newest(folder)[0].tensors.values())


def test_rollbacks_lower_the_rate_until_it_works(data, tmp_path):
    words = Words()
    options = {"opt": "sgd", "lr": 1e25, "warmup": 0.0, "save_every": 0, "epochs": 1, "sched": "constant"}
    done = start(data, tmp_path, words, rollbacks=90, **options)
    halvings = [line for line in words.warned if "of the learning rate" in line]
    assert len(halvings) > 20
    assert done.epochs[0].lr == pytest.approx(1e25 / 2 ** len(halvings))
    with pytest.raises(LossNotFiniteError):
        start(data, tmp_path, rollbacks=2, **options)
    assert saved.newest(tmp_path / "run-2")[0].values["rollbacks"] == 2
