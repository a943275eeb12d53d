"""What a second process gains on one machine, and what it sends: one process against two, the same batch.

    python benchmarks/bench_distributed.py            # ResNet-18, 96 px, 32 images a step; two minutes

Compared are the steps of `striate.training.step.learn` on images in memory: one process with all threads, two
with half of them each (gloo over loopback), and in both the all-reduce by itself. The bytes are those that
the loopback interface counts, so that the model in docs/distributed.md can be held against them.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist

from striate import models
from striate.data import InMemoryImages
from striate.data.images.loader import stream
from striate.training.config import TrainConfig
from striate.training.distributed import World
from striate.training.joining import joined
from striate.training.loop import Job
from striate.training.schedule import Epochs
from striate.training.state import TrainState
from striate.training.step import learn
from striate.training.transfer import training_mode
from striate.transforms.preprocess import Preprocess


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--model", default="resnet18")
    parser.add_argument("--imgsz", type=int, default=96)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1, help="of all processes together")
    parser.add_argument("--out", type=Path, help="file for the results")
    options = parser.parse_args()
    if "RANK" in os.environ or "ONE" in os.environ:
        with joined("cpu") as world:
            measured = measure(options, world)
        if world.leads:
            print(json.dumps(measured))
        return
    alone = [sys.executable, *sys.argv]
    pair = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", *sys.argv]
    results: dict[str, Any] = {
        "what": f"{options.model}, {options.imgsz} px, {options.batch} images a step, SGD, float32",
        "torch": torch.__version__,
        "threads": options.threads,
    }
    for name, command, threads in (("one", alone, options.threads), ("two", pair, options.threads // 2)):
        environment = {**os.environ, "OMP_NUM_THREADS": str(max(1, threads)), "ONE": "1"}
        done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
        results[name] = json.loads(done.stdout.strip().splitlines()[-1])
    print(text := json.dumps(results, indent=2))
    if options.out is not None:
        options.out.write_text(text + "\n")


def measure(options: argparse.Namespace, world: World) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    shape = (options.batch, options.imgsz, options.imgsz, 3)
    images = InMemoryImages(
        rng.integers(0, 256, shape).astype(np.uint8),
        np.arange(options.batch) % 10,
        ("x",) * options.batch,
        (),
    )
    config = TrainConfig(data="x", model=options.model, opt="sgd", batch=options.batch, augment="none")
    pre, cpu = Preprocess.for_size(options.imgsz), torch.device("cpu")
    job = Job(pre, images, images, config, cpu, Epochs(config, options.batch), world=world)
    torch.manual_seed(0)
    network = world.prepared(models.build(options.model, num_classes=10), sync_norm=False)
    state = TrainState.fresh(network, config, cpu)
    training_mode(network)
    share = world.share(np.arange(options.batch))
    seconds, sent = [], []
    for batch in stream(images, [share] * (3 + options.steps), cpu):
        before, started = loopback(), time.perf_counter()
        counts, weights = world.counts(len(batch), batch.weight)
        learn(state, job, batch, counts, weights)
        seconds.append(time.perf_counter() - started)
        sent.append(loopback() - before)
        state.step += 1
    parameters = sum(p.numel() for p in network.parameters())
    found = {
        "processes": world.size,
        "threads_each": torch.get_num_threads(),
        "images_per_second": options.batch / statistics.median(seconds[3:]),
        "step_seconds": statistics.median(seconds[3:]),
        "gradient_bytes": 4 * parameters,
    }
    if world.size > 1:
        n = world.size
        found["bytes_per_process_and_step_by_the_model"] = 2 * (n - 1) / n * 4 * parameters
        found["bytes_per_process_and_step"] = statistics.median(sent[3:]) / n
        found["all_reduce_seconds"] = all_reduce_seconds(parameters)
    return found


def all_reduce_seconds(numbers: int) -> float:
    """Of a float32 tensor as large as the gradients, with nothing else to do."""
    tensor, seconds = torch.ones(numbers), []
    for _ in range(7):
        dist.barrier()
        started = time.perf_counter()
        dist.all_reduce(tensor)
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds[2:])


def loopback() -> int:
    """Bytes that the loopback interface has sent; 0 where nothing counts them."""
    counter = Path("/sys/class/net/lo/statistics/tx_bytes")
    return int(counter.read_text()) if counter.exists() else 0


if __name__ == "__main__":
    main()
