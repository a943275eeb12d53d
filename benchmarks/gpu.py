"""Everything that needs a GPU, checked and measured in one call of under ten minutes.

    python benchmarks/gpu.py                              # where no GPU is at hand it says so
    python benchmarks/gpu.py --only logits,throughput     # some parts
    python benchmarks/gpu.py --device cpu --quick         # a rehearsal: the same code, small

A part is a function of `Bench` that answers figures; it raises `AssertionError` where a check fails, and
one part's failure does not keep the others from running. What is too long for the time that is left says so
and is left out. Results go to `<out>/<date>_<gpu>_gpu.json`; the exit code is 1 where a check failed.
"""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import functools
import json
import os
import re
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from gpu_learning import head, learning, precision, resume
from rates import bare_rate, loop_rate, predict_rate
from torch import nn

from striate import models
from striate.anatomy import trace
from striate.anatomy.limits import Gpu, seconds
from striate.data import InMemoryImages
from striate.device import choose, mixed_precision
from striate.inference.classifier import logits
from striate.kernels.folding import fold
from striate.models.googlenet import GoogLeNetOutput
from striate.training.config import TrainConfig
from striate.training.loop import loss_of
from striate.transforms.augment import augment, pca_color
from striate.transforms.augmentations import AUGMENTATIONS
from striate.transforms.preprocess import Preprocess

LIMIT = 570.0  # seconds for all of it
QUICK = ("lenet", "resnet20", "mobilenet_v3_small", "vit_ti_16")  # networks of a rehearsal


@dataclass
class Bench:
    """What all parts share.

    Attributes:
        device: where.
        quick: a rehearsal, small in every respect.
        ends: when all of it is to be over, on `time.monotonic`'s clock.
        folder: to write into, gone in the end.
        data: CIFAR-10 as class folders of JPEGs, or None.
        names: the networks to go through.
        notes: what was left out.
    """

    device: torch.device
    quick: bool
    ends: float
    folder: Path
    data: Path | None = None
    names: tuple[str, ...] = tuple(models.MODELS)
    notes: list[str] = field(default_factory=list)

    def pick(self, quick: Any, full: Any) -> Any:
        """One or the other."""
        return quick if self.quick else full

    def left(self) -> float:
        """Seconds."""
        return self.ends - time.monotonic()


def ceilings(bench: Bench) -> Gpu:
    """What this device really does: a large product of matrices and a large copy, in half precision."""
    size, count = bench.pick(256, 8192), bench.pick(3, 20)
    dtype = mixed_precision(bench.device, None) or torch.float32
    a, b = (torch.randn(size, size, device=bench.device, dtype=dtype) for _ in range(2))
    source = torch.randn(bench.pick(1 << 18, 1 << 28), device=bench.device)
    target = torch.empty_like(source)
    product = timed(bench, lambda: torch.mm(a, b), count)
    copy = timed(bench, lambda: target.copy_(source), count)
    return Gpu(gpu_name(bench.device), 2 * size**3 / product, 2 * source.nbytes / copy)


def timed(bench: Bench, action: Callable[[], Any], count: int) -> float:
    """Seconds for one call, the median of so many after two that do not count."""
    times = []
    for _ in range(count + 2):
        started = time.perf_counter()
        action()
        if bench.device.type == "cuda":
            torch.cuda.synchronize(bench.device)
        times.append(time.perf_counter() - started)
    return float(np.median(times[2:]))


def logits_part(bench: Bench) -> dict[str, Any]:
    """Scores of the CPU against those of the device, in float32 without TF32, folded as in prediction."""
    worst: dict[str, float] = {}
    torch.backends.cudnn.allow_tf32 = False
    try:
        for name in bench.names:
            if bench.left() < 60:
                bench.notes.append(f"logits: no time for {name} and later ones")
                break
            channels, size = models.MODELS[name].channels, models.MODELS[name].input_size
            torch.manual_seed(0)
            network = models.build(name, num_classes=10).eval()
            nn.init.normal_(list(network.parameters())[-2], std=0.1)  # a ViT's classifier begins at zero
            rng = np.random.default_rng(0)
            images = InMemoryImages(
                rng.integers(0, 256, (2, size, size, channels), np.uint8),
                np.zeros(2, np.int64),
                ("x",) * 2,
                (),
            )
            pre = Preprocess.for_size(size, channels)
            expected, _ = logits(network, pre, images, torch.device("cpu"), 2)
            with torch.inference_mode():
                folded = fold(network.to(bench.device), (channels, size, size))
            found, _ = logits(folded, pre, images, bench.device, 2)
            worst[name] = float(np.abs(found - expected).max() / np.abs(expected).max())
    finally:
        torch.backends.cudnn.allow_tf32 = True
    wrong = {name: error for name, error in worst.items() if not error < 1e-3}
    assert not wrong, f"scores differ: {wrong}"
    return {"relative_error": worst}


