"""A whole training run from the start of the process to its end, with its phases, next to its peers.

    python benchmarks/bench_run.py --peers PEERS/bin/python --out benchmarks/results

LeNet on 10,000 PNG files of 28 pixels in class folders (from MNIST), batch 64, crop and flip, two epochs with
validation. For Striate the process also evaluates the best weights and writes the report. `seconds` are of
the whole process, `images_per_second` of the second epoch. Phases are the seconds between the lines that the
command prints: `data` until the number of images is known, `epoch 1` (with the import of torch) and
`epoch 2`, `report` until the results are printed, `exit` until the process has ended.

Peers run in a separate environment (`python -m venv PEERS`, `pip install torch torchvision timm`); without
it only Striate is measured. All run in separate processes, in turns; medians of the rounds.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from bench_input import SHARED, compared, peer, peers, timed
from record import write_results

# The start of the line that ends each phase; the last two end with the output and with the process.
PHASES = {"data": "images for training", "epoch 1": "epoch 1/2", "epoch 2": "epoch 2/2"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument(
        "--mnist", type=Path, default=SHARED / "mnist_idx", help="folder of MNIST's idx files"
    )
    parser.add_argument("--peers", help="a Python that has torchvision and timm")
    parser.add_argument("--images", type=int, default=10_000, help="PNG files to train on")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, help="folder for a results file")
    given = parser.parse_args()
    if not given.peers:
        print("no --peers: torchvision and timm are not measured", file=sys.stderr)
    with tempfile.TemporaryDirectory() as scratch:
        figures = measure(given, Path(scratch))
    print(json.dumps(figures, indent=2))
    if given.out:
        write_results(figures, given.out, "run")


def measure(given: argparse.Namespace, scratch: Path) -> dict[str, Any]:
    import torch

    digits = scratch / "digits"
    write_digits(given.mnist, digits, given.images)
    time.sleep(3)  # files that were just written are not cached
    rounds: dict[str, list[dict[str, float]]] = {}
    for number in range(given.rounds):
        for kind in peers(given):
            rounds.setdefault(kind, []).append(timed(peer(given, "lenet", kind, digits)))
        rounds.setdefault("striate", []).append(run(digits, scratch, number))
    found = compared(rounds, ("images_per_second", "seconds", "cpu_seconds"))
    found["phases"] = {
        name: round(statistics.median(one[name] for one in rounds["striate"]), 2)
        for name in (*PHASES, "report", "exit")
    }
    return {"processors": os.cpu_count(), "torch": torch.__version__, "lenet": found}


def write_digits(mnist: Path, root: Path, count: int) -> None:
    """MNIST as PNG files: `root/{train,val}/<digit>/`."""
    from PIL import Image

    from striate.data import open_data

    data = open_data(mnist)
    for split, part, most in (("train", "train", count), ("test", "val", count // 10)):
        samples = data.splits[split]
        assert samples.pixels is not None
        for i in range(most):
            place = root / part / data.classes[samples.labels[i]] / f"{i:05}.png"
            place.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(samples.pixels[i]).save(place)


def run(digits: Path, scratch: Path, number: int) -> dict[str, float]:
    """Train as a user does; returns the rate of the second epoch and the seconds of each phase."""
    command = [
        sys.executable, "-m", "striate", "train", str(digits), "--model", "lenet", "--imgsz", "28",
        "--channels", "1", "--augment", "light", "--batch", "64", "--epochs", "2",
        "--name", f"run{number}", "--out", str(scratch / "runs"),
    ]  # fmt: skip
    env = {**os.environ, "XDG_CACHE_HOME": str(scratch / f"cache{number}")}
    env.pop("PYTHONDONTWRITEBYTECODE", None)  # an installed package is compiled once
    before, ends = resource.getrusage(resource.RUSAGE_CHILDREN), [time.perf_counter()]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=env, text=True
    ) as process:
        assert process.stdout is not None
        waiting, printed = list(PHASES.values()), 0.0
        for line in process.stdout:
            printed = time.perf_counter()
            if waiting and waiting[0] in line:
                ends.append(printed)
                waiting.pop(0)
    assert process.returncode == 0, "the run has failed"
    assert not waiting, f"no line with {waiting}"
    ends += [printed, time.perf_counter()]
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    phases = [b - a for a, b in itertools.pairwise(ends)]
    return {
        "images_per_second": last_rate(scratch / "runs" / f"run{number}" / "results.csv"),
        "seconds": ends[-1] - ends[0],
        "cpu_seconds": after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime,
        **dict(zip((*PHASES, "report", "exit"), phases, strict=True)),
    }


def last_rate(table: Path) -> float:
    header, *_, last = table.read_text("utf-8").splitlines()
    return float(last.split(",")[header.split(",").index("images_per_second")])


if __name__ == "__main__":
    main()
