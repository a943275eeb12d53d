"""Measure the report page: its size, how long writing takes, how fast it opens and reacts in Chromium.

    python benchmarks/bench_report.py [--repeats 5] [--out FILE]

The large page has 50,000 random predictions of 1,000 classes on images of 160 px, 300 of which are in it.
Opening ends with the `load` event, when all figures are drawn. A reaction lasts from the event until the
frame after it is shown; the fastest of several is taken, because other programs may run. The limits: 5 MB,
2 s, 100 ms. The small run is LeNet on the digits; writing its report is measured in CPU seconds in a process
that has trained. The limit: 0.5 s.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import runpy
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from striate.inference.evaluation import measure
from striate.report.page import render
from striate.tasks.classification.report import report

CLASSES, IMAGES, SIDE = 1000, 50_000, 160
TESTS = Path(__file__).parents[1] / "tests"

SMALL = """
import sys, tempfile, time
from striate import api
run = api.run_training(api.configure("digits", {"model": "lenet", "epochs": 2, "out": tempfile.mkdtemp()}))
evaluation = run.task.evaluate_held_out(run)
start = time.process_time()
from striate.report.page import write_report
write_report(run.task.report(run, evaluation), run.folder, run)
print(time.process_time() - start, "matplotlib" in sys.modules)
"""

# Each action, and what undoes it; both are clicks or events as a reader causes them.
REACTIONS = (Path(__file__).parent / "report_reactions.js").read_text("utf-8")
OPENED = "performance.getEntriesByType('navigation')[0].loadEventEnd"


class Disks:
    """Images of a disk in one of many colors, made on access."""

    def __init__(self, labels: np.ndarray[Any, Any]) -> None:
        self._labels = labels
        rows, columns = np.mgrid[:SIDE, :SIDE] - SIDE / 2
        self._disk = (rows**2 + columns**2 < (SIDE / 3) ** 2)[..., None]

    def __getitem__(self, i: int) -> np.ndarray[Any, Any]:
        colour = np.random.default_rng(self._labels[i]).integers(60, 220, 3)
        noise = np.random.default_rng(i).normal(0, 12, (SIDE, SIDE, 3))
        image: np.ndarray[Any, Any] = np.clip(colour * (0.5 + 0.5 * self._disk) + noise, 0, 255)
        return image.astype(np.uint8)


def evaluation() -> Any:
    """Random predictions, most of them correct; the others within groups of ten classes."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, CLASSES, IMAGES)
    scores = rng.normal(0, 1, (IMAGES, CLASSES))
    scores[np.arange(IMAGES), labels] += 10
    scores[np.arange(IMAGES), labels // 10 * 10 + rng.integers(0, 10, IMAGES)] += 12 * rng.random(IMAGES)
    chances = np.exp(scores)
    chances /= chances.sum(axis=1, keepdims=True)
    names = tuple(f"class number {k}" for k in range(CLASSES))
    files = tuple(f"val/n{labels[i]:08}/image_val_{i:08}.jpg" for i in range(IMAGES))
    images: Any = Disks(labels)
    return measure(files, labels, chances, names, images=images, data="random", split="test")


def large(repeats: int) -> dict[str, Any]:
    """Size, seconds and milliseconds of the large page."""
    content = report(evaluation(), model="best.safetensors")
    start = time.process_time()
    text = render(content).encode("utf-8", "replace")
    row: dict[str, Any] = {"megabytes": len(text) / 1e6, "render_cpu_seconds": time.process_time() - start}
    browser_class: Any = runpy.run_path(str(TESTS / "browser.py"))["Browser"]
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        page = Path(folder) / "report.html"
        page.write_bytes(text)
        with browser_class(Path(folder) / "profile") as browser:
            browser.window(1400)
            times = []
            for _ in range(repeats):
                browser.open(f"{page.as_uri()}#lang=en&theme=light")
                times.append(browser.evaluate(OPENED) / 1000)
            row["opens_seconds"] = min(times)
            row["reacts_milliseconds"] = browser.evaluate(REACTIONS.replace("REPEATS", str(repeats)))
            row["chromium"] = browser.call("Browser.getVersion")["product"]
    return row


def small() -> dict[str, Any]:
    """CPU seconds for the report of a small run."""
    done = subprocess.run([sys.executable, "-c", SMALL], capture_output=True, text=True, check=True)
    seconds, has_matplotlib = done.stdout.split()
    return {"report_cpu_seconds": float(seconds), "matplotlib_is_imported": has_matplotlib == "True"}


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure the report page.")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--out", type=Path, help="also write the results to this file, as JSON")
    options = parser.parse_args()
    record = {
        "machine": platform.machine(),
        "processors": os.cpu_count(),
        "small": small(),
        "large": {"classes": CLASSES, "images": IMAGES, **large(options.repeats)},
    }
    print(json.dumps(record, indent=1))
    if options.out:
        options.out.write_text(json.dumps(record, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
