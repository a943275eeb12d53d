"""CPU time of each corruption, and the accuracy of a classifier under them.

    python benchmarks/bench_corruptions.py --out results.json
    python benchmarks/bench_corruptions.py --model resnet20.safetensors --data cifar10/ --out results.json

The time is that of one image in one thread, the mean of the severities 1, 3 and 5.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from sklearn.datasets import load_sample_image

from striate.files import write_atomic
from striate.inference.evaluation import evaluate
from striate.transforms.corruptions import CORRUPTIONS, corrupt


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--repeats", type=int, default=10, help="images of each severity")
    parser.add_argument("--model", help="a bundle whose accuracy is measured, too")
    parser.add_argument("--data", help="labeled images for it")
    parser.add_argument("--out", type=Path, help="a results file")
    args = parser.parse_args()
    found: dict[str, Any] = {"machine": platform.machine(), "repeats": args.repeats}
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    found["ms"] = {str(side): times(side, args.repeats) for side in (224, 32)}
    torch.set_num_threads(threads)
    if args.model:
        evaluation: Any = evaluate(args.model, args.data, corruptions=True)
        found["accuracy"] = evaluation.robustness.to_json()
    print(json.dumps(found, indent=1))
    if args.out:
        write_atomic(args.out, (json.dumps(found, indent=1) + "\n").encode())


def times(side: int, repeats: int) -> dict[str, float]:
    """Milliseconds of CPU time for an image of each corruption."""
    photo = Image.fromarray(load_sample_image("china.jpg")[:420, :420]).resize((side, side))
    images = [np.roll(np.array(photo), i, axis=1) for i in range(repeats)]
    found = {}
    for name in CORRUPTIONS:
        for image in images:  # what is made once, such as pictures of ice
            corrupt(image, name, 1)
        start = time.process_time()
        for severity in (1, 3, 5):
            for image in images:
                corrupt(image, name, severity)
        found[name] = round(1000 * (time.process_time() - start) / (3 * repeats), 2)
    return found


if __name__ == "__main__":
    main()
