"""Images per second of a training epoch, beside the bare model on the same batch.

    python benchmarks/bench_train.py --model lenet --imgsz 28 --channels 1 --images 20000
    python benchmarks/bench_train.py --model resnet18 --imgsz 96 --images 256 --out benchmarks/results

"bare" is forward, backward and step on one batch that never changes: what no training loop can beat. The
images are noise held in memory, so decoding is not part of it. Medians over the epochs after the first.
"""

from __future__ import annotations

import argparse
import datetime
import json
import platform
import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from striate import models
from striate.data import InMemoryImages
from striate.device import choose
from striate.training.config import TrainConfig
from striate.training.loop import Job, fit
from striate.training.optimizer import make_optimizer
from striate.training.schedule import Epochs
from striate.training.state import TrainState
from striate.transforms.preprocess import Preprocess


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--model", default="lenet")
    parser.add_argument("--imgsz", type=int, default=32)
    parser.add_argument("--channels", type=int, default=3, choices=(1, 3))
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--augment", default="auto")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--out", type=Path, help="folder for a results file")
    return parser.parse_args()


def build(config: TrainConfig, preprocess: Preprocess, device: torch.device) -> nn.Module:
    options: dict[str, Any] = {}
    if models.MODELS[config.model].sizes == "argument":
        options["input_size"] = preprocess.size
    return models.build(config.model, num_classes=10, in_channels=preprocess.channels, **options).to(device)


def noise(preprocess: Preprocess, count: int, *, canvas: bool) -> InMemoryImages:
    rng = np.random.default_rng(0)
    size = preprocess.uncropped_size if canvas else preprocess.size
    images = rng.integers(0, 256, (count, *size, preprocess.channels), np.uint8)
    return InMemoryImages(images, rng.integers(0, 10, count), ("noise",) * count, ())


def our_rate(config: TrainConfig, preprocess: Preprocess, device: torch.device, images: int) -> list[float]:
    train = noise(preprocess, images, canvas=config.augmentation(preprocess, images) != "none")
    val = noise(preprocess, 2, canvas=False)
    state = TrainState.fresh(build(config, preprocess, device), config, device)
    fit(state, Job(preprocess, train, val, config, device, Epochs(config, images)))
    return [row.images_per_second for row in state.rows[1:]]


def bare_rate(config: TrainConfig, preprocess: Preprocess, device: torch.device, images: int) -> list[float]:
    network = build(config, preprocess, device).train()
    optimizer = make_optimizer(network, config)
    pixels = noise(preprocess, config.batch, canvas=False)
    x = preprocess.normalize(torch.from_numpy(pixels.images)).to(device)
    y = torch.from_numpy(pixels.labels).to(device)
    rates = []
    for _ in range(config.epochs):
        started = time.perf_counter()
        for _ in range(images // config.batch):
            optimizer.zero_grad(set_to_none=True)
            torch.autograd.backward(F.cross_entropy(network(x), y))
            optimizer.step()
        if device.type == "cuda":
            torch.cuda.synchronize()
        rates.append(images // config.batch * config.batch / (time.perf_counter() - started))
    return rates[1:]


def hardware(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name()
    return f"{device.type}, {torch.get_num_threads()} threads"


def main() -> None:
    args = arguments()
    config = TrainConfig(
        data="noise", model=args.model, imgsz=args.imgsz, channels=args.channels, batch=args.batch,
        epochs=args.epochs, augment=args.augment, device=args.device,
    )  # fmt: skip
    device, preprocess = choose(args.device), config.preprocess(None)
    bare = statistics.median(bare_rate(config, preprocess, device, args.images))
    ours = statistics.median(our_rate(config, preprocess, device, args.images))
    figures = {
        "model": args.model,
        "input": [preprocess.channels, *preprocess.size],
        "batch": args.batch,
        "augment": config.augmentation(preprocess, args.images),
        "images_per_second": round(ours, 1),
        "bare_images_per_second": round(bare, 1),
        "ratio": round(ours / bare, 3),
        "device": hardware(device),
        "torch": torch.__version__,
    }
    print(json.dumps(figures, indent=2))
    if args.out:
        date = datetime.date.today().isoformat()
        kind = "gpu" if device.type == "cuda" else f"cpu{torch.get_num_threads()}"
        name = f"{date}_{platform.machine()}-{kind}_train-{args.model}-{args.imgsz}.json"
        args.out.mkdir(parents=True, exist_ok=True)
        (args.out / name).write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
