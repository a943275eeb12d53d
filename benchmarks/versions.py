"""Run the README's two commands in fresh clones, with several versions of Python and torch.

    make test-versions                                      # all of VERSIONS, then the results file
    python benchmarks/versions.py --only 3.13 --keep        # one of them; its folder stays

Each clone holds the last commit, as a user would get it, and installs into its own `.venv` from the package
index: about 5 GB and 3 minutes with the default build of torch, which contains CUDA on Linux. The folder is
deleted afterwards. Three clones take the versions of constraints.txt, the last one the oldest version of each
dependency that pyproject.toml allows. A clone passes if `make demo` and `make test` both exit with 0.

The interpreters are looked for as `python3.X` on the PATH, then under `~/.pyenv/versions`.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from fresh import RESULTS, ROOT, temporary_folder
from record import write_results

PINNED, OLDEST = "as pinned", "oldest"
# The oldest supported Python and the newest ones; then the oldest of everything.
VERSIONS = [("3.10", PINNED), ("3.12", PINNED), ("3.13", PINNED), ("3.10", OLDEST)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--only", metavar="PYTHON", help="run the clones of this version of Python only")
    parser.add_argument("--keep", action="store_true", help="do not delete the clones")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the results file")
    args = parser.parse_args()
    if dirty := run(["git", "status", "--porcelain", "--untracked-files=no"], ROOT).stdout:
        print(f"not committed, so not tested:\n{dirty}", file=sys.stderr)
    chosen = [(python, pins) for python, pins in VERSIONS if args.only in (None, python)]
    interpreters = {python: interpreter(python) for python, _ in chosen}
    rows = [trial(interpreters[python], pins, keep=args.keep) for python, pins in chosen]
    commit = run(["git", "rev-parse", "HEAD"], ROOT).stdout.strip()
    record = {"commit": commit, "system": platform.platform(), "cpus": os.cpu_count(), "versions": rows}
    print(json.dumps(record, indent=2))
    if args.only is None:
        write_results(record, args.out, "versions")
    sys.exit(not all(row["demo"]["exit"] == row["test"]["exit"] == 0 for row in rows))


def interpreter(version: str) -> str:
    """Path of Python `version`; ends the program if it is not installed."""
    pyenv = sorted(Path.home().glob(f".pyenv/versions/{version}.*/bin/python"))
    found = [shutil.which(f"python{version}"), *pyenv]
    for path in filter(None, found):
        asked = run([str(path), "-c", "import sys; print('%d.%d' % sys.version_info[:2])"])
        if asked.stdout.strip() == version:  # pyenv's shims exist for versions that are not selected
            return str(path)
    sys.exit(f"Python {version} is not installed. Install it, for example with `pyenv install {version}`")


def trial(python: str, pins: str, *, keep: bool) -> dict[str, Any]:
    """Clone the last commit, run `make demo` and `make test` in it.

    Args:
        python: path of the interpreter.
        pins: PINNED, or OLDEST for the lower bounds of pyproject.toml.
        keep: leave the clone where it is and print its path.

    Returns:
        Versions, seconds, exit codes and last lines of both commands, size of the environment in MB.
    """
    with temporary_folder("versions", keep=keep) as folder:
        folder.chmod(0o755)  # tests that give up the rights of root must still read it
        clone = folder / "striate"
        run(["git", "clone", "--quiet", str(ROOT), str(clone)]).check_returncode()
        if pins == OLDEST:
            pin_lower_bounds(clone)
        demo = command(["make", "demo", f"PYTHON={python}"], clone, folder / "demo.log")
        test = command(["make", "test", f"PYTHON={python}"], clone, folder / "test.log")
        asked = "import json, platform, torch\n" + (
            "print(json.dumps([platform.python_version(), torch.__version__, torch.version.cuda]))"
        )
        versions = run([str(clone / ".venv/bin/python"), "-c", asked]).stdout or "[null, null, null]"
        size = run(["du", "-sm", str(clone / ".venv")]).stdout.split()
        row = dict(zip(("python", "torch", "cuda"), json.loads(versions), strict=True))
        row |= {"dependencies": pins, "venv_mb": int(size[0]) if size else None, "demo": demo, "test": test}
        print(json.dumps(row), file=sys.stderr, flush=True)
        return row


def pin_lower_bounds(clone: Path) -> None:
    """Replace the pins of Striate's own dependencies by the oldest versions that pyproject.toml allows."""
    declared = (clone / "pyproject.toml").read_text().split("dependencies = [")[1].split("\n]")[0]
    path = clone / "constraints.txt"
    lines = path.read_text().splitlines()
    for name, version in re.findall(r'"([\w-]+)>=([\d.]+)"', declared):
        lines = [line for line in lines if not line.lower().startswith(f"{name.lower()}==")]
        lines.append(f"{name}=={version}")
    path.write_text("\n".join(lines) + "\n")


def command(arguments: list[str], folder: Path, log: Path) -> dict[str, Any]:
    """Run one command of the README: seconds, exit code and its last line, or its failures."""
    started = time.perf_counter()
    with log.open("w") as stream:
        status = subprocess.run(arguments, cwd=folder, stdout=stream, stderr=subprocess.STDOUT).returncode
    lines = log.read_text(errors="replace").splitlines()
    said = [line for line in lines if line.startswith(("FAILED", "ERROR", "accuracy")) or " passed" in line]
    seconds = round(time.perf_counter() - started)
    return {"seconds": seconds, "exit": status, "said": said or lines[-20:]}


def run(arguments: list[str], folder: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(arguments, cwd=folder, capture_output=True, text=True)


if __name__ == "__main__":
    main()
