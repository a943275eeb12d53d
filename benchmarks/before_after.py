"""CPU time of two versions of Striate, measured in turns: is the working tree slower than an older version?

    git worktree add /tmp/before OLD_COMMIT
    python benchmarks/before_after.py --before /tmp/before/src --out benchmarks/results   # about six minutes
    python benchmarks/before_after.py --before /tmp/before/src --only greedy,beam --pairs 5

For each case, two processes repeat the same work in turns, one with each version, on one thread. A process
can be slow for its whole life, so several pairs are measured, one after the other. A ratio is the CPU time of
`before` divided by that of `after` in the same turn: above 1 means that the working tree is faster.
`least_ratio` compares the fastest turns of all, on which other programs have the least effect.

The cases are those of bench_engine, bench_seq2seq and bench_predict, and whole runs and commands around them.
A case is written once: `find` looks a name up where each version has it.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import importlib
import json
import math
import os
import platform
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from record import write_results

NEW = Path(__file__).parents[1] / "src"
FIRST_STEP = """
import os, sys, time
from contextlib import contextmanager
import striate.cli.console
from striate.progress import Progress

class FirstStep(Progress):
    def advance(self, done, **figures):
        print(time.time(), sum(os.times()[:2]), flush=True)
        os._exit(0)

@contextmanager
def watching():
    yield FirstStep()

striate.cli.console.watching = watching
striate.cli.run(sys.argv[1:])
"""
Call = Callable[[], object]


def find(*places: str) -> Any:
    """The first of several `module:name` that this version of Striate has."""
    for place in places:
        module, _, name = place.partition(":")
        with contextlib.suppress(ImportError, AttributeError):
            return getattr(importlib.import_module(module), name)
    raise ImportError(f"none of {', '.join(places)}")


def fit(folder: Path, **options: Any) -> Call:
    """The training loop on noise in memory; `steps` optimizer steps with a fresh network."""
    import torch

    steps, device = options.pop("steps"), torch.device("cpu")
    find("striate.device:choose")("cpu")
    options = {"data": "noise", "epochs": 1, "lr": 1e-4, **options}
    run = find("striate.training.loop:fit")
    try:
        config = find("striate.tasks.classification.config:ClassificationConfig")(**options)
    except ImportError:
        return _fit_before(run, options, steps)
    from in_memory import make_training, noise, random_network

    from striate.kernels import prepare

    preprocess, images = config.own_preprocess(None), steps * config.batch
    cropped = config.augmentation(preprocess, images)[0] != "none"
    train, val = noise(preprocess, images, uncropped=cropped), noise(preprocess, 2)

    def call() -> None:
        network = prepare(random_network(config, preprocess, device), device, training=True)
        run(make_training(config, network, train, val, device))

    return call


def _fit_before(run: Any, options: dict[str, Any], steps: int) -> Call:
    """`fit` with the engine of before."""
    import numpy as np
    import torch

    config = find("striate.training.config:TrainConfig")(**options)
    preprocess, images, device = config.preprocess(None), steps * config.batch, torch.device("cpu")
    cropped = config.augmentation(preprocess, images) != "none"
    rng, in_memory = np.random.default_rng(0), find("striate.data:Loaded")

    def noise(count: int, size: tuple[int, int]) -> Any:
        pixels = rng.integers(0, 256, (count, *size, preprocess.channels), np.uint8)
        return in_memory(pixels, rng.integers(0, 10, count), ("noise",) * count, ())

    train = noise(images, preprocess.canvas_size if cropped else preprocess.size)
    val, more = noise(2, preprocess.size), {}
    if find("striate.models:MODELS")[config.model].sizes == "argument":
        more["input_size"] = preprocess.size
    build, placed = find("striate.models:build"), find("striate.device:placed")
    state, job = find("striate.training.state:TrainState"), find("striate.training.loop:Job")
    epochs = find("striate.training.schedule:Epochs")

    def call() -> None:
        torch.manual_seed(config.seed)
        network = placed(build(config.model, num_classes=10, in_channels=preprocess.channels, **more), device)
        fresh = state.fresh(network, config, device)
        run(fresh, job(preprocess, train, val, config, device, epochs(config, images)))

    return call


def run_images(folder: Path) -> Call:
    """A whole run on images, with checkpoints, evaluation and report."""
    train = find("striate:train")
    options: dict[str, Any] = {"model": "lenet", "epochs": 1, "device": "cpu", "out": str(folder / "runs")}
    return lambda: train("digits", **options)


def run_pairs(folder: Path) -> Call:
    """A whole run of sequence to sequence."""
    rng, path = random.Random(0), folder / "reverse.tsv"
    texts = ["".join(rng.choices("abcdefghijklmnopqrst", k=rng.randint(4, 12))) for _ in range(300)]
    path.write_text("".join(f"{text}\t{text[::-1]}\n" for text in texts))
    train = find("striate:train_seq2seq")
    options: dict[str, Any] = {"model": "tiny", "epochs": 1, "device": "cpu", "out": str(folder / "runs")}
    return lambda: train(str(path), **options)


def train_pairs(folder: Path) -> Call:
    """Two training steps of bench_seq2seq's Transformer: random order, with dropout."""
    import torch

    bench, net = _transformer(training=True)
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-4)
    batches = bench.pairs("random")[:2]

    def call() -> None:
        for source, target, expected in batches:
            optimizer.zero_grad()
            net.loss(source, target, expected, 0.1).backward()
            optimizer.step()

    return call