def augmentation(bench: Bench) -> dict[str, Any]:
    """Augmented batches of the device against the CPU's: whole pixels equal, others to rounding."""
    rng, n = np.random.default_rng(0), bench.pick(4, 64)
    figures = {}
    for recipe in AUGMENTATIONS:
        for size, canvas in ((32, 32), bench.pick((40, 46), (224, 256))):
            pixels = torch.from_numpy(rng.integers(0, 256, (n, canvas, canvas, 3), np.uint8))
            drawn: dict[str, Any] = {"seed": 1, "epoch": 2, "samples": np.arange(n)}

            def changed(
                pixels: torch.Tensor, recipe: Any = recipe, size: int = size, drawn: Any = drawn
            ) -> Any:
                out = augment(pixels, (size, size), recipe, **drawn)
                return pca_color(out, 0.1, **drawn).float().cpu()

            gap = (changed(pixels.to(bench.device)) - changed(pixels)).abs()
            figures[f"{recipe} {size}"] = {
                "largest": float(gap.max()),
                "differ": float((gap > 1).float().mean()),
            }
            exact = recipe in ("none", "shift", "light")
            share = 1e-2 if recipe == "strong" else 1e-3  # a turned pixel may be its neighbour
            assert gap.max() < 1e-3 if exact else (gap > 1).float().mean() < share, (recipe, figures)
    return figures


def throughput(bench: Bench) -> dict[str, Any]:
    """Images a second of every network: the training loop, the bare loop, prediction, and the limits."""
    gpu = ceilings(bench)
    rows: dict[str, Any] = {"ceilings": dataclasses.asdict(gpu)}
    names = bench.names
    for place, name in enumerate(names):
        share = (bench.left() - 30) / (len(names) - place)
        if share < bench.pick(0.0, 2.0):
            bench.notes.append(f"throughput: no time for {', '.join(names[place:])}")
            break
        rows[name] = rates_of(bench, name, gpu)
        if bench.device.type == "cuda":
            torch.cuda.empty_cache()
    return rows


def rates_of(bench: Bench, name: str, gpu: Gpu) -> dict[str, float]:
    """One row of `throughput`; a batch that the memory does not take is halved."""
    channels, size = models.MODELS[name].channels, models.MODELS[name].input_size
    anatomy = trace(name)
    batch = bench.pick(4, 256 if anatomy.macs < 2e9 else 128 if anatomy.macs < 12e9 else 64)
    steps = bench.pick(2, 12)
    while True:
        config = TrainConfig(
            data="noise", model=name, batch=batch, imgsz=size, channels=channels, epochs=2, opt="sgd",
            lr=1e-4, augment="none" if channels == 1 else "light",
        )  # fmt: skip
        try:
            row = {
                "batch": batch,
                "bare": bare_rate(config, bench.device, steps),
                "loop": loop_rate(config, bench.device, steps),
                "predict": predict_rate(config, bench.device, steps),
            }
            break
        except torch.OutOfMemoryError:
            if batch == 1:
                raise
            batch //= 2
            torch.cuda.empty_cache()
    for what, training in (("limit", True), ("predict_limit", False)):
        row[what] = 1 / seconds(anatomy, gpu, training=training, batch=batch)
    rounded = {key: round(value, 1) for key, value in row.items()}
    return {
        **rounded,
        "loop_of_bare": round(row["loop"] / row["bare"], 3),
        "bare_of_limit": round(row["bare"] / row["limit"], 3),
    }


