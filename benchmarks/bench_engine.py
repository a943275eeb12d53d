"""The training engine compared with bare torch: the loop, prediction for one image, and the start.

    python benchmarks/bench_engine.py
    python benchmarks/bench_engine.py --rounds 5 --peer PYTHON --out benchmarks/results

- loop: ResNet-18 at 224 px. "ours" is `striate train` on a folder of photographs: reading from the cache,
  augmentation, metrics, a checkpoint every minute, progress. "bare" is forward, backward and step on one
  batch that never changes, with the same memory layout and optimizer; "eager" is the same with torch's
  defaults (contiguous, torch.optim.AdamW). They take turns with our epochs in one process. The first epoch
  decodes the images and does not count. `--peer` names a Python that has torchvision: its usual loop (a
  DataLoader with processes, RandomResizedCrop, flip, AdamW) takes turns with its own bare loop in a process
  of that Python. Our process keeps freed memory (`striate.kernels.allocator`), also for bare and eager; the
  peer's does not.
- predict: as `bench_predict.py`, for one image.
- start: seconds from the start of a process until torch is imported ("import"), and until `striate train` has
  finished its first step, in turns. Each run decodes its images.

Medians and quartiles; ratios of the loop over all turns; wall and CPU seconds. `before_after.py` compares two
versions of Striate.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from before_after import FIRST_STEP, processor
from bench_predict import compare
from PIL import Image
from record import write_results

from striate import api, models
from striate.kernels import prepare
from striate.progress import Progress
from striate.tasks.classification.config import ClassificationConfig
from striate.tasks.classification.network import parameter_groups
from striate.training.optimizer import make_optimizer

IMPORT = "import torch, os, time; print(time.time(), sum(os.times()[:2]))"
STARTS = {
    "digits": ["train", "digits", "--model", "lenet", "--epochs", "1"],
    "photographs": ["train", "{photographs}", "--model", "lenet", "--batch", "16", "--epochs", "1"],
}


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--parts", default="loop,predict,start", help="names, with commas between them")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--imgsz", type=int, default=224)
    parser.add_argument("--steps", type=int, default=8, help="of an epoch")
    parser.add_argument("--rounds", type=int, default=4, help="epochs that count, 4 or more; a peer has half")
    parser.add_argument("--save-every", type=int, default=32, help="steps; by default a minute of them here")
    parser.add_argument("--starts", type=int, default=9, help="processes of each kind")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--peer", help="a Python with torchvision")
    parser.add_argument("--out", type=Path, help="folder for a results file")
    return parser.parse_args()


def photographs(folder: Path, count: int, side: int = 320) -> Path:
    """Smooth noise as JPEG files of a photograph's size, in two classes, a few of them to validate with."""
    rng = np.random.default_rng(0)
    for i in range(count + 4):
        split = "train" if i < count else "val"
        path = folder / split / "ab"[i % 2] / f"{i:04}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        rough = rng.integers(0, 256, (side // 8, side // 8, 3), np.uint8)
        Image.fromarray(rough).resize((side, side)).save(path, quality=90)
    return folder


class Bare:
    """Forward, backward and step on one batch."""

    def __init__(self, config: ClassificationConfig, *, default: bool) -> None:
        network = models.build(config.architecture, num_classes=2)
        self.network = (network if default else prepare(network, torch.device("cpu"), training=True)).train()
        if default:
            self.optimizer: torch.optim.Optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3)
        else:
            self.optimizer = make_optimizer(parameter_groups(config, network, None), config, {})
        size = config.imgsz or 224
        self.images = torch.randn(config.batch, 3, size, size)
        self.truth = torch.randint(0, 2, (config.batch,))

    def epoch(self, steps: int) -> None:
        """So many steps."""
        for _ in range(steps):
            self.optimizer.zero_grad(set_to_none=True)
            torch.autograd.backward(F.cross_entropy(self.network(self.images), self.truth))
            self.optimizer.step()


class Turns(Progress):
    """Lets the bare loops run before each epoch of ours, and takes the time of all of them."""

    def __init__(self, config: ClassificationConfig, steps: int) -> None:
        self.bare = {"bare": Bare(config, default=False), "eager": Bare(config, default=True)}
        self.steps = steps
        self.seconds: dict[str, list[tuple[float, float]]] = defaultdict(list)

    def begin(self, stage: str, total: int, unit: str = "images") -> None:
        """If an epoch of ours is about to begin, let the others run first."""
        self._in_epoch = stage.startswith("epoch")
        if not self._in_epoch:
            return
        for name, loop in self.bare.items():
            self._start()
            loop.epoch(self.steps)
            self._stop(name)
        self._start()

    def end(self) -> None:
        """Its steps are made."""
        if self._in_epoch:
            self._stop("ours")

    def _start(self) -> None:
        self._began = time.perf_counter(), time.process_time()

    def _stop(self, name: str) -> None:
        wall, processor = self._began
        self.seconds[name].append((time.perf_counter() - wall, time.process_time() - processor))