def generate(folder: Path, beams: int) -> Call:
    """Decode bench_seq2seq's 32 sources, 30 tokens each, with prepacked weights."""
    import torch

    bench, net = _transformer(training=False)
    net = find("striate.kernels.prepacking:prepack", "striate.folding:arrange")(net)
    source = bench.padded(bench.sources())
    greedy = find("striate.inference.generation:greedy", "striate.generation:greedy")
    beam = find("striate.inference.generation:beam", "striate.generation:beam")

    @torch.inference_mode()
    def call() -> None:
        memory, mask = net.encode(source)
        if beams == 1:
            greedy(net.decoder, memory, mask, 30)
        else:
            beam(net.decoder, memory, mask, 30, beams=beams)

    return call


def _transformer(*, training: bool) -> tuple[Any, Any]:
    """bench_seq2seq of this version, and its network."""
    import torch

    sys.path.insert(0, str(Path(find("striate:__path__")[0]).parents[1] / "benchmarks"))
    bench = importlib.import_module("bench_seq2seq")
    find("striate.device:choose")("cpu")
    net = bench.network()
    if training:
        torch.manual_seed(0)
        net = bench.TextToText(
            bench.VOCAB, bench.VOCAB, bench.WIDTH, bench.DEPTH, bench.HEADS, bench.HIDDEN, 0.1, max_length=256
        )
    with contextlib.suppress(ImportError):
        net = find("striate.kernels:prepare")(net, torch.device("cpu"), training=training)
    return bench, net


def predict(folder: Path, model: str) -> Call:
    """The folded network on one image, as in bench_predict."""
    import torch

    net = _network(model)
    size = find("striate.models:MODELS")[model].input_size
    find("striate.device:choose")("cpu")
    with torch.inference_mode():
        net = find("striate.kernels.folding:fold", "striate.folding:fold")(net, (3, size, size))
    image = torch.randn(1, 3, size, size)

    @torch.inference_mode()
    def call() -> None:
        net(image)

    return call


def _network(model: str) -> Any:
    """With random weights, and norms with the statistics of a few images of noise."""
    import torch

    size = find("striate.models:MODELS")[model].input_size
    torch.manual_seed(0)
    net = find("striate.models:build")(model)
    if any(isinstance(module, torch.nn.BatchNorm2d) for module in net.modules()):
        with torch.no_grad():
            net(torch.randn(4, 3, size, size))
    return net.eval()


