"""A run that was interrupted and resumed ends with the weights of an uninterrupted one."""

import csv
import json
import random
import shutil
import signal
import tarfile
from pathlib import Path

import pytest
import torch
import yaml
from conftest import Messages
from exact_resume import OPTIONS, outcome, start, start_and_crash
from safetensors.torch import load_file

import striate
from striate.api import resume_training
from striate.errors import UsageError
from striate.tasks import entry
from striate.training import checkpoint
from striate.training.config_file import parse_config, read_config

OLD_RUNS = Path(__file__).parents[1] / "golden" / "runs_format_1.tar.xz"


@pytest.mark.parametrize("step", [1, 2, 3, 4, 7])
def test_resume_after_a_step(few_colors, uninterrupted, tmp_path, step):
    """Before the first checkpoint, within an epoch, and at the end of one (4 steps; a checkpoint every 2)."""
    folder = start_and_crash(few_colors, tmp_path, step)
    torch.manual_seed(step + 99)  # the state of torch's generator does not matter
    resume_training(folder)
    assert outcome(folder) == uninterrupted


def test_dropout_and_batch_norm_resume(few_colors, tmp_path):
    """And RMSprop's momenta, stochastic depth, PCA color, layer-wise learning rates, and micro-batches."""
    options = {
        "model": "mobilenet_v3_small", "imgsz": 32, "epochs": 2, "ema": 0.0, "opt": "rmsprop",
        "drop_path": 0.3, "dropout": 0.1, "lighting": 0.1, "layer_decay": 0.9, "batch": 8, "accumulate": 1,
        "micro_batches": 2,
    }  # fmt: skip
    whole = outcome(start(few_colors, tmp_path / "whole", **options).folder)
    folder = start_and_crash(few_colors, tmp_path, 5, **options)
    torch.manual_seed(99)
    resume_training(folder)
    assert outcome(folder) == whole


def test_resume_with_other_checkpoints_and_workers(few_colors, uninterrupted, tmp_path):
    """The interval of checkpoints and the number of decoding threads do not change the weights."""
    folder = start_and_crash(few_colors, tmp_path, 5, save_every=0, workers=1)
    resume_training(folder, save_every=1, workers=3)
    assert outcome(folder) == uninterrupted


def test_sgd_and_frozen_layers_resume(few_colors, tmp_path):
    first = start(few_colors, tmp_path / "first", epochs=1).best
    options = {"opt": "sgd", "transfer": "last", "weights": str(first)}
    whole = outcome(start(few_colors, tmp_path / "whole", **options).folder)
    folder = start_and_crash(few_colors, tmp_path, 6, **options)
    first.unlink()  # no longer needed
    resume_training(folder)
    assert outcome(folder) == whole


def test_early_stopping_resumes(few_colors, tmp_path):
    options = {"lr": 1e-12, "patience": 2, "epochs": 9, "ema": 0.0}
    whole = start(few_colors, tmp_path / "whole", **options)
    assert len(whole.epochs) == whole.best_epoch + 2 < 9
    folder = start_and_crash(few_colors, tmp_path, 9, **options)
    resume_training(folder)
    assert outcome(folder) == outcome(whole.folder)


@pytest.mark.usefixtures("two_threads")
def test_killed_at_random_instants(few_colors, tmp_path, warm):
    """SIGKILL to real processes, even to one that has just started; benchmarks/bench_resume.py does more."""
    expected = outcome(start(few_colors, tmp_path / "whole", epochs=12).folder)
    folder, rng, kills = tmp_path / "run", random.Random(0), 0
    flags = [
        text for k, v in {**OPTIONS, "epochs": 12}.items() for text in (f"--{k.replace('_', '-')}", str(v))
    ]

    def run(after):
        begun = list(folder.glob("state/0*.safetensors"))
        if not begun and folder.exists():
            shutil.rmtree(folder)
        arguments = ["resume", folder] if begun else ["train", few_colors, "--out", tmp_path, *flags]
        return warm.run(*arguments, after=after, threads=2)

    for _ in range(3):
        kills += run(rng.uniform(0.05, 0.6)) == -signal.SIGKILL
    assert run(None) == 0
    assert kills == 3
    assert outcome(folder) == expected


