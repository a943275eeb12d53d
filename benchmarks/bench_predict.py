"""Milliseconds of a network for one image, before and after folding.

    python benchmarks/bench_predict.py
    python benchmarks/bench_predict.py --models resnet50 --batch 32 --rounds 10 --out benchmarks/results

"eager" is the network in evaluation and inference mode on a contiguous tensor; "folded" is what `predict`,
`evaluate` and the validation of a training run use. Both run in turns in one process; medians and quartiles.
`error` is the largest difference of a score divided by the largest score; `folding_ms` is the time to fold
the network once, including its comparison with the original.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path
from typing import Any

import torch
from record import write_results
from torch import nn

from striate import models
from striate.kernels.folding import fold

MODELS = "resnet18,mobilenet_v3_large,mobilenet_v3_small,resnet50,googlenet,vgg16_bn"


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--models", default=MODELS, help="names, with commas between them")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--out", type=Path, help="folder for a results file")
    return parser.parse_args()


def network_of(name: str, shape: tuple[int, int, int]) -> nn.Module:
    """A network with random weights, and norms with the statistics of a few images of noise."""
    torch.manual_seed(0)
    network = models.build(name)
    with torch.no_grad():
        network(torch.randn(4, *shape))
    return network.eval()


@torch.inference_mode()
def compare(name: str, batch: int, rounds: int) -> dict[str, Any]:
    architecture = models.MODELS[name]
    shape = (architecture.channels, architecture.input_size, architecture.input_size)
    network = network_of(name, shape)
    images = torch.randn(batch, *shape)
    network(images)
    started = time.perf_counter()
    folded = fold(network, shape)
    folding = time.perf_counter() - started
    answers = network(images), folded(images)
    times: dict[str, list[float]] = {"eager": [], "folded": []}
    for _ in range(rounds):
        for kind, module in (("eager", network), ("folded", folded)):
            module(images)  # loads its weights into the CPU's caches
            started = time.perf_counter()
            module(images)
            times[kind].append(1e3 * (time.perf_counter() - started))
    return {
        "model": name,
        "input": list(shape),
        "batch": batch,
        **{f"{kind}_ms": [round(q, 2) for q in statistics.quantiles(t, n=4)] for kind, t in times.items()},
        "speedup": round(statistics.median(times["eager"]) / statistics.median(times["folded"]), 3),
        "error": float((answers[1] - answers[0]).abs().max() / answers[0].abs().max()),
        "folding_ms": round(1e3 * folding, 1),
    }


def main() -> None:
    args = arguments()
    torch.set_num_threads(args.threads)
    rows = []
    for name in args.models.split(","):
        rows.append(compare(name, args.batch, args.rounds))
        print(json.dumps(rows[-1]), flush=True)
    if args.out:
        record = {"torch": torch.__version__, "threads": torch.get_num_threads(), "rows": rows}
        write_results(record, args.out, f"predict-batch{args.batch}", cpus=torch.get_num_threads())


if __name__ == "__main__":
    main()
