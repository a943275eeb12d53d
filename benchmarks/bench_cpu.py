"""Speed of `striate.kernels.allocator` and `striate.kernels.linear` on a CPU, compared with plain torch.

    python benchmarks/bench_cpu.py
    python benchmarks/bench_cpu.py --rounds 5 --out benchmarks/results

- steps: forward, backward and SGD of a network on one batch that never changes. Freed memory is kept ("kept")
  or returned to the system as malloc does by default ("mapped"); each in a separate process, in turns.
- products: a linear layer of a Transformer (448 tokens) and its gradients for input and weight, by oneDNN and
  by torch's default.

Medians over the rounds of the medians, in milliseconds; page faults of a step; peak memory.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from record import write_results

from striate import models
from striate.kernels import allocator
from striate.kernels.layout import use_channels_last
from striate.kernels.linear import onednn

STEPS = {"lenet": (32, 256), "alexnet": (224, 64), "resnet18": (224, 32), "mobilenet_v3_small": (224, 64)}
PRODUCTS = {"256 to 256": (256, 256), "256 to 1,024": (256, 1024), "1,024 to 256": (1024, 256)}
TOKENS, REPEATS = 448, 40


def milliseconds(call: Callable[[], object], repeats: int) -> float:
    """The median after three calls to warm up."""
    times = []
    for _ in range(3 + repeats):
        started = time.perf_counter()
        call()
        times.append(1e3 * (time.perf_counter() - started))
    return statistics.median(times[3:])


def steps(name: str, keep: bool) -> dict[str, float]:
    """A network's training step."""
    if keep:
        allocator.keep()
    torch.manual_seed(0)
    size, batch = STEPS[name]
    network = models.build(name, num_classes=10).train()
    use_channels_last(network, torch.device("cpu"))
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01, momentum=0.9)
    images, labels = torch.randn(batch, 3, size, size), torch.randint(0, 10, (batch,))

    def step() -> None:
        optimizer.zero_grad()
        F.cross_entropy(network(images), labels).backward()  # type: ignore[no-untyped-call]  # torch's omission
        optimizer.step()

    repeats = 6
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    took = milliseconds(step, repeats)
    after = resource.getrusage(resource.RUSAGE_SELF)
    return {
        "ms": round(took, 1),
        "pages": round((after.ru_minflt - before) / (3 + repeats)),
        "megabytes": after.ru_maxrss // 1024,
    }


def products() -> dict[str, Any]:
    """Milliseconds of a layer's three products, by torch and by oneDNN."""
    found: dict[str, Any] = {}
    for name, (width, out) in PRODUCTS.items():
        x, weight, gradient = torch.randn(TOKENS, width), torch.randn(out, width), torch.randn(TOKENS, out)
        pairs = {
            "forward": (x, weight),
            "input's gradient": (gradient, weight.t()),
            "weight's gradient": (gradient.t(), x.t()),
        }
        found[name] = {}
        for what, (a, b) in pairs.items():
            torchs = milliseconds(lambda a=a, b=b: a @ b.t(), REPEATS)  # type: ignore[misc]
            ours = milliseconds(lambda a=a, b=b: onednn(a, b, None), REPEATS)  # type: ignore[misc]
            found[name][what] = {
                "torch": round(torchs, 3), "onednn": round(ours, 3), "ratio": round(torchs / ours, 2)
            }  # fmt: skip
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--out", type=Path, help="folder for a results file")
    parser.add_argument("--step", nargs=2, help=argparse.SUPPRESS)  # one measurement, in its own process
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    if args.step:
        print(json.dumps(steps(args.step[0], args.step[1] == "kept")))
        return
    record: dict[str, Any] = {"torch": torch.__version__, "threads": args.threads, "rounds": args.rounds}
    record["steps"] = {}
    for name in STEPS:
        runs: dict[str, list[dict[str, float]]] = {"mapped": [], "kept": []}
        for _ in range(args.rounds):
            for how, seen in runs.items():
                command = [sys.executable, __file__, "--threads", str(args.threads), "--step", name, how]
                seen.append(json.loads(subprocess.run(command, capture_output=True, check=True).stdout))
        row: dict[str, Any] = {
            how: {what: statistics.median(one[what] for one in seen) for what in seen[0]}
            for how, seen in runs.items()
        }
        record["steps"][name] = {**row, "ratio": round(row["mapped"]["ms"] / row["kept"]["ms"], 2)}
    with torch.inference_mode():
        record["products"] = products()
    print(json.dumps(record, indent=2))
    if args.out:
        write_results(record, args.out, "cpu", cpus=args.threads)


if __name__ == "__main__":
    main()