def _bundle(folder: Path, model: str) -> tuple[str, int]:
    """A bundle of a network, and its input size."""
    size, path = find("striate.models:MODELS")[model].input_size, folder / f"{model}.safetensors"
    if not path.exists():
        preprocess = find("striate.transforms.preprocess:Preprocess").for_size(size)
        classes = tuple(f"class {i}" for i in range(1000))
        description = find("striate.bundle:Description")(
            "classification", model, {"num_classes": 1000, "in_channels": 3}, classes, preprocess
        )
        find("striate.bundle:write")(path, _network(model), description)
    return str(path), size


def load(folder: Path, model: str) -> Call:
    """Open a bundle."""
    path, _ = _bundle(folder, model)
    import striate

    return lambda: striate.load(path, "cpu")


def predict_command(folder: Path) -> Call:
    """`striate predict` for one image with VGG-16: opens the bundle, folds the network, predicts."""
    import numpy as np
    from PIL import Image

    path, size = _bundle(folder, "vgg16")
    pixels = np.random.default_rng(0).integers(0, 256, (size, size, 3), np.uint8)
    Image.fromarray(pixels).save(folder / "image.png")
    run = find("striate.cli:run")

    def call() -> None:
        with contextlib.redirect_stdout(sys.stderr):
            assert run(["predict", path, str(folder / "image.png")]) == 0

    return call


def evaluate(folder: Path) -> Call:
    """Evaluate ResNet-18 on 20 images from the cache."""
    import numpy as np
    from PIL import Image

    path, _ = _bundle(folder, "resnet18")
    rng = np.random.default_rng(0)
    for i in range(20):
        file = folder / "images" / f"class {i % 2}" / f"{i}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (256, 256, 3), np.uint8)).save(file)
    run = find("striate:evaluate")
    return lambda: run(path, str(folder / "images"), device="cpu")


def start(folder: Path) -> Call:
    """A process that trains up to its first step."""
    command = [sys.executable, "-c", FIRST_STEP, "train", "digits", "--model", "lenet", "--epochs", "1"]
    command += ["--out", str(folder / "first")]
    return lambda: subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


