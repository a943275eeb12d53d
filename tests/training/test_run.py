"""A training run as a whole: reproducible, with a complete folder, and with clear errors."""

import csv
import hashlib
import os
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from conftest import COLORS, Messages, make_images
from exact_resume import start

import striate
from striate import bundle
from striate.api import resume_training, run_training
from striate.errors import DataError, UsageError
from striate.tasks.classification.config import ClassificationConfig
from striate.training import checkpoint
from striate.training.config_file import FORMAT, parse_config, read_config
from striate.training.loop import LossNotFiniteError


def run(data, tmp_path, progress=None, **options):
    options = {"model": "lenet", "epochs": 1, "batch": 8, "out": str(tmp_path / "runs"), **options}
    return run_training(ClassificationConfig(str(data), progress=progress or Messages(), **options))


def test_the_same_seed_gives_the_same_weights(colors, tmp_path):
    def digest(**options):
        torch.manual_seed(np.random.default_rng().integers(1 << 30))  # whatever ran before
        done = run(colors, tmp_path, epochs=2, augment="light", **options)
        return bundle.inspect(done.last).weights_sha256

    first = digest(seed=5)
    assert digest(seed=5) == first
    assert digest(seed=5, workers=7) == first
    assert digest(seed=6) != first


def test_the_run_folder(colors, tmp_path):
    done = run(colors, tmp_path, epochs=2, name="first")
    assert sorted(p.name for p in done.folder.iterdir()) == [
        "best.safetensors", "config.yaml", "last.safetensors", "problems.csv", "results.csv", "split.csv",
        "state",
    ]  # fmt: skip
    config = yaml.safe_load((done.folder / "config.yaml").read_text("utf-8"))
    values = {**read_config(done.folder), "progress": done.config.progress}
    assert parse_config(ClassificationConfig, values) == done.config
    assert (config["format"], config["task"]) == (FORMAT, "classification")
    assert (config["lr"], config["imgsz"], config["data"]) == (2e-3, 32, str(colors))
    with (done.folder / "results.csv").open() as file:
        assert [row["epoch"] for row in csv.DictReader(file)] == ["1", "2"]
    with (done.folder / "split.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 60
    assert {row["split"] for row in rows} == {"train", "val", "test"}
    for row in rows:
        assert Path(row["path"]).exists()
        assert row["label"] == Path(row["path"]).parent.name
    description = bundle.inspect(done.best).description
    assert description.provenance["data"] == colors.name  # no path of the user's machine
    assert description.metrics["epoch"] == done.best_epoch
    assert run(colors, tmp_path, name="first").folder.name == "first-2"


def test_early_stopping(colors, tmp_path):
    done = run(colors, tmp_path, epochs=40, lr=1e-12, patience=3)
    assert len(done.epochs) == done.best_epoch + 3 < 40


def test_averaged_weights_of_the_last_epochs_are_evaluated(colors, tmp_path):
    """Kept as the best if they are better; the epochs' weights are removed."""
    messages = Messages()
    done = run(colors, tmp_path, messages, epochs=3, average=2)
    (note,) = [note for note in done.notes if "weights averaged over the last 2 epochs" in note]
    assert note in messages.infos
    assert note.endswith(("kept as the best", "worse than the best epoch"))
    assert not (done.folder / "checkpoints").exists()
    again = resume_training(done.folder, messages)
    assert again.epochs == done.epochs


def test_few_steps_are_noted(colors, tmp_path):
    messages = Messages()
    done = run(colors, tmp_path, messages)
    (note,) = [note for note in done.notes if "optimizer steps in total" in note]
    assert note.startswith("only 6 optimizer steps in total: too few to learn much")
    assert note in messages.warnings


def test_notes_of_an_epoch_reach_the_report(tmp_path):
    """What turns up during training is in the run's notes, which the report lists as warnings."""
    for name, color in COLORS.items():
        make_images(tmp_path / "data" / "train" / name, 4, color)
        make_images(tmp_path / "data" / "val" / name, 2, color)
    for path in (tmp_path / "data" / "train" / "red").iterdir():
        path.write_bytes(b"no image")
    done = run(tmp_path / "data", tmp_path)
    assert "class 'red' has no readable training image" in done.notes


def test_a_loss_that_is_not_finite_keeps_the_last_good_checkpoint(few_colors, tmp_path):
    with pytest.raises(LossNotFiniteError) as caught:
        start(few_colors, tmp_path, opt="sgd", lr=1e25, warmup=0.0, save_every=1, augment="none")
    folder = tmp_path / "run"
    files = (folder / "not-finite.txt").read_text("utf-8").split("\n")[:-1]
    assert files
    assert all(Path(name).exists() for name in files)
    assert files[0] in str(caught.value)
    assert all(tensor.isfinite().all() for tensor in checkpoint.newest(folder)[0].tensors.values())


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of torch's compiler, about itself
def test_a_compiled_network_trains_the_same_under_the_same_names(colors, tmp_path):
    eager, compiled = (
        run(colors, tmp_path, name=f"run-{compile}", compile=compile, epochs=1) for compile in (False, True)
    )
    assert compiled.epochs[-1].train_loss == pytest.approx(eager.epochs[-1].train_loss, rel=1e-4)
    one, other = (bundle.inspect(done.last).tensors for done in (eager, compiled))
    assert one == other  # names, types and shapes


def test_a_failure_of_the_compiler_is_a_usage_error(colors, tmp_path, monkeypatch):
    import torch._dynamo.exc

    def refuse(network, **options):
        def forward(images):
            raise torch._dynamo.exc.InternalTorchDynamoError("no compiler\nwas found")

        network._compiled_call_impl = forward

    monkeypatch.setattr(torch.nn.Module, "compile", refuse)
    with pytest.raises(UsageError, match="no compiler was found"):
        run(colors, tmp_path, compile=True)


@pytest.mark.parametrize("keep_times", [False, True])
def test_files_that_are_rewritten_during_an_epoch_are_noted(tmp_path, keep_times):
    for name, color in COLORS.items():
        make_images(tmp_path / "data" / name, 6, color)
    path = tmp_path / "data" / "red" / "003.png"

    class Rewriting(Messages):
        def begin(self, stage, total, unit="images"):
            if stage.startswith("epoch 1"):
                before = path.stat()
                path.write_bytes(path.read_bytes())
                if keep_times:
                    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))

    messages = Rewriting()
    done = run(tmp_path / "data", tmp_path, messages, epochs=2)
    noted = [text for text in messages.warnings if "changed while this run was reading them" in text]
    assert noted == [note for note in done.notes if "changed while" in note]
    assert len(noted) == 1
    assert str(path) in noted[0]
    assert noted[0].startswith("1 file changed")


def test_the_bundle_is_tied_to_its_split(colors, tmp_path):
    """A table that lost rows would measure something else under the same name."""
    done = run(colors, tmp_path)
    path = done.folder / "split.csv"
    whole = path.read_bytes()
    recorded = bundle.describe(done.best).provenance["inputs"]["split.csv"]
    digest = hashlib.sha256(whole).hexdigest()
    assert (recorded["lines"], recorded["sha256"]) == (whole.count(b"\n"), digest)
    evaluation = striate.evaluate(done.folder)
    rows = whole.splitlines(keepends=True)
    swapped = [rows[0], *(row.replace(b",test\n", b",train\n") for row in rows[1:])]
    for content in (b"".join(rows[:-2]), b"".join(swapped), b"".join(rows) + rows[-1]):
        path.write_bytes(content)
        with pytest.raises(DataError, match=r"split\.csv"):
            striate.evaluate(done.folder)
    path.unlink()
    with pytest.raises(DataError, match=r"split\.csv"):
        striate.evaluate(done.folder)
    path.write_bytes(whole)
    assert striate.evaluate(done.folder).top1 == evaluation.top1
