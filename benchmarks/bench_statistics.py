"""How often the 95 % intervals of accuracy, macro F1 and calibration error contain the truth: a simulation.

    python benchmarks/bench_statistics.py coverage --out results.json        # about a minute of CPU time

Top-1 accuracy: exact, by summing the binomial distribution. Where the coverage is outside 93 to 97 %,
`reachable` shows what is possible at all, with the likeliest values. The other metrics: simulated classifiers
of four classes, each right with probability p and wrong towards any other class alike, once with
probabilities that are 0.1 too large or too small, and once calibrated (`ece_calibrated`).
"""

from __future__ import annotations

import argparse
import json
import math
import platform
from pathlib import Path
from typing import Any

import numpy as np

from striate.files import write_atomic
from striate.metrics.classification import wilson_interval
from striate.metrics.classification_intervals import calibration_error_interval, macro_f1_interval
from striate.metrics.comparison import log_choose

SIZES, SHARES, CLASSES = (50, 200, 1000), (0.5, 0.9, 0.99), 4


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("what", choices=["coverage"])
    parser.add_argument("--repeats", type=int, default=1000, help="simulated data sets of each size")
    parser.add_argument("--out", type=Path, help="a results file")
    args = parser.parse_args()
    rows = []
    for n in SIZES:
        for p in SHARES:
            rows.append(
                {"n": n, "p": p, "top1": wilson_coverage(n, p), **simulated_coverage(n, p, args.repeats)}
            )
            print(json.dumps(rows[-1]), flush=True)
    if args.out:
        settings = {"what": args.what, "repeats": args.repeats, "machine": platform.machine()}
        write_atomic(args.out, (json.dumps(settings | {"rows": rows}, indent=1) + "\n").encode())


def wilson_coverage(n: int, p: float) -> dict[str, float]:
    """The probability that Wilson's interval contains p, and what the neighbors of its values would give."""
    chance = np.array(
        [math.exp(log_choose(n, k) + k * math.log(p) + (n - k) * math.log1p(-p)) for k in range(n + 1)]
    )
    inside = [low <= p <= high for low, high in (wilson_interval(k / n, n) for k in range(n + 1))]
    accepted = np.flatnonzero(inside)
    coverage = float(chance[accepted].sum())
    found = {"contains": round(coverage, 4)}
    if not 0.93 <= coverage <= 0.97:
        order = np.argsort(-chance)
        reachable = np.cumsum(chance[order])
        found["reachable_below"] = round(float(reachable[reachable < 0.95].max()), 4)
        found["reachable_above"] = round(float(reachable[reachable >= 0.95].min()), 4)
    return found


def simulated_coverage(n: int, p: float, repeats: int) -> dict[str, Any]:
    """The share of data sets whose interval contains macro F1 = p, and the calibration error of the model.

    The model says p + 0.1 (at most 0.999) or p - 0.1 in turn, so the error is the mean distance from p; the
    calibrated one says p.
    """
    says = np.array([min(0.999, p + 0.1), p - 0.1])
    truths = {"macro_f1": p, "ece": float(np.abs(says - p).mean()), "ece_calibrated": 0.0}
    inside = dict.fromkeys(truths, 0)
    rng = np.random.default_rng(n)
    for _ in range(repeats):
        labels = rng.integers(0, CLASSES, n)
        wrong = rng.random(n) >= p
        answers = (labels + wrong * rng.integers(1, CLASSES, n)) % CLASSES
        probabilities = of_answers(answers, says[rng.integers(0, 2, n)])
        for name, (low, high) in {
            "macro_f1": macro_f1_interval(probabilities, labels),
            "ece": calibration_error_interval(probabilities, labels),
            "ece_calibrated": calibration_error_interval(of_answers(answers, np.full(n, p)), labels),
        }.items():
            inside[name] += low <= truths[name] <= high
    return {name: {"contains": round(count / repeats, 4)} for name, count in inside.items()}


def of_answers(answers: Any, confidence: Any) -> Any:
    """Probabilities `[n, classes]` with these classes on top, and all others alike."""
    probabilities = np.repeat(((1 - confidence) / (CLASSES - 1))[:, None], CLASSES, axis=1)
    probabilities[np.arange(len(answers)), answers] = confidence
    return probabilities


if __name__ == "__main__":
    main()
