"""Images per hour of each network on one CPU core, and the table of docs/cost.md.

    python benchmarks/bench_cost.py --out results.json              # measures for about ten minutes
    python benchmarks/bench_cost.py --models lenet,vgg16 --out results.json   # adds to the file
    python benchmarks/bench_cost.py --table results.json

One thread, and CPU time instead of wall time, so that other programs have little effect. Training is the
training loop with SGD on noise in memory, with crops and flips: the median of the steps after the first.
Prediction uses the folded network, as `predict` does: the second of two passes. Batches have 2 to 32 images.
GPU figures are estimates (`striate.anatomy.limits`).
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import time
from pathlib import Path
from typing import Any

import torch
from in_memory import noise, noise_training, random_network

from striate import models
from striate.anatomy import trace
from striate.anatomy.limits import A100, T4, images_per_hour
from striate.device import choose
from striate.inference.scores import logits
from striate.kernels.folding import fold
from striate.tasks.classification.config import ClassificationConfig
from striate.training.loop import fit

GPUS = (A100, T4)
KINDS = ("training", "prediction")
_SPEED = 30e9  # multiply-adds per second, to choose the size of a pass
_PASS = 3.0  # seconds


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--models", default=",".join(models.MODELS), help="names, with commas between them")
    parser.add_argument("--seconds", type=float, default=_PASS, help="of a pass")
    parser.add_argument("--out", type=Path, help="a results file, made or added to")
    parser.add_argument("--table", type=Path, help="a results file, to print the page's table of")
    return parser.parse_args()


def measure(name: str, pass_seconds: float) -> dict[str, Any]:
    """One network."""
    macs = 3 * trace(name).macs
    architecture = models.MODELS[name]
    batch = max(2, min(32, round(pass_seconds * _SPEED / macs)))
    steps = max(2, min(40, int(pass_seconds * _SPEED / (macs * batch))))
    config = ClassificationConfig(
        data="noise", model=name, batch=batch, imgsz=architecture.input_size, channels=architecture.channels,
        epochs=1, opt="sgd", lr=1e-4, augment="none" if architecture.channels == 1 else "light",
    )  # fmt: skip
    return {
        "model": name,
        "input": [architecture.channels, architecture.input_size, architecture.input_size],
        "batch": batch,
        "training": round(training(config, steps), 3),
        "prediction": round(prediction(config, steps), 3),
    }


def training(config: ClassificationConfig, steps: int) -> float:
    """Images per CPU second of the training loop."""
    times: list[float] = []
    work = noise_training(config, choose("cpu"), (steps + 1) * config.batch)
    fit(work, after_step=lambda: times.append(time.process_time()))
    return config.batch / statistics.median(b - a for a, b in itertools.pairwise(times))


def prediction(config: ClassificationConfig, steps: int) -> float:
    """Images per CPU second of the folded network."""
    preprocess, device = config.own_preprocess(None), choose("cpu")
    with torch.inference_mode():
        shape = (preprocess.channels, *preprocess.size)
        network = fold(random_network(config, preprocess, device).eval(), shape)
    images = noise(preprocess, steps * config.batch)
    for _ in range(2):
        started = time.process_time()
        logits(network, preprocess, images, device, config.batch)
        seconds = time.process_time() - started
    return len(images) / seconds


def thousands(count: float) -> str:
    """Three significant digits: 1,230, 4.56 M and 78,900 M."""
    if 1e6 <= count < 1e9:
        return f"{count / 1e6:.3g} M"
    unit, count = ("", count) if count < 1e6 else (" M", count / 1e6)
    digits = max(0, len(str(int(count))) - 3)
    return f"{round(count / 10**digits) * 10**digits:,}{unit}"


def per_image(rows: list[dict[str, Any]], what: str) -> float:
    """Multiply-adds per second, the median of the measured networks."""
    return float(statistics.median(trace(row["model"]).macs * row[what] for row in rows))


def table(record: dict[str, Any]) -> list[str]:
    """The rows of docs/cost.md; estimates are marked with ~."""
    names = [f"{gpu.name}, {what}" for gpu in GPUS for what in KINDS]
    lines = ["| network | size | CPU core, training | CPU core, prediction | " + " | ".join(names) + " |"]
    lines.append("|---|---:|" + "---:|" * (2 + len(names)))
    speeds = {what: per_image(record["rows"], what) for what in KINDS}
    measured = {row["model"]: row for row in record["rows"]}
    for name, architecture in models.MODELS.items():
        anatomy = trace(name)
        cells = [
            thousands(3600 * measured[name][what])
            if name in measured
            else f"~{thousands(3600 * speeds[what] / anatomy.macs)}"
            for what in KINDS
        ]
        cells += [
            f"~{thousands(images_per_hour(anatomy, gpu, training=what == 'training'))}"
            for gpu in GPUS
            for what in KINDS
        ]
        lines.append("| " + " | ".join([f"`{name}`", str(architecture.input_size), *cells]) + " |")
    return lines


def main() -> None:
    args = arguments()
    if args.table:
        print("\n".join(table(json.loads(args.table.read_text()))))
        return
    torch.set_num_threads(1)
    known: dict[str, Any] = {}
    if args.out and args.out.exists():
        known = {row["model"]: row for row in json.loads(args.out.read_text())["rows"]}
    for name in args.models.split(","):
        known[name] = measure(name, args.seconds)
        print(json.dumps(known[name]), flush=True)
        if args.out:
            rows = [known[name] for name in models.MODELS if name in known]
            record = {"torch": torch.__version__, "threads": 1, "clock": "CPU time", "rows": rows}
            args.out.write_text(json.dumps(record, indent=2) + "\n")


if __name__ == "__main__":
    main()
