"""What `reducing_gap` costs and saves: pixels, accuracy and time of JPEG files decoded at 1/2, 1/4 or 1/8.

    python benchmarks/bench_reducing_gap.py ../shared/data --out benchmarks/results

* `pixels`: photographs resized for networks of several sizes, compared with full decoding: the share of the
  photographs that are reduced, the peak signal-to-noise ratio over all values, and the largest difference.
* `accuracy`: a network trained and evaluated with each gap, over seeds; the same weights are also evaluated
  with the other gaps. A quarter of the images is held out. Inputs are so small that all files are reduced.
* `speed`: CPU milliseconds per photograph of camera size, enlarged from real ones, for 224 pixels, as
  training and as prediction reads them.
"""

from __future__ import annotations

import argparse
import io
import json
import statistics
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from record import write_results

from striate import models
from striate.training.schedule import shuffled_batches
from striate.transforms.augment import augment
from striate.transforms.preprocess import Preprocess

GAPS = (0.0, 1.0, 2.0, 3.0)
TRAINED = (0.0, 1.0, 2.0)
DATA = {"flowers": 32, "imagenette_224": 48}  # and the input size: both are reduced with a gap of 2
BATCH = 64
CAMERA = (4000, 3000)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument(
        "shared", type=Path, help="the folder of hymenoptera_data, flowers and imagenette_224"
    )
    parser.add_argument("--only", default="pixels,accuracy,speed")
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--model", default="lenet")
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--out", type=Path, help="folder for a results file")
    return parser.parse_args()


def pixels(photos: list[Path]) -> list[dict[str, Any]]:
    rows = []
    for size in (32, 64, 112, 160):
        full = [Preprocess.for_size(size).read(path).astype(int) for path in photos]
        for gap in GAPS[1:]:
            pre = Preprocess.for_size(size, reducing_gap=gap)
            errors = [pre.read(path) - own for path, own in zip(photos, full, strict=True)]
            reduced = [error for error in errors if error.any()]
            square = statistics.fmean(float((error**2).mean()) for error in reduced) if reduced else 0.0
            rows.append({
                "imgsz": size, "reducing_gap": gap, "reduced": round(len(reduced) / len(photos), 3),
                "psnr_db": round(10 * float(np.log10(255**2 / square)), 1) if square else None,
                "largest": max((int(abs(error).max()) for error in reduced), default=0),
                "mean": round(statistics.fmean(abs(e).mean() for e in reduced), 3) if reduced else 0.0,
            })  # fmt: skip
            print(rows[-1], flush=True)
    return rows


def read(paths: list[Path], pre: Preprocess, *, crop: bool) -> torch.Tensor:
    return torch.from_numpy(np.stack([pre.read(path, crop=crop) for path in paths]))


def trained(images: torch.Tensor, labels: torch.Tensor, size: int, seed: int, epochs: int, model: str) -> Any:
    """A network trained with the usual augmentation, in evaluation mode; `images` are uncropped."""
    torch.manual_seed(seed)
    more: dict[str, Any] = {"input_size": (size, size)} if models.MODELS[model].sizes == "argument" else {}
    network = models.build(model, num_classes=int(labels.max()) + 1, in_channels=3, **more).train()
    steps = epochs * (len(labels) // BATCH)
    optimizer = torch.optim.AdamW(network.parameters(), 2e-3, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, steps)
    pre = Preprocess.for_size(size)
    for epoch in range(epochs):
        for which in shuffled_batches(len(labels), BATCH, seed=seed, epoch=epoch):
            if len(which) < BATCH:
                continue
            pixels = augment(images[which], pre.size, "standard", seed=seed, epoch=epoch, samples=which)
            optimizer.zero_grad()
            F.cross_entropy(network(pre.normalize(pixels)), labels[which]).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
    return network.eval()


def accuracy(args: argparse.Namespace) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, size in DATA.items():
        found_files = (p for p in (args.shared / name).rglob("*") if p.suffix.lower() in (".jpg", ".jpeg"))
        files = sorted(found_files, key=lambda path: path.name)
        names = sorted({path.parent.name for path in files})
        order = np.random.default_rng(0).permutation(len(files))
        held_out, rest = (
            [files[i] for i in part] for part in np.split(order, [len(files) // 4])
        )  # fmt: skip
        targets = {k: torch.tensor([names.index(p.parent.name) for p in part]) for k, part in
                   (("train", rest), ("test", held_out))}  # fmt: skip
        pres = {gap: Preprocess.for_size(size, reducing_gap=gap) for gap in TRAINED}
        train = {gap: read(rest, pre, crop=False) for gap, pre in pres.items()}
        test = {gap: pre.normalize(read(held_out, pre, crop=True)) for gap, pre in pres.items()}
        rows: dict[float, list[dict[float, float]]] = {gap: [] for gap in TRAINED}
        for seed in range(args.seeds):
            for gap in TRAINED:
                network = trained(train[gap], targets["train"], size, seed, args.epochs, args.model)
                with torch.inference_mode():
                    answers = {g: network(x).argmax(1) for g, x in test.items()}
                rows[gap].append(
                    {g: float((a == targets["test"]).float().mean()) for g, a in answers.items()}
                )
                print(name, seed, gap, rows[gap][-1], flush=True)
        found[name] = summary(rows, size, len(rest), len(held_out))
    return found


def summary(rows: dict[float, list[dict[float, float]]], size: int, train: int, test: int) -> dict[str, Any]:
    own = {gap: [row[gap] for row in found] for gap, found in rows.items()}
    return {
        "imgsz": size, "images": {"train": train, "test": test},
        "top1": {gap: round(statistics.mean(values), 4) for gap, values in own.items()},
        "sd": {gap: round(statistics.stdev(values), 4) for gap, values in own.items() if len(values) > 1},
        "evaluated_with": {
            gap: {other: round(statistics.mean(row[other] for row in found), 4) for other in own}
            for gap, found in rows.items()
        },
        "runs": own,
    }  # fmt: skip


def speed(photos: list[Path]) -> dict[str, dict[str, float]]:
    files = []
    for path in photos[:6]:
        with Image.open(path) as photo:
            buffer = io.BytesIO()
            photo.convert("RGB").resize(CAMERA, Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=90)
            files.append(buffer.getvalue())
    torch.set_num_threads(1)
    times: dict[str, dict[str, list[float]]] = {"training": {}, "prediction": {}}
    for _ in range(3):
        for gap in GAPS:
            pre = Preprocess.for_size(224, reducing_gap=gap)
            for name, read in (("training", partial(pre.read, crop=False)), ("prediction", pre.read)):
                began = time.process_time()
                for file in files:
                    read(file)
                spent = 1e3 * (time.process_time() - began) / len(files)
                times[name].setdefault(str(gap), []).append(spent)
    return {
        name: {gap: round(statistics.median(v), 2) for gap, v in rows.items()} for name, rows in times.items()
    }


def main() -> None:
    args = arguments()
    photos = sorted((args.shared / "hymenoptera_data").rglob("*.jpg"))[::8]
    record: dict[str, Any] = {
        "torch": torch.__version__,
        "model": args.model,
        "seeds": args.seeds,
        "epochs": args.epochs,
    }
    parts = {
        "pixels": lambda: pixels(photos), "speed": lambda: speed(photos), "accuracy": lambda: accuracy(args)
    }  # fmt: skip
    for name, part in parts.items():
        if name in args.only:
            record[name] = part()  # type: ignore[no-untyped-call]
            print(json.dumps(record[name], indent=1), flush=True)
    if args.out:
        write_results(record, args.out, "reducing-gap", keep_others=True)


if __name__ == "__main__":
    main()
