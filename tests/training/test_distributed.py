"""Two processes train as one does; two_processes.py is what they run."""

import csv
import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import torch
import yaml
from conftest import COLORS, make_images
from torch.distributed.run import get_args_parser
from under_torchrun import torchrun

from striate import bundle
from striate.api import run_training
from striate.errors import TrainingError, UsageError
from striate.tasks.classification.config import ClassificationConfig
from striate.training.distributed import TIMEOUT_VARIABLE, init_distributed

OPTIONS = {
    "model": "lenet", "epochs": 3, "batch": 8, "ema": 0.9, "augment": "standard", "save_every": 2, "lr": 0.001
}  # fmt: skip
PROGRAM = Path(__file__).with_name("two_processes.py")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Two folders: intact images, and the same with three unreadable ones."""
    root = tmp_path_factory.mktemp("two") / "data"
    for name, color in COLORS.items():
        make_images(root / name, 12, color)
    torn = root.with_name("torn")
    shutil.copytree(root, torn)
    for name in ("blue/003.png", "red/001.png", "red/007.png"):
        (torn / name).write_bytes(b"no image")
    return root, torn


@pytest.fixture(scope="module")
def out(data, tmp_path_factory):
    """The folder with the runs of torchrun's two processes."""
    out = tmp_path_factory.mktemp("runs")
    torchrun(PROGRAM, *data, out, json.dumps(OPTIONS))
    assert (out / "passed-0").exists()
    return out


