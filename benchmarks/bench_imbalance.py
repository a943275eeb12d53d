"""Balanced accuracy of plain and of balanced training on imbalanced classes, over seeds.

    OMP_NUM_THREADS=1 python benchmarks/bench_imbalance.py ../shared/data/flowers --out benchmarks/results

DATA has a folder for each class, of which the first ones get as many training images as --counts says. A seed
decides which images these are, their order, and the initial weights; all kinds of training see the same ones.
Of the remaining images of each class, 10 select the best epoch, by balanced accuracy, and 40 are the test
images. `difference` is the mean over the seeds of the balanced accuracy minus that of plain training, with a
95 % interval (Student's t, paired by seed). `one_class` counts the runs whose report says that the model
predicts one class for all images.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from record import write_results
from scipy.stats import t  # type: ignore[import-untyped]

import striate

KINDS: dict[str, dict[str, Any]] = {
    "plain": {},
    "sampler": {"sampler": "balanced"},
    "weights": {"class_weights": "balanced"},
    "focal, effective": {"loss": "focal", "class_weights": "effective"},
}
HELD_OUT = {"val": 10, "test": 40}  # images of each class


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--counts", nargs="+", type=int, default=[150, 30, 8])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--imgsz", type=int, default=32)
    parser.add_argument("--model", default="lenet")
    parser.add_argument("--out", type=Path, help="folder for a results file")
    return parser.parse_args()


def subset(data: Path, counts: list[int], seed: int, folder: Path) -> Path:
    """Training images as imbalanced as asked, and as many of each class to evaluate on, as links."""
    classes = sorted(path for path in data.iterdir() if path.is_dir())
    for count, place in zip(counts, classes, strict=False):
        files = sorted(place.iterdir())
        random.Random(seed).shuffle(files)
        for split, number in {**HELD_OUT, "train": count}.items():
            (folder / split / place.name).mkdir(parents=True)
            for file in files[:number]:
                (folder / split / place.name / file.name).symlink_to(file.resolve())
            files = files[number:]
    return folder


def measure(args: argparse.Namespace, images: Path, seed: int, kind: str, out: Path) -> dict[str, Any]:
    run = striate.train(
        images, model=args.model, epochs=args.epochs, batch=args.batch, imgsz=args.imgsz, seed=seed,
        monitor="balanced-accuracy", name=kind, out=str(out), **KINDS[kind],
    )  # fmt: skip
    found: Any = run.evaluation
    assert found.only_class is None or "tells no classes apart" in run.report.read_text()
    shown = {name: round(found.metrics[name], 4) for name in ("top1", "balanced_accuracy", "mcc")}
    return {**shown, "recall": [round(c.recall, 4) for c in found.per_class], "only_class": found.only_class}


def summary(rows: list[dict[str, Any]], plain: list[dict[str, Any]]) -> dict[str, Any]:
    accuracies = [row["balanced_accuracy"] for row in rows]
    gains = [mine - row["balanced_accuracy"] for mine, row in zip(accuracies, plain, strict=True)]
    n = len(gains)
    half = t.ppf(0.975, n - 1) * statistics.stdev(gains) / n**0.5 if n > 1 else float("nan")
    mean = statistics.mean(gains)
    return {
        "balanced_accuracy": round(statistics.mean(accuracies), 4),
        "top1": round(statistics.mean(row["top1"] for row in rows), 4),
        "difference": round(mean, 4), "interval": [round(mean - half, 4), round(mean + half, 4)],
        "one_class": sum(row["only_class"] is not None for row in rows), "runs": rows,
    }  # fmt: skip


def main() -> None:
    args, started = arguments(), time.process_time()
    runs: dict[str, list[dict[str, Any]]] = {kind: [] for kind in KINDS}
    for seed in range(args.seeds):
        with tempfile.TemporaryDirectory() as folder:
            images = subset(args.data, args.counts, seed, Path(folder) / "data")
            for kind in KINDS:
                runs[kind].append(measure(args, images, seed, kind, Path(folder)))
                print(seed, kind, json.dumps(runs[kind][-1]), flush=True)
    found = {kind: summary(rows, runs["plain"]) for kind, rows in runs.items()}
    for kind, row in found.items():
        low, high = row["interval"]
        print(
            f"{kind:18} balanced accuracy {row['balanced_accuracy']:.1%}, {row['difference']:+.1%} "
            f"({low:+.1%} to {high:+.1%}), one class in {row['one_class']} of {args.seeds} runs"
        )
    if args.out:
        asked = {
            name: getattr(args, name) for name in ("counts", "seeds", "epochs", "batch", "imgsz", "model")
        }
        record = {
            "torch": torch.__version__, "data": args.data.name, **asked,
            "cpu_seconds": round(time.process_time() - started), "kinds": found,
        }  # fmt: skip
        write_results(record, args.out, "imbalance", cpus=torch.get_num_threads())


if __name__ == "__main__":
    main()
