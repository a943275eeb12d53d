"""Predict with exported ONNX files, from the start of a process to the answers, next to torchvision and timm.

    python benchmarks/bench_onnx.py --peer PYTHON --out benchmarks/results
    python benchmarks/bench_onnx.py --peer PYTHON --parts first --rounds 9

PYTHON is an interpreter with torchvision and timm; the one that runs this needs Striate, ONNX Runtime and
onnx. All sides run in turns, `--rounds` times after a round that does not count, and read the same JPEG
files, photographs in size (500x375) and smooth noise in content, or those of `--images`.

- first: one image, ResNet-18. `bare` is a script that only imports NumPy, Pillow and ONNX Runtime, opens the
  same file and runs it with the usual settings.
- files: `--files` images, MobileNetV3-Large.
- int8: the same images, ResNet-18 in int8 next to torchvision's float32.

Wall and CPU seconds of a process and its children, medians; `cpu_ratio` and `ratio` say how many times those
of Striate a side takes. Weights are random; the peers read the same ones as a state dict.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from fresh import RESULTS, ROOT
from record import write_results

BARE = """
import sys
import numpy as np
import onnxruntime
from PIL import Image

session = onnxruntime.InferenceSession(sys.argv[1])
image = np.asarray(Image.open(sys.argv[2]).convert("RGB").resize((224, 224)))
print(session.run(["scores"], {"images": image[None]})[0].argmax())
"""
TIMM = "import sys, timm, torch; torch.save(timm.create_model(sys.argv[1]).state_dict(), sys.argv[2])"
PEER = str(Path(__file__).with_name("peer_predict.py"))
SMALL, LARGE, IN_TIMM = "resnet18", "mobilenet_v3_large", "mobilenetv3_large_100"
BATCH = 64


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--peer", required=True, metavar="PYTHON")
    parser.add_argument("--parts", default="first,files,int8", help="with commas between them")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--files", type=int, default=500)
    parser.add_argument("--images", type=Path, help="folder of JPEG files")
    parser.add_argument("--out", type=Path, help=f"folder for a results file, such as {RESULTS}")
    args = parser.parse_args()
    record: dict[str, Any] = {"system": platform.platform(), "cpus": os.cpu_count(), "rounds": args.rounds}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        images = [str(path) for path in sorted(args.images.rglob("*.*g"))] if args.images else []
        files = images[: args.files] or photographs(folder / "images", args.files)
        sides = commands(args, folder, files)
        for part in args.parts.split(","):
            record[part] = in_turns(sides[part], args.rounds, folder)
            print(json.dumps({part: record[part]}, indent=2), flush=True)
    if args.out:
        write_results(record, args.out, "onnx", keep_others=True)


def commands(args: argparse.Namespace, folder: Path, files: list[str]) -> dict[str, dict[str, list[str]]]:
    """The command of each side of each part; makes the models that they need."""
    striate = [sys.executable, "-m", "striate", "predict"]
    parts, found = args.parts.split(","), {}
    if "first" in parts or "int8" in parts:
        export(SMALL, folder, files, int8="int8" in parts)
    small, large = folder / f"{SMALL}.onnx", folder / f"{LARGE}.onnx"

    def peer(library: str, name: str, chosen: list[str]) -> list[str]:
        return [args.peer, PEER, library, name, str(folder / f"{name}.pth"), str(BATCH), *chosen]

    found["first"] = {
        "striate": [*striate, str(small), files[0]],
        "bare": [sys.executable, "-c", BARE, str(small), files[0]],
        "torchvision": peer("torchvision", SMALL, files[:1]),
    }
    found["int8"] = {
        "striate": [*striate, str(folder / f"{SMALL}-int8.onnx"), *files],
        "striate in float32": [*striate, str(small), *files],
        "torchvision": peer("torchvision", SMALL, files),
    }
    if "files" in parts:
        export(LARGE, folder, files)
        weights = str(folder / f"{IN_TIMM}.pth")
        subprocess.run(
            [args.peer, "-c", TIMM, IN_TIMM, weights], env=environment(folder, args.peer), check=True
        )
    found["files"] = {
        "striate": [*striate, str(large), *files],
        "striate in torch": [*striate, str(large.with_suffix(".safetensors")), "--engine", "torch", *files],
        "torchvision": peer("torchvision", LARGE, files),
        "timm": peer("timm", IN_TIMM, files),
    }
    return found


def export(name: str, folder: Path, files: list[str], *, int8: bool = False) -> None:
    """Write a network with random weights as bundle, state dict and ONNX file."""
    import torch
    from bench_predict import network_of

    import striate
    from striate import bundle, models
    from striate.bundle import Description

    entry = models.describe(name)
    network = network_of(name, (entry.channels, entry.input_size, entry.input_size))
    classes = tuple(f"class {i}" for i in range(1000))
    preprocess = striate.Preprocess.for_size(entry.input_size)
    path = folder / f"{name}.safetensors"
    bundle.write(path, network, Description("classification", name, {}, classes, preprocess))
    torch.save(network.state_dict(), folder / f"{name}.pth")
    striate.export(path, folder / f"{name}.onnx", "onnx")
    if int8:  # the labels of random weights mean nothing, so any loss is allowed
        table = folder / "labels.csv"
        rows = [f"{file},class {i % 1000},{'val' if i % 2 else 'test'}" for i, file in enumerate(files[:128])]
        table.write_text("\n".join(["path,label,split", *rows]) + "\n")
        striate.export(path, folder / f"{name}-int8.onnx", "onnx-int8", data=str(table), max_loss=100)


def photographs(folder: Path, count: int) -> list[str]:
    """Smooth noise as JPEG files of a photograph's size."""
    import numpy as np
    from PIL import Image

    folder.mkdir()
    generator = np.random.default_rng(0)
    for i in range(count):
        rough = generator.integers(0, 256, (47, 63, 3), np.uint8)
        Image.fromarray(rough).resize((500, 375)).save(folder / f"{i:04}.jpg", quality=90)
    return [str(path) for path in sorted(folder.iterdir())]


def in_turns(sides: dict[str, list[str]], rounds: int, folder: Path) -> dict[str, dict[str, float]]:
    """Median wall and CPU seconds of each side, and how many times those of the first one they are."""
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in sides}
    for turn in range(rounds + 1):
        for name, command in sides.items():
            took = seconds(command, folder)
            if turn:  # the first one compiles modules and fills the disk's cache
                taken[name].append(took)
    found = {}
    ours = [statistics.median(kind) for kind in zip(*next(iter(taken.values())), strict=True)]
    for name, rows in taken.items():
        wall, cpu = (statistics.median(kind) for kind in zip(*rows, strict=True))
        found[name] = {
            "seconds": round(wall, 3), "cpu_seconds": round(cpu, 3), "ratio": round(wall / ours[0], 2),
            "cpu_ratio": round(cpu / ours[1], 2),
        }  # fmt: skip
    return found


def seconds(command: list[str], folder: Path) -> tuple[float, float]:
    """Wall and CPU seconds of a process."""
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run(command, env=environment(folder, command[0]), capture_output=True, text=True)
    wall, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        raise SystemExit(done.stderr)
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def environment(folder: Path, python: str) -> dict[str, str]:
    """The variables of a process: modules are compiled once, as those of installed packages are."""
    own = {"PYTHONPATH": str(ROOT / "src")} if python == sys.executable else {"PYTHONPATH": ""}
    variables = {**os.environ, **own, "XDG_CACHE_HOME": str(folder / "cache")}
    variables.pop("PYTHONDONTWRITEBYTECODE", None)
    return variables


if __name__ == "__main__":
    main()
