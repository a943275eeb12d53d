"""Does a run that is killed end with the weights of one that was not? Kills, a full disk, damage, Ctrl-C.

    python benchmarks/bench_resume.py                       # 20 kills, all else once
    python benchmarks/bench_resume.py --kills 5 --seed 3

Every run is a process of its own, `striate train` and then `striate resume` as a user would type them. The
reference is never stopped. The others are killed by SIGKILL at random instants, from the first moment of the
process to the last, until there were as many kills as asked for; compared are the SHA-256 of the weights of
the last and the best bundle, and the rows of results.csv without their timings.
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

# Dropout, a moving average, augmentation and accumulation: all that must go on where it was.
OPTIONS = {
    "model": "mobilenet_v3_small", "imgsz": 32, "epochs": 12, "batch": 16, "ema": 0.9, "accumulate": 2,
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
            ("damaged newest state", lambda: damaged(folder)),
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
    """Start a command; its runs go to a folder of their own."""
    command = [sys.executable, "-m", "striate", *arguments]
    if arguments[0] == "train":
        command += ["--out", str(folder / title)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "XDG_CACHE_HOME": str(folder / "cache")}
    return subprocess.Popen(
        command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, **options
    )


def again(folder: Path, title: str) -> list[str]:
    """The command that goes on: `resume` once the run has written its first state, else `train`."""
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
    """Go on to the end; returns what was said."""
    process = striate(folder, title, again(folder, title))
    said = process.communicate()[1]
    assert process.returncode == 0, said
    return said


def killed(folder: Path, kills: int, seed: int, startup: float, whole: float) -> dict[str, Any]:
    """Kill at random from the start of the process on, so that the kills spread over the whole run."""
    rng, title, steps = random.Random(seed), f"{kills} kills", list[int]()
    while len(steps) < kills:
        process = striate(folder, title, again(folder, title))
        time.sleep(rng.uniform(0, startup + 4 * (whole - startup) / kills))
        process.kill()
        if process.wait() == 0:  # it had come to its end: the next kills are another run's
            shutil.rmtree(folder / title)
            continue
        states = sorted((folder / title).glob("run/state/0*.safetensors"))
        steps.append(int(states[-1].stem) if states else 0)
        if not states:
            shutil.rmtree(folder / title, ignore_errors=True)
    finish(folder, title)
    return {"step of the newest state after each": steps}


def interrupted(folder: Path) -> dict[str, Any]:
    process = striate(folder, "Ctrl-C", train(folder))
    wait_for_step(folder / "Ctrl-C", 40, process)
    process.send_signal(signal.SIGINT)
    said = process.communicate()[1]
    finish(folder, "Ctrl-C")
    return {"exit code": process.returncode, "said": [line for line in said.splitlines() if "stopp" in line]}


def full_disk(folder: Path) -> dict[str, Any]:
    """On a file system of a few megabytes where that is allowed, else under a limit on the size of files."""
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
        said = process.communicate()[1]
        ballast.unlink(missing_ok=True)
        finish(folder, title)
        shutil.copytree(folder / title / "run", folder / "kept")  # outlives the file system
    finally:
        if mounted:
            subprocess.run(["umount", str(folder / title)], check=True)
    shutil.rmtree(folder / title)
    (folder / title).mkdir()
    (folder / "kept").rename(folder / title / "run")
    return {"file system": "tmpfs" if mounted else "limited", "exit code": process.returncode,
            "said": said.splitlines()[-1]}  # fmt: skip


def fill(ballast: Path) -> None:
    """Leave not a byte."""
    with ballast.open("wb", buffering=0) as file:
        for piece in (1 << 20, 1 << 12):
            try:
                while file.write(bytes(piece)) == piece:
                    pass
            except OSError:
                continue


def damaged(folder: Path) -> dict[str, Any]:
    title = "damaged newest state"
    process = striate(folder, title, train(folder))
    wait_for_step(folder / title, 40, process)
    process.kill()
    process.wait()
    newest = sorted((folder / title).glob("run/state/0*.safetensors"))[-1]
    content = bytearray(newest.read_bytes())
    content[len(content) // 2] ^= 1
    newest.write_bytes(content)
    said = finish(folder, title)
    return {"said": [line for line in said.splitlines() if "damaged" in line]}


def wait_for_step(folder: Path, step: int, process: subprocess.Popen[str]) -> None:
    while process.poll() is None:
        states = sorted(folder.glob("run/state/0*.safetensors"))
        if states and int(states[-1].stem) >= step:
            return
        time.sleep(0.01)
    raise SystemExit(f"the run ended before step {step}: {process.communicate()[1]}")


if __name__ == "__main__":
    main()
