"""CPU seconds and bytes of writing each built-in network as ONNX, without the comparison.

    python benchmarks/bench_export.py [--networks resnet18 vit_b_16 ...] [--out FILE]

Each network is written in a fresh process, after the imports and after its weights have been made. The
limits: 1 CPU second for a network of convolutions, 5 for ViT-B.
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
from pathlib import Path

from striate.models import MODELS

FRESH = """
import sys, tempfile, time
from pathlib import Path
import torch
from striate import models
from striate.bundle import Description
from striate.exporters import onnx
from striate.inference.classifier import Classifier
from striate.transforms.preprocess import Preprocess

name = sys.argv[1]
entry = models.describe(name)
preprocess = Preprocess.for_size(entry.input_size, entry.channels)
network = models.build(name).eval()
classes = tuple(map(str, range(models.interface(name, {})[0])))
description = Description("classification", name, {}, classes, preprocess)
classifier = Classifier(network, description, torch.device("cpu"))
with tempfile.TemporaryDirectory() as folder:
    path = Path(folder) / "model.onnx"
    start = time.process_time()
    onnx.write(path, onnx.graph(network, preprocess), classifier)
    print(time.process_time() - start, path.stat().st_size)
"""


def limit(name: str) -> float:
    return 5.0 if name.startswith("vit_") else 1.0


def measure(name: str, repeats: int) -> dict[str, float]:
    """The fastest of several processes; what the kernel takes for a file of 500 MB varies by a second."""
    runs = []
    for _ in range(repeats):
        done = subprocess.run([sys.executable, "-c", FRESH, name], capture_output=True, text=True, check=True)
        runs.append([float(number) for number in done.stdout.split()])
    seconds, size = min(runs)
    return {"cpu_seconds": round(seconds, 3), "bytes": int(size), "repeats": repeats}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--networks", nargs="+", default=list(MODELS))
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path, help="results of other networks in this file stay")
    args = parser.parse_args()
    results = {}
    for name in args.networks:
        results[name] = measure(name, args.repeats)
        over = "  ABOVE THE LIMIT" if results[name]["cpu_seconds"] > limit(name) else ""
        print(f"{name:22} {results[name]['cpu_seconds']:6.3f} s {results[name]['bytes'] / 1e6:8.1f} MB{over}")
    if args.out:
        old = json.loads(args.out.read_text("utf-8"))["networks"] if args.out.exists() else {}
        results = {**old, **results}
        about = {"python": platform.python_version(), "machine": platform.machine()}
        args.out.write_text(json.dumps({"about": about, "networks": results}, indent=1) + "\n", "utf-8")
    return int(any(row["cpu_seconds"] > limit(name) for name, row in results.items()))


if __name__ == "__main__":
    sys.exit(main())
