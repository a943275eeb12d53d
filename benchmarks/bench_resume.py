"""Check that a resumed run ends with the weights of an uninterrupted one, after kills, Ctrl-C and damage.

    python benchmarks/bench_resume.py                       # 20 kills, everything else once
    python benchmarks/bench_resume.py --kills 5 --seed 3

Every run is a separate process: `striate train`, then `striate resume`, as a user would type them. The
reference is never stopped. The others get SIGKILL at random times, a full disk, a damaged checkpoint, or
Ctrl-C. The SHA-256 of the weights of the last and the best bundle must be equal, and the rows of results.csv
without their timings.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from striate import bundle

# Dropout, a moving average, augmentation and accumulation all have to continue exactly.
OPTIONS = {
    "model": "mobilenet_v3_small", "imgsz": 32, "epochs": 12, "batch": 8, "ema": 0.9, "accumulate": 2,
    "label-smoothing": 0.1, "augment": "standard", "save-every": 3, "name": "run",
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_data(folder / "data")
        started = time.perf_counter()
        process = striate(folder, "reference", train(folder))
        wait_for_step(folder / "reference", 0, process)
        startup = time.perf_counter() - started
        assert process.wait() == 0
        whole = time.perf_counter() - started
        expected = outcome(folder / "reference")
        print(json.dumps({"uninterrupted": expected["weights"], "seconds": round(whole, 1)}), flush=True)
        checks: list[tuple[str, Callable[[], dict[str, Any]]]] = [
            (f"{args.kills} kills", lambda: killed(folder, args.kills, args.seed, startup, whole)),
            ("Ctrl-C", lambda: interrupted(folder)),
            ("full disk", lambda: full_disk(folder)),
            ("damaged newest checkpoint", lambda: damaged(folder)),
        ]
        failed = False
        for title, check in checks:
            facts = check()
            facts["equal"] = outcome(folder / title) == expected
            failed |= not facts["equal"]
            print(json.dumps({title: facts}), flush=True)
    sys.exit(failed)


def make_data(root: Path) -> None:
    """Three classes of 60 noisy images."""
    rng = np.random.default_rng(0)
    for label, color in enumerate(((200, 60, 60), (60, 200, 60), (60, 60, 200))):
        (root / f"class{label}").mkdir(parents=True)
        for i in range(60):
            pixels = np.clip(rng.normal(color, 70, (40, 40, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(root / f"class{label}" / f"{i:03}.png")


def train(folder: Path) -> list[str]:
    options = [text for name, value in OPTIONS.items() for text in (f"--{name}", str(value))]
    return ["train", str(folder / "data"), *options]


def striate(folder: Path, title: str, arguments: list[str], **options: Any) -> subprocess.Popen[str]:
    """Start a command; `title` names the folder of its runs."""
    command = [sys.executable, "-m", "striate", *arguments]
    if arguments[0] == "train":
        command += ["--out", str(folder / title)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "XDG_CACHE_HOME": str(folder / "cache")}
    return subprocess.Popen(
        command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, **options
    )


def again(folder: Path, title: str) -> list[str]:
    """`resume` if the run has a checkpoint, else `train`."""
    run = folder / title / "run"
    return ["resume", str(run)] if list(run.glob("state/0*.safetensors")) else train(folder)


def outcome(folder: Path) -> dict[str, Any]:
    """What must be equal."""
    run = next(folder.glob("run*"))
    with (run / "results.csv").open() as file:
        rows = [{k: v for k, v in row.items() if "second" not in k} for row in csv.DictReader(file)]
    names = ("last", "best")
    weights = {name: bundle.inspect(run / f"{name}.safetensors").weights_sha256 for name in names}
    return {"weights": weights, "rows": rows}


def finish(folder: Path, title: str) -> str:
    """Train to the end; returns the messages."""
    process = striate(folder, title, again(folder, title))
    messages = process.communicate()[1]
    assert process.returncode == 0, messages
    return messages


def killed(folder: Path, kills: int, seed: int, startup: float, whole: float) -> dict[str, Any]:
    """Kill at random times after the start, so that the kills are spread over the whole run."""
    rng, title, steps = random.Random(seed), f"{kills} kills", list[int]()
    while len(steps) < kills:
        process = striate(folder, title, again(folder, title))
        time.sleep(rng.uniform(0, startup + 4 * (whole - startup) / kills))
        process.kill()
        if process.wait() == 0:  # finished before the kill: start over
            shutil.rmtree(folder / title)
            continue
        states = sorted((folder / title).glob("run/state/0*.safetensors"))
        steps.append(int(states[-1].stem) if states else 0)
        if not states:
            shutil.rmtree(folder / title, ignore_errors=True)
    finish(folder, title)
    return {"step of the newest checkpoint after each": steps}


def interrupted(folder: Path) -> dict[str, Any]:
    process = striate(folder, "Ctrl-C", train(folder))
    wait_for_step(folder / "Ctrl-C", 40, process)
    process.send_signal(signal.SIGINT)
    messages = process.communicate()[1].splitlines()
    finish(folder, "Ctrl-C")
    return {"exit code": process.returncode, "messages": [line for line in messages if "interrupt" in line]}


def full_disk(folder: Path) -> dict[str, Any]:
    """Fill a small file system, or limit the size of files where mounting is not allowed."""
    title = "full disk"
    (folder / title).mkdir()
    small = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=120m", "tmpfs", str(folder / title)], capture_output=True
    )
    mounted = small.returncode == 0
    options: dict[str, Any] = {}
    ballast = folder / title / "ballast"
    if mounted:
        ballast.write_bytes(bytes(1 << 20))
    else:
        limit = 1 << 20
        options["preexec_fn"] = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    try:
        process = striate(folder, title, train(folder), **options)
        if mounted:
            wait_for_step(folder / title, 40, process)
            fill(ballast)
        messages = process.communicate()[1].splitlines()
        ballast.unlink(missing_ok=True)
        finish(folder, title)
        shutil.copytree(folder / title / "run", folder / "kept")  # the file system is unmounted
    finally:
        if mounted:
            subprocess.run(["umount", str(folder / title)], check=True)
    shutil.rmtree(folder / title)
    (folder / title).mkdir()
    (folder / "kept").rename(folder / title / "run")
    return {"file system": "tmpfs" if mounted else "limited", "exit code": process.returncode,
            "message": messages[-1]}  # fmt: skip


def fill(ballast: Path) -> None:
    """Leave no free byte."""
    with ballast.open("wb", buffering=0) as file:
        for piece in (1 << 20, 1 << 12):
            try:
                while file.write(bytes(piece)) == piece:
                    pass
            except OSError:
                continue


def damaged(folder: Path) -> dict[str, Any]:
    title = "damaged newest checkpoint"
    process = striate(folder, title, train(folder))
    wait_for_step(folder / title, 40, process)
    process.kill()
    process.wait()
    newest = sorted((folder / title).glob("run/state/0*.safetensors"))[-1]
    content = bytearray(newest.read_bytes())
    content[len(content) // 2] ^= 1
    newest.write_bytes(content)
    messages = finish(folder, title).splitlines()
    return {"messages": [line for line in messages if "damaged" in line]}


def wait_for_step(folder: Path, step: int, process: subprocess.Popen[str]) -> None:
    while process.poll() is None:
        states = sorted(folder.glob("run/state/0*.safetensors"))
        if states and int(states[-1].stem) >= step:
            return
        time.sleep(0.01)
    raise SystemExit(f"the run ended before step {step}: {process.communicate()[1]}")


if __name__ == "__main__":
    main()
