"""A search for options with `striate tune`, compared with the default options.

    python benchmarks/bench_tune.py ../shared/data/flowers --budget 10m
    python benchmarks/bench_tune.py ../shared/data/cifar10_jpg --budget 10m --out benchmarks/results

Both are trained for the same number of epochs and on the same images. `value` and `default` are accuracies on
the validation images, by which the best trial is chosen, so that the difference is slightly optimistic;
`test_top1` and `default_test_top1`, with 95 % intervals, are measured on test images, by which nothing is
chosen. `cpu_share` is the CPU time divided by the time: less than the number of threads if others ran.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from record import write_results

import striate


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("data")
    parser.add_argument("--model", default="resnet20")
    parser.add_argument("--imgsz", type=int, default=32)
    parser.add_argument("--val", type=float, default=0.2)
    parser.add_argument("--budget", default="10m")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="folder for a results file")
    return parser.parse_args()


def measure(args: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Search once."""
    started, cpu = time.perf_counter(), time.process_time()
    found = striate.tune(
        args.data, budget=args.budget, model=args.model, imgsz=args.imgsz, val=args.val, seed=args.seed,
        out=str(folder),
    )  # fmt: skip
    seconds, cpu = time.perf_counter() - started, time.process_time() - cpu
    best, default = found.evaluations
    return {
        "data": Path(args.data).name, "model": args.model, "imgsz": args.imgsz, "val": args.val,
        "seed": args.seed, "budget": args.budget, "seconds": seconds, "cpu_share": cpu / seconds,
        "threads": torch.get_num_threads(), "torch": torch.__version__, "epochs": found.best.epochs,
        "trials": len({trial.trial for trial in found.trials}) - 1,
        "whole_runs": sum(trial.epochs == found.best.epochs for trial in found.trials),
        "is_better": found.is_better, "options": found.best.options,
        "value": found.best.value, "default": found.default.value, "n_test": best.n,
        "test_top1": best.top1, "test_top1_ci": list(best.top1_ci),
        "default_test_top1": default.top1, "default_test_top1_ci": list(default.top1_ci),
    }  # fmt: skip


def main() -> None:
    args = arguments()
    with tempfile.TemporaryDirectory() as folder:
        result = measure(args, Path(folder))
    print(json.dumps(result, indent=2))
    if args.out:
        write_results(result, args.out, f"tune-{Path(args.data).name}", cpus=torch.get_num_threads())


if __name__ == "__main__":
    main()
