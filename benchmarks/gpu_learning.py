"""The parts of gpu.py that train: mixed precision, exact resume, accuracy and time, frozen layers."""

from __future__ import annotations

import contextlib
import dataclasses
import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from in_memory import make_training, noise
from PIL import Image

from striate import bundle, models
from striate.api import resume_training, run_training
from striate.data import InMemoryImages
from striate.device import mixed_precision
from striate.inference.scores import logits
from striate.progress import SILENT, Progress
from striate.tasks.classification.config import ClassificationConfig
from striate.tasks.seq2seq.config import Seq2SeqConfig
from striate.training.config import RunConfig
from striate.training.interrupts import TrainingInterrupted
from striate.training.loop import fit
from striate.training.state import TrainState
from striate.transforms.preprocess import Preprocess

if TYPE_CHECKING:
    from gpu import Bench

TARGET = 0.95  # accuracy on the drawn images
CLASSES = 10


def drawn(count: int, seed: int, noise_level: float = 60.0) -> InMemoryImages:
    """Images of CIFAR-10's size, each a grating: its class is its direction and frequency.

    Phase, color and contrast are random and noise is added, so that no single pixel gives the class away. A
    mirrored image has another class.
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
    """Train a network on images in memory."""
    config = ClassificationConfig(**{"data": "drawn", "imgsz": 32, "augment": "none", **options})
    torch.manual_seed(config.seed)
    network = models.build(config.architecture, num_classes=CLASSES).to(bench.device)
    training = make_training(config, network, train_on, val, bench.device)
    fit(training)
    return training.state


def precision(bench: Bench) -> dict[str, Any]:
    """Mixed precision compared with float32: its type, the loss after the same steps, and the scores."""
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
    """Stops a run, as Ctrl-C does, after this many training samples."""

    def __init__(self, after: int) -> None:
        self.after, self.seen, self.training = after, 0, False

    def begin(self, stage: str, total: int, unit: str = "images") -> None:
        """Count only what is trained on."""
        self.training = stage.startswith("epoch")

    def advance(self, done: int, **figures: float) -> None:
        """Count, and interrupt once."""
        before = self.seen
        self.seen += done if self.training else 0
        if before < self.after <= self.seen:
            raise KeyboardInterrupt


@contextlib.contextmanager
def deterministic() -> Iterator[None]:
    """Ask torch for deterministic kernels, where it has any; others on a GPU differ from run to run."""
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(False)


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


def strings_of(bench: Bench, count: int) -> Path:
    """Random strings and their reversals, as a TSV file."""
    path = bench.folder / f"reverse-{count}.tsv"
    if not path.exists():
        rng = random.Random(0)
        texts = ["".join(rng.choices("abcdefghijklmnopqrst", k=rng.randint(4, 12))) for _ in range(count)]
        path.write_text("".join(f"{text}\t{text[::-1]}\n" for text in texts))
    return path


def resume(bench: Bench) -> dict[str, Any]:
    """Classification with EMA and mixed precision: a run stopped in mid-epoch and resumed is exact."""
    count = bench.pick(120, 2000)
    config = ClassificationConfig(
        data=str(folder_of(bench, count)), model="resnet20", epochs=bench.pick(2, 4),
        batch=bench.pick(16, 64), ema=0.9, cache=False, save_every=2, drop_path=0.1, mixup=0.2,
        device=str(bench.device),
    )  # fmt: skip
    return resumed(bench, config, "images", round(1.1 * count))  # 0.8 of them train


def resume_seq2seq(bench: Bench) -> dict[str, Any]:
    """The same for sequence to sequence."""
    count = bench.pick(300, 4000)
    config = Seq2SeqConfig(
        data=str(strings_of(bench, count)), tokenizer="characters", model="tiny", epochs=bench.pick(2, 4),
        batch=bench.pick(1000, 4000), ema=0.9, save_every=2, average=0, device=str(bench.device),
    )  # fmt: skip
    return resumed(bench, config, "pairs", round(1.4 * count))


def resumed(bench: Bench, config: RunConfig, name: str, stop_after: int) -> dict[str, Any]:
    """Compare a run that was stopped and resumed with one that was not, and with a repetition of that.

    Raises:
        AssertionError: two uninterrupted runs are equal, but the resumed one is not; or it differs by more
            than ten times what they do.
    """

    def started(place: str, progress: Progress = SILENT) -> Path:
        out = str(bench.folder / f"{name}-{place}")
        return run_training(dataclasses.replace(config, out=out, progress=progress)).folder

    with deterministic():
        whole, again = started("whole"), started("again")
        try:
            started("stopped", Stopper(stop_after))
            raise AssertionError("it was not stopped")
        except TrainingInterrupted as stop:
            stopped = stop.run.folder
        resume_training(stopped)

    def weights(folder: Path) -> dict[str, torch.Tensor]:
        return {name: value.double() for name, value in bundle.read(folder / "last.safetensors")[1].items()}

    def gap(one: Path, other: Path) -> float:
        a, b = weights(one), weights(other)
        return max(float((a[n] - b[n]).abs().max() / b[n].abs().max().clamp(min=1e-12)) for n in a)

    digests = {bundle.inspect(run / "last.safetensors").weights_sha256 for run in (whole, stopped)}
    figures = {
        "run_to_run": gap(again, whole),
        "resumed_to_whole": gap(stopped, whole),
        "resumed_is_exact": len(digests) == 1,
    }
    near = max(10 * figures["run_to_run"], 1e-12)
    assert figures["resumed_is_exact"] or figures["resumed_to_whole"] <= near, figures
    return figures


def seq2seq(bench: Bench) -> dict[str, Any]:
    """Train a Transformer to reverse strings, in float32 and in mixed precision."""
    config = Seq2SeqConfig(
        data=str(strings_of(bench, bench.pick(600, 20_000))), tokenizer="characters",
        model=bench.pick("tiny", "base"), dropout=0.0, epochs=bench.pick(2, 6),
        batch=bench.pick(2000, 16_000), lr=1e-3, ema=0.9, average=0, device=str(bench.device),
    )  # fmt: skip
    rows = {}
    for name, amp in (("float32", False), ("mixed", None)):
        out = str(bench.folder / f"seq2seq-{name}")
        rows[name] = run_training(dataclasses.replace(config, amp=amp, out=out)).epochs[-1]
    figures = {
        "type": str(mixed_precision(bench.device, None)),
        **{
            key: {name: getattr(row, key) for name, row in rows.items()}
            for key in ("train_loss", "val_loss", "val_accuracy", "val_exact", "tokens_per_second")
        },
    }
    assert all(np.isfinite(row.val_loss) for row in rows.values()), figures
    assert rows["mixed"].val_accuracy >= rows["float32"].val_accuracy - 0.1, figures
    return figures


def compiled_runs(bench: Bench) -> dict[str, Any]:
    """Train both tasks with and without `--compile`, if asked for: compiling takes long."""
    if not bench.compile:
        return {"skipped": "give --compile"}
    shared: dict[str, Any] = {"device": str(bench.device), "ema": 0.9, "epochs": bench.pick(1, 3)}
    images = ClassificationConfig(
        data=str(folder_of(bench, bench.pick(120, 2000))), model=bench.pick("resnet20", "resnet18"),
        batch=bench.pick(16, 128), cache=False, augment="none", **shared,
    )  # fmt: skip
    pairs = Seq2SeqConfig(
        data=str(strings_of(bench, bench.pick(300, 4000))), tokenizer="characters", model="tiny",
        dropout=0.0, batch=bench.pick(1000, 4000), average=0, **shared,
    )  # fmt: skip
    figures: dict[str, Any] = {}
    for name, config in (("classification", images), ("seq2seq", pairs)):
        losses = {}
        for kind in (False, True):
            out = str(bench.folder / f"{name}-compiled-{kind}")
            run = run_training(dataclasses.replace(config, compile=kind, out=out))
            losses["compiled" if kind else "eager"] = run.epochs[-1].val_loss
            figures[f"{name}_seconds_{'compiled' if kind else 'eager'}"] = round(run.seconds, 1)
        figures[f"{name}_val_loss"] = losses
        assert abs(losses["compiled"] - losses["eager"]) < 0.2 * losses["eager"] + 0.1, figures
    return figures


def learning(bench: Bench) -> dict[str, Any]:
    """Train ResNet-18 on images of CIFAR's size to a target accuracy, and on CIFAR itself if given."""
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
        config = ClassificationConfig(
            data=str(bench.data), model="resnet18", imgsz=32, epochs=60, batch=64, device=str(bench.device),
            cache=False, out=str(bench.folder / "cifar"), augment="light",
        )  # fmt: skip
        run = run_training(config)
        figures["cifar"] = {
            "images": run.task.train_count, "seconds": run.seconds,
            "val_top1": max(row.val_top1 for row in run.epochs),
        }  # fmt: skip
    least = bench.pick(0.2, TARGET)  # chance is 0.1
    assert figures["top1"] >= least, figures
    return figures