def compiled(bench: Bench) -> dict[str, Any]:
    """`torch.compile` beside eager: forward and backward of ResNet-18, in mixed precision."""
    network = models.build("resnet18", num_classes=10).to(bench.device).train()
    size, batch = bench.pick(32, 224), bench.pick(4, 128)
    images = torch.randn(batch, 3, size, size, device=bench.device).contiguous(
        memory_format=torch.channels_last
    )
    truth = torch.zeros(batch, dtype=torch.long, device=bench.device)
    half = mixed_precision(bench.device, None)
    started = time.perf_counter()
    try:
        fast = torch.compile(network, backend=bench.pick("aot_eager", "inductor"))
        answer = fast(images)
    except Exception as error:  # no compiler, no Triton: an option that is not there
        return {"skipped": f"torch.compile does not work here: {str(error).splitlines()[0][:200]}"}
    first = time.perf_counter() - started
    with torch.no_grad():
        gap = float((answer - network(images)).abs().max() / answer.abs().max())

    def step(module: Callable[..., Any]) -> None:
        with torch.autocast(bench.device.type, half or torch.bfloat16, enabled=half is not None):
            output = module(images)
            assert not isinstance(output, GoogLeNetOutput)
            loss, _ = loss_of(output, truth, 0.0)
        torch.autograd.backward(loss)

    count, rates = bench.pick(1, 20), {}
    for name, module in (("eager", network), ("compiled", fast)):
        rates[name] = batch / timed(bench, functools.partial(step, module), count)
    assert gap < 1e-2, gap
    return {
        "first_seconds": first,
        "relative_error": gap,
        **rates,
        "speedup": rates["compiled"] / rates["eager"],
    }


def copies(bench: Bench) -> dict[str, Any]:
    """A batch's way to the GPU: pageable and pinned memory, and a pinned copy hidden behind a product."""
    if bench.device.type != "cuda":
        return {"skipped": "the batch is where the network is"}
    batch = torch.randint(0, 256, (256, 256, 256, 3), dtype=torch.uint8)
    pinned, on_device = batch.pin_memory(), torch.empty_like(batch, device=bench.device)
    a = torch.randn(8192, 8192, device=bench.device, dtype=torch.bfloat16)
    side = torch.cuda.Stream(bench.device)  # type: ignore[no-untyped-call]  # torch's omission

    def beside() -> None:
        with torch.cuda.stream(side):
            on_device.copy_(pinned, non_blocking=True)
        torch.mm(a, a)

    times = {
        "pageable": timed(bench, lambda: on_device.copy_(batch), 10),
        "pinned": timed(bench, lambda: on_device.copy_(pinned, non_blocking=True), 10),
        "product": timed(bench, lambda: torch.mm(a, a), 10),
        "product_and_copy": timed(bench, beside, 10),
    }
    hidden = (times["pinned"] + times["product"] - times["product_and_copy"]) / min(
        times["pinned"], times["product"]
    )
    rates = {f"{name}_gb_per_s": batch.nbytes / times[name] / 1e9 for name in ("pageable", "pinned")}
    return {**{f"{name}_ms": 1e3 * value for name, value in times.items()}, **rates, "hidden_share": hidden}


def two_processes(bench: Bench) -> dict[str, Any]:
    """Two processes with half a batch each make the step of one with all of it (nccl; gloo on a CPU)."""
    if bench.device.type == "cuda" and torch.cuda.device_count() < 2:
        return {"skipped": f"{torch.cuda.device_count()} GPU"}
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node",
        "2",
        __file__,
    ]
    out = bench.folder / "worker.json"
    environment = {**os.environ, "STRIATE_GPU_WORKER": str(out), "OMP_NUM_THREADS": "1"}
    subprocess.run(
        [*command, "--device", bench.device.type], env=environment, check=True, timeout=max(60, bench.left()),
        capture_output=True,
    )  # fmt: skip
    figures: dict[str, Any] = json.loads(out.read_text())
    assert figures["relative_error"] < 1e-5, figures
    return figures


