"""Accuracy of sequence to sequence on six tasks: make or read the data, train by command line, evaluate.

    python benchmarks/seq2seq_tasks.py reverse dates                 # small data, a minute or two each
    python benchmarks/seq2seq_tasks.py reverse dates --full          # the sizes that figures are given for
    python benchmarks/seq2seq_tasks.py pronunciation --full --data ../shared/data --budget 19m
    python benchmarks/seq2seq_tasks.py words digits --full --data ../shared/data
    python benchmarks/seq2seq_tasks.py translation --full --data ../shared/data --out benchmarks/results

A stopped task resumes when it is started again with the same --work, which holds its data, runs and reports.
Each task prints its results as JSON and, with --out, writes them to a file.

reverse        strings of 5 to 20 letters backwards; the control is a network without positions
dates          dates as people write them to ISO 8601
pronunciation  cmudict: letters to phonemes, split by headword, compared with baselines without a network
words          words rendered in the installed fonts: unseen words, unseen fonts, and a shuffled control
digits         strings of 1 to 6 of MNIST's digits
translation    Multi30k, English to German, and a shuffled control
"""

from __future__ import annotations

import argparse
import csv
import datetime
import json
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import seq2seq_baselines as baselines
import seq2seq_data as make

from striate.device import cpu_count
from striate.metrics.text import error_rate, exact_match

PATIENT = {**os.environ, "PYTHONUNBUFFERED": "1"}


