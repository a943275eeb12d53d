"""The trackers of `--log`, each with its real package and without a network."""

import importlib.util
import json
import struct
from pathlib import Path

import numpy as np
import pytest
from conftest import Messages

import striate

pytestmark = [
    pytest.mark.slow,  # these packages take seconds to import, and start processes
    pytest.mark.filterwarnings("default"),  # theirs are not ours
]

LABELS = np.arange(24) % 2
NOISE = np.random.default_rng(0).integers(0, 100, (24, 32, 32))
IMAGES = (LABELS[:, None, None] * 150 + NOISE).astype(np.uint8)


@pytest.fixture(autouse=True)
def _folder(tmp_path, monkeypatch):
    """A working folder and a home of their own, and modes that need no account."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("SWANLAB_MODE", "offline")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


def run_with(name, folder, *, resumed=True):
    """Train two epochs, and one more as a resumed run; the rows of results.csv."""
    package = {"tensorboard": "tensorboard"}.get(name, name)
    if importlib.util.find_spec(package) is None:
        pytest.skip(f"{package} is not installed")
    messages = Messages()
    options = {"model": "lenet", "batch": 8, "log": name, "progress": messages, "out": str(folder / "runs")}
    run = striate.train((IMAGES, LABELS), epochs=2, name="run", **options)
    if resumed:
        run = striate.resume(folder / "runs/run", messages, data=(IMAGES, LABELS), epochs=3)
    assert not [m for m in messages.warnings if "records no more" in m]
    return run.training.epochs


def test_tensorboard(tmp_path):
    rows = run_with("tensorboard", tmp_path)
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(tmp_path / "runs/run/tensorboard"))
    events.Reload()
    found = {event.step: event.value for event in events.Scalars("val_loss")}
    assert found == {row.epoch: pytest.approx(row.val_loss, rel=1e-6) for row in rows}
    assert {"train_loss", "val_top1", "lr"} <= set(events.Tags()["scalars"])


def test_mlflow(tmp_path):
    rows = run_with("mlflow", tmp_path)
    import mlflow

    client = mlflow.MlflowClient()
    experiment = client.get_experiment_by_name("striate")
    (run,) = client.search_runs([experiment.experiment_id])  # the resumed run continues the same one
    assert run.info.status == "FINISHED"
    assert run.data.params["model"] == "lenet"
    history = {metric.step: metric.value for metric in client.get_metric_history(run.info.run_id, "val_loss")}
    assert history == {row.epoch: pytest.approx(row.val_loss) for row in rows}


def leveldb_records(data):
    """The records of a log in LevelDB's format: blocks of 32 KiB, each record with a header of 7 bytes."""
    at, parts = 7, []  # after W&B's own header
    while at + 7 <= len(data):
        if 32768 - at % 32768 < 7:
            at += 32768 - at % 32768
            continue
        _, length, kind = struct.unpack_from("<IHB", data, at)
        parts.append(data[at + 7 : at + 7 + length])
        at += 7 + length
        if kind in (1, 4):  # a whole record, or the last part of one
            yield b"".join(parts)
            parts = []


def test_wandb(tmp_path):
    rows = run_with("wandb", tmp_path)
    from wandb.proto import wandb_internal_pb2

    found, names = {}, set()
    for file in sorted((tmp_path / "runs/run").rglob("*.wandb")):
        names.add(file.name)
        for data in leveldb_records(file.read_bytes()):
            record = wandb_internal_pb2.Record()
            record.ParseFromString(data)
            if record.WhichOneof("record_type") == "history":
                items = [(item.key or item.nested_key[0], item.value_json) for item in record.history.item]
                row = {name: json.loads(value) for name, value in items}
                found[row["epoch"]] = row["val_loss"]
    assert found == {row.epoch: pytest.approx(row.val_loss) for row in rows}
    assert len(names) == 1, "the resumed run has the same id"


def test_swanlab(tmp_path):
    rows = run_with("swanlab", tmp_path, resumed=False)
    (file,) = Path(tmp_path / "runs/run/swanlab").rglob("*.swanlab")
    content = file.read_bytes()  # protocol buffers, in which numbers are doubles
    assert b"val_loss" in content
    assert all(struct.pack("<d", row.val_loss) in content for row in rows)
    assert "lenet" in (file.parent / "files" / "config.yaml").read_text()