CASES: dict[str, Callable[[Path], Call]] = {
    "greedy": functools.partial(generate, beams=1),
    "beam": functools.partial(generate, beams=5),
    "train_pairs": train_pairs,
    "fit_lenet": functools.partial(fit, model="lenet", imgsz=28, channels=1, batch=16, steps=120),
    "fit_resnet20": functools.partial(fit, model="resnet20", imgsz=32, batch=16, steps=8),
    "fit_resnet18": functools.partial(fit, model="resnet18", imgsz=96, batch=16, steps=2),
    "run_images": run_images,
    "run_pairs": run_pairs,
    "predict_resnet18": functools.partial(predict, model="resnet18"),
    "predict_mobilenet": functools.partial(predict, model="mobilenet_v3_small"),
    "load_vgg16": functools.partial(load, model="vgg16"),
    "predict_command_vgg16": predict_command,
    "evaluate": evaluate,
    "start": start,
}
PRECISE = ("greedy", "fit_lenet")  # where overhead shows most: twice as many pairs of processes


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--before", type=Path, required=True, help="src folder of the older version")
    parser.add_argument("--after", type=Path, default=NEW, help="src folder of the newer one; this one")
    parser.add_argument("--only", default=",".join(CASES), help="cases, with commas between them")
    parser.add_argument(
        "--pairs", type=int, default=2, help="pairs of processes; some cases have twice as many"
    )
    parser.add_argument("--rounds", type=int, default=4, help="turns of each pair")
    parser.add_argument("--seconds", type=float, default=0.3, help="of a turn, at least")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, help="folder for a results file")
    parser.add_argument("--case", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args()


class Worker:
    """A process that repeats the work of a case when it is told to.

    Args:
        source: folder with the `striate` to use.
        case: its name.
        folder: for its files.
        threads: number of threads.
    """

    def __init__(self, source: Path, case: str, folder: Path, threads: int) -> None:
        folder.mkdir(exist_ok=True)
        environment = {
            **os.environ, "PYTHONPATH": str(source), "OMP_NUM_THREADS": str(threads), "PYTHONHASHSEED": "0",
            "XDG_CACHE_HOME": str(folder / "cache"),
        }  # fmt: skip
        command = [sys.executable, __file__, "--before", str(source), "--case", case, "--folder", str(folder)]
        self._process = subprocess.Popen(
            command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def measure(self, repetitions: int) -> float:
        """CPU seconds of one repetition, the mean of several."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{repetitions}\n")
        self._process.stdin.flush()
        return self.seconds() / repetitions

    def close(self) -> None:
        """End the process."""
        self._process.communicate()

    def seconds(self) -> float:
        """CPU seconds of the last measurement; the first one follows the warm-up."""
        assert self._process.stdout is not None
        while line := self._process.stdout.readline():
            if line.startswith("seconds "):
                return float(line.split()[1])
        raise SystemExit("a worker failed")


def work(case: str, folder: Path) -> None:
    """Be a worker: read a number of repetitions from each line, and write their CPU seconds."""
    import torch

    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    with contextlib.redirect_stdout(sys.stderr):
        call = CASES[case](folder)
        call()

    def measure(repetitions: int) -> None:
        before = cpu_seconds()
        for _ in range(repetitions):
            call()
        print(f"seconds {cpu_seconds() - before}", flush=True)

    measure(1)
    for line in sys.stdin:
        measure(int(line))


def cpu_seconds() -> float:
    """Of this process and of those that it has started and that have ended."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


def compare(case: str, args: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Measure both versions in turns."""
    times: list[tuple[float, float]] = []
    for _ in range(args.pairs * (2 if case in PRECISE else 1)):
        workers = [
            Worker(source.absolute(), case, folder / name, args.threads)
            for name, source in (("before", args.before), ("after", args.after))
        ]
        once = min([worker.seconds() for worker in workers])  # waits until both are ready
        repetitions = max(1, math.ceil(args.seconds / max(1e-6, once)))
        for turn in range(args.rounds):
            order = workers if turn % 2 else workers[::-1]
            took = {id(worker): worker.measure(repetitions) for worker in order}
            times.append((took[id(workers[0])], took[id(workers[1])]))
        for worker in workers:
            worker.close()
    before, after = zip(*times, strict=True)
    ratios = sorted(a / b for a, b in times)
    return {
        "turns": len(times),
        "before_seconds": round(statistics.median(before), 5),
        "after_seconds": round(statistics.median(after), 5),
        "median_ratio": round(statistics.median(ratios), 3),
        "quartiles": [round(ratios[len(ratios) * q // 4], 3) for q in (1, 3)],
        "smallest_ratio": round(ratios[0], 3),
        "least_ratio": round(min(before) / min(after), 3),
    }


def processor() -> str:
    """Name of the CPU."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor()


def commit(source: Path) -> str:
    """The commit of a source folder, with a mark if its files differ; empty outside a repository."""
    command = ["git", "-C", str(source), "describe", "--always", "--dirty", "--abbrev=40"]
    return subprocess.run(command, capture_output=True, text=True).stdout.strip()


def main() -> None:
    args = arguments()
    if args.case:
        work(args.case, args.folder)
        return
    import torch

    record: dict[str, Any] = {
        "cpu": processor(),
        "cpus": os.cpu_count(),
        "threads": args.threads,
        "torch": torch.__version__,
        "commits": {"before": commit(args.before), "after": commit(args.after)},
        "load_average": os.getloadavg()[0],
        "cases": {},
    }
    with tempfile.TemporaryDirectory() as folder:
        for case in args.only.split(","):
            record["cases"][case] = compare(case, args, Path(folder))
            print(json.dumps({case: record["cases"][case]}), flush=True)
    if args.out:
        print(f"results in {write_results(record, args.out, 'before-after', cpus=args.threads)}")


if __name__ == "__main__":
    main()
