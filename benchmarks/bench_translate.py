"""Translate many lines with a bundle, from texts to texts, in Striate's engines and in CTranslate2 alone.

    python benchmarks/bench_translate.py --out benchmarks/results

The network has 3 + 3 layers of width 256, 4 heads, feed-forward layers of 1,024, 8,000 words of source and
target, and random weights. It writes 24 words for each line of 8 to 24 words. Each engine runs in a separate
process, in turns, `--rounds` times: it opens the model, translates 100 lines, and then all lines with the
clock running. `ctranslate2 alone` splits the lines itself, and has two workers of one thread. CPU seconds are
of all threads; the figures are medians. `same` is the share of texts that are those of torch.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from record import write_results

VOCAB = 7996  # words, without the special tokens
ALONE = "ctranslate2 alone"
ENGINES = ("torch", "ctranslate2", "ctranslate2-int8", "auto", ALONE)
SAMPLE = 128  # lines of the trial
KINDS = ("seconds", "cpu_seconds")
COSTS = "costs"  # the name of what measures the costs of `auto`


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--lines", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, help="folder for a results file")
    parser.add_argument("--engine", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.engine == COSTS:
        print(json.dumps(costs(args.folder)))
        return
    if args.engine:
        print(json.dumps(measured(args.engine, args.folder, args.lines)))
        return
    with tempfile.TemporaryDirectory() as folder:
        bundle(Path(folder))
        rows = trials(args, folder)
        opened = [process(COSTS, args, folder) for _ in range(args.rounds)]
    expected = rows["torch"][0]["texts"]
    record = {
        name: {
            "seconds": statistics.median(row["seconds"] for row in found),
            "cpu_seconds": statistics.median(row["cpu_seconds"] for row in found),
            "same": sum(map(str.__eq__, found[0]["texts"], expected)) / len(expected),
            "warnings": found[0]["warnings"],
        }
        for name, found in rows.items()
    }
    about = {
        "lines": args.lines,
        "rounds": args.rounds,
        "cpus": os.cpu_count(),
        "system": platform.platform(),
    }
    record = {
        **about,
        "engines": record,
        "auto": {kind: break_even(opened, i) for i, kind in enumerate(KINDS)},
    }
    print(json.dumps(record, indent=2))
    if args.out:
        write_results(record, args.out, "translate")


def trials(args: argparse.Namespace, folder: str) -> dict[str, list[dict[str, Any]]]:
    """The measurements of each engine, which run in turns."""
    rows: dict[str, list[dict[str, Any]]] = {name: [] for name in ENGINES}
    for _ in range(args.rounds):
        for name, found in rows.items():
            found.append(process(name, args, folder))
    return rows


def process(name: str, args: argparse.Namespace, folder: str) -> Any:
    """What a process measures of one engine."""
    environment = {**os.environ, "XDG_CACHE_HOME": folder, "GOMP_SPINCOUNT": "2000"}  # as the command line
    words = [sys.executable, __file__, "--engine", name, "--folder", folder, "--lines", str(args.lines)]
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def lines(count: int) -> list[str]:
    generator = random.Random(0)
    return [
        " ".join(f"s{generator.randrange(VOCAB)}" for _ in range(generator.randint(8, 24)))
        for _ in range(count)
    ]


def bundle(folder: Path) -> None:
    """Write the bundle of the network."""
    import torch

    from striate.bundle import Description, write
    from striate.data.text.tokens import Tokenizer
    from striate.models.seq2seq import build

    torch.manual_seed(0)
    source, target = (Tokenizer("words", tuple(f"{side}{i}" for i in range(VOCAB))) for side in "st")
    arguments: dict[str, Any] = {
        "source_vocab": len(source), "target_vocab": len(target), "width": 256, "depth": 3, "heads": 4,
        "hidden": 1024, "max_length": 256,
    }  # fmt: skip
    network = build("text_to_text", **arguments)
    with torch.no_grad():
        for weight in network.parameters():
            if weight.ndim == 2:
                weight.copy_(torch.randn_like(weight) / weight.shape[1] ** 0.5)
        network.decoder.output.bias[2] = -1e9  # END is impossible
    text = {
        "source": source.to_json(), "target": target.to_json(), "ratio": 10.0, "longest": 12,
        "ids": {"source": len(source), "target": len(target)}, "digests": [source.digest, target.digest],
    }  # fmt: skip
    about = Description("seq2seq", "text_to_text", arguments, (), None, text=text)
    write(folder / "model.safetensors", network, about)


def measured(engine: str, folder: Path, count: int) -> dict[str, Any]:
    """Translate the lines with one engine."""
    texts = lines(count)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        if engine == ALONE:
            run = alone(folder)
        else:
            import striate

            translator = striate.load(folder / "model.safetensors", "cpu", engine=engine)

            def run(part: list[str]) -> list[str]:
                return [result.text for result in translator.translate(part).results]

        run(texts[:100])
        started, used = time.perf_counter(), time.process_time()
        found = run(texts)
        seconds, cpu = time.perf_counter() - started, time.process_time() - used
    return {
        "seconds": seconds, "cpu_seconds": cpu, "texts": found, "warnings": [str(w.message) for w in caught],
    }  # fmt: skip


def costs(folder: Path) -> dict[str, list[float]]:
    """Wall and CPU seconds until CTranslate2 can translate, and of a line in each engine."""
    import striate

    path, found = folder / "model.safetensors", {}

    def clock(name: str, run: Callable[[], object], share: float = 1.0) -> None:
        started, used = time.perf_counter(), time.process_time()
        run()
        found[name] = [share * (time.perf_counter() - started), share * (time.process_time() - used)]

    shutil.rmtree(folder / "striate", ignore_errors=True)  # the cache
    texts = lines(8 * SAMPLE)
    torch = striate.load(path, "cpu")
    torch.translate(texts[:SAMPLE])
    for name in ("first", "cached"):
        other = striate.load(path, "cpu", engine="ctranslate2")
        clock(name, partial(other.translate, texts[:SAMPLE]))
    for name, engine in (("torch", torch), ("ctranslate2", other)):
        clock(name, partial(engine.translate, texts), 1 / len(texts))
    for name in ("first", "cached"):  # the sample is translated again after the trial
        found[name] = [a - SAMPLE * b for a, b in zip(found[name], found["ctranslate2"], strict=True)]
    return found


def break_even(rounds: list[dict[str, list[float]]], kind: int) -> dict[str, Any]:
    """The median costs, and the lines that pay for them."""
    found = {name: statistics.median(row[name][kind] for row in rounds) for name in rounds[0]}
    saved = found["torch"] - found["ctranslate2"]
    needed = {name: round(found[name] / saved) if saved > 0 else None for name in ("first", "cached")}
    return {**{name: round(seconds, 5) for name, seconds in found.items()}, "lines": needed}


def alone(folder: Path) -> Any:
    """What translates lines with the library ctranslate2 and the export of the cache."""
    import ctranslate2

    (model,) = (folder / "striate" / "exports").glob("*.ctranslate2")
    engine = ctranslate2.Translator(str(model), compute_type="float32", inter_threads=2, intra_threads=1)
    (end,) = json.loads((model / "source_vocabulary.json").read_text())[2:3]

    def run(part: list[str]) -> list[str]:
        words = [[*line.split(), end] for line in part]
        found = engine.translate_batch(
            words, beam_size=1, max_decoding_length=24, min_decoding_length=0, max_batch_size=2048,
            batch_type="tokens",
        )  # fmt: skip
        return [" ".join(result.hypotheses[0]) for result in found]

    return run


if __name__ == "__main__":
    main()
