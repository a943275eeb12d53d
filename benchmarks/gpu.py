"""Check and measure everything that needs a GPU, in one call of about six minutes.

    python benchmarks/gpu.py                              # without a GPU, prints that there is none
    python benchmarks/gpu.py --only logits,throughput     # some parts
    python benchmarks/gpu.py --compile                    # also train with torch.compile
    python benchmarks/gpu.py --device cpu --quick         # a rehearsal: the same code on small data

A part is a function of `Bench` that returns its figures; it raises `AssertionError` if a check fails; the
other parts still run. If time is short, networks are left out, and the notes list them. Results go to
`<out>/<date>_<gpu>_gpu.json`; the exit code is 1 if a check failed.
"""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import functools
import json
import math
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
from gpu_learning import compiled_runs, head, learning, precision, resume, resume_seq2seq, seq2seq
from rates import bare_rate, loop_rate, predict_rate
from torch import nn

from striate import models
from striate.anatomy import trace
from striate.anatomy.limits import Gpu, seconds
from striate.data import InMemoryImages
from striate.device import choose, mixed_precision
from striate.inference.scores import logits
from striate.kernels.folding import fold
from striate.models.googlenet import GoogLeNetOutput
from striate.tasks.classification.config import ClassificationConfig
from striate.tasks.classification.loss import Criterion
from striate.transforms.augment import augment, pca_color
from striate.transforms.augmentations import AUGMENTATIONS
from striate.transforms.preprocess import Preprocess

LIMIT = 330.0  # seconds by default
LOGITS_SHARE, THROUGHPUT_SHARE = 0.12, 0.4  # of all time, at most
LEAST = 15.0  # seconds left, below which a part is skipped
QUICK = ("lenet", "resnet20", "mobilenet_v3_small", "vit_ti_16")  # networks of a rehearsal


@dataclass
class Bench:
    """What all parts share.

    Attributes:
        device: where to run.
        quick: a rehearsal on small data.
        ends: when to stop, on the clock of `time.monotonic`.
        limit: seconds for all parts.
        folder: temporary, for runs.
        data: CIFAR-10 as class folders of JPEGs, or None.
        names: the networks to compare and measure.
        compile: whether to train with torch.compile, too.
        notes: what was skipped for lack of time.
    """

    device: torch.device
    quick: bool
    ends: float
    limit: float
    folder: Path
    data: Path | None = None
    names: tuple[str, ...] = tuple(models.MODELS)
    compile: bool = False
    notes: list[str] = field(default_factory=list)

    def pick(self, quick: Any, full: Any) -> Any:
        """The value for a rehearsal, or the full one."""
        return quick if self.quick else full

    def left(self) -> float:
        """Seconds."""
        return self.ends - time.monotonic()

    def deadline(self, share: float) -> float:
        """When a part that may take a share of all time must stop; a rehearsal has no limit."""
        return math.inf if self.quick else min(self.ends, time.monotonic() + share * self.limit)


def ceilings(bench: Bench) -> Gpu:
    """Measured peak speeds of the device: a large matrix product in half precision, and a large copy."""
    size, count = bench.pick(256, 8192), bench.pick(3, 20)
    dtype = mixed_precision(bench.device, None) or torch.float32
    a, b = (torch.randn(size, size, device=bench.device, dtype=dtype) for _ in range(2))
    source = torch.randn(bench.pick(1 << 18, 1 << 28), device=bench.device)
    target = torch.empty_like(source)
    product = timed(bench, lambda: torch.mm(a, b), count)
    copy = timed(bench, lambda: target.copy_(source), count)
    return Gpu(gpu_name(bench.device), 2 * size**3 / product, 2 * source.nbytes / copy)


def timed(bench: Bench, action: Callable[[], Any], count: int) -> float:
    """Seconds of one call: the median of `count` calls after two to warm up."""
    times = []
    for _ in range(count + 2):
        started = time.perf_counter()
        action()
        if bench.device.type == "cuda":
            torch.cuda.synchronize(bench.device)
        times.append(time.perf_counter() - started)
    return float(np.median(times[2:]))


