"""Install what predicts without torch in a fresh environment, and measure and use it.

    make test-runtime                           # then the results file
    python benchmarks/runtime.py --keep         # the environment stays

The interpreter that runs this needs Striate with torch and ONNX Runtime: it exports the network that the
environment predicts with. The size is that of all files of the environment but pip and its setuptools. The
test passes if that is under 200 MB, there is no torch, the probabilities are those of torch, and a command
that needs torch says so in one line.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
from fresh import RESULTS, ROOT, temporary_folder
from PIL import Image
from record import write_results

MOST = 200e6  # bytes
TOLERANCE = 1e-4  # of probabilities


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--keep", action="store_true", help="do not delete the environment")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the results file")
    args = parser.parse_args()
    with temporary_folder("runtime", keep=args.keep) as folder:
        record = trial(folder)
    print(json.dumps(record, indent=2))
    write_results(record, args.out, "runtime")
    sys.exit(not record["passed"])


def trial(folder: Path) -> dict[str, Any]:
    """Install, predict and measure; `passed` says whether all is well."""
    subprocess.run([sys.executable, "-m", "venv", folder / "venv"], check=True)
    python = str(folder / "venv" / "bin" / "python")
    before = size(folder / "venv")
    source = folder / "source"  # setuptools writes next to what it builds
    shutil.copytree(ROOT, source, ignore=shutil.ignore_patterns(".*", "build", "*.egg-info", "results"))
    pip = [python, "-m", "pip", "--disable-pip-version-check"]
    what = ["--quiet", "--no-deps", "--no-compile", "-r", "requirements-runtime.txt", "."]
    subprocess.run([*pip, "install", *what], cwd=source, check=True)
    model, picture, expected = exported(folder)
    environment = {**os.environ, "XDG_CACHE_HOME": str(folder / "cache"), "PYTHONPATH": ""}

    def run(*words: object) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [python, "-m", "striate", *map(str, words)],
            cwd=folder, env=environment, capture_output=True, text=True,
        )  # fmt: skip

    predicted = run("predict", model, picture, "--json")
    refused = run("evaluate", folder / "model.safetensors", folder)
    answers = json.loads(predicted.stdout)["results"][0]["top"] if predicted.returncode == 0 else []
    found = {answer["class"]: answer["probability"] for answer in answers}
    difference = max((abs(found[name] - expected[name]) for name in found), default=float("inf"))
    listed = [*pip, "list", "--format", "freeze"]
    packages = subprocess.run(listed, capture_output=True, text=True, check=True).stdout.split()
    megabytes = size(folder / "venv") - before  # with the bytecode of what the two commands imported
    one_line = refused.returncode == 2 and refused.stderr.count("\n") == 1 and "torch" in refused.stderr
    has_torch = any(package.lower().startswith("torch") for package in packages)
    return {
        "passed": megabytes < MOST and difference <= TOLERANCE and one_line and not has_torch,
        "megabytes": round(megabytes / 1e6, 1),
        "largest_difference": difference,
        "torch": has_torch,
        "needs_torch": refused.stderr.strip(),
        "error": predicted.stderr.strip(),
        "packages": packages,
        "python": platform.python_version(),
        "system": platform.platform(),
    }


def size(folder: Path) -> int:
    """The bytes of all files in a folder, without those that links lead to."""
    files = (path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
    return sum(path.stat().st_size for path in files)


def exported(folder: Path) -> tuple[Path, Path, dict[str, float]]:
    """An ONNX file of a network with random weights, an image, and its probabilities in torch."""
    import torch

    import striate
    from striate import bundle, models
    from striate.bundle import Description

    torch.manual_seed(0)
    classes = tuple("abcde")
    arguments: dict[str, Any] = {"num_classes": len(classes)}
    preprocess = striate.Preprocess.for_size(models.describe("resnet18").input_size)
    description = Description("classification", "resnet18", arguments, classes, preprocess)
    network = models.build("resnet18", **arguments).eval()
    bundle.write(folder / "model.safetensors", network, description)
    striate.export(folder / "model.safetensors", folder / "model.onnx", "onnx")
    pixels = np.random.default_rng(0).integers(0, 256, (300, 400, 3), np.uint8)
    Image.fromarray(pixels).save(folder / "image.png")
    scores = striate.load(folder / "model.safetensors", "cpu").predict(folder / "image.png").top(len(classes))
    return folder / "model.onnx", folder / "image.png", {score.name: score.probability for score in scores}


if __name__ == "__main__":
    main()
