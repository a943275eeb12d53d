"""`striate demo digits`: LeNet on handwritten digits, from scratch."""

from __future__ import annotations

from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from striate.inference.evaluation import Evaluation
    from striate.progress import Progress
    from striate.training.finished_run import Run
    from striate.transforms.decode import Uint8Array

NEXT = "striate train FOLDER"
_SHADES = " ░▒▓█"
_SHOWN = 5


def train(progress: Progress, out: str, device: str, seed: int) -> Run[Evaluation]:
    """Train, evaluate, write the report, and save some held-out digits as image files."""
    import torch

    import striate

    # A network this small gains little from more threads, and on a busy machine it waits for them.
    torch.set_num_threads(1)
    progress.info("Training LeNet on scikit-learn's 1,797 handwritten digits of 8x8 pixels")
    run = striate.train(
        "digits", progress=progress, model="lenet", epochs=30, batch=32, augment="shift", test=0.2,
        name="demo", out=out, device=device, seed=seed,
    )  # fmt: skip
    _save_samples(run.evaluation, _samples(run))
    return run


def show(run: Run[Evaluation], device: str) -> None:
    """Print the saved digits with their predictions."""
    import striate
    from striate.cli.console import say

    samples = sorted(_samples(run).iterdir(), key=lambda path: int(path.stem.rpartition("-")[2]))
    predictions = striate.load(run.best, device).predict_many(samples)
    print("\nSome held-out digits, as the network receives them, and its predictions:\n")
    _draw([run.evaluation.images[i] for i in range(len(samples))])
    labels = [f"{p.label} ({p.top(1)[0].probability:.0%})" for p in predictions]
    print("".join(f"{text:^16}" for text in labels))
    print("\nThe digits are saved as image files. To classify them again:")
    say(f"  striate predict {quote(str(run.best))} {quote(str(_samples(run)))}")


def _samples(run: Run[Evaluation]) -> Path:
    return run.training.folder / "samples"


def _save_samples(evaluation: Evaluation, folder: Path) -> None:
    """Write the first held-out images as PNG files."""
    from PIL import Image

    folder.mkdir(exist_ok=True)
    for i, image in enumerate(evaluation.images[:_SHOWN]):
        path = folder / f"{evaluation.classes[evaluation.labels[i]]}-{i}.png"
        Image.fromarray(image.squeeze()).save(path)


def _draw(images: list[Uint8Array]) -> None:
    """Print images side by side in five shades, each 14 characters wide and 8 high."""
    import numpy as np
    from PIL import Image

    small = [np.asarray(Image.fromarray(image.squeeze()).resize((14, 8)), int) for image in images]
    for row in range(8):
        print("".join("".join(_SHADES[v * 5 // 256] for v in image[row]) + "  " for image in small))