def head(bench: Bench) -> dict[str, Any]:
    """Ten epochs of a new classifier on frozen layers, compared with one forward pass over the images."""
    options: dict[str, Any] = {
        "data": str(folder_of(bench, bench.pick(120, 2000))), "model": bench.pick("resnet20", "resnet18"),
        "device": str(bench.device), "imgsz": bench.pick(32, 224), "augment": "none", "cache": False,
        "batch": bench.pick(16, 128),
    }  # fmt: skip
    first = run_training(ClassificationConfig(**options, epochs=1, out=str(bench.folder / "first")))
    run = run_training(
        ClassificationConfig(
            **options, weights=str(first.last), transfer="head", epochs=10, out=str(bench.folder / "head")
        )
    )
    network, preprocess = models.build(options["model"], num_classes=CLASSES), run.description.preprocess
    assert preprocess is not None
    network = network.to(bench.device).eval()
    images = noise(preprocess, run.task.train_count)
    started = time.perf_counter()
    logits(network, preprocess, images, bench.device, options["batch"])
    forward = time.perf_counter() - started
    learning = sum(row.seconds for row in run.epochs)
    return {
        "images": run.task.train_count,
        "ten_epochs_seconds": learning,
        "forward_seconds": forward,
        "ratio": learning / forward,
    }
