"""Two processes train as one does; what they do is in two_processes.py."""

import csv
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from conftest import COLORS, make_images
from torch.distributed.run import get_args_parser

from striate import bundle
from striate.errors import TrainingError, UsageError
from striate.training import joining
from striate.training.config import TrainConfig
from striate.training.joining import joined
from striate.training.schedule import slices
from striate.training.session import train

OPTIONS = {
    "model": "lenet", "epochs": 3, "batch": 8, "ema": 0.9, "augment": "standard", "save_every": 2, "lr": 0.001
}  # fmt: skip
PROGRAM = Path(__file__).with_name("two_processes.py")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
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
    """The folder of what torchrun's two processes did."""
    out = tmp_path_factory.mktemp("runs")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command += ["--max-restarts", "1", "--monitor-interval", "0.1", PROGRAM, *data, out, json.dumps(OPTIONS)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "STRIATE_PEER_TIMEOUT": "60"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr[-6000:]
    assert (out / "passed-0").exists(), done.stderr[-6000:]
    return out


@pytest.fixture
def one_thread():
    """As each of the two has."""
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
def test_two_processes_are_one_with_two_parts_to_the_bit(data, out, tmp_path):
    """Their shares are what --accumulate 2 makes of a batch, and a sum of two has but one order."""
    train(TrainConfig(data=str(data[0]), out=str(tmp_path), name="one", accumulate=2, **OPTIONS))
    assert digests(out / "whole") == digests(tmp_path / "one")


@pytest.mark.usefixtures("one_thread")
def test_two_processes_have_the_losses_of_one_with_holes_in_uneven_shares(data, out, tmp_path):
    sgd = {"opt": "sgd", "lr": 0.01, "ema": 0.0, "batch": 13, "epochs": 7}
    one = train(TrainConfig(data=str(data[1]), out=str(tmp_path), **{**OPTIONS, **sgd}))
    two = rows(out / "torn")
    assert int(two[-1]["step"]) >= 20
    for mine, theirs in zip(one.epochs, two, strict=True):
        assert float(theirs["train_loss"]) == pytest.approx(mine.train_loss, rel=1e-6)
        assert float(theirs["val_loss"]) == pytest.approx(mine.val_loss, rel=1e-6)
        assert float(theirs["train_top1"]) == mine.train_top1
    listed = (out / "torn" / "problems.csv").read_text()
    assert sorted(p.path for p in one.problems) == sorted(
        row["path"] for row in csv.DictReader(listed.splitlines())
    )


def test_a_killed_process_changes_nothing(out):
    assert digests(out / "killed") == digests(out / "whole")
    assert not (out / "killed-2").exists()  # the restart found the folder
    assert (out / "killed" / "report.html").exists()


def test_one_of_them_prints(out):
    assert json.loads((out / "printed-0").read_text())["run"].endswith("killed")
    assert (out / "printed-1").read_text() == ""


@pytest.mark.parametrize(("count", "shares"), [(8, [4, 4]), (7, [3, 4]), (3, [3]), (2, [2]), (1, [1])])
def test_no_share_is_a_single_image_of_several(count, shares):
    which = np.arange(count)
    assert [len(which[part]) for part in slices(count, 2)] == shares


def test_alone_where_nobody_started_others(monkeypatch):
    monkeypatch.delenv("RANK", raising=False)
    with joined("cpu") as world:
        assert (world.rank, world.size, world.leads) == (0, 1, True)


def started(monkeypatch, rank, size):
    for name, value in {
        "RANK": rank,
        "WORLD_SIZE": size,
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": 0,
    }.items():
        monkeypatch.setenv(name, str(value))


def test_it_says_how_long_it_waits(monkeypatch):
    started(monkeypatch, 0, 2)
    monkeypatch.setenv(joining.PATIENCE_VARIABLE, "soon")
    with (
        pytest.raises(UsageError, match="STRIATE_PEER_TIMEOUT=soon: it is no number of seconds"),
        joined("cpu"),
    ):
        pass
    monkeypatch.setenv(joining.PATIENCE_VARIABLE, "0.5")
    with pytest.raises(TrainingError, match="cannot be reached"), joined("cpu"):
        pass


PAGE = (Path(__file__).parents[2] / "docs" / "distributed.md").read_text("utf-8")


def block(kind, beginning):
    """A fenced block of the page."""
    return next(
        text for text in re.findall(rf"```{kind}\n(.*?)```", PAGE, re.S) if text.startswith(beginning)
    )


def test_the_manifest_for_kubernetes_is_what_the_operator_reads():
    job = yaml.safe_load(block("yaml", "apiVersion"))
    assert (job["apiVersion"], job["kind"]) == ("kubeflow.org/v1", "PyTorchJob")
    worker = job["spec"]["pytorchReplicaSpecs"]["Worker"]
    policy = job["spec"]["elasticPolicy"]
    assert policy["minReplicas"] <= worker["replicas"] <= policy["maxReplicas"]
    pod = worker["template"]["spec"]
    [container] = pod["containers"]
    assert container["name"] == "pytorch"  # the operator looks for it by that name
    assert {mount["name"] for mount in container["volumeMounts"]} == {v["name"] for v in pod["volumes"]}
    command = container["command"]
    assert command[0] == "torchrun"
    assert f"--nproc-per-node={container['resources']['limits']['nvidia.com/gpu']}" in command
    known_options([*command, *container["args"]])


def known_options(command):
    """Every option is one of torchrun's before `-m striate train`, and one of `striate train`'s behind it."""
    at = command.index("striate")
    parser = get_args_parser()
    theirs, rest = parser.parse_known_args([*command[1 : at - 1], "-m", "striate"])
    assert theirs.training_script == "striate"
    assert rest == []
    for option in command[at + 3 :]:
        if option.startswith("--"):
            assert (
                option.split("=")[0].removeprefix("--").replace("-", "_") in TrainConfig.__dataclass_fields__
            )


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_the_script_for_slurm_runs(tmp_path):
    """With a stand-in for each program of SLURM: a first start trains, one with a saved state resumes."""
    for name, text in {"scontrol": "echo node7; echo node8", "srun": 'echo "$@"'}.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{text}\n")
        (tmp_path / name).chmod(0o755)
    script = block("sh", "#!/bin/bash").replace("/shared", str(tmp_path))
    environment = {
        **os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", "SLURM_NNODES": "2", "SLURM_JOB_ID": "4",
        "SLURM_JOB_NODELIST": "node[7-8]",
    }  # fmt: skip

    def started():
        command = ["bash", "-euc", script]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        return done.stdout.split()

    command = started()
    assert command[command.index("--rdzv-endpoint") + 1] == "node7:29400"
    known_options(command)
    (tmp_path / "runs" / "flowers" / "state").mkdir(parents=True)
    (tmp_path / "runs" / "flowers" / "state" / "000000000007.safetensors").touch()
    assert started()[-2:] == ["resume", f"{tmp_path}/runs/flowers"]
