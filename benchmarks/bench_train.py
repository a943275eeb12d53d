"""Images per second of a training epoch, compared with the bare network on one batch.

    python benchmarks/bench_train.py --model lenet --imgsz 28 --channels 1 --images 20000
    python benchmarks/bench_train.py --model resnet18 --imgsz 96 --images 256 --out benchmarks/results

"bare" is forward, backward and step on one batch that never changes: no training loop can be faster. The
images are noise in memory, so nothing is decoded. Medians over the epochs after the first.
"""

from __future__ import annotations

import argparse
import datetime
import json
import platform
import statistics
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from in_memory import noise, noise_training, random_network

from striate.device import choose
from striate.tasks.classification.config import ClassificationConfig
from striate.tasks.classification.network import parameter_groups
from striate.tasks.classification.options import EPOCHS
from striate.training.loop import fit
from striate.training.optimizer import make_optimizer


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


def our_rate(config: ClassificationConfig, device: torch.device, images: int) -> list[float]:
    training = noise_training(config, device, images)
    fit(training)
    return [row.images_per_second for row in training.state.rows[1:]]


def bare_rate(config: ClassificationConfig, device: torch.device, images: int) -> list[float]:
    preprocess = config.own_preprocess(None)
    network = random_network(config, preprocess, device).train()
    optimizer = make_optimizer(parameter_groups(config, network, None), config, {})
    pixels = noise(preprocess, config.batch)
    x = preprocess.normalize(torch.from_numpy(pixels.images)).to(device)
    y = torch.from_numpy(pixels.labels).to(device)
    rates = []
    for _ in range(config.epochs or EPOCHS):
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
    config = ClassificationConfig(
        data="noise", model=args.model, imgsz=args.imgsz, channels=args.channels, batch=args.batch,
        epochs=args.epochs, augment=args.augment, device=args.device,
    )  # fmt: skip
    device, preprocess = choose(args.device), config.own_preprocess(None)
    bare = statistics.median(bare_rate(config, device, args.images))
    ours = statistics.median(our_rate(config, device, args.images))
    figures = {
        "model": args.model,
        "input": [preprocess.channels, *preprocess.size],
        "batch": args.batch,
        "augment": config.augmentation(preprocess, args.images)[0],
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
