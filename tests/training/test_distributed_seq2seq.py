"""Two processes train on pairs as one does; what they do is in two_processes_seq2seq.py."""

import json
from pathlib import Path

import pytest
from text_runs import rows, write_reversed_words
from under_torchrun import torchrun

from striate import api, bundle
from striate.tasks.seq2seq.config import Seq2SeqConfig

OPTIONS = {
    "width": 32, "depth": 1, "heads": 2, "hidden": 64, "batch": 120, "epochs": 2, "save_every": 3,
    "average": 2, "dropout": 0.0, "lr": 3e-3, "ema": 0.9,
}  # fmt: skip
IMAGES = {
    "columns": {"batch": 30, "height": 16, "encoder_channels": 8, "sync_bn": True},
    "patches": {"batch": 30, "height": 16, "encoder_channels": 8, "encoder": "patches"},
    "network": {  # SGD, because Adam enlarges the rounding of BatchNorm over three images
        "batch": 20,
        "epochs": 1,
        "max_width": 32,
        "encoder": "resnet20",
        "sync_bn": True,
        "opt": "sgd",
        "lr": 1e-3,
    },
}
PROGRAM = Path(__file__).with_name("two_processes_seq2seq.py")


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    """Words and their reversals; some are so long that each has a step of its own."""
    path = write_reversed_words(tmp_path_factory.mktemp("two") / "reversed.tsv")
    long = ("abcd" * 20, "dcba" * 20, "abba" * 20)
    with path.open("a", encoding="utf-8") as file:
        file.write("".join(f"{word}\t{word[::-1]}\n" for word in long))
    return path


@pytest.fixture(scope="module")
def few_lines(text_lines):
    """A table of some of the images, one of them unreadable."""
    header, *lines = text_lines.read_text("utf-8").splitlines()
    train, rest = lines[:70], lines[70:]
    path = text_lines.with_name("few.csv")
    path.write_text("\n".join([header, *train[:25], *rest[:5], *rest[10:12], rest[-1]]) + "\n", "utf-8")
    return path


@pytest.fixture(scope="module")
def out(pairs, few_lines, tmp_path_factory):
    """The folder of what torchrun's two processes did."""
    out = tmp_path_factory.mktemp("runs")
    torchrun(PROGRAM, pairs, few_lines, out, json.dumps(OPTIONS), json.dumps(IMAGES))
    assert (out / "passed-0").exists()
    return out


def one_process(data, tmp_path, **options):
    return api.run_training(Seq2SeqConfig(data, out=str(tmp_path), **{**OPTIONS, **options}))


def assert_same_metrics(ours, folder, tolerance=1e-6):
    """Losses and metrics of every epoch are equal, up to rounding."""
    theirs = rows(folder)
    assert len(theirs) == len(ours.epochs)
    for mine, other in zip(ours.epochs, theirs, strict=True):
        assert int(other["step"]) == mine.step
        for name in ("train_loss", "val_loss", "val_accuracy", "val_error", "val_exact", "lr"):
            assert float(other[name]) == pytest.approx(getattr(mine, name), rel=tolerance), name


def test_two_processes_have_the_metrics_of_one(pairs, out, tmp_path):
    """With EMA; some steps have fewer pairs than there are processes."""
    one = one_process(pairs, tmp_path)
    assert one.epochs[-1].step >= 20
    assert any(len(samples) == 1 for samples in one.task.order(0))
    assert_same_metrics(one, out / "whole")
    for name in ("last.safetensors", "best.safetensors"):
        weights, other = (bundle.read(folder / name)[1] for folder in (one.folder, out / "whole"))
        for key, value in weights.items():
            difference = (value - other[key]).abs()
            if key.endswith("in_proj_bias"):  # softmax cancels a bias of keys: Adam follows its rounding
                difference[len(difference) // 3 : 2 * len(difference) // 3] = 0
            assert difference.max() < 1e-5, key


def test_two_processes_with_micro_batches(pairs, out, tmp_path):
    assert_same_metrics(one_process(pairs, tmp_path), out / "micro")


def digests(folder):
    return [bundle.inspect(folder / f"{name}.safetensors").weights_sha256 for name in ("last", "best")]


def test_a_killed_process_changes_nothing(out):
    assert digests(out / "killed") == digests(out / "whole")
    assert rows(out / "killed") == rows(out / "whole")
    assert (out / "killed" / "samples.csv").read_bytes() == (out / "whole" / "samples.csv").read_bytes()
    assert not (out / "killed-2").exists()  # the restart found the folder
    assert (out / "killed" / "report.html").exists()


def test_an_interrupted_run_resumes_exactly(out):
    assert digests(out / "interrupted") == digests(out / "whole")
    assert rows(out / "interrupted") == rows(out / "whole")


def test_one_of_them_prints(out):
    assert json.loads((out / "printed-0").read_text())["run"].endswith("killed")
    assert (out / "printed-1").read_text() == ""


@pytest.mark.parametrize("name", IMAGES)
def test_two_processes_read_images_as_one(few_lines, out, tmp_path, name):
    """BatchNorm statistics are shared, also if the second process has no image."""
    one = one_process(few_lines, tmp_path, **IMAGES[name])
    assert any(len(samples) < 4 for samples in one.task.order(0))  # the second process has none of them
    # Columns of padding count in BatchNorm, and each process pads its shard to the widest image in it.
    assert_same_metrics(one, out / name, 1e-3 if name == "columns" else 1e-6)
