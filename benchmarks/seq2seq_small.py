"""Accuracy of sequence to sequence on 800 pairs, with the default options of `striate seq2seq train`.

    python benchmarks/seq2seq_small.py cmudict --data ../shared/data/cmudict/cmudict_sample.dict
    python benchmarks/seq2seq_small.py pairs --data ../shared/data/seq2seq_char_pairs/ice_g2p --seeds 5
    python benchmarks/seq2seq_small.py cmudict --data ... --out benchmarks/results --options=--dropout=0.2

`cmudict` is letters to phonemes, split anew for each seed; `pairs` is a folder with train.tsv, val.tsv (or
dev.tsv) and test.tsv. PROTOCOLS has the details.

Each run uses one thread. Rates are of the test pairs, with greedy decoding: `wer` is the rate of wrong target
tokens (phonemes) that `striate seq2seq evaluate` prints; `wrong` is the share of words with a wrong phoneme.
As a reference without a network, letters get their most frequent phonemes given their neighbors
(seq2seq_baselines.py).
"""

from __future__ import annotations

import argparse
import csv
import datetime
import json
import os
import platform
import random
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import seq2seq_baselines as baselines
import seq2seq_data as make

from striate.data.text.pairs import open_pairs
from striate.device import cpu_count
from striate.metrics.text import error_rate, exact_match

SIZES = {"train": 800, "val": 100, "test": 1_000}
PROTOCOLS = {
    "cmudict": "Each seed draws 800 words for training, 100 for validation and 1,000 others for the test, "
    "and is the seed of the run. Targets are the first pronunciation of a word.",
    "pairs": "The seeds differ in the run only.",
}
ONE_THREAD = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


def draw_words(dictionary: Path, folder: Path, seed: int) -> None:
    """Write `train.tsv`, `val.tsv` and `test.tsv` of random words; no word is in two of them."""
    splits = make.pronunciations(dictionary, seed=0)
    words = sorted((word, several[0]) for rows in splits.values() for word, several in rows)
    random.Random(seed).shuffle(words)
    ends = [sum(list(SIZES.values())[: i + 1]) for i in range(len(SIZES))]
    make.write_splits(folder, words[: ends[0]], words[ends[0] : ends[1]], words[ends[1] : ends[2]])


def train(data: Path, work: Path, seed: int, options: list[str]) -> dict[str, Any]:
    """Train with one seed; returns the figures of the run."""
    command = ["seq2seq", "train", str(data), "--seed", str(seed), "--out", str(work), "--json", *options]
    before = os.times()
    done = subprocess.run(
        [sys.executable, "-m", "striate", *command, "--name", f"seed-{seed}"],
        capture_output=True, text=True, env=ONE_THREAD,
    )  # fmt: skip
    if done.returncode:
        sys.exit(f"{done.stderr}\nseed {seed} ended with {done.returncode}")
    after, values = os.times(), json.loads(done.stdout)
    with (Path(values["run"]) / "results.csv").open(encoding="utf-8") as file:
        *_, last = csv.DictReader(file)
    return {
        "seed": seed,
        "wer": round(values["wer"], 4),
        "wrong": round(1 - values["exact"], 4),
        "n": values["n"],
        "epochs": values["epochs"],
        "steps": int(last["step"]),
        "val_loss": round(float(last["val_loss"]), 4),
        "cpu_seconds": round(after.children_user - before.children_user),
    }


def baseline(data: Path) -> dict[str, float]:
    """The rates of phonemes by the neighbors of a letter."""
    pairs = open_pairs(data).splits
    train = pairs["train"]
    known = [(word, texts[0].split()) for word, texts in zip(train.sources, train.references, strict=True)]
    speak = baselines.neighbours(known)
    answers = [speak(source) for source in pairs["test"].sources]
    references = [[text.split() for text in several] for several in pairs["test"].references]
    return {
        "wer": round(error_rate(answers, references), 4),
        "wrong": round(1 - exact_match(answers, references), 4),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("task", choices=("cmudict", "pairs"))
    parser.add_argument("--data", type=Path, required=True, help="the dictionary, or the folder of pairs")
    parser.add_argument("--seeds", type=int, default=5, help="number of runs, with the seeds 0, 1, ...")
    parser.add_argument(
        "--options", nargs="*", default=[], help="options of the training, such as --epochs=60"
    )
    parser.add_argument("--work", type=Path, help="folder for data and runs; by default a temporary one")
    parser.add_argument("--out", type=Path, help="folder for the results")
    args = parser.parse_args()
    name = args.task if args.task == "cmudict" else args.data.name
    runs, references = [], []
    work = args.work or Path(tempfile.mkdtemp(prefix="striate-seq2seq-small-"))
    for seed in range(args.seeds):
        data = args.data
        if args.task == "cmudict":
            data = work / f"words-{seed}"
            draw_words(args.data, data, seed)
        references.append(baseline(data))
        runs.append(train(data, work / "runs", seed, args.options))
        print(json.dumps({**runs[-1], "neighbors": references[-1]}), flush=True)
    found = {
        "task": name,
        "protocol": PROTOCOLS[args.task],
        "options": args.options,
        **{key: round(statistics.mean(run[key] for run in runs), 4) for key in ("wer", "wrong")},
        "neighbors": {key: round(statistics.mean(r[key] for r in references), 4) for key in ("wer", "wrong")},
        "runs": runs,
    }
    print(json.dumps({key: found[key] for key in ("task", "wer", "wrong", "neighbors")}))
    if args.out:
        stem = f"{datetime.date.today()}_{platform.machine()}_{cpu_count()}cpu_seq2seq-small-{name}.json"
        (args.out / stem).write_text(json.dumps(found, indent=2) + "\n", "utf-8")


if __name__ == "__main__":
    main()
