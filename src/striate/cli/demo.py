"""`striate demo`."""

from __future__ import annotations

from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Annotated

import typer

from striate.cli.options import Device, Json, number
from striate.device import MAX_SEED

if TYPE_CHECKING:
    from striate.inference.evaluation import Evaluation
    from striate.transforms.decode import Uint8Array

_SHADES = " ░▒▓█"
_SHOWN = 5


def demo(
    out: Annotated[str, typer.Option(help="Folder in which the run folder is created.")] = "runs",
    device: Device = "auto",
    seed: Annotated[
        int, number("Random seed for weights, order, augmentation and splits.", low=0, high=MAX_SEED)
    ] = 0,
    as_json: Json = False,
) -> None:
    """Train LeNet on handwritten digits, evaluate it and classify some digits, in under a minute.

    With the same CPU and software, the same seed gives the same weights.

    Python: striate.train("digits", model="lenet", epochs=30, batch=32, augment="shift", test=0.2)
    """
    import torch

    import striate
    from striate.cli.console import print_evaluation, print_json, say, watching

    # A network this small gains little from more threads, and on a busy machine it waits for them.
    torch.set_num_threads(1)
    with watching() as progress:
        progress.info("Training LeNet on scikit-learn's 1,797 handwritten digits of 8x8 pixels")
        run = striate.train(
            "digits", progress=progress, model="lenet", epochs=30, batch=32, augment="shift", test=0.2,
            name="demo", out=out, device=device, seed=seed,
        )  # fmt: skip
        samples = _save_samples(run.evaluation, run.training.folder / "samples")
        predictions = list(striate.load(run.best, device).predict_many(samples))
    if as_json:
        print_json(run.to_json())
        return
    print_evaluation(run.evaluation)
    print("\nSome held-out digits, as the network receives them, and its predictions:\n")
    _draw([run.evaluation.images[i] for i in range(len(samples))])
    labels = [f"{p.label} ({p.top(1)[0].probability:.0%})" for p in predictions]
    print("".join(f"{text:^16}" for text in labels))
    print("\nThe digits are saved as image files. To classify them again:")
    say(f"  striate predict {quote(str(run.best))} {quote(str(samples[0].parent))}")
    print(f"\naccuracy  {100 * run.evaluation.top1:.1f} % of {run.evaluation.n} held-out images")
    say(f"report    {run.report}")
    say(f"model     {run.best}")
    print("\nTo train on your own images, in a folder with one folder per class:")
    print("  striate train FOLDER")


def _save_samples(evaluation: Evaluation, folder: Path) -> list[Path]:
    """Write the first held-out images as PNG files."""
    from PIL import Image

    folder.mkdir(exist_ok=True)
    paths = []
    for i, image in enumerate(evaluation.images[:_SHOWN]):
        paths.append(folder / f"{evaluation.classes[evaluation.labels[i]]}-{i}.png")
        Image.fromarray(image.squeeze()).save(paths[-1])
    return paths


def _draw(images: list[Uint8Array]) -> None:
    """Print images side by side in five shades, each 14 characters wide and 8 high."""
    import numpy as np
    from PIL import Image

    small = [np.asarray(Image.fromarray(image.squeeze()).resize((14, 8)), int) for image in images]
    for row in range(8):
        print("".join("".join(_SHADES[v * 5 // 256] for v in image[row]) + "  " for image in small))
