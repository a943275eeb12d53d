"""Training a head on features computed once, compared with computing them in every epoch.

    python benchmarks/bench_head.py ../shared/data/hymenoptera_data
    python benchmarks/bench_head.py DATA --model mobilenet_v3_small --epochs 20 --out benchmarks/results

"pass" is one forward pass over all training and validation images in inference mode; the pixels come from the
filled cache of decoded images. "folded pass" is the same with the network folded for prediction. "head" and
"ordinary" are whole runs, from the folder of images to the last bundle. "ordinary" computes the features in
every epoch. All take turns in one process; medians and quartiles in seconds.

The backbone has random weights of a fixed seed, and norms with the statistics of the images. `head_error` is
the largest difference between the weights of the two heads, `loss_error` that of a loss in results.csv.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from record import write_results
from torch import nn

from striate import api, bundle, models
from striate.bundle import Description
from striate.data import DecodedImages
from striate.inference.scores import logits
from striate.kernels.folding import fold
from striate.progress import SILENT
from striate.tasks.classification.config import ClassificationConfig
from striate.tasks.classification.task import Classification
from striate.training.distributed import SINGLE
from striate.training.profile import OFF
from striate.training.run_folder import TrainingRun
from striate.training.task import Context

CPU = torch.device("cpu")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("data")
    parser.add_argument("--model", default="resnet18")
    parser.add_argument("--imgsz", type=int, default=224)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=5, help="of passes and of heads")
    parser.add_argument("--ordinary", type=int, default=1, help="rounds of the ordinary loop")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--out", type=Path, help="folder for a results file")
    return parser.parse_args()


def prepared(config: ClassificationConfig) -> Classification:
    """The task with its images and network, before the first step."""
    with config.open_data() as data:
        task = Classification(config, data, Context(CPU, SINGLE, SILENT, OFF))
        task.setup = task.prepare(None)
    return task


def backbone(config: ClassificationConfig, folder: Path) -> Path:
    """A bundle of the network with seeded weights, and norms with the statistics of some of the images."""
    fresh = prepared(dataclasses.replace(config, weights="none", transfer="all", augment="none"))
    torch.manual_seed(0)
    arguments: dict[str, Any] = {"num_classes": 1000, "in_channels": 3}
    if models.MODELS[config.architecture].sizes == "argument":
        arguments["input_size"] = list(fresh.preprocess.size)
    network = models.build(config.architecture, **arguments).train()
    for norm in network.modules():
        if isinstance(norm, nn.BatchNorm2d):
            norm.momentum = 1.0
    pixels = read(fresh.train, np.arange(32))
    with torch.no_grad():
        network(fresh.preprocess.normalize(pixels))
    names = tuple(f"class {i}" for i in range(1000))
    description = Description("classification", config.architecture, arguments, names, fresh.preprocess)
    bundle.write(folder / "backbone.safetensors", network, description)
    return folder / "backbone.safetensors"


def read(source: DecodedImages, which: np.ndarray[Any, Any]) -> torch.Tensor:
    out = np.empty((len(which), *source.shape), np.uint8)
    source.read(which, out)
    return torch.from_numpy(out)


def passes(config: ClassificationConfig) -> dict[str, Callable[[], Any]]:
    """One forward pass over all images, as it is and folded."""
    ready = prepared(config)
    preprocess, network = ready.preprocess, ready.setup.network.eval()
    folded = fold(network, (preprocess.channels, *preprocess.size))

    def through(model: nn.Module) -> None:
        for source in (ready.train, ready.val):
            logits(model, preprocess, source, CPU, config.batch)

    return {"pass": lambda: through(network), "folded pass": lambda: through(folded)}


def run(config: ClassificationConfig, out: Path, *, once: bool) -> TrainingRun:
    never = mock.patch("striate.tasks.classification.features.compute_features", return_value=(None, ""))
    with tempfile.TemporaryDirectory(dir=out) as folder, contextlib.nullcontext() if once else never:
        done = api.run_training(dataclasses.replace(config, out=folder))
        _, state = bundle.read(done.last)
    head = models.MODELS[config.architecture].classifier
    heads[once] = {name: value for name, value in state.items() if name.startswith(f"{head}.")}
    return done


heads: dict[bool, dict[str, torch.Tensor]] = {}
runs: dict[bool, TrainingRun] = {}


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    started = time.perf_counter()
    answer = work()
    return time.perf_counter() - started, answer


def measure(args: argparse.Namespace, out: Path) -> dict[str, Any]:
    config = ClassificationConfig(
        data=args.data, model=args.model, imgsz=args.imgsz, epochs=args.epochs, batch=args.batch, device="cpu"
    )
    config = dataclasses.replace(config, weights=str(backbone(config, out)), transfer="head")
    one = passes(config)
    for work in one.values():
        work()  # decodes what is not decoded yet
    times: dict[str, list[float]] = {name: [] for name in (*one, "head", "ordinary")}
    for number in range(args.rounds):
        for name, work in one.items():
            times[name].append(timed(work)[0])
        for name in ("head", "ordinary"):
            if name == "head" or number < args.ordinary:
                once = name == "head"
                seconds, runs[once] = timed(partial(run, config, out, once=once))
                times[name].append(seconds)
                print(name, f"{seconds:.2f} s", flush=True)
    return record(args, times)


def record(args: argparse.Namespace, times: dict[str, list[float]]) -> dict[str, Any]:
    median = {name: statistics.median(values) for name, values in times.items()}
    quick, ordinary = runs[True], runs[False]
    losses = [
        abs(getattr(a, name) - getattr(b, name))
        for a, b in zip(quick.epochs, ordinary.epochs, strict=True)
        for name in ("train_loss", "val_loss")
    ]
    return {
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "data": Path(args.data).name,
        "images": {name: len(samples) for name, samples in quick.task.dataset.splits.items()},
        "model": args.model,
        "imgsz": args.imgsz,
        "epochs": args.epochs,
        "batch": args.batch,
        "seconds": {name: [round(value, 3) for value in quartiles(values)] for name, values in times.items()},
        "rounds": {name: len(values) for name, values in times.items()},
        "ordinary_over_head": round(median["ordinary"] / median["head"], 2),
        "head_over_pass": round(median["head"] / median["pass"], 3),
        "head_over_folded_pass": round(median["head"] / median["folded pass"], 3),
        "head_error": max(float((heads[True][k] - heads[False][k]).abs().max()) for k in heads[True]),
        "loss_error": max(losses),
    }


def quartiles(values: list[float]) -> list[float]:
    return statistics.quantiles(values, n=4) if len(values) > 1 else values * 3


def main() -> None:
    args = arguments()
    torch.set_num_threads(args.threads)
    with tempfile.TemporaryDirectory() as folder:
        result = measure(args, Path(folder))
    print(json.dumps(result, indent=2))
    if args.out:
        write_results(result, args.out, "head", cpus=torch.get_num_threads())


if __name__ == "__main__":
    main()