def logits_part(bench: Bench) -> dict[str, Any]:
    """Compare the scores of CPU and device, in float32 without TF32, folded as in prediction."""
    ends = bench.deadline(LOGITS_SHARE)
    worst: dict[str, float] = {}
    torch.backends.cudnn.allow_tf32 = False
    try:
        for name in bench.names:
            if time.monotonic() > ends:
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
            if not np.isfinite(expected).all():
                bench.notes.append(f"logits: random weights of {name} overflow on the CPU, too")
                continue
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
    """Compare augmented batches of CPU and device: whole pixels are equal, others up to rounding.

    Images are smooth, because a CPU resizes crops with antialiasing and a GPU without.
    """
    rng, n = np.random.default_rng(0), bench.pick(4, 64)
    figures = {}
    for recipe in AUGMENTATIONS:
        for size, uncropped in ((32, 32), bench.pick((40, 46), (224, 256))):
            blobs = torch.from_numpy(rng.uniform(0, 255, (n, 3, 4, 4)))
            smooth = F.interpolate(blobs, size=(uncropped, uncropped), mode="bicubic").clamp(0, 255)
            pixels = smooth.to(torch.uint8).permute(0, 2, 3, 1).contiguous()
            drawn: dict[str, Any] = {"seed": 1, "epoch": 2, "samples": np.arange(n)}

            def changed(
                pixels: torch.Tensor, recipe: Any = recipe, size: int = size, drawn: Any = drawn
            ) -> Any:
                out = augment(pixels, (size, size), recipe, **drawn)
                return pca_color(out, 0.1, **drawn).float().cpu()

            gap = (changed(pixels.to(bench.device)) - changed(pixels)).abs()
            figures[f"{recipe} {size}"] = {
                "largest": float(gap.max()),
                "differ": float((gap > 4).float().mean()),
            }
            exact = recipe in ("none", "shift", "light")
            assert gap.max() < 1e-3 if exact else (gap > 4).float().mean() < 2e-2, (recipe, figures)
    return figures


def throughput(bench: Bench) -> dict[str, Any]:
    """Images per second of every network: training loop, bare loop, prediction, and the device's limits."""
    gpu = ceilings(bench)
    rows: dict[str, Any] = {"ceilings": dataclasses.asdict(gpu)}
    ends = bench.deadline(THROUGHPUT_SHARE)
    for place, name in enumerate(bench.names):
        if time.monotonic() > ends:
            bench.notes.append(f"throughput: no time for {', '.join(bench.names[place:])}")
            break
        rows[name] = rates_of(bench, name, gpu)
        if bench.device.type == "cuda":
            torch.cuda.empty_cache()
    return rows


