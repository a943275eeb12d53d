"""The parts of gpu.py that train: mixed precision, resume, an accuracy with its time, the head alone."""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image
from rates import noise

from striate import bundle, models
from striate.data import InMemoryImages
from striate.device import mixed_precision
from striate.inference.classifier import logits
from striate.progress import Progress
from striate.training.config import TrainConfig
from striate.training.interrupts import TrainingInterrupted
from striate.training.loop import Job, fit
from striate.training.schedule import Epochs
from striate.training.session import resume as resume_run
from striate.training.session import train
from striate.training.state import TrainState
from striate.transforms.preprocess import Preprocess

if TYPE_CHECKING:
    from gpu import Bench

TARGET = 0.95  # of the drawn images, which are easy for a network that sees frequencies and directions
CLASSES = 10


def drawn(count: int, seed: int, noise_level: float = 60.0) -> InMemoryImages:
    """Images of CIFAR-10's size, each a grating: its class is its direction and frequency.

    Phase, colour and contrast are drawn for each image and noise is added, so that no single pixel tells. A
    mirrored image is of another class.
    """
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, CLASSES, count)
    angle, waves = (labels % 5) * np.pi / 5, np.where(labels < 5, 3.0, 6.0)
    y, x = np.mgrid[0:32, 0:32].astype(np.float32) / 32
    turn = 2 * np.pi * np.stack([waves * np.cos(angle), waves * np.sin(angle), rng.random(count)])
    across, down, phase = turn.astype(np.float32)[:, :, None, None]
    grating = np.sin(across * x + down * y + phase)
    colour, contrast = rng.normal(0, 1, (count, 3)), rng.uniform(20, 60, (count, 1))
    colour *= contrast / np.linalg.norm(colour, axis=1, keepdims=True)
    images = rng.standard_normal((count, 32, 32, 3), dtype=np.float32)
    images *= noise_level
    images += 128 + grating[..., None] * colour[:, None, None].astype(np.float32)
    pixels = images.clip(0, 255).astype(np.uint8)
    return InMemoryImages(pixels, labels.astype(np.int64), ("drawn",) * count, ())


def fitted(bench: Bench, train_on: InMemoryImages, val: InMemoryImages, **options: Any) -> TrainState:
    """A network that was trained on images in memory."""
    config = TrainConfig(**{"data": "drawn", "imgsz": 32, "augment": "none", **options})
    torch.manual_seed(config.seed)
    network = models.build(config.model, num_classes=CLASSES).to(bench.device)
    state = TrainState.fresh(network, config, bench.device)
    preprocess = Preprocess.for_size(32)
    fit(state, Job(preprocess, train_on, val, config, bench.device, Epochs(config, len(train_on))))
    return state


def precision(bench: Bench) -> dict[str, Any]:
    """Mixed precision beside float32: what type it is, the loss after the same steps, and the scores."""
    count = bench.pick(64, 8192)
    train_on, val = drawn(count, 1), drawn(bench.pick(32, 1024), 2)
    rows, scores = {}, {}
    for name, amp in (("float32", False), ("mixed", None)):
        state = fitted(
            bench, train_on, val, model=bench.pick("resnet20", "resnet18"), batch=bench.pick(16, 256),
            epochs=bench.pick(1, 4), amp=amp,
        )  # fmt: skip
        rows[name] = dataclasses.asdict(state.rows[-1])
        scores[name] = logits(state.network, Preprocess.for_size(32), val, bench.device, 64)[0]
    losses = {name: row["val_loss"] for name, row in rows.items()}
    assert np.isfinite(scores["mixed"]).all()
    assert rows["mixed"]["val_top1"] >= rows["float32"]["val_top1"] - 0.1, rows
    return {
        "type": str(mixed_precision(bench.device, None)),
        "val_loss": losses,
        "val_top1": {name: row["val_top1"] for name, row in rows.items()},
        "images_per_second": {name: row["images_per_second"] for name, row in rows.items()},
    }


class Stopper(Progress):
    """Stops a run, as Ctrl-C does, once it has seen so many images."""

    def __init__(self, after: int) -> None:
        self.after, self.seen = after, 0

    def advance(self, done: int, **figures: float) -> None:
        """Count, and interrupt once."""
        before, self.seen = self.seen, self.seen + done
        if before < self.after <= self.seen:
            raise KeyboardInterrupt


def folder_of(bench: Bench, count: int) -> Path:
    """Drawn images as PNG files in class folders."""
    root = bench.folder / f"drawn-{count}"
    if not root.exists():
        images = drawn(count, 3)
        for i, (pixels, label) in enumerate(zip(images.images, images.labels, strict=True)):
            place = root / str(label)
            place.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(place / f"{i:05}.png")
    return root


