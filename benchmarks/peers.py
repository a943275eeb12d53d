"""Run the tests with timm, torchvision and the trackers, in an environment of their own.

    make test-peers                             # builds the environment, runs tests/peers, writes results
    python benchmarks/peers.py --python PATH    # in an environment that has the packages already

The environment takes 8 GB with the default build of torch, which contains CUDA on Linux, and 5 minutes; it is
deleted afterwards. The results file has a row for each network: parameters, multiply-adds, and whether
folding and cached features apply. Each row stands for a test that passed: train, resume bit for bit,
evaluate, predict, anatomy, and a prediction in a fresh process.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from fresh import RESULTS, ROOT, temporary_folder
from record import write_results

PACKAGES = (
    "torchvision",
    "timm",
    "tensorboard",
    "mlflow",
    "wandb",
    "swanlab",
    "pyarrow",
    "pytest",
    "hypothesis",
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument(
        "--python", metavar="PATH", help="interpreter of an environment that has the packages"
    )
    parser.add_argument("--keep", action="store_true", help="do not delete the environment")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the results file")
    args = parser.parse_args()
    with temporary_folder("peers", keep=args.keep) as folder:
        python = args.python or environment(folder)
        record = trial(python, folder)
    print(json.dumps(record, indent=2))
    write_results(record, args.out, "peers")
    sys.exit(record["exit"])


def environment(folder: Path) -> str:
    """Build an environment with Striate and the packages; its interpreter."""
    subprocess.run([sys.executable, "-m", "venv", str(folder / "venv")], check=True)
    python = str(folder / "venv" / "bin" / "python")
    subprocess.run([python, "-m", "pip", "install", "--quiet", str(ROOT), *PACKAGES], check=True)
    return python


def trial(python: str, folder: Path) -> dict[str, Any]:
    """Run tests/peers; versions, seconds, exit code, the last lines, and a row for each network."""
    rows = folder / "rows.json"
    command = [
        python,
        "-m",
        "pytest",
        "-q",
        "-rs",
        "-m",
        "slow or not slow",
        "-p",
        "no:cacheprovider",
        "tests/peers",
        "tests/inference/test_embedding.py",
    ]
    variables = {**os.environ, "STRIATE_PEERS": str(rows), "PYTHONPATH": str(ROOT / "src")}
    started = time.perf_counter()
    with (folder / "log").open("w") as stream:
        done = subprocess.run(command, cwd=ROOT, env=variables, stdout=stream, stderr=subprocess.STDOUT)
    lines = (folder / "log").read_text(errors="replace").splitlines()
    said = [line for line in lines if line.startswith(("FAILED", "ERROR", "SKIPPED")) or " passed" in line]
    git = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True)
    commit = git.stdout.strip()
    return {
        "commit": commit, "system": platform.platform(), "cpus": os.cpu_count(),
        "versions": versions(python),
        "seconds": round(time.perf_counter() - started), "exit": done.returncode, "said": said or lines[-20:],
        "networks": json.loads(rows.read_text()) if rows.exists() else {},
    }  # fmt: skip


def versions(python: str) -> dict[str, str | None]:
    """The version of each package, None if it is missing."""
    asked = (
        "import importlib.metadata as m, json, platform, sys\nfound = {'python': platform.python_version()}\n"
        "for name in sys.argv[1:]:\n    try: found[name] = m.version(name)\n"
        "    except m.PackageNotFoundError: found[name] = None\nprint(json.dumps(found))"
    )
    command = [python, "-c", asked, "torch", *PACKAGES]
    found: dict[str, str | None] = json.loads(subprocess.run(command, capture_output=True, text=True).stdout)
    return found


if __name__ == "__main__":
    main()