class Bench:
    """The folders of a task, and its size."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.work: Path = args.work / ("full" if args.full else "small")
        self.data: Path = args.data
        self.full: bool = args.full
        self._budget: str | None = args.budget
        self.work.mkdir(parents=True, exist_ok=True)

    def size(self, full: int, small: int) -> int:
        """Number of pairs."""
        return full if self.full else small

    def budget(self, full: str, small: str = "90s") -> list[str]:
        """The option for the training time."""
        return ["--budget", self._budget or (full if self.full else small)]

    def train(self, name: str, data: Sequence[Path | str], options: Sequence[str]) -> dict[str, Any]:
        """Train, or resume a stopped run; returns the JSON of `train --json`."""
        done, run = self.work / f"{name}.json", self.work / "runs" / name
        if done.exists():
            result: dict[str, Any] = json.loads(done.read_text("utf-8"))
            return result
        fresh = ["seq2seq", "train", *map(str, data), "--name", name, "--out", str(run.parent), *options]
        result = striate(*(["resume", str(run)] if run.exists() else fresh))
        result["command"] = " ".join(["striate", *fresh]).replace(f"{self.work}/", "")
        done.write_text(json.dumps(result, indent=2), "utf-8")
        return result

    def evaluate(self, run: dict[str, Any], data: Sequence[Path | str], *options: str) -> dict[str, Any]:
        """Run `evaluate`; returns its JSON."""
        return striate("seq2seq", "evaluate", run["best"], *map(str, data), *options)


def striate(*arguments: str) -> dict[str, Any]:
    """Run a command as a user would; returns its JSON object."""
    done = subprocess.run(
        [sys.executable, "-m", "striate", *arguments, "--json"],
        stdout=subprocess.PIPE,
        text=True,
        env=PATIENT,
    )
    if done.returncode:
        sys.exit(f"striate {' '.join(arguments)} ended with {done.returncode}")
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def reverse(bench: Bench) -> dict[str, Any]:
    folder = bench.work / "reverse"
    if not (folder / "test.tsv").exists():
        make.reverse(folder, bench.size(30_000, 15_000), seed=0)
    options = ["--label-smoothing", "0", "--dropout", "0", *_SMALL.split()]
    own = bench.train("reverse-run", [folder], [*options, *bench.budget("5m", "100s")])
    none = bench.train(
        "reverse-no-positions", [folder], [*options, "--positions", "none", *bench.budget("2m", "45s")]
    )
    return {"exact": own["exact"], "exact_without_positions": none["exact"], "n": own["n"], **_of(own)}


def dates(bench: Bench) -> dict[str, Any]:
    folder = bench.work / "dates"
    if not (folder / "test.tsv").exists():
        make.dates(folder, bench.size(20_000, 6_000), seed=0)
    options = ["--tokenizer", "characters", "--label-smoothing", "0", "--dropout", "0.05", *_SMALL.split()]
    own = bench.train("dates-run", [folder], [*options, *bench.budget("5m", "100s")])
    return {"exact": own["exact"], "n": own["n"], **_of(own)}


def pronunciation(bench: Bench) -> dict[str, Any]:
    folder = bench.work / "cmudict"
    splits = make.pronunciations(bench.data / "cmudict" / "cmudict_sample.dict", seed=0)
    if not bench.full:
        splits["train"] = splits["train"][:4_000]
    for name, rows in splits.items():
        folder.mkdir(exist_ok=True)
        text = "".join("\t".join((word, *several)) + "\n" for word, several in rows)
        (folder / f"{name}.tsv").write_text(text, "utf-8")
    known = [(word, several[0].split()) for word, several in splits["train"]]
    references = [[text.split() for text in several] for _, several in splits["test"]]
    baseline = {}
    for name, method in (("unigram", baselines.unigram), ("neighbours", baselines.neighbours)):
        speak = method(known)
        answers = [speak(word) for word, _ in splits["test"]]
        baseline[name] = {
            "phoneme_error_rate": error_rate(answers, references),
            "word_error_rate": 1 - exact_match(answers, references),
        }
    own = bench.train(
        "cmudict-run",
        [folder],
        [*_SPEAKING.split(), *bench.budget("19m")],
    )
    beam = bench.evaluate(own, [folder], "--beam", "5")
    return {
        "phoneme_error_rate": own["wer"],
        "word_error_rate": 1 - own["exact"],
        "beam_5": {"phoneme_error_rate": beam["wer"], "word_error_rate": 1 - beam["exact"]},
        "baselines": baseline,
        "n": own["n"],
        **_of(own),
    }


def words(bench: Bench) -> dict[str, Any]:
    folder, note = bench.work / "words", bench.work / "words-fonts.json"
    if not note.exists():
        splits = make.pronunciations(bench.data / "cmudict" / "cmudict_sample.dict", seed=0)
        vocabulary = sorted(word for rows in splits.values() for word, _ in rows if word.isalpha())
        families = make.words(folder, vocabulary, bench.size(40_000, 3_000), seed=0)
        note.write_text(json.dumps(families), "utf-8")
    options = ["--max-width", "256", *_READING.split()]
    own = bench.train("words-run", [folder / "lines.csv"], [*options, *bench.budget("39m", "4m")])
    fonts = bench.evaluate(own, [folder / "fonts.csv"])
    shuffled = bench.evaluate(own, [folder / "lines.csv"], "--shuffled")
    return {
        "exact_unseen_words": own["exact"],
        "exact_unseen_words_and_fonts": fonts["exact"],
        "exact_shuffled": shuffled["exact"],
        "cer_unseen_words": own["cer"],
        "cer_unseen_words_and_fonts": fonts["cer"],
        "n": own["n"],
        "families": json.loads(note.read_text("utf-8")),
        **_of(own),
    }


def digits(bench: Bench) -> dict[str, Any]:
    folder = bench.work / "digits"
    if not (folder / "lines.csv").exists():
        make.digits(folder, bench.data / "mnist_idx", bench.size(40_000, 3_000), seed=0)
    own = bench.train("digits-run", [folder / "lines.csv"], [*_READING.split(), *bench.budget("19m", "4m")])
    shuffled = bench.evaluate(own, [folder / "lines.csv"], "--shuffled")
    return {
        "exact": own["exact"],
        "cer": own["cer"],
        "exact_shuffled": shuffled["exact"],
        "n": own["n"],
        **_of(own),
    }


def translation(bench: Bench) -> dict[str, Any]:
    data = [bench.data / "multi30k"]
    languages = ["--from", "en", "--to", "de"]
    options = [*languages, "--tokenizer", "sentencepiece", "--vocab-size", "6000", *_TRANSLATION.split()]
    own = bench.train("multi30k-run", data, [*options, *bench.budget("15m")])
    beam = bench.evaluate(own, data, "--split", "val", "--beam", "5", *languages)
    shuffled = bench.evaluate(own, data, "--split", "val", "--shuffled", *languages)
    return {
        "bleu_val": own["bleu"],
        "bleu_val_beam_5": beam["bleu"],
        "chrf_val_beam_5": beam["chrf"],
        "bleu_val_shuffled": shuffled["bleu"],
        "signatures": beam["signatures"],
        "tokens_per_second": {"greedy": own["tokens_per_second"], "beam_5": beam["tokens_per_second"]},
        "n": beam["n"],
        **_of(own),
    }


_SMALL = "--width 64 --depth 2 --hidden 128 --heads 4 --batch 2000 --lr 0.004"
_SPEAKING = (
    "--reference-columns all --source-tokenizer characters --target-tokenizer words --width 128 --depth 3 "
    "--hidden 256 --heads 4 --dropout 0.2 --batch 2000 --lr 0.002"
)
_READING = (
    "--width 128 --depth 1 --decoder-depth 1 --hidden 256 --heads 4 --batch 400 --lr 0.002 "
    "--label-smoothing 0.05 --dropout 0.05"
)
_TRANSLATION = "--width 128 --depth 3 --hidden 256 --heads 4 --batch 3000 --lr 0.003 --dropout 0.1"
TASKS = {
    "reverse": reverse, "dates": dates, "pronunciation": pronunciation, "words": words, "digits": digits,
    "translation": translation,
}  # fmt: skip


def _of(run: dict[str, Any]) -> dict[str, Any]:
    """Other figures of a run."""
    return {
        "command": run["command"],
        "seconds": round(run["seconds"], 1),
        "epochs": run["epochs"],
        "best_epoch": run["best_epoch"],
        "val_error": run["val_error"],
        "curve": curve(Path(run["run"]) / "results.csv"),
    }


def curve(table: Path) -> list[dict[str, float]]:
    """Loss and errors on val after each evaluated epoch."""
    kept = ("epoch", "train_loss", "val_loss", "val_error", "val_exact")
    with table.open(encoding="utf-8") as file:
        return [{name: round(float(row[name]), 5) for name in kept} for row in csv.DictReader(file)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("tasks", nargs="+", choices=list(TASKS))
    parser.add_argument("--full", action="store_true", help="the sizes that figures are given for")
    parser.add_argument("--budget", help="training time, such as 5m, instead of the task's own")
    parser.add_argument(
        "--data", type=Path, default=Path("../shared/data"), help="folder of cmudict, mnist_idx, multi30k"
    )
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "striate-seq2seq-tasks")
    parser.add_argument("--out", type=Path, help="folder for the results")
    args = parser.parse_args()
    bench = Bench(args)
    for task in args.tasks:
        found = {"task": task, "full": args.full, **TASKS[task](bench), "cpus": cpu_count()}
        text = json.dumps(found, indent=2)
        print(text, flush=True)
        if args.out:
            name = f"{datetime.date.today()}_{platform.machine()}_{cpu_count()}cpu_seq2seq-{task}.json"
            args.out.mkdir(parents=True, exist_ok=True)
            (args.out / name).write_text(text + "\n", "utf-8")


if __name__ == "__main__":
    main()