def resume(bench: Bench) -> dict[str, Any]:
    """A run stopped in the middle of an epoch and resumed, beside one that was not, and one more of those."""
    count = bench.pick(120, 2000)
    options: dict[str, Any] = {
        "data": str(folder_of(bench, count)), "model": "resnet20", "epochs": bench.pick(2, 4),
        "device": str(bench.device), "batch": bench.pick(16, 64), "ema": 0.9, "cache": False, "save_every": 2,
        "drop_path": 0.1, "mixup": 0.2,
    }  # fmt: skip

    def weights(folder: Path) -> dict[str, torch.Tensor]:
        return {name: value.double() for name, value in bundle.read(folder / "last.safetensors")[1].items()}

    whole = train(TrainConfig(**options, out=str(bench.folder / "whole"))).folder
    again = train(TrainConfig(**options, out=str(bench.folder / "again"))).folder
    try:
        train(TrainConfig(**options, out=str(bench.folder / "stopped")), Stopper(count))
        raise AssertionError("it was not stopped")
    except TrainingInterrupted as stop:
        stopped = stop.run.folder
    resume_run(stopped)

    def gap(one: Path, other: Path) -> float:
        a, b = weights(one), weights(other)
        return max(float((a[n] - b[n]).abs().max() / b[n].abs().max().clamp(min=1e-12)) for n in a)

    digests = {bundle.inspect(run / "last.safetensors").weights_sha256 for run in (whole, stopped)}
    figures = {
        "run_to_run": gap(again, whole),
        "resumed_to_whole": gap(stopped, whole),
        "resumed_is_exact": len(digests) == 1,
    }
    # Where two runs of the same are equal to the bit, so is a resumed one; elsewhere as near as they are.
    near = max(10 * figures["run_to_run"], 1e-12)
    assert figures["resumed_is_exact"] or figures["resumed_to_whole"] <= near, figures
    return figures


def learning(bench: Bench) -> dict[str, Any]:
    """ResNet-18 on images of CIFAR's size to a stated accuracy, with its time; CIFAR where it is at hand."""
    noise_level = bench.pick(10.0, 60.0)
    train_on, val = (
        drawn(count, seed, noise_level)
        for count, seed in ((bench.pick(400, 50_000), 4), (bench.pick(200, 10_000), 5))
    )
    started = time.perf_counter()
    state = fitted(
        bench, train_on, val, model=bench.pick("resnet20", "resnet18"), batch=bench.pick(32, 512),
        epochs=bench.pick(6, 12), lr=bench.pick(1e-2, 2e-3), augment="shift",
    )  # fmt: skip
    figures: dict[str, Any] = {
        "seconds": time.perf_counter() - started,
        "top1": state.rows[-1].val_top1,
        "target": TARGET,
        "images_per_second": state.rows[-1].images_per_second,
        "epochs_to_target": next((row.epoch for row in state.rows if row.val_top1 >= TARGET), None),
    }
    if bench.data is not None and not bench.quick:
        config = TrainConfig(
            data=str(bench.data), model="resnet18", imgsz=32, epochs=60, batch=64, device=str(bench.device),
            cache=False, out=str(bench.folder / "cifar"), augment="light",
        )  # fmt: skip
        run = train(config)
        figures["cifar"] = {
            "images": run.train, "seconds": run.seconds, "val_top1": max(row.val_top1 for row in run.epochs),
        }  # fmt: skip
    least = bench.pick(0.2, TARGET)  # a rehearsal learns more than chance, which is 0.1
    assert figures["top1"] >= least, figures
    return figures


def head(bench: Bench) -> dict[str, Any]:
    """A new classifier on frozen layers, ten epochs of it, beside one forward pass over the same images."""
    options: dict[str, Any] = {
        "data": str(folder_of(bench, bench.pick(120, 2000))), "model": bench.pick("resnet20", "resnet18"),
        "device": str(bench.device), "imgsz": bench.pick(32, 224), "augment": "none", "cache": False,
        "batch": bench.pick(16, 128),
    }  # fmt: skip
    first = train(TrainConfig(**options, epochs=1, out=str(bench.folder / "first")))
    run = train(
        TrainConfig(
            **options, weights=str(first.last), transfer="head", epochs=10, out=str(bench.folder / "head")
        )
    )
    network, preprocess = models.build(options["model"], num_classes=CLASSES), run.description.preprocess
    assert preprocess is not None
    network = network.to(bench.device).eval()
    images = noise(preprocess, run.train)
    started = time.perf_counter()
    logits(network, preprocess, images, bench.device, options["batch"])
    forward = time.perf_counter() - started
    learning = sum(row.seconds for row in run.epochs)
    return {
        "images": run.train,
        "ten_epochs_seconds": learning,
        "forward_seconds": forward,
        "ratio": learning / forward,
    }