def test_a_changed_configuration_is_refused(few_colors, tmp_path):
    folder = start_and_crash(few_colors, tmp_path, 3)
    path = folder / "config.yaml"
    config = yaml.safe_load(path.read_text("utf-8"))
    path.write_text(yaml.safe_dump({**config, "lr": 0.5, "epochs": 4}), "utf-8")
    with pytest.raises(
        UsageError, match=r"another configuration: epochs was 3 and is 4; lr was 0\.002 and is 0\.5"
    ):
        resume_training(folder)
    path.write_text(yaml.safe_dump(config), "utf-8")
    with pytest.raises(UsageError, match="batch was 4 and is 2"):
        resume_training(folder, batch=2)


def test_another_number_of_threads_is_noted(few_colors, tmp_path, request):
    folder, messages = start_and_crash(few_colors, tmp_path, 3), Messages()
    request.getfixturevalue("two_threads")
    resume_training(folder, messages)
    assert "threads was 1 and is 2: the weights may differ in the last bits" in messages.warnings[0]


def test_a_folder_that_is_not_a_run_is_refused(tmp_path):
    with pytest.raises(UsageError, match=r"it has no config\.yaml"):
        resume_training(tmp_path)


@pytest.fixture
def old_runs(tmp_path):
    """Runs that Striate wrote before formats had numbers: two that were interrupted, and what they became.

    `plain` is image classification (SGD, EMA, each batch split in two), `pairs` is sequence to sequence with
    checkpoint averaging. `finished` has the same runs without the interruption, by the same old version.
    """
    with tarfile.open(OLD_RUNS) as archive:
        archive.extractall(tmp_path, filter="data")
    return tmp_path


def without_key_bias(name, tensor):
    """Without the bias of attention's keys: softmax cancels it, so its gradient is rounding noise.

    AdamW makes full steps even of noise, which differs between CPUs.
    """
    if not name.endswith("in_proj_bias"):
        return tensor
    query, _, value = tensor.chunk(3)
    return torch.cat([query, value])


@pytest.mark.parametrize(("name", "task"), [("plain", "classification"), ("pairs", "seq2seq")])
def test_runs_of_format_1_resume_to_the_weights_of_the_old_version(old_runs, name, task):
    folder, finished = old_runs / name, old_runs / "finished" / name
    values = read_config(folder)
    assert (values["task"], values["accumulate"], values["micro_batches"]) == (task, 1, 2)
    changes = {"data": (str(old_runs / "pairs.tsv"),)} if task == "seq2seq" else {}
    config = parse_config(entry(task).find("config"), {**values, **changes})
    assert (config.accumulate, config.micro_batches, config.step_batch) == (1, 2, config.batch)
    old = checkpoint.newest(folder)[0]
    assert old.values["micro_batches"] == 2

    done = resume_training(folder, **changes)
    assert done.task.context.device.type == "cpu"
    assert checkpoint.finished(folder)["micro_batches"] == 2
    for bundle in ("last", "best"):
        found, expected = (load_file(place / f"{bundle}.safetensors") for place in (folder, finished))
        assert found.keys() == expected.keys()
        for key, value in expected.items():
            mine, its = (without_key_bias(key, tensor) for tensor in (found[key], value))
            torch.testing.assert_close(mine, its, rtol=1e-5, atol=1e-6, msg=key)
    rows = [
        list(csv.DictReader((place / "results.csv").read_text().splitlines())) for place in (folder, finished)
    ]
    for mine, its in zip(*rows, strict=True):
        assert mine.keys() >= its.keys()  # later versions have more columns
        for column, value in its.items():
            if value and "second" not in column:
                assert float(mine[column]) == pytest.approx(float(value), rel=1e-5), column


@pytest.mark.filterwarnings("ignore:.*has no checksums")
def test_bundles_of_runs_of_format_1_open(old_runs):
    classifier = striate.load(old_runs / "plain", device="cpu")
    assert classifier.classes == tuple("0123456789")
    evaluation = striate.evaluate(old_runs / "plain")
    assert (evaluation.split, evaluation.n) == ("test", 359)
    translator = striate.load(old_runs / "pairs", device="cpu")
    assert json.dumps(translator.translate(["abc"]).results[0].text)
    config = old_runs / "plain" / "config.yaml"
    config.write_text(config.read_text("utf-8").replace("epochs: 3", "epochs: 4"), "utf-8")
    with pytest.raises(UsageError, match=r"epochs was 3 and is 4"):
        resume_training(old_runs / "plain")
