"""Runs that are interrupted and resumed, for tests that compare them with an uninterrupted run."""

import csv

from conftest import crash_after

from striate import bundle
from striate.api import run_training
from striate.progress import SILENT
from striate.tasks.classification.config import ClassificationConfig

# A moving average, random crops and accumulated gradients: a resumed run has to continue all of them.
OPTIONS = {
    "model": "lenet", "epochs": 3, "batch": 4, "accumulate": 2, "ema": 0.9, "augment": "standard",
    "save_every": 2, "name": "run",
}  # fmt: skip


def start(data, out, progress=SILENT, **options):
    """Train with these options; four steps per epoch."""
    options = {"out": str(out), "progress": progress, **OPTIONS, **options}
    return run_training(ClassificationConfig(str(data), **options))


def start_and_crash(data, out, step, **options):
    """Train until the process dies after a step; returns the run folder."""
    with crash_after(step):
        start(data, out, **options)
    return out / "run"


def outcome(folder):
    """What must be equal: the weights, and results.csv without the times."""
    with (folder / "results.csv").open() as file:
        rows = [{k: v for k, v in row.items() if "second" not in k} for row in csv.DictReader(file)]
    digests = [bundle.inspect(folder / f"{name}.safetensors").weights_sha256 for name in ("last", "best")]
    return digests, rows
