"""How often the 95 % intervals of `--bootstrap` and `--compare` contain the truth, in a simulation.

    python benchmarks/bench_intervals.py --out results.json        # about 5 minutes of CPU time
    python benchmarks/bench_intervals.py --images 100 --repeats 50

Two detectors look at data sets of simulated images with three objects on average, of three classes (60, 30
and 10 %). An image is easy or hard as a whole, so that its detections are not independent. The truth is the
AP, and the difference of the two APs, on 4 times 20,000 images of the same kind. A 95 % interval should
contain it in 95 of 100 data sets. Percentile intervals from the same draws are measured beside BCa's.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
from pathlib import Path
from typing import Any

import numpy as np

from striate.files import write_atomic
from striate.metrics.bootstrap import Resampled, bca_interval, difference
from striate.metrics.detection import (
    CocoSettings,
    Detections,
    GroundTruth,
    detections,
    evaluate_coco,
    ground_truth,
)
from striate.metrics.detection.resampling import draw_images, resample

CLASSES = {0: "often", 1: "sometimes", 2: "rarely"}
SHARES = (0.6, 0.3, 0.1)
SETTINGS = CocoSettings(limits=(1000,))
MANY, TIMES = 20_000, 4


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--images", default="50,100", help="sizes of the data sets")
    parser.add_argument("--repeats", type=int, default=300, help="data sets of each size")
    parser.add_argument("--draws", type=int, default=1000, help="bootstrap samples")
    parser.add_argument("--out", type=Path, help="a results file")
    args = parser.parse_args()
    truth = true_values()
    rows = []
    for n in args.images.split(","):
        rows.append(measure(int(n), args.repeats, args.draws, truth))
        print(json.dumps(rows[-1]), flush=True)
    if args.out:
        settings = {"repeats": args.repeats, "draws": args.draws, "machine": platform.machine()}
        write_atomic(
            args.out, (json.dumps(settings | {"truth": truth, "rows": rows}, indent=1) + "\n").encode()
        )


def simulate(seed: int, images: int) -> tuple[GroundTruth, Detections, Detections]:
    """Objects in `images` images, and what two detectors find; the second is a little better."""
    rng = np.random.default_rng(seed)
    ease = rng.normal(size=images)
    image = np.repeat(np.arange(images), rng.poisson(3, images))
    n = image.size
    label = rng.choice(3, n, p=SHARES)
    # Each object has its own place, so that only its detection overlaps it.
    box = np.c_[300.0 * np.arange(n), np.zeros(n), rng.uniform(30, 200, (n, 2))]
    truth = ground_truth(image, label, box, image_ids=np.arange(images), categories=CLASSES)
    shared = rng.normal(size=n)  # what is hard for one detector is hard for the other
    first, second = (_detect(rng, truth, ease, shared, skill) for skill in (1.0, 1.15))
    return truth, first, second


def _detect(rng: Any, truth: GroundTruth, ease: Any, shared: Any, skill: float) -> Detections:
    image, images = truth.image, ease.size
    luck = 0.7 * shared + 0.7 * rng.normal(size=len(truth))
    hit = np.flatnonzero(skill + ease[image] + 0.8 * luck > -0.2)
    spread = 0.08 / skill * np.exp(-0.3 * ease[image[hit]])
    box = truth.box[hit] + rng.normal(size=(hit.size, 4)) * np.tile(truth.box[hit, 2:], 2) * spread[:, None]
    box[:, 2:] = np.abs(box[:, 2:]) + 1
    score = rng.normal(1, 1, hit.size) + 0.5 * ease[image[hit]]
    false = np.repeat(np.arange(images), rng.poisson(2 * np.exp(-0.5 * ease) / skill))
    nowhere = np.c_[
        -1000 - 300.0 * np.arange(false.size), np.zeros(false.size), np.full((false.size, 2), 50.0)
    ]
    return detections(
        np.r_[image[hit], false],
        np.r_[truth.category[hit], rng.choice(3, false.size, p=SHARES)],
        np.r_[box, nowhere],
        np.r_[score, rng.normal(-0.5, 1, false.size)],
        truth=truth,
    )


def true_values() -> dict[str, float]:
    """AP of the first detector, and how much higher the second one's is, on very many images."""
    pairs = []
    for seed in range(TIMES):
        truth, *found = simulate(10**6 + seed, MANY)
        pairs.append([float(evaluate_coco(truth, one, SETTINGS).stats[0]) for one in found])
    first, second = (statistics.mean(column) for column in zip(*pairs, strict=True))
    return {"ap": first, "difference": second - first}


def measure(images: int, repeats: int, draws: int, truth: dict[str, float]) -> dict[str, Any]:
    """The share of data sets whose interval contains the truth, and lies above or below it."""
    inside: dict[tuple[str, str], list[tuple[bool, bool, float]]] = {}
    values: dict[str, list[float]] = {name: [] for name in truth}
    for seed in range(repeats):
        data, first, second = simulate(seed, images)
        weights = draw_images(data, draws, 10**9 + seed)
        a, b = (resample(data, found, weights, SETTINGS) for found in (first, second))
        for name, r in (("ap", a), ("difference", difference(a, b))):
            values[name].append(r.value)
            for kind, (low, high) in _intervals(r).items():
                row = (low > truth[name], high < truth[name], high - low)
                inside.setdefault((name, kind), []).append(row)
    out: dict[str, Any] = {"images": images}
    for name, of in values.items():
        out[name] = {"mean": statistics.mean(of), "sd": statistics.stdev(of)}
        for kind in ("bca", "percentile"):
            above, below, width = (round(v, 4) for v in np.mean(inside[name, kind], axis=0).tolist())
            contains = round(1 - above - below, 4)
            out[name][kind] = {"contains": contains, "above": above, "below": below, "width": width}
    return out


def _intervals(r: Resampled) -> dict[str, tuple[float, float]]:
    bca = bca_interval(r)
    low, high = np.quantile(r.samples, [0.025, 0.975]).tolist()
    return {"bca": (bca.low, bca.high), "percentile": (low, high)}


if __name__ == "__main__":
    main()
