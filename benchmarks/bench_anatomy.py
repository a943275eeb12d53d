"""Compare the anatomy's speed with torchinfo, FlopCounterMode, and bare forward passes without data.

    python benchmarks/bench_anatomy.py [--networks resnet152 googlenet ...] [--out FILE]

All times are CPU seconds of the fastest of several runs, in one process, for the same module on the meta
device. `meta` and `fake` are forward passes that record nothing, under torch's meta kernels and under
FakeTensorMode (which caches shapes): the least that a trace based on either would take. The first trace in a
process, and the memory that it adds, are measured in a separate process for each network, which has not
loaded torch's compiler. The limit: for resnet152, at most 0.2 of torchinfo's time. torchinfo is not a
dependency: `pip install torchinfo` for its column.
"""

from __future__ import annotations

import argparse
import copy
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
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from striate.anatomy import trace
from striate.models import MODELS, build

NETWORKS = ["resnet152", "googlenet", "mobilenet_v3_large", "vgg16", "vit_b_16"]
COLUMNS = ("striate", "torchinfo", "flop_counter", "meta", "fake", "first_run")

FRESH = """
import resource, time, torch
from striate.anatomy import trace
from striate.models import build
from striate.device import on_meta
from striate.models import MODELS
with on_meta():
    net = build({name!r})

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize() / 1e6

before = resident()
entry = MODELS[{name!r}]
x = torch.empty(1, entry.channels, entry.input_size, entry.input_size, device="meta")
start = time.process_time()
trace(net, x)
print(time.process_time() - start, resident() - before)
"""


def fastest(run: Callable[[], object], repeats: int) -> float:
    """CPU seconds of the fastest of several runs, after one warm-up run."""
    run()
    times = []
    for _ in range(repeats):
        gc.collect()
        start = time.process_time()
        run()
        times.append(time.process_time() - start)
    return min(times)


def forward(net: nn.Module, x: torch.Tensor) -> None:
    with torch.no_grad():
        net(x)


def flop_counter(net: nn.Module, x: torch.Tensor) -> None:
    with FlopCounterMode(display=False):
        forward(net, x)


def measure(name: str, repeats: int) -> dict[str, float]:
    """CPU seconds of each tool, those of the first trace, and megabytes that the first trace added."""
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
    row["meta"] = fastest(lambda: forward(net, x), repeats)
    fake_net = copy.deepcopy(net)
    with FakeTensorMode(allow_non_fake_inputs=True):
        fake_net.to_empty(device="cpu")
        fake_x = torch.empty(x.shape)
        row["fake"] = fastest(lambda: forward(fake_net, fake_x), repeats)
    done = subprocess.run(
        [sys.executable, "-c", FRESH.format(name=name)], capture_output=True, text=True, check=True
    )
    row["first_run"], row["resident_mb"] = map(float, done.stdout.split())
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description="Compare the anatomy's speed with torchinfo and others.")
    parser.add_argument("--networks", nargs="*", default=NETWORKS)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--out", type=Path, help="also write the results to this file, as JSON")
    options = parser.parse_args()
    print(f"{'network':20}" + "".join(f"{name:>14}" for name in COLUMNS) + f"{'ratio':>7}{'MB':>7}")
    rows = {}
    for name in options.networks:
        row = rows[name] = measure(name, options.repeats)
        times = "".join(f"{row[column]:14.4f}" for column in COLUMNS)
        print(f"{name:20}{times}{row['striate'] / row['torchinfo']:7.3f}{row['resident_mb']:7.1f}")
    if options.out:
        record = {
            "torch": torch.__version__,
            "machine": platform.machine(),
            "seconds": "CPU",
            "networks": rows,
        }
        options.out.write_text(json.dumps(record, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
