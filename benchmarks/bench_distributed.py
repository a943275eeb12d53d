"""Speed and traffic of two processes on one machine, compared with one process at the same batch size.

    python benchmarks/bench_distributed.py            # ResNet-18, 96 px, 32 images a step; two minutes

Measures `striate.training.loop.train_step` on images in memory: one process with all threads, then two with
half of them each (gloo over loopback), and there also an all-reduce by itself. The loopback interface counts
the bytes, to check the model in docs/distributed.md.
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
from in_memory import make_training

from striate import models
from striate.data import InMemoryImages
from striate.data.images.loader import stream
from striate.tasks.classification.config import ClassificationConfig
from striate.training.distributed import Distributed, init_distributed
from striate.training.loop import train_step
from striate.training.transfer import training_mode


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
        with init_distributed("cpu") as distributed:
            measured = measure(options, distributed)
        if distributed.is_main:
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


def measure(options: argparse.Namespace, distributed: Distributed) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    shape = (options.batch, options.imgsz, options.imgsz, 3)
    images = InMemoryImages(
        rng.integers(0, 256, shape).astype(np.uint8),
        np.arange(options.batch) % 10,
        ("x",) * options.batch,
        (),
    )
    config = ClassificationConfig(
        data="x", model=options.model, imgsz=options.imgsz, opt="sgd", batch=options.batch, augment="none"
    )
    cpu = torch.device("cpu")
    torch.manual_seed(0)
    network = distributed.sync_batchnorm(models.build(options.model, num_classes=10), wanted=False)
    training = make_training(config, network, images, images, cpu, distributed)
    training_mode(network)
    share = distributed.shard(np.arange(options.batch))
    seconds, sent = [], []
    for batch in stream(images, [share] * (3 + options.steps), cpu):
        before, started = loopback(), time.perf_counter()
        train_step(training, batch, options.batch)
        seconds.append(time.perf_counter() - started)
        sent.append(loopback() - before)
        training.state.step += 1
    parameters = sum(p.numel() for p in network.parameters())
    found = {
        "processes": distributed.size,
        "threads_each": torch.get_num_threads(),
        "images_per_second": options.batch / statistics.median(seconds[3:]),
        "step_seconds": statistics.median(seconds[3:]),
        "gradient_bytes": 4 * parameters,
    }
    if distributed.size > 1:
        n = distributed.size
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
