"""Time COCO evaluators on the same files, each run in a fresh process.

    python benchmarks/bench_detection.py SET... [--repeats 5] [--threads 1 2] [--peers striate hotcoco]

A SET is a folder with gt.json and dt.json. Peers that are not installed are skipped. CPU seconds include all
threads, from the files to the twelve numbers; a warm-up on a set of one image comes first, so they include no
imports. `striate-arrays` starts from arrays. `striate-drop-in` makes pycocotools' five calls (COCO, loadRes,
evaluate, accumulate, summarize), and `records` is the time of its evalImgs after that. Memory is the peak of
the process before evalImgs.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from record import write_results

THREAD_VARIABLES = ("RAYON_NUM_THREADS", "OMP_NUM_THREADS", "HOTCOCO_NUM_THREADS")


def striate(gt: str, dt: str, threads: int) -> list[float]:
    from striate.metrics.detection import evaluate

    return [float(number) for number in evaluate(gt, dt, threads=threads).stats]


def striate_arrays(gt: str, dt: str, threads: int) -> list[float]:
    """The evaluation alone: the columns are read before, the ids are looked up here."""
    import numpy as np

    from striate.metrics.detection import detections, evaluate_coco, read_detections, read_ground_truth

    truth = read_ground_truth(gt, threads)
    found = read_detections(dt, truth, threads)
    image, category = truth.image_ids[found.image], truth.category_ids[found.category]
    assert isinstance(image, np.ndarray)
    global START
    START = time.process_time(), time.perf_counter()
    again = detections(image, category, found.box, found.score, truth=truth)
    return [float(number) for number in evaluate_coco(truth, again, threads=threads).stats]


def _like_pycocotools(module: Any, gt: str, dt: str) -> list[float]:
    global JUDGE
    with contextlib.redirect_stdout(io.StringIO()):
        truth = module.COCO(gt)
        found = (truth.load_res if hasattr(truth, "load_res") else truth.loadRes)(dt)
        judge = JUDGE = module.COCOeval(truth, found, "bbox")
        judge.evaluate()
        judge.accumulate()
        judge.summarize()
    return [float(value) for value in judge.stats[:12]]


def striate_drop_in(gt: str, dt: str, threads: int) -> list[float]:
    import striate.metrics.detection

    return _like_pycocotools(striate.metrics.detection, gt, dt)


def hotcoco(gt: str, dt: str, threads: int) -> list[float]:
    import hotcoco

    return _like_pycocotools(hotcoco, gt, dt)


def ultrafast(gt: str, dt: str, threads: int) -> list[float]:
    import ultrafast_pycocotools

    return _like_pycocotools(ultrafast_pycocotools, gt, dt)


PEERS = {
    "striate": striate,
    "striate-arrays": striate_arrays,
    "striate-drop-in": striate_drop_in,
    "hotcoco": hotcoco,
    "ultrafast": ultrafast,
}
START = (0.0, 0.0)
JUDGE: Any = None  # the evaluator of the last run, for peers with pycocotools' classes


def child(peer: str, folder: str, threads: int) -> None:
    """Evaluate in this process, and print the figures as JSON."""
    global START
    with tempfile.TemporaryDirectory() as small:
        box = {"image_id": 1, "category_id": 1, "bbox": [0, 0, 9, 9]}
        gt, dt = Path(small, "gt.json"), Path(small, "dt.json")
        truth = {**box, "id": 1, "area": 81, "iscrowd": 0}
        gt.write_text(json.dumps({"images": [{"id": 1}], "annotations": [truth], "categories": [{"id": 1}]}))
        dt.write_text(json.dumps([{**box, "score": 0.5}]))
        PEERS[peer](str(gt), str(dt), threads)
    START = time.process_time(), time.perf_counter()
    stats = PEERS[peer](f"{folder}/gt.json", f"{folder}/dt.json", threads)
    figures = {
        "cpu": time.process_time() - START[0],
        "wall": time.perf_counter() - START[1],
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "stats": stats,
    }
    if peer == "striate-drop-in":
        start = time.process_time()
        records = JUDGE.evalImgs
        figures |= {"records": time.process_time() - start, "records_count": len(records)}
    print(json.dumps(figures))


def measure(peer: str, folder: str, threads: int) -> dict[str, Any] | None:
    environment = dict(os.environ) | dict.fromkeys(THREAD_VARIABLES, str(threads))
    command = [sys.executable, __file__, "--child", peer, folder, str(threads)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        print(f"{peer}: {done.stderr.strip().splitlines()[-1]}", file=sys.stderr)
        return None
    return json.loads(done.stdout.splitlines()[-1])  # type: ignore[no-any-return]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("sets", nargs="*")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--peers", nargs="+", default=list(PEERS), choices=list(PEERS))
    parser.add_argument(
        "--results", action="store_true", help="write benchmarks/results/<date>_..._detection.json"
    )
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        child(given.child[0], given.child[1], int(given.child[2]))
        return
    table = []
    for folder in given.sets:
        for threads in given.threads:
            runs: dict[str, list[dict[str, Any]]] = {peer: [] for peer in given.peers}
            for repeat in range(given.repeats):
                for peer in random.Random(repeat).sample(given.peers, len(given.peers)):
                    run = measure(peer, folder, threads)
                    runs[peer] += [run] if run else []
            print(f"\n{folder}, {threads} thread(s), median of {given.repeats}")
            for peer, done in runs.items():
                if not done:
                    continue
                keys = ("cpu", "wall", "peak_mib", *(["records"] if "records" in done[0] else []))
                median = {k: statistics.median(r[k] for r in done) for k in keys}
                print(f"{peer:16} " + "  ".join(f"{k} {v:9.3f}" for k, v in median.items()))
                row = {"set": Path(folder).name, "threads": threads, "peer": peer, "repeats": len(done)}
                table.append(row | median | {"stats": done[0]["stats"]})
            if len({tuple(done[0]["stats"]) for done in runs.values() if done}) > 1:
                print("the peers do not agree on the twelve numbers")
    if given.results:
        write_results(table, Path(__file__).parent / "results", "detection")


if __name__ == "__main__":
    main()