def loop(args: argparse.Namespace, folder: Path) -> dict[str, Any]:
    images = args.batch * args.steps
    config = ClassificationConfig(
        data=str(photographs(folder / "loop", images)), model="resnet18", imgsz=args.imgsz, batch=args.batch,
        epochs=1 + args.rounds, save_every=args.save_every, out=str(folder / "runs"), device="cpu",
    )  # fmt: skip
    turns = Turns(config, args.steps)
    api.run_training(dataclasses.replace(config, progress=turns))
    counted = {name: seconds[1:] for name, seconds in turns.seconds.items()}
    found: dict[str, Any] = {name: rates(seconds, images) for name, seconds in counted.items()}
    for name in ("bare", "eager"):
        found[f"ours_to_{name}"] = ratio(counted["ours"], counted[name])
    found |= {"model": "resnet18", "input": [3, args.imgsz, args.imgsz], "batch": args.batch}
    if args.peer:
        script = Path(__file__).with_name("peer_torchvision.py")
        command = [
            args.peer,
            str(script),
            config.data,
            str(args.batch),
            str(args.imgsz),
            str(args.rounds // 2),
        ]
        shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        peer = json.loads(shown.splitlines()[-1])
        found["torchvision"] = {
            "torchvision": rates(peer["loop"], images),
            "bare": rates(peer["bare"], images),
            "loop_to_bare": ratio(peer["loop"], peer["bare"]),
            "versions": peer["versions"],
        }
    return found


def rates(seconds: list[tuple[float, float]], images: int) -> dict[str, Any]:
    """Images per second of the wall, and milliseconds of the processor for each."""
    return {
        "images_per_second": [round(images / q, 2) for q in reversed(quartiles([w for w, _ in seconds]))],
        "processor_ms_per_image": round(1e3 * statistics.median(c for _, c in seconds) / images, 2),
    }


def ratio(ours: list[tuple[float, float]], theirs: list[tuple[float, float]]) -> dict[str, float]:
    """How fast ours is, theirs being 1, over all turns: by the wall and by the processor."""
    (wall, processor), (their_wall, their_processor) = (
        [sum(kind) for kind in zip(*turns, strict=True)] for turns in (ours, theirs)
    )
    return {"wall": round(their_wall / wall, 3), "processor": round(their_processor / processor, 3)}


def start(args: argparse.Namespace, folder: Path) -> dict[str, Any]:
    data = str(photographs(folder / "start", 200))
    commands = {"import": [IMPORT]}
    for name, words in STARTS.items():
        told = [word.format(photographs=data) for word in words]
        commands[name] = [FIRST_STEP, *told, "--out", str(folder / "first")]
    seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in commands}
    for turn in range(args.starts + 1):
        for name, command in commands.items():
            took = started(command, folder / f"cache-{turn}-{name}")
            if turn:  # the first one compiles modules and fills the disk's cache
                seconds[name].append(took)
    found: dict[str, Any] = {}
    for name, taken in seconds.items():
        found[name] = {
            "seconds": [round(q, 3) for q in quartiles([wall for wall, _ in taken])],
            "processor_seconds": round(statistics.median(processor for _, processor in taken), 3),
        }
        if name != "import":
            times = [wall / bare for (wall, _), (bare, _) in zip(taken, seconds["import"], strict=True)]
            found[name]["times_import"] = round(statistics.median(times), 3)
    return found


def started(command: list[str], cache: Path) -> tuple[float, float]:
    """Seconds from the start of a process until it says what time it is, and those of the processor."""
    environment = {**os.environ, "XDG_CACHE_HOME": str(cache)}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)  # an installed package is compiled once
    began = time.time()
    done = subprocess.run([sys.executable, "-c", *command], capture_output=True, text=True, env=environment)
    if done.returncode:
        raise SystemExit(done.stderr)
    moment, processor = done.stdout.split()[-2:]
    return float(moment) - began, float(processor)


def quartiles(values: list[float]) -> list[float]:
    return statistics.quantiles(values, n=4)


def predict() -> list[dict[str, Any]]:
    return [compare(name, 1, 40) for name in ("resnet18", "mobilenet_v3_large", "mobilenet_v3_small")]


def main() -> None:
    args = arguments()
    torch.set_num_threads(args.threads)
    record: dict[str, Any] = {
        "torch": torch.__version__,
        "threads": args.threads,
        "cpu": processor(),
    }
    parts = args.parts.split(",")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ["XDG_CACHE_HOME"] = str(folder / "cache")
        measures: dict[str, Callable[[], Any]] = {
            "start": lambda: start(args, folder), "predict": predict, "loop": lambda: loop(args, folder)
        }  # fmt: skip
        for part, measure in measures.items():
            if part in parts:
                record[part] = measure()
                print(json.dumps({part: record[part]}, indent=2), flush=True)
    if args.out:
        write_results(record, args.out, "engine", cpus=args.threads, keep_others=True)


if __name__ == "__main__":
    main()