def rates_of(bench: Bench, name: str, gpu: Gpu) -> dict[str, float]:
    """One row of `throughput`; a batch that does not fit in memory is halved."""
    channels, size = models.MODELS[name].channels, models.MODELS[name].input_size
    anatomy = trace(name)
    batch = bench.pick(4, 256 if anatomy.macs < 2e9 else 128 if anatomy.macs < 12e9 else 64)
    steps = bench.pick(2, 12)
    while True:
        config = ClassificationConfig(
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
    """Compare `torch.compile` with eager: forward and backward of ResNet-18, in mixed precision."""
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
    except Exception as error:  # no C compiler or no Triton
        return {"skipped": f"torch.compile does not work here: {str(error).splitlines()[0][:200]}"}
    first = time.perf_counter() - started
    with torch.no_grad():
        gap = float((answer - network(images)).abs().max() / answer.abs().max())

    def step(module: Callable[..., Any]) -> None:
        with torch.autocast(bench.device.type, half or torch.bfloat16, enabled=half is not None):
            output = module(images)
            assert not isinstance(output, GoogLeNetOutput)
            loss, _ = Criterion()(output, truth)
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
    """Copy a batch to the GPU: from pageable and pinned memory, and pinned during a matrix product."""
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
    """Two processes with half a batch each take the same step as one with the whole batch."""
    if bench.device.type == "cuda" and torch.cuda.device_count() < 2:
        return {"skipped": f"{torch.cuda.device_count()} GPU"}
    script = str(Path(__file__).with_name("gpu_pair.py"))
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", script]
    done = subprocess.run(
        [*command, bench.device.type], env={**os.environ, "OMP_NUM_THREADS": "1"}, check=True,
        timeout=max(60, bench.left()), stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    figures: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    assert figures["relative_error"] < 1e-5, figures
    return figures


PARTS: dict[str, Callable[[Bench], dict[str, Any]]] = {
    "logits": logits_part,
    "precision": precision,
    "augmentation": augmentation,
    "resume": resume,
    "resume_seq2seq": resume_seq2seq,
    "seq2seq": seq2seq,
    "head": head,
    "copies": copies,
    "two_processes": two_processes,
    "throughput": throughput,
    "learning": learning,
    "compile": compiled,
    "compiled_runs": compiled_runs,
}


def gpu_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def run(bench: Bench, names: list[str]) -> dict[str, Any]:
    """All parts, one after the other, with the errors of those that fail."""
    found: dict[str, Any] = {}
    for name in names:
        started = time.monotonic()
        enough = bench.quick or bench.left() > LEAST
        try:
            figures = PARTS[name](bench) if enough else {"skipped": "no time left: use a larger --limit"}
            state = "skipped" if "skipped" in figures else "ok"
        except Exception as error:  # the other parts must still run
            figures, state = {"error": f"{type(error).__name__}: {error}"}, "failed"
            traceback.print_exc()
        found[name] = {"state": state, "seconds": round(time.monotonic() - started, 1), **figures}
        print(f"{name:14} {state:8} {found[name]['seconds']:6.1f} s", flush=True)
    return found


def arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--quick", action="store_true", help="small data, to rehearse")
    parser.add_argument("--only", default=",".join(PARTS), help="parts, with commas between them")
    parser.add_argument("--models", help="names, with commas between them; all on a GPU, few in a rehearsal")
    parser.add_argument("--compile", action="store_true", help="also train with torch.compile")
    parser.add_argument("--limit", type=float, default=LIMIT, help="seconds for all parts")
    parser.add_argument("--data", type=Path, help="CIFAR-10 as train/<class>/ and test/<class>/; slow")
    parser.add_argument("--out", type=Path, help="folder for the results; benchmarks/results for a GPU")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    args = arguments(argv)
    if args.device.startswith("cuda") and not torch.cuda.is_available():
        print("no GPU: nothing to measure (use --device cpu --quick for a rehearsal)")
        return 0
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # for deterministic matrix products
    device = choose(args.device)
    here = Path(__file__).parent
    out = args.out or (here / "results" if device.type == "cuda" and not args.quick else None)
    if out is not None:
        slug = re.sub(r"[^a-z0-9]+", "-", gpu_name(device).lower()).strip("-")
        out.mkdir(parents=True, exist_ok=True)
        path = out / f"{datetime.date.today().isoformat()}_{slug}_gpu.json"
        print(f"results go to {path}", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        names = (
            tuple(args.models.split(",")) if args.models else QUICK if args.quick else tuple(models.MODELS)
        )
        bench = Bench(
            device, args.quick, time.monotonic() + args.limit, args.limit, Path(folder), args.data, names,
            args.compile,
        )  # fmt: skip
        found = run(bench, [name.strip() for name in args.only.split(",")])
    record = {
        "gpu": gpu_name(device),
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "quick": args.quick,
        "notes": bench.notes,
        "parts": found,
    }
    if out is not None:
        path.write_text(json.dumps(record, indent=2) + "\n")
    print(f"results in {path}" if out is not None else "no results file is written without --out")
    return 1 if any(part["state"] == "failed" for part in found.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