def work_in_a_pair(out: Path, device_type: str) -> None:
    """One of the two: a step on its half, whose gradient must be that of the whole batch."""
    import torch.distributed as dist
    from torch.nn.parallel import DistributedDataParallel

    dist.init_process_group("nccl" if device_type == "cuda" else "gloo")
    rank = dist.get_rank()
    device = torch.device("cuda", rank) if device_type == "cuda" else torch.device("cpu")
    torch.manual_seed(0)
    network = models.build("lenet", num_classes=10).double().to(device)
    images, truth = (
        torch.randn(16, 3, 32, 32, dtype=torch.double).to(device),
        torch.arange(16, device=device) % 10,
    )
    torch.autograd.backward(F.cross_entropy(network(images), truth))
    whole = [p.grad.clone() for p in network.parameters() if p.grad is not None]
    network.zero_grad()
    pair = DistributedDataParallel(network, device_ids=[rank] if device_type == "cuda" else None)
    half = slice(8 * rank, 8 * rank + 8)
    torch.autograd.backward(F.cross_entropy(pair(images[half]), truth[half]))
    gaps = [
        float((p.grad - w).abs().max() / w.abs().max())
        for p, w in zip(network.parameters(), whole, strict=True)
        if p.grad is not None
    ]
    if rank == 0:
        out.write_text(json.dumps({"backend": dist.get_backend(), "relative_error": max(gaps)}))
    dist.destroy_process_group()


PARTS: dict[str, Callable[[Bench], dict[str, Any]]] = {
    "logits": logits_part,
    "precision": precision,
    "augmentation": augmentation,
    "resume": resume,
    "learning": learning,
    "head": head,
    "copies": copies,
    "two_processes": two_processes,
    "compile": compiled,
    "throughput": throughput,  # the longest comes last, and takes what time there is
}


def gpu_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def run(bench: Bench, names: list[str]) -> dict[str, Any]:
    """All parts, one after the other; a part that fails says why."""
    found: dict[str, Any] = {}
    for name in names:
        started = time.monotonic()
        try:
            figures = PARTS[name](bench)
            state = "skipped" if "skipped" in figures else "ok"
        except Exception as error:  # the other parts are to run, whatever it is
            figures, state = {"error": f"{type(error).__name__}: {error}"}, "failed"
            traceback.print_exc()
        found[name] = {"state": state, "seconds": round(time.monotonic() - started, 1), **figures}
        print(f"{name:14} {state:8} {found[name]['seconds']:6.1f} s", flush=True)
    return found


def arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--quick", action="store_true", help="small in every respect, to rehearse")
    parser.add_argument("--only", default=",".join(PARTS), help="parts, with commas between them")
    parser.add_argument("--models", help="names with commas between them; all for a GPU, few in a rehearsal")
    parser.add_argument("--data", type=Path, help="CIFAR-10 as train/<class>/ and test/<class>/ of images")
    parser.add_argument("--out", type=Path, help="folder for the results; benchmarks/results for a GPU")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    args = arguments(argv)
    if (worker := os.environ.get("STRIATE_GPU_WORKER")) is not None:
        work_in_a_pair(Path(worker), args.device)
        return 0
    if args.device.startswith("cuda") and not torch.cuda.is_available():
        print("no GPU at hand: nothing to measure (--device cpu --quick rehearses it)")
        return 0
    device = choose(args.device)
    here = Path(__file__).parent
    shared = here.parents[1] / "shared" / "data" / "cifar10_jpg"
    data = args.data or (shared if shared.is_dir() else None)
    with tempfile.TemporaryDirectory() as folder:
        names = (
            tuple(args.models.split(",")) if args.models else QUICK if args.quick else tuple(models.MODELS)
        )
        bench = Bench(device, args.quick, time.monotonic() + LIMIT, Path(folder), data, names)
        found = run(bench, [name.strip() for name in args.only.split(",")])
    record = {
        "gpu": gpu_name(device),
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "quick": args.quick,
        "notes": bench.notes,
        "parts": found,
    }
    out = args.out or (here / "results" if device.type == "cuda" and not args.quick else None)
    if out is not None:
        slug = re.sub(r"[^a-z0-9]+", "-", gpu_name(device).lower()).strip("-")
        out.mkdir(parents=True, exist_ok=True)
        path = out / f"{datetime.date.today().isoformat()}_{slug}_gpu.json"
        path.write_text(json.dumps(record, indent=2) + "\n")
        print(path)
    return 1 if any(part["state"] == "failed" for part in found.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
