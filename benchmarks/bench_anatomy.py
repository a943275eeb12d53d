"""How long the anatomy of a network takes, beside torchinfo and torch's FlopCounterMode.

    python benchmarks/bench_anatomy.py [--networks resnet152 googlenet ...] [--out FILE]

All three look at the same module on the meta device, in one process and in turn; the fastest of several
runs counts. The first run in a fresh process, and the memory that it adds, are measured in a process of
their own for each network. torchinfo is not a dependency: `pip install torchinfo` for its column.
"""

from __future__ import annotations

import argparse
import gc
import json
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from striate.anatomy import trace
from striate.models import MODELS, build

NETWORKS = ["resnet152", "googlenet", "mobilenet_v3_large", "vgg16", "vit_b_16"]

FRESH = """
import resource, time, torch
from striate.anatomy import trace
from striate.models import build
from striate.models import MODELS
with torch.device("meta"):
    net = build({name!r})

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize() / 1e6

before = resident()
entry = MODELS[{name!r}]
x = torch.empty(1, entry.channels, entry.input_size, entry.input_size, device="meta")
start = time.perf_counter()
trace(net, x)
print(time.perf_counter() - start, resident() - before)
"""


def fastest(run: Callable[[], object], repeats: int) -> float:
    """Seconds of the fastest of several runs, after one that does not count."""
    run()
    times = []
    for _ in range(repeats):
        gc.collect()
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return min(times)


def flop_counter(net: nn.Module, x: torch.Tensor) -> None:
    with torch.no_grad(), FlopCounterMode(display=False):
        net(x)


def measure(name: str, repeats: int) -> dict[str, float]:
    """Seconds of each tool, the first run's, and megabytes that the first run added."""
    with torch.device("meta"):
        net = build(name).eval()
    side = MODELS[name].input_size
    x = torch.empty(1, MODELS[name].channels, side, side, device="meta")
    row: dict[str, float] = {"striate": fastest(lambda: trace(net, x), repeats)}
    try:
        import torchinfo  # type: ignore[import-not-found]  # optional

        row["torchinfo"] = fastest(
            lambda: torchinfo.summary(net, input_data=x, device="meta", verbose=0), repeats
        )
    except ImportError:
        row["torchinfo"] = float("nan")
    row["flop_counter"] = fastest(lambda: flop_counter(net, x), repeats)
    done = subprocess.run(
        [sys.executable, "-c", FRESH.format(name=name)], capture_output=True, text=True, check=True
    )
    row["first_run"], row["resident_mb"] = map(float, done.stdout.split())
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description="Time the anatomy beside torchinfo and FlopCounterMode.")
    parser.add_argument("--networks", nargs="*", default=NETWORKS)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--out", type=Path, help="also write the figures here, as JSON")
    options = parser.parse_args()
    print(f"{'network':22}{'striate':>10}{'torchinfo':>11}{'ratio':>7}{'flops':>9}{'first run':>11}{'MB':>7}")
    rows = {}
    for name in options.networks:
        row = rows[name] = measure(name, options.repeats)
        ratio = row["striate"] / row["torchinfo"]
        print(
            f"{name:22}{row['striate']:10.4f}{row['torchinfo']:11.4f}{ratio:7.2f}"
            f"{row['flop_counter']:9.4f}{row['first_run']:11.4f}{row['resident_mb']:7.1f}"
        )
    if options.out:
        record = {"torch": torch.__version__, "machine": platform.machine(), "networks": rows}
        options.out.write_text(json.dumps(record, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
