"""Milliseconds of one image by operator, in float32 and in int8, from ONNX Runtime's profiler.

    python benchmarks/bench_int8.py --out benchmarks/results
    python benchmarks/bench_int8.py --networks efficientnet_lite0 --runs 100

Networks with random weights, exported as `striate export --to onnx` and `--to onnx-int8` do it, run with one
thread, in turns. Each node counts with the lower quartile of its times, which other processes disturb least.
Convolutions are told apart by their weights: `depthwise` has one input channel for each output.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import tempfile
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import numpy as np
from bench_onnx import export, photographs
from fresh import RESULTS
from record import write_results

NETWORKS = ("efficientnet_lite0", "resnet18", "mobilenet_v3_large", "mobilenet_v3_small")
SLOWEST = 8  # operators that are named; the others are one sum
WARM = 3  # runs that do not count


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--networks", nargs="+", default=NETWORKS)
    parser.add_argument("--runs", type=int, default=50)
    parser.add_argument("--out", type=Path, help=f"folder for a results file, such as {RESULTS}")
    args = parser.parse_args()
    rows = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ["XDG_CACHE_HOME"] = str(folder / "cache")
        files = photographs(folder / "images", 128)
        for network in args.networks:
            export(network, folder, files, int8=True)
            rows[network] = compared(folder, network, args.runs)
            print(json.dumps({network: rows[network]}, indent=2), flush=True)
    if args.out:
        record = {"system": platform.platform(), "runs": args.runs, "networks": rows}
        write_results(record, args.out, "int8")


def compared(folder: Path, network: str, runs: int) -> dict[str, Any]:
    """Milliseconds by operator of both files, and how many times as fast int8 is."""
    files = {"float32": folder / f"{network}.onnx", "int8": folder / f"{network}-int8.onnx"}
    sessions = {kind: opened(file, folder / f"{network}-{kind}") for kind, file in files.items()}
    image = np.random.default_rng(0).integers(0, 256, (1, 224, 224, 3), np.uint8)
    for _ in range(WARM + runs):
        for session in sessions.values():
            session.run(["scores"], {"images": image})
    found = {kind: by_operator(Path(session.end_profiling())) for kind, session in sessions.items()}
    total = {kind: sum(operators.values()) for kind, operators in found.items()}
    shown = {kind: {"all": round(total[kind], 2), **named(operators)} for kind, operators in found.items()}
    return {**shown, "times_as_fast": round(total["float32"] / total["int8"], 2)}


def opened(file: Path, prefix: Path) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level, options.intra_op_num_threads = 4, 1
    options.enable_profiling, options.profile_file_prefix = True, str(prefix)
    return onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])


def by_operator(profile: Path) -> Counter[str]:
    """Milliseconds of each operator, from the profile of a session."""
    times: dict[tuple[str, str], list[int]] = defaultdict(list)
    for event in json.loads(profile.read_text("utf-8")):
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
            times[event["name"], kind(event["args"])].append(event["dur"])
    found: Counter[str] = Counter()
    for (_, name), microseconds in times.items():
        found[name] += statistics.quantiles(microseconds[WARM:], n=4)[0] / 1000  # type: ignore[assignment]
    return found


def kind(about: dict[str, Any]) -> str:
    """The operator, and whether it is a depthwise convolution."""
    name: str = about["op_name"]
    if "Conv" not in name:
        return name
    shapes = [shape for entry in about["input_type_shape"] for shape in entry.values() if len(shape) == 4]
    return f"{name}, depthwise" if len(shapes) > 1 and shapes[1][1] == 1 else name


def named(operators: Counter[str]) -> dict[str, float]:
    """The slowest operators, and the sum of the others."""
    first = operators.most_common(SLOWEST)
    rest = sum(operators.values()) - sum(milliseconds for _, milliseconds in first)
    return {name: round(milliseconds, 2) for name, milliseconds in [*first, ("others", rest)]}


if __name__ == "__main__":
    main()
