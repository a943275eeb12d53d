"""Time and memory of listing and splitting a folder of many files.

    python benchmarks/bench_listing.py [--files 1000000] [--folder EMPTY] [--out benchmarks/results]

Writes the files, of one byte each, in 100 class folders, which takes minutes and one inode per file; they
are deleted at the end. A process of its own then lists them and splits them as `striate train` does. Nothing
is decoded. `bytes_per_file` is what this adds to the memory of the process, at its peak.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from record import write_results

CLASSES = 100

MEASURE = """
import json, resource, sys, time
from striate.data import open_data
from striate.data.images.split import SplitPlan, split

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

before, wall, cpu = peak(), time.perf_counter(), time.process_time()
data = open_data(sys.argv[1])
listed = time.perf_counter() - wall
parts = split(data, SplitPlan()).splits
found = {"seconds": time.perf_counter() - wall, "listing_seconds": listed,
         "cpu_seconds": time.process_time() - cpu, "peak_mb": peak() / 1e6,
         "images": {name: len(part) for name, part in parts.items()}}
found["bytes_per_file"] = (peak() - before) / sum(found["images"].values())
print(json.dumps(found))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--files", type=int, default=1_000_000)
    parser.add_argument("--folder", type=Path, help="where to write the files; by default a temporary folder")
    parser.add_argument("--out", type=Path, help="folder for a results file")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=given.folder) as folder:
        write(Path(folder), given.files)
        done = subprocess.run(
            [sys.executable, "-c", MEASURE, folder], stdout=subprocess.PIPE, check=True, text=True
        )
    found = {"files": given.files, "load": round(os.getloadavg()[0], 1), **json.loads(done.stdout)}
    print(json.dumps(found, indent=2))
    if given.out:
        write_results(found, given.out, "listing")


def write(root: Path, count: int) -> None:
    for label in range(CLASSES):
        folder = root / f"class{label:03}"
        folder.mkdir()
        for number in range(label, count, CLASSES):
            (folder / f"image_{number:07}.png").write_bytes(b"x")


if __name__ == "__main__":
    main()