@pytest.fixture
def one_thread():
    """As many threads as each of the two processes has."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def rows(folder):
    with (folder / "results.csv").open() as file:
        return list(csv.DictReader(file))


def digests(folder):
    return [bundle.inspect(folder / f"{name}.safetensors").weights_sha256 for name in ("last", "best")]


@pytest.mark.usefixtures("one_thread")
def test_two_processes_equal_one_with_two_micro_batches_to_the_bit(data, out, tmp_path):
    """Their shards are the two micro-batches, and a sum of two numbers has only one order."""
    run_training(
        ClassificationConfig(str(data[0]), out=str(tmp_path), name="one", micro_batches=2, **OPTIONS)
    )
    assert digests(out / "whole") == digests(tmp_path / "one")


@pytest.mark.usefixtures("one_thread")
def test_two_processes_accumulate_as_one_with_a_large_batch(data, out, tmp_path):
    """Two batches of 4 per step in two processes each: the losses of batches of 8, in a balanced order."""
    balanced = {"sampler": "balanced", "loss": "focal"}
    one = run_training(ClassificationConfig(str(data[0]), out=str(tmp_path), **OPTIONS, **balanced))
    for mine, other in zip(one.epochs, rows(out / "accumulated"), strict=True):
        assert int(other["step"]) == mine.step
        assert float(other["train_loss"]) == pytest.approx(mine.train_loss, rel=1e-5)
        assert float(other["val_loss"]) == pytest.approx(mine.val_loss, rel=1e-5)


@pytest.mark.usefixtures("one_thread")
def test_two_processes_have_the_losses_of_one_with_unreadable_images_and_uneven_shards(data, out, tmp_path):
    sgd = {"opt": "sgd", "lr": 0.01, "ema": 0.0, "batch": 13, "epochs": 7}
    one = run_training(ClassificationConfig(str(data[1]), out=str(tmp_path), **{**OPTIONS, **sgd}))
    two = rows(out / "torn")
    assert int(two[-1]["step"]) >= 20
    for mine, theirs in zip(one.epochs, two, strict=True):
        assert float(theirs["train_loss"]) == pytest.approx(mine.train_loss, rel=1e-6)
        assert float(theirs["val_loss"]) == pytest.approx(mine.val_loss, rel=1e-6)
        assert float(theirs["train_top1"]) == mine.train_top1
    listed = (out / "torn" / "problems.csv").read_text()
    assert sorted(p.path for p in one.task.problems) == sorted(
        row["path"] for row in csv.DictReader(listed.splitlines())
    )


def test_a_killed_process_changes_nothing(out):
    assert digests(out / "killed") == digests(out / "whole")
    assert not (out / "killed-2").exists()  # the restart found the folder
    assert (out / "killed" / "report.html").exists()


def test_only_the_main_process_prints(out):
    assert json.loads((out / "printed-0").read_text())["run"].endswith("killed")
    assert (out / "printed-1").read_text() == ""


def test_without_torchrun_there_is_a_single_process(monkeypatch):
    monkeypatch.delenv("RANK", raising=False)
    with init_distributed("cpu") as distributed:
        assert (distributed.rank, distributed.size, distributed.is_main) == (0, 1, True)


def as_torchrun(monkeypatch, rank, size):
    """Set the variables that torchrun sets."""
    names = {"RANK": rank, "WORLD_SIZE": size, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": 1}
    for name, value in names.items():
        monkeypatch.setenv(name, str(value))


def test_the_timeout_is_checked_and_kept(monkeypatch):
    as_torchrun(monkeypatch, 0, 2)
    monkeypatch.setenv(TIMEOUT_VARIABLE, "soon")
    message = "STRIATE_PEER_TIMEOUT=soon: it must be a number of seconds"
    with pytest.raises(UsageError, match=message), init_distributed("cpu"):
        pass
    monkeypatch.setenv(TIMEOUT_VARIABLE, "0.5")
    with pytest.raises(TrainingError, match="cannot be reached"), init_distributed("cpu"):
        pass


PAGE = (Path(__file__).parents[2] / "docs" / "distributed.md").read_text("utf-8")


def block(kind, beginning):
    """A fenced block of the page."""
    return next(
        text for text in re.findall(rf"```{kind}\n(.*?)```", PAGE, re.S) if text.startswith(beginning)
    )


def test_the_manifest_for_kubernetes_is_valid():
    job = yaml.safe_load(block("yaml", "apiVersion"))
    assert (job["apiVersion"], job["kind"]) == ("kubeflow.org/v1", "PyTorchJob")
    worker = job["spec"]["pytorchReplicaSpecs"]["Worker"]
    policy = job["spec"]["elasticPolicy"]
    assert policy["minReplicas"] <= worker["replicas"] <= policy["maxReplicas"]
    pod = worker["template"]["spec"]
    [container] = pod["containers"]
    assert container["name"] == "pytorch"  # the operator looks for this name
    assert {mount["name"] for mount in container["volumeMounts"]} == {v["name"] for v in pod["volumes"]}
    command = container["command"]
    assert command[0] == "torchrun"
    assert f"--nproc-per-node={container['resources']['limits']['nvidia.com/gpu']}" in command
    known_options([*command, *container["args"]])


def known_options(command):
    """Options before `-m striate train` are torchrun's, those after it are `striate train`'s."""
    at = command.index("striate")
    parser = get_args_parser()
    theirs, rest = parser.parse_known_args([*command[1 : at - 1], "-m", "striate"])
    assert theirs.training_script == "striate"
    assert rest == []
    for option in command[at + 3 :]:
        if option.startswith("--"):
            assert (
                option.split("=")[0].removeprefix("--").replace("-", "_")
                in ClassificationConfig.__dataclass_fields__
            )


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_the_script_for_slurm_runs(tmp_path):
    """With stubs of SLURM's programs: the first start trains, one with a checkpoint resumes."""
    for name, text in {"scontrol": "echo node7; echo node8", "srun": 'echo "$@"'}.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{text}\n")
        (tmp_path / name).chmod(0o755)
    script = block("sh", "#!/bin/bash").replace("/shared", str(tmp_path))
    environment = {
        **os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", "SLURM_NNODES": "2", "SLURM_JOB_ID": "4",
        "SLURM_JOB_NODELIST": "node[7-8]",
    }  # fmt: skip

    def start():
        command = ["bash", "-euc", script]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        return done.stdout.split()

    command = start()
    assert command[command.index("--rdzv-endpoint") + 1] == "node7:29400"
    known_options(command)
    (tmp_path / "runs" / "flowers" / "state").mkdir(parents=True)
    (tmp_path / "runs" / "flowers" / "state" / "000000000007.safetensors").touch()
    assert start()[-2:] == ["resume", f"{tmp_path}/runs/flowers"]
